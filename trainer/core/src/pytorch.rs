//! The rules of `PyTorchJob`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Container, EnvVar, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use muster_trainer_api::{ElasticPolicy, PyTorchJob, ReplicaSpec, RestartPolicy};

use crate::elastic::{Bounds, WORKER};
use crate::environment::{unbuffered_python, variable};
use crate::job::{Draft, Job, Replica, RestartScope};
use crate::kind::{Framework, InitContainer, Kind, Progress, ReplicaCounts, ReplicaType};
use crate::objects::object_name;
use crate::validation::FieldError;

const MASTER: &str = "Master";

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

fn bounds(elastic: &ElasticPolicy) -> Bounds {
    Bounds { min_replicas: elastic.min_replicas, max_replicas: elastic.max_replicas }
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
            // Kubeflow's own controller leaves it empty, at which torchrun ends: it reads a number.
            variables.push(variable("PET_STANDALONE", "1"));
        }
        variables
    }

    fn node_count(&self, job: &Job) -> String {
        match &self.elastic {
            None => job.total().to_string(),
            Some(elastic) => {
                let (fewest, most) = bounds(elastic).of(job.replica(WORKER).map_or(0, |worker| worker.count));
                format!("{fewest}:{most}")
            }
        }
    }
}

impl Framework for PyTorch {
    fn validate(&self, replica_specs: &BTreeMap<&'static str, ReplicaSpec>, errors: &mut Vec<FieldError>) {
        let Some(elastic) = &self.elastic else { return };
        if elastic.nproc_per_node.is_some() && self.nproc_per_node.is_some() {
            errors.push(FieldError::new(
                "spec.elasticPolicy.nProcPerNode",
                "must not be set beside spec.nprocPerNode, which replaces it",
            ));
        }
        bounds(elastic).validate(&KIND, replica_specs, errors);
    }

    fn restart_scope(&self) -> RestartScope {
        if self.elastic.is_some() { RestartScope::Pod } else { RestartScope::Gang }
    }

    fn elastic_bounds(&self, job: &Job) -> Option<(i32, i32)> {
        let workers = job.replica(WORKER).map_or(0, |worker| worker.count);
        let (fewest, most) = bounds(self.elastic.as_ref()?).of(workers);
        // The policy speaks of workers.
        let others = job.total() - workers;
        Some((fewest + others, most + others))
    }

    fn leads(&self, job: &Job, replica: &Replica, index: i32) -> bool {
        replica.type_.name == MASTER || (job.replica(MASTER).is_none() && index == 0)
    }

    fn environment(&self, job: &Job, replica: &Replica, index: i32) -> Vec<EnvVar> {
        let mut variables = vec![unbuffered_python()];
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
        if job.replica(MASTER).is_some() {
            return Progress::led_by(MASTER, counts);
        }
        let succeeded = counts.get(WORKER).map_or(0, |workers| workers.succeeded);
        match Progress::led_by(WORKER, counts) {
            Progress::Waiting | Progress::Running if self.elastic.is_some() && succeeded > 0 => {
                Progress::Succeeded(format!("{succeeded} of its elastic workers have ended well"))
            }
            progress => progress,
        }
    }

    fn autoscaler(&self, job: &Job) -> Option<HorizontalPodAutoscaler> {
        let elastic = self.elastic.as_ref()?;
        bounds(elastic).autoscaler(job, &elastic.metrics)
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
