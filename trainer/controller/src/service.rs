//! The service that runs the reconcilers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Service as KubeService};
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Config};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, applier, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use muster_machinery::CancellationToken;
use muster_machinery::watch::without_managers;
use muster_trainer_api::label;
use muster_trainer_core::{
    GangScheduler, InitContainer, KINDS, Kind, Rendezvous, RestartBackoff, TrainingKind, mpi,
};

use crate::children::{Child, Children};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::kept::KeptJob;
use crate::kinds;
use crate::reconcile::{Context, Error, is_race, pod_group_resource, reconcile, wait_to_retry};

/// How the training controllers run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The one namespace to look at; all of them when absent.
    pub namespace: Option<String>,
    /// Who places the pods of a job: `muster`, `volcano`, the name of a scheduler with the coscheduling plugin,
    /// or nothing.
    pub gang_scheduler_name: String,
    /// Image of the container that holds a worker back until its master can be found.
    pub init_container_image: String,
    /// How long that container looks before it fails.
    pub init_container_timeout: Duration,
    /// How many jobs of a kind are reconciled at the same time.
    pub threads: u16,
    /// How long restarts in quick succession wait.
    pub restart_backoff: RestartBackoff,
    /// How long after its grace period a pod of a retired generation may linger before it is deleted by force.
    pub force_delete_after: Duration,
    /// Where ranks of elastic jobs meet, if anywhere.
    pub rendezvous: Option<Rendezvous>,
    /// The domain of the cluster, such as `cluster.local`, where addresses of services are to be written in full.
    pub cluster_domain: Option<String>,
    /// What is said to MPI jobs alone.
    pub mpi: mpi::Options,
}

impl Default for Options {
    fn default() -> Self {
        let rules = muster_trainer_core::Options::default();
        Self {
            namespace: None,
            gang_scheduler_name: String::new(),
            init_container_image: rules.init_container.image,
            init_container_timeout: rules.init_container.timeout,
            threads: 8,
            restart_backoff: rules.restart_backoff,
            force_delete_after: rules.force_delete_after,
            rendezvous: None,
            cluster_domain: None,
            mpi: rules.mpi,
        }
    }
}

impl Options {
    /// The service with these options, not yet running.
    pub fn build(self, client: Client) -> Service {
        Service { options: self, client }
    }

    pub(crate) fn rules(&self) -> muster_trainer_core::Options {
        muster_trainer_core::Options {
            gang_scheduler: GangScheduler::from(self.gang_scheduler_name.as_str()),
            init_container: InitContainer {
                image: self.init_container_image.clone(),
                timeout: self.init_container_timeout,
            },
            restart_backoff: self.restart_backoff,
            force_delete_after: self.force_delete_after,
            rendezvous: self.rendezvous.clone(),
            cluster_domain: self.cluster_domain.clone(),
            mpi: self.mpi.clone(),
        }
    }
}

/// The training controllers.
pub struct Service {
    options: Options,
    client: Client,
}

impl Service {
    /// Reconciles until the shutdown is requested. Requests under way are dropped; the next run goes on from
    /// what it then sees.
    pub async fn run(self, shutdown: CancellationToken) {
        let kinds = KINDS.iter().map(|training| run_kind(*training, &self.options, &self.client));
        let mpi = crate::mpi::run(&self.options, &self.client);
        let running = std::pin::pin!(join(join_all(kinds), mpi));
        shutdown.run_until_cancelled(running).await;
    }
}

pub(crate) type Trigger = Result<ObjectRef<KeptJob>, watcher::Error>;

async fn run_kind(training: TrainingKind, options: &Options, client: &Client) {
    let resource = kinds::resource(training.kind);
    let jobs_api: Api<KeptJob> = match &options.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let owned = watcher::Config::default().labels(&format!(
        "{}={}",
        label::OPERATOR_NAME,
        training.kind.operator_name
    ));
    let job_writer = reflector::store::Writer::new(resource.clone());
    let jobs = job_writer.as_reader();
    let (pods, pod_triggers) = children::<Pod>(options, client, owned.clone(), training);
    let (services, service_triggers) = children::<KubeService>(options, client, owned, training);
    let of_resource = resource.clone();
    let job_triggers = watcher(jobs_api, watcher::Config::default())
        .modify(without_managers)
        .backoff(muster_machinery::watch::backoff())
        .reflect(job_writer)
        .touched_objects()
        .map(move |job| job.map(|job| ObjectRef::from_obj_with(&job, of_resource.clone())));
    let own_triggers = [job_triggers.boxed(), pod_triggers, service_triggers];
    let triggers: SelectAll<BoxStream<'static, Trigger>> =
        futures::stream::select_all(own_triggers.into_iter().chain(pod_groups(options, client, training)));
    let reporter = Reporter { controller: training.kind.operator_name.to_owned(), instance: None };
    let context = Arc::new(Context {
        client: client.clone(),
        training,
        resource,
        options: options.rules(),
        jobs: jobs.clone(),
        pods,
        services,
        recorder: Recorder::new(client.clone(), reporter),
        expectations: Expectations::default(),
    });
    let config = Config::default().concurrency(options.threads);
    let outcomes = applier(
        |job, context| Box::pin(reconcile(job, context)),
        |job, error: &Error, context: Arc<Context>| wait_to_retry(&job, error, &context.expectations),
        context.clone(),
        jobs,
        triggers,
        config,
    );
    outcomes
        .for_each(|outcome| {
            report(training.kind, &context.jobs, &context.expectations, outcome);
            futures::future::ready(())
        })
        .await;
}

/// A cache of the children of a kind's jobs, and what their changes trigger.
fn children<K: Child>(
    options: &Options,
    client: &Client,
    config: watcher::Config,
    training: TrainingKind,
) -> (Children<K>, BoxStream<'static, Trigger>) {
    let api: Api<K> = match &options.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (children, triggers) = Children::watch(api, config, move |child| owner(child, training));
    (children, triggers.boxed())
}

/// What changes of the gang scheduler's groups trigger, where it has any.
fn pod_groups(
    options: &Options,
    client: &Client,
    training: TrainingKind,
) -> Option<BoxStream<'static, Trigger>> {
    let resource = pod_group_resource(&options.rules())?;
    let api: Api<PartialObjectMeta<DynamicObject>> = match &options.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let groups = watcher(api, watcher::Config::default())
        .backoff(muster_machinery::watch::backoff())
        .touched_objects();
    Some(owners(groups, training).boxed())
}

fn owners<K: Resource>(
    children: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    training: TrainingKind,
) -> impl Stream<Item = Trigger> + Send + 'static {
    children.filter_map(move |child| {
        let trigger = match child {
            Err(error) => Some(Err(error)),
            Ok(child) => owner(&child, training).map(Ok),
        };
        futures::future::ready(trigger)
    })
}

fn owner<K: Resource>(child: &K, training: TrainingKind) -> Option<ObjectRef<KeptJob>> {
    let owners = child.owner_references();
    let owner =
        owners.iter().find(|owner| owner.controller == Some(true) && owner.kind == training.kind.name)?;
    let job = ObjectRef::new_with(&owner.name, kinds::resource(training.kind));
    Some(match child.namespace() {
        Some(namespace) => job.within(&namespace),
        None => job,
    })
}

type Outcome = Result<(ObjectRef<KeptJob>, controller::Action), controller::Error<Error, watcher::Error>>;

/// Logs what has become of a reconciliation, and forgets jobs that are gone.
pub(crate) fn report(kind: &Kind, jobs: &Store<KeptJob>, expectations: &Expectations, outcome: Outcome) {
    match outcome {
        Ok(_) => {}
        Err(controller::Error::ObjectNotFound(job)) => {
            // The job is gone; so is what was remembered of it.
            let left: std::collections::BTreeSet<_> =
                jobs.state().iter().filter_map(|job| job.uid()).collect();
            expectations.retain(|uid| left.contains(uid));
            tracing::debug!(%job, "job is gone");
        }
        Err(controller::Error::ReconcilerFailed(error, job)) if is_race(&error, kind, &job.name) => {
            tracing::debug!(%job, %error, "the job changed or went meanwhile");
        }
        Err(controller::Error::ReconcilerFailed(error, job)) => {
            tracing::info!(%job, error = %error, "reconciliation failed, it will be tried again");
        }
        Err(controller::Error::QueueError(error)) => {
            tracing::warn!(
                kind = kind.name, %error,
                "watch failed, it will be tried again; is the custom resource definition installed (`muster crds`)?"
            );
        }
        Err(error @ controller::Error::RunnerError(_)) => {
            tracing::warn!(kind = kind.name, %error, "reconciler queue failed");
        }
    }
}
