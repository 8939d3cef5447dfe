//! One look at one job.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use muster_trainer_api::JobStatus;
use muster_trainer_core::{Job, Kind, Observed, Options, Plan, TrainingKind, plan, reject};
use serde_json::Value;

use crate::carry_out::Executor;
use crate::children::Children;
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::kept::KeptJob;
use crate::report;

/// Why a reconciliation ended early; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused a request or could not be reached.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// An object could not be read or written as JSON.
    #[error("object is not well formed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A name the job needs is taken by an object of another owner.
    #[error("{kind} {name} exists and belongs to another; delete it or rename what needs the name")]
    NameTaken {
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A kind that the job needs is of software that is not installed.
    #[error(
        "the cluster does not serve {kind} of {api_version}; install what the runtime's podGroupPolicy names"
    )]
    NotServed {
        /// The kind.
        kind: String,
        /// Its API.
        api_version: String,
    },
    /// There are no keys to give to a job.
    #[error(transparent)]
    Keys(#[from] crate::ssh_keys::Error),
    /// The caches are no longer fed; the controller is being stopped.
    #[error("the caches are closed")]
    CachesClosed,
}

/// Whether the object is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the object has changed since it was read.
pub(crate) fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && !status.is_already_exists())
}

/// Whether somebody else changed the job first, or deleted it: nothing that a person must look at.
pub(crate) fn is_race(error: &Error, kind: &Kind, job: &str) -> bool {
    let Error::Kube(error) = error else { return false };
    let is_job_gone = || match error {
        kube::Error::Api(status) if status.code == 404 => {
            status.details.as_ref().is_some_and(|about| about.kind == kind.plural && about.name == job)
        }
        _ => false,
    };
    is_refused(error) || is_job_gone()
}

/// What all reconciliations of a kind share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) training: TrainingKind,
    pub(crate) resource: ApiResource,
    pub(crate) options: Options,
    pub(crate) jobs: Store<KeptJob>,
    pub(crate) pods: Children<Pod>,
    pub(crate) services: Children<Service>,
    pub(crate) recorder: Recorder,
    pub(crate) expectations: Expectations,
}

/// The kind of the gang scheduler's groups.
pub(crate) fn pod_group_resource(options: &Options) -> Option<ApiResource> {
    let kind = options.gang_scheduler.pod_group()?;
    let kind = GroupVersionKind::gvk(kind.group, kind.version, "PodGroup");
    Some(ApiResource::from_gvk_with_plural(&kind, "podgroups"))
}

/// Sees, plans and carries out.
pub(crate) async fn reconcile(cached: Arc<KeptJob>, context: Arc<Context>) -> Result<Action, Error> {
    if !(context.pods.is_ready().await && context.services.is_ready().await) {
        return Err(Error::CachesClosed);
    }
    let uid = cached.uid().unwrap_or_default();
    let namespace = cached.namespace().unwrap_or_else(|| "default".to_owned());
    let jobs = Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &context.resource);
    let Some(object) = current_object(&cached, &jobs, &context.expectations).await? else {
        return Ok(Action::await_change());
    };
    let now = Timestamp::now();
    let observed = context.observe(&object, &namespace);
    if let Some(wait) = context.expectations.wait(&uid, |key| observed.shows(key), now) {
        return Ok(Action::requeue(wait));
    }
    let plan = context.plan(&object, &observed, now).await?;
    let reconciliation = Reconciliation {
        client: &context.client,
        kind: context.training.kind,
        resource: &context.resource,
        options: &context.options,
        recorder: &context.recorder,
        expectations: &context.expectations,
    };
    reconciliation.carry_out(jobs, object, plan).await
}

/// The job as the cache shows it, or as it is where the cache may be late; nothing if it is gone.
pub(crate) async fn current_object(
    cached: &KeptJob,
    jobs: &Api<DynamicObject>,
    expectations: &Expectations,
) -> Result<Option<DynamicObject>, Error> {
    let uid = cached.uid().unwrap_or_default();
    if !expectations.is_job_stale(&uid, cached.resource_version().as_deref()) {
        return Ok(Some(cached.read()?));
    }
    let current = jobs.get_opt(&cached.name_any()).await?;
    Ok(current.filter(|current| current.uid().as_deref() == Some(&uid)))
}

/// What carrying out a plan takes.
pub(crate) struct Reconciliation<'a> {
    pub(crate) client: &'a Client,
    pub(crate) kind: &'static Kind,
    pub(crate) resource: &'a ApiResource,
    pub(crate) options: &'a Options,
    pub(crate) recorder: &'a Recorder,
    pub(crate) expectations: &'a Expectations,
}

impl Reconciliation<'_> {
    /// Carries out what was planned for this job, and tells of it.
    pub(crate) async fn carry_out(
        &self,
        jobs: Api<DynamicObject>,
        job: DynamicObject,
        plan: Plan,
    ) -> Result<Action, Error> {
        let requeue_after = plan.requeue_after;
        let uid = job.uid().unwrap_or_default();
        let reference = job.object_ref(self.resource);
        let mut executor = Executor {
            client: self.client,
            jobs,
            kind: self.kind,
            job,
            options: self.options,
            expectations: self.expectations,
            events: Vec::new(),
        };
        let result = executor.carry_out(plan).await;
        report::publish(self.recorder, &reference, executor.events).await;
        result?;
        self.expectations.succeeded(&uid);
        Ok(requeue_after.map_or_else(Action::await_change, Action::requeue))
    }
}

/// When a reconciliation that failed is tried again: at once if somebody else was faster, else ever later.
pub(crate) fn wait_to_retry(job: &KeptJob, error: &Error, expectations: &Expectations) -> Action {
    if matches!(error, Error::Kube(error) if is_refused(error)) {
        return Action::requeue(Duration::from_millis(20));
    }
    let failures = expectations.failed(&job.uid().unwrap_or_default());
    let wait = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(failures - 1));
    let wait = wait.min(Duration::from_mins(1));
    tracing::debug!(job = job.name_any(), namespace = job.namespace(), %error, ?wait, "reconciliation failed");
    Action::requeue(wait)
}

/// The objects of one job that the caches show.
struct Seen {
    pods: Vec<Pod>,
    services: Vec<Service>,
}

impl Seen {
    /// Whether an object, named `Kind/name`, is among them.
    fn shows(&self, key: &str) -> bool {
        match key.split_once('/') {
            Some(("Pod", name)) => self.pods.iter().any(|pod| pod.name_any() == name),
            Some(("Service", name)) => self.services.iter().any(|service| service.name_any() == name),
            _ => true,
        }
    }
}

impl Context {
    fn observe(&self, job: &DynamicObject, namespace: &str) -> Seen {
        let name = job.name_any();
        Seen { pods: self.pods.of_job(namespace, &name), services: self.services.of_job(namespace, &name) }
    }

    async fn plan(&self, object: &DynamicObject, seen: &Seen, now: Timestamp) -> Result<Plan, Error> {
        let job = match (self.training.read)(serde_json::to_value(object)?) {
            Ok(job) => job,
            Err(errors) => return Ok(reject(self.training.kind, &status_of(object)?, &errors, now)),
        };
        let pod_group = pod_group_of(&self.client, &self.options, &job).await?;
        let autoscaler = self.autoscaler(&job).await?;
        let observed = Observed {
            pods: &seen.pods,
            services: &seen.services,
            pod_group: pod_group.as_ref(),
            autoscaler: autoscaler.as_ref(),
        };
        Ok(plan(&job, &observed, now, &self.options))
    }

    async fn autoscaler(&self, job: &Job) -> Result<Option<HorizontalPodAutoscaler>, Error> {
        if job.framework.autoscaler(job).is_none() {
            return Ok(None);
        }
        let api = Api::<HorizontalPodAutoscaler>::namespaced(self.client.clone(), job.namespace());
        Ok(api.get_opt(job.name()).await?.filter(|autoscaler| is_controlled_by(autoscaler, job)))
    }
}

/// The status of a job that may be of any kind.
pub(crate) fn status_of(object: &DynamicObject) -> Result<JobStatus, Error> {
    let status = object.data.get("status").map(|status| serde_json::from_value(status.clone()));
    Ok(status.transpose()?.unwrap_or_default())
}

/// An object, if it is there. Of a kind that is not served there is none: that is told when one is made.
pub(crate) async fn find(api: &Api<DynamicObject>, name: &str) -> Result<Option<DynamicObject>, Error> {
    match api.get_opt(name).await {
        Err(error) if is_not_found(&error) => Ok(None),
        found => Ok(found?),
    }
}

/// The job's `PodGroup`, where its scheduler has any.
pub(crate) async fn pod_group_of(
    client: &Client,
    options: &Options,
    job: &Job,
) -> Result<Option<Value>, Error> {
    let Some(resource) = pod_group_resource(options) else { return Ok(None) };
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), job.namespace(), &resource);
    let found = find(&api, job.name()).await?.filter(|group| is_controlled_by(group, job));
    Ok(found.map(serde_json::to_value).transpose()?)
}

fn is_controlled_by(object: &impl Resource, job: &Job) -> bool {
    object.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == job.uid())
}
