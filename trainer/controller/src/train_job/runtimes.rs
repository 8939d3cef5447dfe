//! Runtimes that jobs use cannot go: they carry a finalizer while a job names them.

use std::collections::HashMap;
use std::fmt::Debug;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use muster_trainer_api::train_job::names::RESOURCE_IN_USE;
use muster_trainer_api::train_job::{ClusterTrainingRuntime, TrainJob, TrainingRuntime, TrainingRuntimeSpec};
use muster_trainer_core::train_job::{RuntimeKey, RuntimeScope, runtime_of};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::owned;
use crate::reconcile::{is_not_found, is_refused};

/// The runtimes of both kinds.
#[derive(Clone)]
pub(super) struct RuntimeStores {
    pub(super) namespaced: Store<TrainingRuntime>,
    pub(super) cluster: Store<ClusterTrainingRuntime>,
}

impl RuntimeStores {
    /// What a runtime says, if it is there.
    pub(super) fn get(&self, key: &RuntimeKey) -> Option<TrainingRuntimeSpec> {
        match &key.scope {
            RuntimeScope::Cluster => {
                self.cluster.get(&ObjectRef::new(&key.name)).map(|runtime| runtime.spec.0.clone())
            }
            RuntimeScope::Namespace(namespace) => {
                let runtime = self.namespaced.get(&ObjectRef::new(&key.name).within(namespace));
                runtime.map(|runtime| runtime.spec.clone())
            }
        }
    }
}

/// Looks at each runtime that something happened to, or to a job that names it; again, later and later, at one whose
/// finalizer could not be written.
pub(super) async fn keep(
    client: Client,
    jobs: Store<TrainJob>,
    runtimes: RuntimeStores,
    mut seen: futures::channel::mpsc::UnboundedReceiver<RuntimeKey>,
) {
    let ready = async {
        jobs.wait_until_ready().await.is_ok()
            && runtimes.cluster.wait_until_ready().await.is_ok()
            && runtimes.namespaced.wait_until_ready().await.is_ok()
    };
    if !ready.await {
        return;
    }
    let mut failures: HashMap<RuntimeKey, u32> = HashMap::new();
    let mut again = FuturesUnordered::new();
    loop {
        let key = tokio::select! {
            Some(key) = again.next() => key,
            key = seen.next() => match key {
                Some(key) => key,
                None => return,
            },
        };
        let Err(error) = look_at(&client, &jobs, &runtimes, &key).await else {
            failures.remove(&key);
            continue;
        };
        tracing::info!(runtime = %key, %error, "the runtime's finalizer could not be written, it will be tried again");
        let count = failures.entry(key.clone()).or_default();
        let pause = owned::pause(*count);
        *count += 1;
        again.push(async move {
            tokio::time::sleep(pause).await;
            key
        });
    }
}

async fn look_at(
    client: &Client,
    jobs: &Store<TrainJob>,
    runtimes: &RuntimeStores,
    key: &RuntimeKey,
) -> Result<(), kube::Error> {
    let is_used = jobs.find(|job| runtime_of(job).as_ref() == Some(key)).is_some();
    match &key.scope {
        RuntimeScope::Cluster => match runtimes.cluster.get(&ObjectRef::new(&key.name)) {
            Some(runtime) => mark(&Api::all(client.clone()), &*runtime, is_used).await,
            None => Ok(()),
        },
        RuntimeScope::Namespace(namespace) => {
            match runtimes.namespaced.get(&ObjectRef::new(&key.name).within(namespace)) {
                Some(runtime) => mark(&Api::namespaced(client.clone(), namespace), &*runtime, is_used).await,
                None => Ok(()),
            }
        }
    }
}

/// A used runtime gets the finalizer; one that is to go and is not used loses it.
async fn mark<R>(api: &Api<R>, runtime: &R, is_used: bool) -> Result<(), kube::Error>
where
    R: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let is_marked = runtime.finalizers().iter().any(|finalizer| finalizer == RESOURCE_IN_USE);
    let is_going = runtime.meta().deletion_timestamp.is_some();
    let mut finalizers = runtime.finalizers().to_vec();
    if is_used && !is_marked && !is_going {
        finalizers.push(RESOURCE_IN_USE.to_owned());
    } else if !is_used && is_marked && is_going {
        finalizers.retain(|finalizer| finalizer != RESOURCE_IN_USE);
    } else {
        return Ok(());
    }
    let patch = json!({"metadata": {
        "uid": runtime.uid(), "resourceVersion": runtime.resource_version(), "finalizers": finalizers,
    }});
    match api.patch_metadata(&runtime.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        // Whoever was faster caused another look.
        Err(error) if !is_not_found(&error) && !is_refused(&error) => Err(error),
        _ => Ok(()),
    }
}
