//! One look at one job.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::names::FIELD_MANAGER;
use muster_trainer_api::train_job::{TrainJob, TrainJobStatus, TrainerStatus, TrainingRuntimeSpec};
use muster_trainer_core::train_job::{
    Effect, Observed, Plan, RuntimeSeen, StatusServer, Waiting, hostfile_name, plan, runtime_of,
    ssh_secret_name,
};
use muster_trainer_core::{Event, EventType, GangScheduler};
use serde_json::{Value, json};

use super::first_pods;
use super::progress;
use super::runtimes::RuntimeStores;
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::owned;
use crate::reconcile::{Error, find, is_refused};
use crate::report;
use crate::ssh_keys;

/// How often an object is looked at of which no watch tells.
const LOOK: Duration = Duration::from_mins(10);

/// What all reconciliations share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) scheduler: GangScheduler,
    pub(super) status_server: Option<StatusServer>,
    pub(super) sets: Store<JobSet>,
    pub(super) runtimes: RuntimeStores,
    pub(super) recorder: Recorder,
    pub(super) expectations: Expectations,
}

/// What was read of a job's surroundings.
struct Surroundings {
    runtime: Option<TrainingRuntimeSpec>,
    jobset: Option<Arc<JobSet>>,
    pod_group: Option<Value>,
    hostfile: Option<ConfigMap>,
    has_ssh_secret: bool,
    trainer_status: Option<TrainerStatus>,
    waiting: Option<Waiting>,
}

/// Sees, plans and carries out.
pub(super) async fn reconcile(cached: Arc<TrainJob>, context: Arc<Context>) -> Result<Action, Error> {
    let closed = |_| Error::CachesClosed;
    context.sets.wait_until_ready().await.map_err(closed)?;
    context.runtimes.cluster.wait_until_ready().await.map_err(closed)?;
    context.runtimes.namespaced.wait_until_ready().await.map_err(closed)?;
    let uid = cached.uid().unwrap_or_default();
    let namespace = cached.namespace().unwrap_or_else(|| "default".to_owned());
    let jobs = Api::<TrainJob>::namespaced(context.client.clone(), &namespace);
    let mut job = (*cached).clone();
    if context.expectations.is_job_stale(&uid, job.resource_version().as_deref()) {
        match jobs.get_opt(&job.name_any()).await? {
            Some(current) if current.uid().as_deref() == Some(&uid) => job = current,
            _ => return Ok(Action::await_change()),
        }
    }
    let now = Timestamp::now();
    let seen = context.observe(&job, &namespace, now).await?;
    let shows = |_: &str| seen.jobset.is_some();
    if let Some(wait) = context.expectations.wait(&uid, shows, now) {
        return Ok(Action::requeue(wait));
    }
    let observed = Observed {
        runtime: seen.runtime.as_ref().map_or(RuntimeSeen::Missing, RuntimeSeen::Found),
        jobset: seen.jobset.as_deref(),
        pod_group: seen.pod_group.as_ref(),
        hostfile: seen.hostfile.as_ref(),
        has_ssh_secret: seen.has_ssh_secret,
        trainer_status: seen.trainer_status,
        waiting: seen.waiting,
        status_server: context.status_server.as_ref(),
    };
    let plan = plan(&job, &observed, now, &context.scheduler);
    let requeue_after = plan.requeue_after;
    let mut executor = Executor { context: &context, jobs, namespace, uid, job, events: Vec::new() };
    let result = executor.carry_out(plan).await;
    let reference = executor.job.object_ref(&());
    report::publish(&context.recorder, &reference, executor.events).await;
    let wait = owned::unless_taken(result)?;
    context.expectations.succeeded(&executor.uid);
    // A change that a watch has missed is seen then.
    Ok(Action::requeue(wait.into_iter().chain(requeue_after).min().unwrap_or(LOOK)))
}

pub(super) fn retry(job: Arc<TrainJob>, error: &Error, context: Arc<Context>) -> Action {
    owned::retry(&*job, error, &context.expectations)
}

impl Context {
    async fn observe(&self, job: &TrainJob, namespace: &str, now: Timestamp) -> Result<Surroundings, Error> {
        let name = job.name_any();
        let runtime = runtime_of(job).and_then(|key| self.runtimes.get(&key));
        let policy = runtime.as_ref().and_then(|runtime| runtime.ml_policy.clone()).unwrap_or_default();
        let (mut hostfile, mut has_ssh_secret) = (None, false);
        if policy.mpi.is_some() {
            let maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
            hostfile = maps.get_opt(&hostfile_name(&name)).await?;
            let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
            has_ssh_secret = secrets.get_metadata_opt(&ssh_secret_name(&name)).await?.is_some();
        }
        let groups = runtime.as_ref().and_then(|runtime| runtime.pod_group_policy.as_ref());
        let groups = groups.and_then(|policy| match (&policy.coscheduling, &policy.volcano) {
            (Some(_), _) => Some(("scheduling.x-k8s.io", "v1alpha1")),
            (None, Some(_)) => Some(("scheduling.volcano.sh", "v1beta1")),
            (None, None) => None,
        });
        let mut pod_group = None;
        if let Some((group, version)) = groups {
            let kind = GroupVersionKind::gvk(group, version, "PodGroup");
            let resource = ApiResource::from_gvk_with_plural(&kind, "podgroups");
            let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
            pod_group = find(&api, &name).await?.map(serde_json::to_value).transpose()?;
        }
        let jobset = self.sets.get(&ObjectRef::new(&name).within(namespace));
        let pods = match &jobset {
            Some(_) => first_pods::of_job(&Api::namespaced(self.client.clone(), namespace), &name).await?,
            None => Vec::new(),
        };
        // Without a time of its own, what is said again is not said anew.
        let since = job.status.as_ref().and_then(|status| status.trainer_status.as_ref());
        let since = since.and_then(|said| said.last_updated_time.clone()).unwrap_or(Time(now));
        let trainer_status = progress::of_job(&pods, &since);
        let waiting = first_pods::waiting(&pods);
        Ok(Surroundings { runtime, jobset, pod_group, hostfile, has_ssh_secret, trainer_status, waiting })
    }
}

/// What the requests of one plan share.
struct Executor<'a> {
    context: &'a Context,
    jobs: Api<TrainJob>,
    namespace: String,
    uid: String,
    /// The job as the plan was made for it, then as it was last written.
    job: TrainJob,
    events: Vec<Event>,
}

impl Executor<'_> {
    /// Takes every step of the plan, in order, up to the first that is refused.
    async fn carry_out(&mut self, mut plan: Plan) -> Result<(), Error> {
        let mut told = std::mem::take(&mut plan.events);
        if plan.status.is_none() {
            self.events.append(&mut told);
        }
        for effect in plan.stages().into_iter().flatten() {
            match effect {
                Effect::WriteStatus(status) => {
                    // One that says nothing is not valid, none is.
                    self.job.status = Some(status).filter(|status| *status != TrainJobStatus::default());
                    let name = self.job.name_any();
                    let written = self.jobs.replace_status(&name, &PostParams::default(), &self.job).await?;
                    self.context.expectations.job_written(&self.uid, written.resource_version());
                    self.job = written;
                    self.events.append(&mut told);
                }
                Effect::Annotate(annotations) => {
                    let patch = json!({"metadata": {
                        "uid": self.uid, "resourceVersion": self.job.resource_version(), "annotations": annotations,
                    }});
                    let parameters = PatchParams::default();
                    let written =
                        self.jobs.patch(&self.job.name_any(), &parameters, &Patch::Merge(patch)).await?;
                    self.context.expectations.job_written(&self.uid, written.resource_version());
                    self.job = written;
                }
                Effect::CreateSshKeys(keys) => {
                    let secrets = Api::<Secret>::namespaced(self.context.client.clone(), &self.namespace);
                    let secret = ssh_keys::secret(keys.metadata)?;
                    let created = owned::create(&secrets, &secret, &self.uid).await.map(drop);
                    self.or_told(created)?;
                }
                Effect::Apply(object) => {
                    let result = self.apply(object).await;
                    self.or_told(result)?;
                }
                Effect::CreateJobSet(set) => {
                    let result = self.create(&set).await;
                    self.or_told(result)?;
                }
                Effect::ChangeJobSet(change) => {
                    let sets = Api::<JobSet>::namespaced(self.context.client.clone(), &self.namespace);
                    let parameters =
                        PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
                    let patch = Patch::<()>::Json(change.patch);
                    let written = sets.patch(&change.name, &parameters, &patch).await;
                    let changed = written.map(drop).map_err(Error::from);
                    self.or_told(changed)?;
                }
                Effect::DeleteJobSet(set) => {
                    let sets = Api::<JobSet>::namespaced(self.context.client.clone(), &self.namespace);
                    owned::delete(&sets, &set.name, &set.uid).await?;
                }
            }
        }
        Ok(())
    }

    async fn apply(&self, object: Value) -> Result<(), Error> {
        let types: TypeMeta = serde_json::from_value(object.clone())?;
        let kind =
            GroupVersionKind::try_from(&types).map_err(|error| kube::Error::Service(Box::new(error)))?;
        let resource = ApiResource::from_gvk(&kind);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let api =
            Api::<DynamicObject>::namespaced_with(self.context.client.clone(), &self.namespace, &resource);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&name, &parameters, &Patch::Apply(object)).await {
            // A path that is not served is answered without saying what was not found.
            Err(kube::Error::Api(status)) if status.code == 404 && status.details.is_none() => {
                Err(Error::NotServed { kind: kind.kind, api_version: resource.api_version })
            }
            applied => applied.map(drop).map_err(Error::from),
        }
    }

    async fn create(&self, set: &JobSet) -> Result<(), Error> {
        let name = set.name_any();
        let sets = Api::<JobSet>::namespaced(self.context.client.clone(), &self.namespace);
        self.context.expectations.creating(&self.uid, &name, Timestamp::now());
        let created = owned::create(&sets, set, &self.uid).await;
        if created.is_err() {
            self.context.expectations.not_created(&self.uid, &name);
        }
        created.map(drop)
    }

    /// What the cluster refuses is told, unless somebody else was only faster.
    fn or_told(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &result
            && !matches!(error, Error::Kube(error) if is_refused(error))
        {
            self.events.push(Event {
                type_: EventType::Warning,
                reason: "TrainJobResourcesCreationFailed".to_owned(),
                message: error.to_string(),
            });
        }
        result
    }
}
