//! From a job and its runtime to a JobSet and what goes with it.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerPort, PodTemplateSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use muster_trainer_api::jobset::{JobSet, JobSetSpec, ReplicatedJob};
use muster_trainer_api::train_job::names::{GROUP, NODE, TRAINER_PORT, VERSION};
use muster_trainer_api::train_job::{MlPolicy, TrainJob, Trainer, TrainingRuntimeSpec, label};
use serde_json::Value;

use super::status_server::StatusServer;
use super::{elastic, env, initializer, jax, made, mpi, patches, pod_group, torch, xgboost};
use crate::gang::GangScheduler;

/// What a job wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The JobSet.
    pub jobset: JobSet,
    /// The `PodGroup`, where the runtime asks for one.
    pub pod_group: Option<Value>,
    /// The hosts of an MPI job.
    pub hostfile: Option<ConfigMap>,
    /// Name of the Secret with the ssh keys of an MPI job.
    pub ssh_secret: Option<String>,
    /// What of the JobSet cannot change once it exists, in short.
    pub made_of: String,
    /// Seconds for which the JobSet is kept once the job has ended; forever when absent.
    pub ttl_seconds: Option<i32>,
}

/// A JobSet in the making.
pub(super) struct Draft<'a> {
    pub(super) job: &'a TrainJob,
    pub(super) policy: MlPolicy,
    pub(super) spec: JobSetSpec,
    /// How many nodes train.
    pub(super) nodes: i32,
    /// With how many it goes on, if not with all of them.
    pub(super) fewest_nodes: Option<i32>,
    /// How many nodes it can do without, or could when its JobSet was made.
    pub(super) may_be_missing: i32,
    /// What the runtime's nodes run when the job does not say.
    pub(super) runtime_command: Vec<String>,
}

impl Draft<'_> {
    pub(super) fn name(&self) -> &str {
        self.job.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn trainer(&self) -> Trainer {
        self.job.spec.trainer.clone().unwrap_or_default()
    }

    /// The address of a pod of the group's first Job.
    pub(super) fn address(&self, group: &str, pod: i32) -> String {
        self.address_in(group, 0, pod)
    }

    /// The address of a pod of one of the group's Jobs.
    pub(super) fn address_in(&self, group: &str, job: i32, pod: i32) -> String {
        let network = self.spec.network.as_ref().and_then(|network| network.subdomain.as_deref());
        let subdomain = network.filter(|name| !name.is_empty()).unwrap_or_else(|| self.name());
        format!("{}-{group}-{job}-{pod}.{subdomain}", self.name())
    }

    /// Where the nodes meet: the first pod of the group that trains.
    pub(super) fn meeting(&self) -> String {
        let trainer = self.spec.replicated_jobs.iter().find(|group| is_trainer(group));
        self.address(trainer.map_or(NODE, |group| &group.name), 0)
    }

    /// The container that trains, in every group that does.
    pub(super) fn trainers(&mut self) -> impl Iterator<Item = &mut Container> {
        let groups = self.spec.replicated_jobs.iter_mut().filter(|group| is_trainer(group));
        groups.filter_map(|group| container(group, NODE))
    }

    /// What each node of the runtime asks for, or the job in its place.
    pub(super) fn resources(&mut self) -> ResourceRequirements {
        let own = self.trainer().resources_per_node;
        let of_runtime = |draft: &mut Self| draft.trainers().find_map(|node| node.resources.clone());
        own.or_else(|| of_runtime(self)).unwrap_or_default()
    }
}

/// Whether a group trains.
pub(super) fn is_trainer(group: &ReplicatedJob) -> bool {
    step(group) == Some(label::STEP_TRAINER)
}

/// What a group does.
pub(super) fn step(group: &ReplicatedJob) -> Option<&str> {
    let labels = group.template.metadata.as_ref()?.labels.as_ref()?;
    labels.get(label::ANCESTOR_STEP).map(String::as_str)
}

pub(super) fn job_spec(group: &mut ReplicatedJob) -> &mut JobSpec {
    group.template.spec.get_or_insert_default()
}

pub(super) fn pods(group: &mut ReplicatedJob) -> &mut PodTemplateSpec {
    &mut job_spec(group).template
}

pub(super) fn container<'a>(group: &'a mut ReplicatedJob, name: &str) -> Option<&'a mut Container> {
    let pod = pods(group).spec.as_mut()?;
    pod.containers.iter_mut().find(|container| container.name == name)
}

/// How many pods the group's Job has.
pub(super) fn set_pods(group: &mut ReplicatedJob, count: i32) {
    let spec = job_spec(group);
    spec.parallelism = Some(count);
    spec.completions = Some(count);
}

/// The reference by which the job's objects name it as their controller.
pub(super) fn owner(job: &TrainJob) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "TrainJob".to_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The metadata of an object of the job.
pub(super) fn metadata(job: &TrainJob, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: job.metadata.namespace.clone(),
        owner_references: Some(vec![owner(job)]),
        ..ObjectMeta::default()
    }
}

/// Makes what a valid job wants.
pub fn render(job: &TrainJob, runtime: &TrainingRuntimeSpec, scheduler: &GangScheduler) -> Rendered {
    render_for(job, runtime, scheduler, None, None)
}

/// As [`render`], on the JobSet that exists already: what cannot change in it is as it was made.
pub(super) fn render_for(
    job: &TrainJob,
    runtime: &TrainingRuntimeSpec,
    scheduler: &GangScheduler,
    status_server: Option<&StatusServer>,
    existing: Option<&JobSet>,
) -> Rendered {
    let policy = runtime.ml_policy.clone().unwrap_or_default();
    let wanted = job.spec.trainer.as_ref().and_then(|trainer| trainer.num_nodes);
    let nodes = wanted.or(policy.num_nodes).unwrap_or(1);
    let mut template = runtime.template.clone();
    patches::apply(&job.spec.runtime_patches, &mut template);
    // A job of which this is wrong is not valid, and never made.
    let fewest_nodes = elastic::fewest_nodes(job, &policy, nodes).unwrap_or_default();
    let may_be_missing = match existing {
        Some(set) => elastic::may_be_missing(set),
        None => fewest_nodes.map_or(0, |fewest| nodes - fewest),
    };
    let spec = template.spec;
    let mut draft =
        Draft { job, policy, spec, nodes, fewest_nodes, may_be_missing, runtime_command: Vec::new() };
    let command = draft.trainers().find_map(|node| node.command.clone());
    draft.runtime_command = command.unwrap_or_default();
    override_trainer(&mut draft);
    initializer::complete(&mut draft);
    let (mut hostfile, mut ssh_secret) = (None, None);
    if draft.policy.torch.is_some() {
        torch::complete(&mut draft);
    } else if draft.policy.jax.is_some() {
        jax::complete(&mut draft);
    } else if draft.policy.xgboost.is_some() {
        xgboost::complete(&mut draft);
    } else if draft.policy.mpi.is_some() {
        hostfile = Some(mpi::complete(&mut draft));
        ssh_secret = Some(mpi::ssh_secret_name(draft.name()));
    }
    let ttl_seconds = draft.spec.ttl_seconds_after_finished.take();
    let made_of = made::digest_of_rest(&draft.spec);
    // Not one of the things that job and runtime are compared by: it comes and goes with the controller.
    if let Some(server) = status_server {
        server.tell(&mut draft);
    }
    draft.spec.replicated_jobs.iter_mut().for_each(forgive_disruptions);
    if let Some(existing) = existing {
        draft.spec = made::keep(&existing.spec, draft.spec);
    }
    let pod_group = pod_group::complete(&mut draft, runtime.pod_group_policy.as_ref(), scheduler);
    draft.spec.suspend = Some(job.spec.suspend.unwrap_or(false));
    let Draft { spec, .. } = draft;
    let mut jobset = JobSet::new(job.metadata.name.as_deref().unwrap_or_default(), spec);
    jobset.metadata = metadata(job, job.metadata.name.clone().unwrap_or_default());
    let marks = template.metadata.unwrap_or_default();
    jobset.metadata.labels = inherited(marks.labels, job.metadata.labels.clone());
    jobset.metadata.annotations = inherited(marks.annotations, job.metadata.annotations.clone());
    Rendered { jobset, pod_group, hostfile, ssh_secret, made_of, ttl_seconds }
}

/// The runtime's marks and the job's; what tools remember of the job stays there.
fn inherited(
    mut marks: BTreeMap<String, String>,
    of_job: Option<BTreeMap<String, String>>,
) -> Option<BTreeMap<String, String>> {
    let is_passed_on = |key: &str| !key.starts_with("kubectl.kubernetes.io/");
    marks.extend(of_job.unwrap_or_default().into_iter().filter(|(key, _)| is_passed_on(key)));
    (!marks.is_empty()).then_some(marks)
}

/// Of a pod that was preempted, evicted or drained.
pub(super) const DISRUPTED: &str = "DisruptionTarget";

/// A pod that was preempted or evicted comes back and spends nothing of the Job's budget, which is for code that fails.
/// Kubernetes allows that only where the kubelet starts no container again, so it does not where the runtime leaves that
/// open; one that has rules of its own keeps them.
fn forgive_disruptions(group: &mut ReplicatedJob) {
    let spec = job_spec(group);
    let restarts = &mut spec.template.spec.get_or_insert_default().restart_policy;
    if restarts.as_deref().is_some_and(|policy| policy != "Never") {
        return;
    }
    *restarts = Some("Never".to_owned());
    let condition = PodFailurePolicyOnPodConditionsPattern {
        status: Some("True".to_owned()),
        type_: DISRUPTED.to_owned(),
    };
    let rule = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![condition]),
        ..PodFailurePolicyRule::default()
    };
    spec.pod_failure_policy.get_or_insert_with(|| PodFailurePolicy { rules: vec![rule] });
}

fn override_trainer(draft: &mut Draft<'_>) {
    let (trainer, nodes) = (draft.trainer(), draft.nodes);
    let is_mpi = draft.policy.mpi.is_some();
    // What only starts mpirun needs nothing of what a node does.
    let trains = draft.policy.mpi.as_ref().is_none_or(|mpi| mpi.run_launcher_as_node.unwrap_or(false));
    for group in draft.spec.replicated_jobs.iter_mut().filter(|group| is_trainer(group)) {
        if !is_mpi {
            set_pods(group, nodes);
        }
        let Some(node) = container(group, NODE) else { continue };
        if let Some(image) = &trainer.image {
            node.image = Some(image.clone());
        }
        if !trainer.command.is_empty() {
            node.command = Some(trainer.command.clone());
        }
        if !trainer.args.is_empty() {
            node.args = Some(trainer.args.clone());
        }
        if let Some(resources) = trainer.resources_per_node.as_ref().filter(|_| trains) {
            node.resources = Some(resources.clone());
        }
        env::set(&mut node.env, &trainer.env);
    }
}

/// Opens the port by which the nodes meet.
pub(super) fn open_port(container: &mut Container) {
    let ports = container.ports.get_or_insert_default();
    if ports.iter().all(|port| port.container_port != TRAINER_PORT) {
        ports.push(ContainerPort {
            container_port: TRAINER_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobset;

    #[test]
    fn addresses_agree_with_the_rules_of_jobsets() {
        let mut job: TrainJob = serde_json::from_value(serde_json::json!({
            "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob",
            "metadata": {"name": "train"}, "spec": {"runtimeRef": {"name": "x"}},
        }))
        .unwrap();
        job.metadata.namespace = Some("team".to_owned());
        let draft = Draft {
            job: &job,
            policy: MlPolicy::default(),
            spec: JobSetSpec::default(),
            nodes: 1,
            fewest_nodes: None,
            may_be_missing: 0,
            runtime_command: Vec::new(),
        };
        let set = JobSet::new("train", JobSetSpec::default());
        let host = format!("{}-1.{}", jobset::job_name("train", NODE, 0), jobset::subdomain(&set));
        assert_eq!(draft.address(NODE, 1), host);
    }
}
