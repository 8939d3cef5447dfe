//! Services for pods: what the API says of them, connections to their addresses, and their names.

mod name_server;
mod proxy;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::context::Context;
use crate::services::directory::{Directory, Key, Service, Slice};

pub(super) use name_server::ADDRESS as NAME_SERVER;

/// A container starts without variables of services when the API does not list them for so long.
const LIST_PATIENCE: Duration = Duration::from_secs(5);

/// The directory of services, kept current.
pub(crate) struct Services {
    directory: RwLock<Directory>,
    changed: watch::Sender<()>,
    /// How many of the two lists are there.
    listed: watch::Sender<u32>,
}

impl Services {
    pub(super) fn new(directory: Directory) -> Self {
        Self { directory: RwLock::new(directory), changed: watch::channel(()).0, listed: watch::channel(0).0 }
    }

    /// What is known now.
    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read()
    }

    /// Waits until the services that exist are known, but not for ever.
    pub(crate) async fn listed(&self) {
        let mut listed = self.listed.subscribe();
        let all = listed.wait_for(|count| *count >= 2);
        let _ = tokio::time::timeout(LIST_PATIENCE, all).await;
    }
}

/// Follows the services of the cluster and serves them to pods until dropped.
pub(super) async fn serve(context: Arc<Context>) {
    let services = follow::<ServiceObject, Service>(
        &context,
        Service::read,
        Directory::set_service,
        Directory::replace_services,
    );
    let slices = follow::<EndpointSlice, (String, Slice)>(
        &context,
        Slice::read,
        Directory::set_slice,
        Directory::replace_slices,
    );
    tokio::join!(services, slices, proxy::serve(&context), name_server::serve(&context));
}

/// Keeps one kind of object in the directory.
fn follow<'a, K, V>(
    context: &'a Context,
    read: fn(&K) -> Option<V>,
    set: fn(&mut Directory, Key, Option<V>),
    replace: fn(&mut Directory, BTreeMap<Key, V>),
) -> impl Future<Output = ()> + 'a
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
    V: 'a,
{
    let mut events = watcher(Api::<K>::all(context.client.clone()), watcher::Config::default())
        .backoff(muster_machinery::watch::backoff())
        .boxed();
    async move {
        let mut list: BTreeMap<Key, V> = BTreeMap::new();
        let mut is_first = true;
        while let Some(event) = events.next().await {
            let mut event = Some(event);
            let mut changed = false;
            // What came together is published together.
            while let Some(next) = event {
                match next {
                    Ok(watcher::Event::Init) => list.clear(),
                    Ok(watcher::Event::InitApply(object)) => {
                        list.extend(read(&object).map(|value| (key(&object), value)));
                    }
                    Ok(watcher::Event::InitDone) => {
                        replace(&mut context.services.directory.write(), std::mem::take(&mut list));
                        changed = true;
                    }
                    Ok(watcher::Event::Apply(object)) => {
                        set(&mut context.services.directory.write(), key(&object), read(&object));
                        changed = true;
                    }
                    Ok(watcher::Event::Delete(object)) => {
                        set(&mut context.services.directory.write(), key(&object), None);
                        changed = true;
                    }
                    Err(error) => tracing::debug!(%error, "a watch on services was interrupted"),
                }
                event = events.next().now_or_never().flatten();
            }
            if changed {
                context.names.refresh(&context.services.directory());
                context.services.changed.send_replace(());
                if std::mem::take(&mut is_first) {
                    context.services.listed.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

fn key<K: kube::Resource<DynamicType = ()>>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
