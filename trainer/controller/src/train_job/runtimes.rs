//! Runtimes that jobs use cannot go: they carry a finalizer while a job names them.

use std::fmt::Debug;

use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use muster_trainer_api::train_job::names::RESOURCE_IN_USE;
use muster_trainer_api::train_job::{ClusterTrainingRuntime, TrainJob, TrainingRuntime, TrainingRuntimeSpec};
use muster_trainer_core::train_job::{RuntimeKey, RuntimeScope, runtime_of};
use serde::de::DeserializeOwned;
use serde_json::json;

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

/// Looks at each runtime that something happened to, or to a job that names it.
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
    while let Some(key) = seen.next().await {
        let is_used = jobs.find(|job| runtime_of(job).as_ref() == Some(&key)).is_some();
        let result = match &key.scope {
            RuntimeScope::Cluster => match runtimes.cluster.get(&ObjectRef::new(&key.name)) {
                Some(runtime) => mark(&Api::all(client.clone()), &*runtime, is_used).await,
                None => Ok(()),
            },
            RuntimeScope::Namespace(namespace) => {
                match runtimes.namespaced.get(&ObjectRef::new(&key.name).within(namespace)) {
                    Some(runtime) => {
                        mark(&Api::namespaced(client.clone(), namespace), &*runtime, is_used).await
                    }
                    None => Ok(()),
                }
            }
        };
        if let Err(error) = result {
            // The next change of the runtime, or of a job that names it, brings the next look.
            tracing::info!(runtime = %key, %error, "the runtime's finalizer could not be written");
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
