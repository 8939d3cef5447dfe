//! `MPIJob`: its jobs, workers, launchers, services and config maps are watched; keys and rights are only made.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job as Launcher;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service as KubeService};
use kube::api::{ApiResource, DynamicObject};
use kube::core::{DynamicResourceScope, GroupVersionKind, PartialObjectMeta};
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, applier, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use muster_machinery::watch::without_managers;
use muster_trainer_api::label;
use muster_trainer_api::names::{GROUP, VERSION};
use muster_trainer_core::mpi::{self, KIND, OPERATOR_NAMES};
use muster_trainer_core::{Plan, reject};

use crate::children::{Child, Children};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::kept::KeptJob;
use crate::reconcile::{
    Error, Reconciliation, current_object, pod_group_of, pod_group_resource, status_of, wait_to_retry,
};
use crate::service::{Options, Trigger, report};

/// What all reconciliations share.
struct Context {
    client: Client,
    resource: ApiResource,
    options: muster_trainer_core::Options,
    jobs: Store<KeptJob>,
    pods: Children<Pod>,
    services: Children<KubeService>,
    config_maps: Children<ConfigMap>,
    launchers: Children<Launcher>,
    recorder: Recorder,
    expectations: Expectations,
}

/// Reconciles for ever.
pub(crate) async fn run(options: &Options, client: &Client) {
    let kind = GroupVersionKind::gvk(GROUP, VERSION, KIND.name);
    let resource = ApiResource::from_gvk_with_plural(&kind, KIND.plural);
    let watched = Watched { client, namespace: options.namespace.as_deref(), resource: &resource };
    let job_writer = reflector::store::Writer::new(resource.clone());
    let jobs = job_writer.as_reader();
    let (pods, of_pods) = watched.children::<Pod>();
    let (services, of_services) = watched.children::<KubeService>();
    let (config_maps, of_config_maps) = watched.children::<ConfigMap>();
    let (launchers, of_launchers) = watched.children::<Launcher>();
    let rules = options.rules();
    let own = watcher(watched.dynamic::<KeptJob>(&resource), watcher::Config::default())
        .modify(without_managers)
        .backoff(muster_machinery::watch::backoff())
        .reflect(job_writer)
        .touched_objects();
    let of_resource = resource.clone();
    let of_jobs =
        own.map(move |job| job.map(|job| ObjectRef::from_obj_with(&job, of_resource.clone()))).boxed();
    let all = [of_jobs, of_pods, of_services, of_config_maps, of_launchers];
    let triggers: SelectAll<BoxStream<'static, Trigger>> =
        futures::stream::select_all(all.into_iter().chain(watched.pod_groups(&rules)));
    let reporter = Reporter { controller: KIND.operator_name.to_owned(), instance: None };
    let context = Arc::new(Context {
        client: client.clone(),
        options: rules,
        jobs: jobs.clone(),
        pods,
        services,
        config_maps,
        launchers,
        recorder: Recorder::new(client.clone(), reporter),
        expectations: Expectations::default(),
        resource: resource.clone(),
    });
    let retry = |job: Arc<KeptJob>, error: &Error, context: Arc<Context>| {
        wait_to_retry(&job, error, &context.expectations)
    };
    let config = Config::default().concurrency(options.threads);
    let each = |job, context| Box::pin(reconcile(job, context));
    let outcomes = applier(each, retry, context.clone(), jobs, triggers, config);
    outcomes
        .for_each(|outcome| {
            report(&KIND, &context.jobs, &context.expectations, outcome);
            futures::future::ready(())
        })
        .await;
}

/// Where and of what to watch.
struct Watched<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    resource: &'a ApiResource,
}

impl Watched<'_> {
    fn dynamic<K>(&self, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// A cache of objects of MPI jobs, and what their changes trigger. The pods of launchers are their Jobs', so all
    /// of them are found by their label.
    fn children<K: Child>(&self) -> (Children<K>, BoxStream<'static, Trigger>) {
        let api: Api<K> = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let selector = format!("{} in ({})", label::OPERATOR_NAME, OPERATOR_NAMES.join(","));
        let jobs = self.resource.clone();
        let job_of = move |child: &K| {
            let job = child.labels().get(label::JOB_NAME)?;
            Some(job_named(job, child.namespace(), &jobs))
        };
        let config = watcher::Config::default().labels(&selector);
        let (children, triggers) = Children::watch(api, config, job_of);
        (children, triggers.boxed())
    }

    /// What changes of the gang scheduler's groups trigger, where it has any: they bear their job's name.
    fn pod_groups(&self, rules: &muster_trainer_core::Options) -> Option<BoxStream<'static, Trigger>> {
        let resource = pod_group_resource(rules)?;
        let groups =
            watcher(self.dynamic::<PartialObjectMeta<DynamicObject>>(&resource), watcher::Config::default())
                .backoff(muster_machinery::watch::backoff())
                .touched_objects();
        let jobs = self.resource.clone();
        let of_mpi_jobs = groups.filter_map(move |group| {
            let trigger = match group {
                Err(error) => Some(Err(error)),
                Ok(group) => {
                    let owned = group.owner_references().iter().any(|owner| owner.kind == KIND.name);
                    owned.then(|| Ok(job_named(&group.name_any(), group.namespace(), &jobs)))
                }
            };
            futures::future::ready(trigger)
        });
        Some(of_mpi_jobs.boxed())
    }
}

fn job_named(name: &str, namespace: Option<String>, resource: &ApiResource) -> ObjectRef<KeptJob> {
    let job = ObjectRef::new_with(name, resource.clone());
    match namespace {
        Some(namespace) => job.within(&namespace),
        None => job,
    }
}

/// Sees, plans and carries out.
async fn reconcile(cached: Arc<KeptJob>, context: Arc<Context>) -> Result<Action, Error> {
    if !context.is_ready().await {
        return Err(Error::CachesClosed);
    }
    let namespace = cached.namespace().unwrap_or_else(|| "default".to_owned());
    let jobs = Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &context.resource);
    let Some(object) = current_object(&cached, &jobs, &context.expectations).await? else {
        return Ok(Action::await_change());
    };
    let now = Timestamp::now();
    let seen = context.observe(&object, &namespace);
    let uid = object.uid().unwrap_or_default();
    if let Some(wait) = context.expectations.wait(&uid, |key| seen.shows(key), now) {
        return Ok(Action::requeue(wait));
    }
    let plan = context.plan(&object, &seen, now).await?;
    let reconciliation = Reconciliation {
        client: &context.client,
        kind: &KIND,
        resource: &context.resource,
        options: &context.options,
        recorder: &context.recorder,
        expectations: &context.expectations,
    };
    reconciliation.carry_out(jobs, object, plan).await
}

/// The objects of one job that the caches show.
struct Seen {
    pods: Vec<Pod>,
    services: Vec<KubeService>,
    config_maps: Vec<ConfigMap>,
    launchers: Vec<Launcher>,
}

impl Seen {
    /// Whether an object, named `Kind/name`, is among them; those that are not watched need not be.
    fn shows(&self, key: &str) -> bool {
        fn any<K: Resource>(objects: &[K], name: &str) -> bool {
            objects.iter().any(|object| object.name_any() == name)
        }
        match key.split_once('/') {
            Some(("Pod", name)) => any(&self.pods, name),
            Some(("Service", name)) => any(&self.services, name),
            Some(("ConfigMap", name)) => any(&self.config_maps, name),
            Some(("Job", name)) => any(&self.launchers, name),
            _ => true,
        }
    }
}

impl Context {
    async fn is_ready(&self) -> bool {
        self.pods.is_ready().await
            && self.services.is_ready().await
            && self.config_maps.is_ready().await
            && self.launchers.is_ready().await
    }

    fn observe(&self, job: &DynamicObject, namespace: &str) -> Seen {
        let name = job.name_any();
        Seen {
            pods: self.pods.of_job(namespace, &name),
            services: self.services.of_job(namespace, &name),
            config_maps: self.config_maps.of_job(namespace, &name),
            launchers: self.launchers.of_job(namespace, &name),
        }
    }

    async fn plan(&self, object: &DynamicObject, seen: &Seen, now: Timestamp) -> Result<Plan, Error> {
        let job = match mpi::read(serde_json::to_value(object)?) {
            Ok(job) => job,
            Err(errors) => return Ok(reject(&KIND, &status_of(object)?, &errors, now)),
        };
        let pod_group = pod_group_of(&self.client, &self.options, &job.job).await?;
        let observed = mpi::Observed {
            pods: &seen.pods,
            services: &seen.services,
            config_maps: &seen.config_maps,
            launchers: &seen.launchers,
            pod_group: pod_group.as_ref(),
        };
        Ok(mpi::plan(&job, &observed, now, &self.options))
    }
}
