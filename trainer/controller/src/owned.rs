//! What the controllers of JobSets and training jobs on runtimes share: errors, requests, watches of children.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions, PropagationPolicy};
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use muster_machinery::CancellationToken;
use muster_machinery::watch::without_managers;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::expectations::Expectations;
use crate::reconcile::{Error, is_not_found, is_refused};

/// How often it is looked whether a kind is served by now.
pub(crate) const NOT_SERVED_PAUSE: Duration = Duration::from_secs(10);

/// How soon an object is looked at again whose way is blocked by something that nobody watches.
const BLOCKED: Duration = Duration::from_secs(30);

pub(crate) type Trigger<O> = Result<ObjectRef<O>, watcher::Error>;

/// Of all namespaces or of one.
pub(crate) fn in_scope<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Whether the cluster serves a kind. Any other failure than that is the watch's to tell and to get over.
pub(crate) async fn is_served<K>(api: &Api<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let answer = api.list_metadata(&ListParams::default().limit(1)).await;
    !answer.is_err_and(|error| is_not_found(&error))
}

/// Waits until a kind is served, and says that it does; false when the shutdown comes first.
pub(crate) async fn until_served<K>(api: &Api<K>, hint: &str, shutdown: &CancellationToken) -> bool
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut has_said = false;
    let asking = async {
        while !is_served(api).await {
            if !has_said {
                tracing::info!(kind = %K::kind(&()), "the cluster does not serve the kind yet; {hint}");
                has_said = true;
            }
            tokio::time::sleep(NOT_SERVED_PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(asking).await.is_some()
}

/// A cache of objects, and their changes.
pub(crate) fn cache<K>(
    api: Api<K>,
    config: watcher::Config,
) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = watcher(api, config)
        .modify(without_managers)
        .backoff(muster_machinery::watch::backoff())
        .reflect(writer)
        .touched_objects();
    (store, changes)
}

/// Changes of objects trigger their controllers of kind `O`.
pub(crate) fn owners<K, O>(
    changes: impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
) -> BoxStream<'static, Trigger<O>>
where
    K: Resource + Send + 'static,
    O: Resource<DynamicType = ()> + 'static,
{
    let owner = |child: &K| {
        let owners = child.owner_references().iter();
        let mut owners = owners.filter(|owner| owner.controller == Some(true) && owner.kind == O::kind(&()));
        let object = ObjectRef::new(&owners.next()?.name);
        Some(child.namespace().map_or(object.clone(), |namespace| object.within(&namespace)))
    };
    let triggers = changes.filter_map(move |child| {
        let trigger = child.map(|child| owner(&child)).transpose();
        futures::future::ready(trigger)
    });
    triggers.boxed()
}

/// Changes of objects trigger themselves.
pub(crate) fn themselves<O>(
    changes: impl Stream<Item = Result<O, watcher::Error>> + Send + 'static,
) -> BoxStream<'static, Trigger<O>>
where
    O: Resource<DynamicType = ()> + Send + 'static,
{
    changes.map(|object| object.map(|object| ObjectRef::from_obj(&object))).boxed()
}

/// Whether the owner controls the object.
pub(crate) fn is_controlled_by(object: &impl Resource, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// Creates an object; whether it was not there. One of the name that belongs to another is an error.
pub(crate) async fn create<K>(api: &Api<K>, object: &K, owner: &str) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.name_any();
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            match api.get_metadata_opt(&name).await? {
                Some(other) if !is_controlled_by(&other, owner) => {
                    Err(Error::NameTaken { kind: K::kind(&()).into(), name })
                }
                _ => Ok(false),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Deletes an object, what it owns first; one that is gone or has been replaced by another is fine.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str, uid: &str) -> Result<(), Error>
where
    K: Clone + Debug + DeserializeOwned,
{
    let parameters = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(name, &parameters).await {
        Err(error) if !is_not_found(&error) && !is_refused(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A name that another has is no failure: it was told, and is tried again after this wait.
pub(crate) fn unless_taken(result: Result<(), Error>) -> Result<Option<Duration>, Error> {
    match result {
        Err(Error::NameTaken { .. }) => Ok(Some(BLOCKED)),
        other => other.map(|()| None),
    }
}

/// When a reconciliation that failed is tried again: at once if somebody else was faster, else ever later.
pub(crate) fn retry(object: &impl Resource, error: &Error, expectations: &Expectations) -> Action {
    if matches!(error, Error::Kube(error) if is_refused(error)) {
        return Action::requeue(Duration::from_millis(20));
    }
    let uid = object.meta().uid.clone().unwrap_or_default();
    Action::requeue(pause(expectations.failed(&uid).saturating_sub(1)))
}

/// How long to wait after so many failures in a row before the last one.
pub(crate) fn pause(failures: u32) -> Duration {
    let wait = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(failures));
    wait.min(Duration::from_mins(1))
}

/// Tells how a reconciliation ended; what was remembered of objects that are gone is forgotten.
pub(crate) fn report<O>(
    objects: &Store<O>,
    expectations: &Expectations,
    outcome: Result<(ObjectRef<O>, Action), controller::Error<Error, watcher::Error>>,
) where
    O: Resource<DynamicType = ()> + Clone + 'static,
{
    let kind = O::kind(&());
    match outcome {
        Ok(_) => {}
        Err(controller::Error::ObjectNotFound(object)) => {
            let left: std::collections::BTreeSet<_> =
                objects.state().iter().filter_map(|object: &Arc<O>| object.uid()).collect();
            expectations.retain(|uid| left.contains(uid));
            tracing::debug!(%object, "the object is gone");
        }
        Err(controller::Error::ReconcilerFailed(error, object)) if is_race(&error) => {
            tracing::debug!(%object, %error, "the object changed or went meanwhile");
        }
        Err(controller::Error::ReconcilerFailed(error, object)) => {
            tracing::info!(%object, %error, "reconciliation failed, it will be tried again");
        }
        // Whoever takes a definition away knows it.
        Err(controller::Error::QueueError(error)) if is_not_served(&error) => {
            tracing::debug!(%kind, %error, "the kind, or one that goes with it, is no longer served");
        }
        Err(controller::Error::QueueError(error)) => {
            tracing::warn!(
                %kind, %error,
                "watch failed, it will be tried again; is the custom resource definition installed (`muster crds`)?"
            );
        }
        Err(error @ controller::Error::RunnerError(_)) => {
            tracing::warn!(%kind, %error, "reconciler queue failed");
        }
    }
}

fn is_not_served(error: &watcher::Error) -> bool {
    use watcher::Error as Broken;
    match error {
        Broken::InitialListFailed(error) | Broken::WatchStartFailed(error) | Broken::WatchFailed(error) => {
            is_not_found(error)
        }
        Broken::WatchError(status) => status.code == 404,
        Broken::NoResourceVersion => false,
    }
}

/// Whether somebody else was faster, or the object or its namespace is going: nothing that a person must look at.
fn is_race(error: &Error) -> bool {
    let Error::Kube(error) = error else { return false };
    let is_forbidden = matches!(error, kube::Error::Api(status)
        if status.code == 403 && status.message.contains("because it is being terminated"));
    is_refused(error) || is_not_found(error) || is_forbidden
}
