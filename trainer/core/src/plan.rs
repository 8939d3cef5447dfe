//! From what is seen of a job to what is to be done for it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use muster_trainer_api::{ConditionType, JobStatus};
use serde_json::Value;

use crate::backoff::RestartBackoff;
use crate::companion::{Companion, CompanionAction};
use crate::conditions;
use crate::gang::GangScheduler;
use crate::job::Job;
use crate::kind::{InitContainer, Kind};
use crate::planner::Planner;
use crate::rendezvous::Rendezvous;
use crate::validation::FieldError;

/// What the rules are told once.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who places the job's pods.
    pub gang_scheduler: GangScheduler,
    /// How workers wait for their master.
    pub init_container: InitContainer,
    /// How long quick restarts wait.
    pub restart_backoff: RestartBackoff,
    /// How long after its grace period a retired pod may linger, as on a lost node, before it is deleted by
    /// force.
    pub force_delete_after: Duration,
    /// Where ranks of elastic jobs meet, if anywhere.
    pub rendezvous: Option<Rendezvous>,
    /// The domain of the cluster, such as `cluster.local`, where addresses of services are to be written in full.
    pub cluster_domain: Option<String>,
    /// What is said to MPI jobs alone.
    pub mpi: crate::mpi::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gang_scheduler: GangScheduler::None,
            init_container: InitContainer::default(),
            restart_backoff: RestartBackoff::default(),
            force_delete_after: Duration::from_secs(30),
            rendezvous: None,
            cluster_domain: None,
            mpi: crate::mpi::Options::default(),
        }
    }
}

/// What is seen in the job's namespace; objects of others among them do no harm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed<'a> {
    /// Pods.
    pub pods: &'a [Pod],
    /// Services.
    pub services: &'a [Service],
    /// The `PodGroup` of the job's name.
    pub pod_group: Option<&'a Value>,
    /// The autoscaler of the job's name.
    pub autoscaler: Option<&'a HorizontalPodAutoscaler>,
}

/// What is to be done to an object of which a job has at most one.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ObjectAction<T> {
    /// Nothing.
    #[default]
    Keep,
    /// Create it.
    Create(T),
    /// Replace it, provided that it has not changed.
    Update(T),
    /// Delete it.
    Delete,
}

/// A pod to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDeletion {
    /// Its name.
    pub name: String,
    /// Its uid, a precondition of the deletion.
    pub uid: String,
    /// Whether to delete it without waiting for its node.
    pub force: bool,
}

/// Annotations of a pod to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAnnotation {
    /// Its name.
    pub name: String,
    /// Its uid, a precondition.
    pub uid: String,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Whether an event tells of something expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

/// Something to tell about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether it is expected.
    pub type_: EventType,
    /// In one word for programs.
    pub reason: String,
    /// In a sentence for people.
    pub message: String,
}

/// A count of jobs that goes up by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// `training_operator_jobs_created_total`.
    Created,
    /// `training_operator_jobs_successful_total`.
    Successful,
    /// `training_operator_jobs_failed_total`.
    Failed,
    /// `training_operator_jobs_restarted_total`.
    Restarted,
}

/// What is to be done for a job.
///
/// The order matters, see [`Plan::stages`]; a step that fails ends the plan, and the next one starts from what
/// is then seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Annotations of the job to set, provided that the job has not changed.
    pub annotations: BTreeMap<String, String>,
    /// The job's new status, if it changes.
    pub status: Option<JobStatus>,
    /// What is to be done to the job's `PodGroup`.
    pub pod_group: ObjectAction<Value>,
    /// What is to be done to the job's autoscaler.
    pub autoscaler: ObjectAction<HorizontalPodAutoscaler>,
    /// Pods of which annotations are to be set.
    pub annotate_pods: Vec<PodAnnotation>,
    /// Pods to delete.
    pub delete_pods: Vec<PodDeletion>,
    /// Names of services to delete.
    pub delete_services: Vec<String>,
    /// What is to be done to objects that the job brings along beside its pods and services.
    pub companions: Vec<CompanionAction>,
    /// Services to create.
    pub create_services: Vec<Service>,
    /// Pods to create.
    pub create_pods: Vec<Pod>,
    /// Whether the job itself is to be deleted.
    pub delete_job: bool,
    /// What to tell, once the status is written.
    pub events: Vec<Event>,
    /// What to count, once the status is written.
    pub counters: Vec<Counter>,
    /// When to plan again even if nothing changes.
    pub requeue_after: Option<Duration>,
}

/// One step of a plan.
#[expect(clippy::large_enum_variant, reason = "a plan has a handful of steps, and pods are the common ones")]
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Set these annotations of the job, provided that it has not changed.
    Annotate(BTreeMap<String, String>),
    /// Write the job's status, provided that it has not changed otherwise.
    WriteStatus(JobStatus),
    /// Act on the job's `PodGroup`.
    PodGroup(ObjectAction<Value>),
    /// Act on the job's autoscaler.
    Autoscaler(ObjectAction<HorizontalPodAutoscaler>),
    /// Set annotations of a pod.
    AnnotatePod(PodAnnotation),
    /// Delete a pod.
    DeletePod(PodDeletion),
    /// Delete a service by its name.
    DeleteService(String),
    /// Act on an object that the job brings along.
    Companion(CompanionAction),
    /// Create a service.
    CreateService(Service),
    /// Create a pod.
    CreatePod(Pod),
    /// Delete the job.
    DeleteJob,
}

impl Plan {
    /// The steps in order; those of one stage may be taken at the same time.
    ///
    /// Memory comes first (a restart is remembered before its first pod is deleted), what others may read comes
    /// next, and only then do pods go and come. A role names pods by their names, so it comes when these pods are there
    /// and are the job's: until then another's pod may have such a name, and that is no pod for a launcher to reach. The
    /// launcher itself, whose role it is, comes last.
    pub fn stages(self) -> Vec<Vec<Effect>> {
        let annotate = (!self.annotations.is_empty()).then_some(Effect::Annotate(self.annotations));
        let mut groups = Vec::new();
        if self.pod_group != ObjectAction::Keep {
            groups.push(Effect::PodGroup(self.pod_group));
        }
        if self.autoscaler != ObjectAction::Keep {
            groups.push(Effect::Autoscaler(self.autoscaler));
        }
        groups.extend(self.annotate_pods.into_iter().map(Effect::AnnotatePod));
        let deletions = self.delete_pods.into_iter().map(Effect::DeletePod);
        let is_job = |action: &CompanionAction| {
            matches!(action, CompanionAction::Ensure(Companion::Job(_)) | CompanionAction::DeleteJob { .. })
        };
        // What pods mount comes before the pods.
        let (jobs, others): (Vec<_>, Vec<_>) = self.companions.into_iter().partition(is_job);
        let (gone, jobs): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|action| matches!(action, CompanionAction::DeleteJob { .. }));
        let deletions = deletions.chain(gone.into_iter().map(Effect::Companion));
        let is_role =
            |action: &CompanionAction| matches!(action, CompanionAction::Ensure(Companion::Role(_)));
        let is_binding =
            |action: &CompanionAction| matches!(action, CompanionAction::Ensure(Companion::RoleBinding(_)));
        let (roles, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_role);
        // No role is bound before it is there.
        let (bindings, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_binding);
        let creations = self.create_services.into_iter().map(Effect::CreateService);
        let stages = vec![
            annotate.into_iter().collect(),
            self.status.map(Effect::WriteStatus).into_iter().collect(),
            groups,
            deletions.chain(self.delete_services.into_iter().map(Effect::DeleteService)).collect(),
            others.into_iter().map(Effect::Companion).collect(),
            creations.chain(self.create_pods.into_iter().map(Effect::CreatePod)).collect(),
            roles.into_iter().map(Effect::Companion).collect(),
            bindings.into_iter().map(Effect::Companion).collect(),
            jobs.into_iter().map(Effect::Companion).collect(),
            self.delete_job.then_some(Effect::DeleteJob).into_iter().collect(),
        ];
        stages.into_iter().filter(|stage: &Vec<_>| !stage.is_empty()).collect()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.clone().stages().is_empty()
    }
}

/// Plans what is to be done for a valid job.
pub fn plan(job: &Job, observed: &Observed<'_>, now: Timestamp, options: &Options) -> Plan {
    if job.metadata.deletion_timestamp.is_some() || job.is_managed_elsewhere() {
        return Plan::default();
    }
    Planner::new(job, observed, now, options).plan()
}

/// Plans what is to be done for a job that is not valid: it fails, and its status says why.
pub fn reject(kind: &Kind, status: &JobStatus, errors: &[FieldError], now: Timestamp) -> Plan {
    if status.is_finished() {
        return Plan::default();
    }
    let mut rejected = status.clone();
    let reason = format!("{}FailedValidation", kind.name);
    let reasons: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let message = format!("the job is not valid: {}", reasons.join("; "));
    conditions::set(&mut rejected, ConditionType::Failed, true, reason.clone(), message.clone(), now);
    rejected.completion_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    rejected.last_reconcile_time.clone_from(&rejected.completion_time);
    Plan {
        status: Some(rejected),
        events: vec![Event { type_: EventType::Warning, reason, message }],
        counters: vec![Counter::Failed],
        ..Plan::default()
    }
}
