//! One watched kind: a cache of its objects, and handlers that learn of every change.

mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Resource;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use muster_machinery::CancellationToken;
use muster_machinery::watch::as_kept;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub(crate) use key::Key;

use crate::error::{Error, Result};

/// Longest wait for the cache to show a write.
const LAG_LIMIT: Duration = Duration::from_secs(5);

/// What an informer can hold.
pub(crate) trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Drops what no controller asks a cached object for; none is written back as a whole.
    fn trim(&mut self) {}
}

/// A change of one object: created without `old`, deleted without `new`.
#[derive(Debug)]
pub(crate) struct Change<'a, K> {
    /// The state before.
    pub old: Option<&'a Arc<K>>,
    /// The state now.
    pub new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// The newest known state.
    pub(crate) fn latest(&self) -> Option<&'a Arc<K>> {
        self.new.or(self.old)
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// How far the cache is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    synced: bool,
    revision: u64,
}

/// A cache of all objects of a kind that follows the API server.
pub(crate) struct Informer<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    handlers: RwLock<Vec<Handler<K>>>,
    progress: watch::Sender<Progress>,
}

impl<K: Object> Informer<K> {
    pub(crate) fn new() -> Self {
        Self {
            objects: RwLock::default(),
            handlers: RwLock::default(),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// Calls `handler` after every change is in the cache. Handlers must be quick; they are called in order.
    pub(crate) fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.objects.read().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.objects.read().values().cloned().collect()
    }

    /// The objects of a namespace, by name.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = Key::new(namespace, "");
        let objects = self.objects.read();
        let rest = objects.range((Bound::Included(start), Bound::Unbounded));
        rest.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// The objects of `owner`'s namespace whose controlling owner it is.
    pub(crate) fn controlled_by(&self, owner: &impl Resource) -> Vec<Arc<K>> {
        let uid = owner.meta().uid.as_deref();
        let mut objects = self.in_namespace(owner.meta().namespace.as_deref().unwrap_or_default());
        objects.retain(|object| uid.is_some() && crate::owners::controller_uid(object.meta()) == uid);
        objects
    }

    /// Waits until the first list is in the cache.
    pub(crate) async fn synced(&self) {
        let mut progress = self.progress.subscribe();
        let _ = progress.wait_for(|progress| progress.synced).await;
    }

    /// Waits until the cache shows what was written with this answer. A controller that reads its cache next would
    /// otherwise do the same again.
    pub(crate) async fn shows(&self, written: &K) -> Result<()> {
        let revision = revision_of(written);
        self.wait(|progress| progress.revision >= revision).await
    }

    /// Waits until the object is deleted, marked for deletion or replaced by another in the cache.
    pub(crate) async fn shows_deletion(&self, key: &Key, uid: Option<&str>) -> Result<()> {
        self.wait(|_| {
            self.get(key).is_none_or(|object| {
                object.meta().uid.as_deref() != uid || object.meta().deletion_timestamp.is_some()
            })
        })
        .await
    }

    async fn wait(&self, mut reached: impl FnMut(&Progress) -> bool) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let shown = progress.wait_for(|progress| reached(progress));
        match tokio::time::timeout(LAG_LIMIT, shown).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::CacheLag { kind: K::kind(&()).into_owned(), seconds: LAG_LIMIT.as_secs() }),
        }
    }

    /// Follows the API server until the shutdown.
    pub(crate) async fn run(self: Arc<Self>, api: Api<K>, shutdown: CancellationToken) {
        let events =
            watcher::watcher(api, watcher::Config::default()).backoff(muster_machinery::watch::backoff());
        let mut events = std::pin::pin!(events.take_until(shutdown.cancelled_owned()));
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(Key::of(&object));
                    self.apply(object);
                }
                Ok(Event::InitDone) => {
                    self.keep_only(&listed);
                    listed.clear();
                    self.progress.send_modify(|progress| progress.synced = true);
                }
                Ok(Event::Apply(object)) => self.apply(object),
                Ok(Event::Delete(object)) => self.remove(&Key::of(&object), revision_of(&object)),
                Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch broke, starting again"),
            }
        }
    }

    fn apply(&self, mut object: K) {
        let revision = revision_of(&object);
        object.trim();
        as_kept(&mut object);
        let object = Arc::new(object);
        let old = self.objects.write().insert(Key::of(&*object), object.clone());
        let replaced = old.as_ref().filter(|old| old.meta().uid != object.meta().uid);
        if let Some(gone) = replaced {
            self.tell(&Change { old: Some(gone), new: None });
        }
        let old = old.as_ref().filter(|old| old.meta().uid == object.meta().uid);
        self.tell(&Change { old, new: Some(&object) });
        self.reached(revision);
    }

    fn remove(&self, key: &Key, revision: u64) {
        let old = self.objects.write().remove(key);
        if let Some(old) = &old {
            self.tell(&Change { old: Some(old), new: None });
        }
        self.reached(revision);
    }

    fn keep_only(&self, listed: &BTreeSet<Key>) {
        let gone: Vec<Key> =
            self.objects.read().keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.remove(&key, 0);
        }
    }

    fn tell(&self, change: &Change<'_, K>) {
        for handler in self.handlers.read().iter() {
            handler(change);
        }
    }

    fn reached(&self, revision: u64) {
        self.progress.send_modify(|progress| progress.revision = progress.revision.max(revision));
    }
}

/// The revision of an object; Kubernetes promises since 1.35 that it is a number that grows.
fn revision_of(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
