//! One look at one set.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use kube::api::PostParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};
use muster_trainer_api::jobset::{JobSet, reason};
use muster_trainer_core::jobset::{Effect, Observed, Plan, plan, subdomain};
use muster_trainer_core::{Event, EventType, GangScheduler};

use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::owned;
use crate::reconcile::Error;
use crate::report;

/// How often an object is looked at of which no watch tells.
const LOOK: Duration = Duration::from_mins(10);

/// What all reconciliations share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) scheduler: GangScheduler,
    pub(super) jobs: Store<Job>,
    pub(super) services: Store<Service>,
    pub(super) recorder: Recorder,
    pub(super) expectations: Expectations,
}

/// Sees, plans and carries out.
pub(super) async fn reconcile(cached: Arc<JobSet>, context: Arc<Context>) -> Result<Action, Error> {
    context.jobs.wait_until_ready().await.map_err(|_| Error::CachesClosed)?;
    context.services.wait_until_ready().await.map_err(|_| Error::CachesClosed)?;
    let uid = cached.uid().unwrap_or_default();
    let namespace = cached.namespace().unwrap_or_else(|| "default".to_owned());
    let sets = Api::<JobSet>::namespaced(context.client.clone(), &namespace);
    let mut set = (*cached).clone();
    if context.expectations.is_job_stale(&uid, set.resource_version().as_deref()) {
        match sets.get_opt(&set.name_any()).await? {
            Some(current) if current.uid().as_deref() == Some(&uid) => set = current,
            _ => return Ok(Action::await_change()),
        }
    }
    let now = Timestamp::now();
    let jobs: Vec<Job> = context
        .jobs
        .state_filter(|job| {
            job.namespace().as_deref() == Some(&namespace) && owned::is_controlled_by(job, &uid)
        })
        .iter()
        .map(|job| (**job).clone())
        .collect();
    let shows = |name: &str| jobs.iter().any(|job| job.name_any() == name);
    if let Some(wait) = context.expectations.wait(&uid, shows, now) {
        return Ok(Action::requeue(wait));
    }
    let service = kube::runtime::reflector::ObjectRef::new(subdomain(&set)).within(&namespace);
    let service = context.services.get(&service).filter(|service| owned::is_controlled_by(&**service, &uid));
    let claims = claims(&context.client, &set, &namespace).await?;
    let observed = Observed { jobs: &jobs, service: service.as_deref(), claims: &claims };
    let plan = plan(&set, &observed, now, &context.scheduler);
    let requeue_after = plan.requeue_after;
    let mut executor = Executor { context: &context, sets, namespace, uid, set, events: Vec::new() };
    let result = executor.carry_out(plan).await;
    let reference = executor.set.object_ref(&());
    report::publish(&context.recorder, &reference, executor.events).await;
    let wait = owned::unless_taken(result)?;
    context.expectations.succeeded(&executor.uid);
    // A change that a watch has missed is seen then.
    Ok(Action::requeue(wait.into_iter().chain(requeue_after).min().unwrap_or(LOOK)))
}

pub(super) fn retry(set: Arc<JobSet>, error: &Error, context: Arc<Context>) -> Action {
    owned::retry(&*set, error, &context.expectations)
}

/// Names of the volume claims that are there; few sets have any.
async fn claims(client: &Client, set: &JobSet, namespace: &str) -> Result<Vec<String>, Error> {
    if set.spec.volume_claim_policies.is_empty() {
        return Ok(Vec::new());
    }
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let list = api.list_metadata(&kube::api::ListParams::default()).await?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

/// What the requests of one plan share.
struct Executor<'a> {
    context: &'a Context,
    sets: Api<JobSet>,
    namespace: String,
    uid: String,
    /// The set as the plan was made for it, then as it was last written.
    set: JobSet,
    events: Vec<Event>,
}

impl Executor<'_> {
    /// Takes every step of the plan, in order, up to the first that is refused. A name that another has ends nothing:
    /// Jobs run without the service, too.
    async fn carry_out(&mut self, mut plan: Plan) -> Result<(), Error> {
        let mut told = Some(std::mem::take(&mut plan.events));
        let mut taken = Ok(());
        for stage in plan.stages() {
            let mut others = Vec::new();
            for effect in stage {
                match effect {
                    Effect::WriteStatus(status) => {
                        self.set.status = Some(status);
                        let name = self.set.name_any();
                        let written =
                            self.sets.replace_status(&name, &PostParams::default(), &self.set).await?;
                        self.context.expectations.job_written(&self.uid, written.resource_version());
                        self.set = written;
                        self.events.extend(told.take().unwrap_or_default());
                    }
                    other => others.push(other),
                }
            }
            let results = join_all(others.into_iter().map(|effect| self.act(effect))).await;
            let mut outcome = Ok(());
            for (event, result) in results {
                self.events.extend(event);
                outcome = outcome.and(result);
            }
            match outcome {
                Err(Error::NameTaken { .. }) => taken = outcome,
                other => other?,
            }
        }
        taken
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    async fn act(&self, effect: Effect) -> (Option<Event>, Result<(), Error>) {
        let result = match effect {
            // Writes the set, which takes this executor for itself: `carry_out`.
            Effect::WriteStatus(_) => Ok(()),
            Effect::DeleteJob(job) => owned::delete(&self.api::<Job>(), &job.name, &job.uid).await,
            Effect::CreateService(service) => {
                return told(
                    owned::create(&self.api(), &service, &self.uid).await,
                    "HeadlessServiceCreationFailed",
                );
            }
            Effect::CreateClaim(claim) => match self.api().create(&PostParams::default(), &claim).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                other => other.map(drop).map_err(Error::from),
            },
            Effect::UpdateJob(job) => self
                .api()
                .replace(&job.name_any(), &PostParams::default(), &job)
                .await
                .map(drop)
                .map_err(Error::from),
            Effect::CreateJob(job) => {
                let name = job.name_any();
                self.context.expectations.creating(&self.uid, &name, Timestamp::now());
                let created = owned::create(&self.api(), &job, &self.uid).await;
                if created.is_err() {
                    self.context.expectations.not_created(&self.uid, &name);
                }
                return told(created, reason::JOB_CREATION_FAILED);
            }
            Effect::DeleteSet => owned::delete(&self.sets, &self.set.name_any(), &self.uid).await,
        };
        (None, result)
    }
}

/// What could not be created is told.
fn told(created: Result<bool, Error>, reason: &str) -> (Option<Event>, Result<(), Error>) {
    let event = created.as_ref().err().map(|error| Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        message: error.to_string(),
    });
    (event, created.map(drop))
}
