//! The rules of `PyTorchJob`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
};
use k8s_openapi::api::core::v1::{Container, EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::names::{GROUP, VERSION};
use muster_trainer_api::{ElasticPolicy, PyTorchJob, ReplicaSpec, RestartPolicy};

use crate::job::{Draft, Job, Replica, RestartScope};
use crate::kind::{Framework, InitContainer, Kind, Progress, ReplicaCounts, ReplicaType};
use crate::objects::object_name;
use crate::validation::FieldError;

const MASTER: &str = "Master";
const WORKER: &str = "Worker";

/// The data of `PyTorchJob`.
pub static KIND: Kind = Kind {
    name: "PyTorchJob",
    plural: "pytorchjobs",
    operator_name: "pytorchjob-controller",
    framework_label: "pytorch",
    replica_specs: "pytorchReplicaSpecs",
    replica_types: &[
        ReplicaType { name: MASTER, exactly: Some(1) },
        ReplicaType { name: WORKER, exactly: None },
    ],
    container: "pytorch",
    port_name: "pytorchjob-port",
    port: 23456,
    restart_policy: RestartPolicy::OnFailure,
};

/// The fields of a `PyTorchJob` that are its own.
#[derive(Debug)]
struct PyTorch {
    elastic: Option<ElasticPolicy>,
    /// As written; the default depends on `elastic`.
    nproc_per_node: Option<String>,
}

/// Checks a job and fills in its defaults.
pub fn job(job: &PyTorchJob) -> Result<Job, Vec<FieldError>> {
    let framework =
        PyTorch { elastic: job.spec.elastic_policy.clone(), nproc_per_node: job.spec.nproc_per_node.clone() };
    Draft {
        kind: &KIND,
        framework: Arc::new(framework),
        metadata: &job.metadata,
        replica_specs: &job.spec.pytorch_replica_specs,
        run_policy: &job.spec.run_policy,
        status: job.status.as_ref(),
    }
    .check()
}

/// Reads, checks and completes a job as the API server holds it.
pub fn read(object: serde_json::Value) -> Result<Job, Vec<FieldError>> {
    match serde_json::from_value(object) {
        Ok(read) => job(&read),
        Err(error) => Err(vec![FieldError::new("spec", format!("cannot be read: {error}"))]),
    }
}

fn variable(name: &str, value: impl ToString) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_string()), value_from: None }
}

impl PyTorch {
    fn nproc_per_node(&self) -> String {
        let deprecated = self.elastic.as_ref().and_then(|elastic| elastic.nproc_per_node);
        match (deprecated, &self.nproc_per_node) {
            (Some(count), _) => count.to_string(),
            (None, Some(written)) => written.clone(),
            (None, None) => "auto".to_owned(),
        }
    }

    /// Fewest and most workers.
    fn bounds(elastic: &ElasticPolicy, workers: i32) -> (i32, i32) {
        match (elastic.min_replicas, elastic.max_replicas) {
            (Some(fewest), Some(most)) => (fewest, most),
            (Some(one), None) | (None, Some(one)) => (one, one),
            (None, None) => (workers, workers),
        }
    }

    fn rendezvous(elastic: &ElasticPolicy, job: &Job) -> Vec<EnvVar> {
        let port = job.replica(WORKER).map_or(KIND.port, |worker| worker.port(&KIND));
        let default_host = object_name(job.name(), WORKER, 0);
        let host = elastic.rdzv_host.as_deref().unwrap_or(&default_host);
        let mut variables = Vec::new();
        if let Some(restarts) = elastic.max_restarts {
            variables.push(variable("PET_MAX_RESTARTS", restarts));
        }
        variables.push(variable("PET_RDZV_BACKEND", elastic.rdzv_backend.as_deref().unwrap_or("c10d")));
        variables
            .push(variable("PET_RDZV_ENDPOINT", format!("{host}:{}", elastic.rdzv_port.unwrap_or(port))));
        if let Some(id) = &elastic.rdzv_id {
            variables.push(variable("PET_RDZV_ID", id));
        }
        if !elastic.rdzv_conf.is_empty() {
            let settings: Vec<_> = elastic
                .rdzv_conf
                .iter()
                .map(|setting| format!("{}={}", setting.key, setting.value))
                .collect();
            variables.push(variable("PET_RDZV_CONF", settings.join(",")));
        }
        if elastic.standalone == Some(true) {
            variables.push(variable("PET_STANDALONE", ""));
        }
        variables
    }

    fn node_count(&self, job: &Job) -> String {
        match &self.elastic {
            None => job.total().to_string(),
            Some(elastic) => {
                let (fewest, most) =
                    Self::bounds(elastic, job.replica(WORKER).map_or(0, |worker| worker.count));
                format!("{fewest}:{most}")
            }
        }
    }
}

impl Framework for PyTorch {
    fn validate(&self, replica_specs: &BTreeMap<&'static str, ReplicaSpec>, errors: &mut Vec<FieldError>) {
        let Some(elastic) = &self.elastic else { return };
        if !replica_specs.contains_key(WORKER) {
            errors.push(FieldError::new(
                "spec.elasticPolicy",
                "an elastic job needs workers: add spec.pytorchReplicaSpecs[Worker]",
            ));
        }
        if elastic.nproc_per_node.is_some() && self.nproc_per_node.is_some() {
            errors.push(FieldError::new(
                "spec.elasticPolicy.nProcPerNode",
                "must not be set beside spec.nprocPerNode, which replaces it",
            ));
        }
        if let (Some(fewest), Some(most)) = (elastic.min_replicas, elastic.max_replicas)
            && fewest > most
        {
            errors.push(FieldError::new(
                "spec.elasticPolicy.minReplicas",
                format!("must not exceed maxReplicas, {fewest} is more than {most}"),
            ));
        }
    }

    fn restart_scope(&self) -> RestartScope {
        if self.elastic.is_some() { RestartScope::Pod } else { RestartScope::Gang }
    }

    fn elastic_bounds(&self, job: &Job) -> Option<(i32, i32)> {
        let workers = job.replica(WORKER).map_or(0, |worker| worker.count);
        let (fewest, most) = Self::bounds(self.elastic.as_ref()?, workers);
        // The policy speaks of workers.
        let others = job.total() - workers;
        Some((fewest + others, most + others))
    }

    fn leads(&self, job: &Job, replica: &Replica, index: i32) -> bool {
        replica.type_.name == MASTER || (job.replica(MASTER).is_none() && index == 0)
    }

    fn rank(&self, job: &Job, replica: &Replica, index: i32) -> i32 {
        match (replica.type_.name, job.replica(MASTER)) {
            (WORKER, Some(master)) => index + master.count,
            _ => index,
        }
    }

    fn environment(&self, job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar> {
        let mut variables = vec![variable("PYTHONUNBUFFERED", 1)];
        let nproc_per_node = self.nproc_per_node();
        if let Some(master) = job.replica(MASTER) {
            let (host, port) = (object_name(job.name(), MASTER, 0), master.port(&KIND));
            let processes = job.total().saturating_mul(nproc_per_node.parse().unwrap_or(1));
            let rank = self.rank(job, replica, index);
            variables.extend([
                variable("MASTER_PORT", port),
                variable("PET_MASTER_PORT", port),
                variable("MASTER_ADDR", &host),
                variable("PET_MASTER_ADDR", &host),
                variable("WORLD_SIZE", processes),
                variable("RANK", rank),
                variable("PET_NODE_RANK", rank),
            ]);
        }
        variables.push(variable("PET_NPROC_PER_NODE", nproc_per_node));
        if let Some(elastic) = &self.elastic {
            variables.extend(Self::rendezvous(elastic, job));
        }
        variables.push(variable("PET_NNODES", self.node_count(job)));
        variables
    }

    fn init_containers(&self, job: &Job, replica: &Replica, options: &InitContainer) -> Vec<Container> {
        if replica.type_.name == MASTER || job.replica(MASTER).is_none() {
            return Vec::new();
        }
        let amounts = |cpu: &str, memory: &str| {
            BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu.to_owned())),
                ("memory".to_owned(), Quantity(memory.to_owned())),
            ])
        };
        vec![Container {
            name: "init-pytorch".to_owned(),
            image: Some(options.image.clone()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec![
                "sh".to_owned(),
                "-c".to_owned(),
                WAIT_FOR_MASTER.to_owned(),
                "init-pytorch".to_owned(),
                object_name(job.name(), MASTER, 0),
                options.timeout.as_secs().to_string(),
            ]),
            resources: Some(ResourceRequirements {
                limits: Some(amounts("100m", "20Mi")),
                requests: Some(amounts("50m", "10Mi")),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        }]
    }

    fn progress(&self, job: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress {
        let of = |type_| counts.get(type_).copied().unwrap_or_default();
        let (leading, type_) = match job.replica(MASTER) {
            Some(_) => (of(MASTER), MASTER),
            None => (of(WORKER), WORKER),
        };
        if leading.succeeded >= leading.wanted {
            return Progress::Succeeded(match type_ {
                MASTER => "the master has ended well".to_owned(),
                _ => format!("all {} workers have ended well", leading.wanted),
            });
        }
        let of_workers = of(WORKER).succeeded;
        if type_ == WORKER && self.elastic.is_some() && of_workers > 0 {
            return Progress::Succeeded(format!("{of_workers} of its elastic workers have ended well"));
        }
        if leading.active > 0 { Progress::Running } else { Progress::Waiting }
    }

    fn autoscaler(&self, job: &Job) -> Option<HorizontalPodAutoscaler> {
        let elastic = self.elastic.as_ref().filter(|elastic| !elastic.metrics.is_empty())?;
        let (fewest, most) = Self::bounds(elastic, job.replica(WORKER)?.count);
        Some(HorizontalPodAutoscaler {
            metadata: ObjectMeta {
                name: Some(job.name().to_owned()),
                namespace: Some(job.namespace().to_owned()),
                owner_references: Some(vec![job.owner_reference()]),
                ..ObjectMeta::default()
            },
            spec: HorizontalPodAutoscalerSpec {
                scale_target_ref: CrossVersionObjectReference {
                    api_version: Some(format!("{GROUP}/{VERSION}")),
                    kind: KIND.name.to_owned(),
                    name: job.name().to_owned(),
                },
                min_replicas: Some(fewest),
                max_replicas: most,
                metrics: Some(elastic.metrics.clone()),
                ..HorizontalPodAutoscalerSpec::default()
            },
            status: None,
        })
    }
}

/// `$1` is the master's name, `$2` the seconds to look for it. By time, not by tries: not every `sleep` knows
/// fractions of a second.
const WAIT_FOR_MASTER: &str = "\
deadline=$(($(date +%s) + $2))
until getent hosts \"$1\" >/dev/null 2>&1 || nslookup \"$1\" >/dev/null 2>&1; do
  if [ \"$(date +%s)\" -ge \"$deadline\" ]; then
    echo \"master $1 cannot be resolved after $2 s\" >&2
    exit 1
  fi
  sleep 0.2 2>/dev/null || sleep 1
done
";
