//! The service that runs the reconcilers.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Config;
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, applier, watcher};
use kube::{Api, Client, ResourceExt};
use muster_machinery::CancellationToken;
use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::{ClusterTrainingRuntime, TrainJob, TrainingRuntime};
use muster_trainer_core::GangScheduler;
use muster_trainer_core::train_job::{RuntimeKey, RuntimeScope, StatusServer, runtime_of};

use super::reconcile::{Context, reconcile, retry};
use super::runtimes::{self, RuntimeStores};
use super::{first_pods, without_jobsets};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::owned::{self, Trigger};

const CONTROLLER: &str = "trainjob-controller";

/// How the controllers of training jobs on runtimes run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The one namespace to look at; all of them when absent. Cluster-wide runtimes are looked at in any case.
    pub namespace: Option<String>,
    /// Who places the pods of jobs whose runtime has no `podGroupPolicy`: `muster`, or nobody in particular.
    pub gang_scheduler_name: String,
    /// Where jobs report their progress, if that is possible.
    pub status_server: Option<StatusServer>,
    /// How many jobs are reconciled at the same time.
    pub threads: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespace: None, gang_scheduler_name: String::new(), status_server: None, threads: 8 }
    }
}

impl Options {
    /// The service with these options, not yet running.
    pub fn build(self, client: Client) -> Service {
        Service { options: self, client }
    }
}

/// The controllers of training jobs on runtimes.
pub struct Service {
    options: Options,
    client: Client,
}

impl Service {
    /// Reconciles until the shutdown is requested. Requests under way are dropped; the next run goes on from
    /// what it then sees.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(Box::pin(self.reconcile_all(&shutdown))).await;
    }

    async fn reconcile_all(&self, shutdown: &CancellationToken) {
        let namespace = self.options.namespace.as_deref();
        let jobs = owned::in_scope::<TrainJob>(&self.client, namespace);
        let sets = owned::in_scope::<JobSet>(&self.client, namespace);
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: None };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let served = owned::until_served(&jobs, "`muster crds` prints its definition", shutdown).await
            && without_jobsets::wait(&self.client, namespace, &recorder, shutdown).await;
        if !served {
            return;
        }
        let all = watcher::Config::default;
        let (jobs, job_changes) = owned::cache(jobs, all());
        let (sets, set_changes) = owned::cache(sets, all());
        let (namespaced, namespaced_changes) =
            owned::cache(owned::in_scope::<TrainingRuntime>(&self.client, namespace), all());
        let (cluster, cluster_changes) =
            owned::cache(Api::<ClusterTrainingRuntime>::all(self.client.clone()), all());
        let runtimes = RuntimeStores { namespaced, cluster };
        let (seen, seen_runtimes) = futures::channel::mpsc::unbounded();
        let triggers = futures::stream::select_all([
            jobs_seen(job_changes, seen.clone()),
            owned::owners(set_changes),
            waiting(namespaced_changes, jobs.clone(), seen.clone(), |runtime| RuntimeKey {
                scope: RuntimeScope::Namespace(runtime.namespace().unwrap_or_default()),
                name: runtime.name_any(),
            }),
            waiting(cluster_changes, jobs.clone(), seen, |runtime| RuntimeKey {
                scope: RuntimeScope::Cluster,
                name: runtime.name_any(),
            }),
            told(owned::in_scope(&self.client, namespace)),
        ]);
        let context = Arc::new(Context {
            client: self.client.clone(),
            scheduler: GangScheduler::from(self.options.gang_scheduler_name.as_str()),
            status_server: self.options.status_server.clone(),
            sets,
            runtimes: runtimes.clone(),
            recorder,
            expectations: Expectations::default(),
        });
        let config = Config::default().concurrency(self.options.threads);
        let outcomes = applier(
            |job, context| Box::pin(reconcile(job, context)),
            retry,
            context.clone(),
            jobs.clone(),
            triggers,
            config,
        );
        let reconciling = outcomes.for_each(|outcome| {
            owned::report(&jobs, &context.expectations, outcome);
            futures::future::ready(())
        });
        let keeping = runtimes::keep(self.client.clone(), jobs.clone(), runtimes, seen_runtimes);
        futures::future::join(reconciling, keeping).await;
    }
}

type Seen = futures::channel::mpsc::UnboundedSender<RuntimeKey>;

/// A job triggers itself, and a look at the runtime that it names.
fn jobs_seen(
    changes: impl Stream<Item = Result<TrainJob, watcher::Error>> + Send + 'static,
    seen: Seen,
) -> BoxStream<'static, Trigger<TrainJob>> {
    let changes = changes.inspect(move |job| {
        if let Some(key) = job.as_ref().ok().and_then(runtime_of) {
            // Nobody listens any more when the service ends.
            let _ = seen.unbounded_send(key);
        }
    });
    owned::themselves(changes)
}

/// A runtime triggers the jobs that name it, and a look at itself.
fn waiting<R>(
    changes: impl Stream<Item = Result<R, watcher::Error>> + Send + 'static,
    jobs: Store<TrainJob>,
    seen: Seen,
    key: impl Fn(&R) -> RuntimeKey + Send + 'static,
) -> BoxStream<'static, Trigger<TrainJob>>
where
    R: Send + 'static,
{
    let triggers = changes.flat_map(move |runtime| {
        let triggers: Vec<Trigger<TrainJob>> = match runtime {
            Err(error) => vec![Err(error)],
            Ok(runtime) => {
                let key = key(&runtime);
                let _ = seen.unbounded_send(key.clone());
                let waits = |job: &TrainJob| {
                    runtime_of(job).as_ref() == Some(&key)
                        && !job
                            .status
                            .as_ref()
                            .is_some_and(muster_trainer_api::train_job::TrainJobStatus::is_finished)
                };
                jobs.state_filter(waits).iter().map(|job| Ok(ObjectRef::from_obj(&**job))).collect()
            }
        };
        futures::stream::iter(triggers)
    });
    triggers.boxed()
}

/// First pods of jobs that have something to say.
fn told(api: Api<Pod>) -> BoxStream<'static, Trigger<TrainJob>> {
    let config = watcher::Config::default().labels(first_pods::SELECTOR);
    let changes = watcher(api, config).backoff(muster_machinery::watch::backoff()).touched_objects();
    let triggers = changes.filter_map(|pod| {
        let trigger = pod.map(|pod| first_pods::job_of(&pod)).transpose();
        futures::future::ready(trigger)
    });
    triggers.boxed()
}
