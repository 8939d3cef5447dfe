//! The pods of a job, sorted by what they mean for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::label;

use crate::job::{Job, Replica};
use crate::kind::ReplicaCounts;

/// Exit code of a failed pod whose training container reports none, as for an eviction; retryable.
const NO_EXIT_CODE: i32 = 0xbeef;

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// Who is to blame for a failed or lost pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The job's own code, which ended with this exit code.
    Code { exit_code: i32 },
    /// The machine or the cluster: eviction, preemption, a lost node, a deletion from outside.
    Infrastructure { reason: String },
}

/// A pod of the current generation that the job wants.
#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) replica: &'a Replica,
    pub(crate) index: i32,
    pub(crate) phase: Phase,
}

/// Every pod the job owns, sorted.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    /// The generation that is current: the job's, or a later one its pods tell of.
    pub(crate) generation: u64,
    /// Pods of that generation that the job wants.
    pub(crate) current: Vec<Member<'a>>,
    /// Pods of that generation beyond the wanted number.
    pub(crate) surplus: Vec<&'a Pod>,
    /// Pods of earlier generations.
    pub(crate) retired: Vec<&'a Pod>,
}

/// Whether the job is the controller of this object.
pub(crate) fn owns(job: &Job, metadata: &ObjectMeta) -> bool {
    let references = metadata.owner_references.iter().flatten();
    references.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == job.uid())
}

/// The replica and index an object's labels name.
pub(crate) fn place<'a>(job: &'a Job, metadata: &ObjectMeta) -> Option<(&'a Replica, i32)> {
    let labels = metadata.labels.as_ref()?;
    let type_ = labels.get(label::REPLICA_TYPE)?;
    let index = labels.get(label::REPLICA_INDEX)?.parse().ok().filter(|index| *index >= 0)?;
    let replica = job.replicas.iter().find(|replica| replica.label() == *type_)?;
    Some((replica, index))
}

/// Pods without the label are of the first generation, as those of another operator are.
fn generation(pod: &Pod) -> u64 {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(label::GANG_GENERATION)?.parse().ok()).unwrap_or(0)
}

impl<'a> Members<'a> {
    pub(crate) fn sort(job: &'a Job, pods: &'a [Pod], generation_of_job: u64) -> Self {
        let owned: Vec<&Pod> = pods.iter().filter(|pod| owns(job, &pod.metadata)).collect();
        let latest = owned.iter().map(|pod| generation(pod)).max().unwrap_or(0);
        let mut members = Self {
            generation: generation_of_job.max(latest),
            current: Vec::new(),
            surplus: Vec::new(),
            retired: Vec::new(),
        };
        for pod in owned {
            if generation(pod) < members.generation {
                members.retired.push(pod);
                continue;
            }
            match place(job, &pod.metadata) {
                Some((replica, index)) if index < replica.count => {
                    members.current.push(Member { pod, replica, index, phase: phase(pod) });
                }
                _ => members.surplus.push(pod),
            }
        }
        members
    }

    pub(crate) fn counts(&self, job: &Job) -> BTreeMap<&'static str, ReplicaCounts> {
        let zero = |replica: &Replica| ReplicaCounts { wanted: replica.count, ..ReplicaCounts::default() };
        let mut counts: BTreeMap<_, _> =
            job.replicas.iter().map(|replica| (replica.type_.name, zero(replica))).collect();
        for member in &self.current {
            let Some(count) = counts.get_mut(member.replica.type_.name) else { continue };
            match member.phase {
                Phase::Running if is_deleting(member.pod) => count.failed += 1,
                Phase::Running => count.active += 1,
                Phase::Succeeded => {
                    count.succeeded += 1;
                    count.first_succeeded |= member.index == 0;
                }
                Phase::Failed => count.failed += 1,
                Phase::Pending => {}
            }
        }
        counts
    }

    pub(crate) fn find(&self, replica: &Replica, index: i32) -> Option<&Member<'a>> {
        self.current.iter().find(|member| member.replica.type_ == replica.type_ && member.index == index)
    }
}

impl Member<'_> {
    /// Whether the pod has ended.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Why this pod no longer does its part, if so.
    pub(crate) fn failure(&self, container: &str) -> Option<Cause> {
        match self.phase {
            Phase::Failed => Some(cause(self.pod, container)),
            Phase::Pending | Phase::Running if is_deleting(self.pod) => {
                let reason = infrastructure_reason(self.pod).unwrap_or_else(|| "Deleted".to_owned());
                Some(Cause::Infrastructure { reason })
            }
            Phase::Pending | Phase::Running | Phase::Succeeded => None,
        }
    }

    /// How often the kubelet has restarted the pod's containers in place.
    pub(crate) fn container_restarts(&self) -> i32 {
        let statuses = self.pod.status.as_ref();
        let containers = statuses.into_iter().flat_map(|status| {
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
        });
        containers.map(|container| container.restart_count).sum()
    }
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub(crate) fn phase(pod: &Pod) -> Phase {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        _ => Phase::Pending,
    }
}

fn cause(pod: &Pod, container: &str) -> Cause {
    match infrastructure_reason(pod) {
        Some(reason) => Cause::Infrastructure { reason },
        None if ended_by_deletion(pod) => Cause::Infrastructure { reason: "Deleted".to_owned() },
        None => Cause::Code { exit_code: exit_code(pod, container) },
    }
}

/// The reason the cluster itself gives for the end of a pod, if it was the cluster's doing.
pub(crate) fn infrastructure_reason(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let disruption = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    if let Some(disruption) = disruption {
        return Some(disruption.reason.clone().unwrap_or_else(|| "DisruptionTarget".to_owned()));
    }
    let reason = status.reason.as_deref()?;
    let by_the_cluster = matches!(
        reason,
        "Evicted"
            | "NodeLost"
            | "NodeShutdown"
            | "Shutdown"
            | "Terminated"
            | "Preempting"
            | "Preempted"
            | "NodeAffinity"
            | "UnexpectedAdmissionError"
            | "TopologyAffinityError"
    ) || reason.starts_with("OutOf");
    by_the_cluster.then(|| reason.to_owned())
}

/// Whether the containers ended only after somebody had deleted the pod.
fn ended_by_deletion(pod: &Pod) -> bool {
    let Some(deadline) = &pod.metadata.deletion_timestamp else { return false };
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let deleted_at = deadline.0.as_second().saturating_sub(grace);
    last_end(pod).is_none_or(|end| end.as_second() >= deleted_at)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).into_iter().flatten()
}

fn last_end(pod: &Pod) -> Option<Timestamp> {
    let ends = containers(pod)
        .filter_map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    ends.max()
}

/// The exit code of the training container; when it ended well, that of the container that did not.
fn exit_code(pod: &Pod, training_container: &str) -> i32 {
    let of_training = containers(pod).find(|container| container.name == training_container).and_then(ended);
    match of_training {
        Some(0) => first_failure(pod).unwrap_or(NO_EXIT_CODE),
        Some(code) => code,
        None => NO_EXIT_CODE,
    }
}

fn ended(container: &ContainerStatus) -> Option<i32> {
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The exit code of the first container that did not end well.
pub(crate) fn first_failure(pod: &Pod) -> Option<i32> {
    containers(pod).filter_map(ended).find(|code| *code != 0)
}
