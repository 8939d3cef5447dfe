//! The children of a kind's jobs as a watch shows them, found by their job.
//!
//! kube's reflector finds objects by name only: with a thousand jobs, each look at one of them would go through the
//! children of all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_kind};
use kube::{Api, Resource, ResourceExt};
use muster_machinery::watch::as_kept;
use muster_trainer_api::label;
use serde::de::DeserializeOwned;

/// Namespace and name, of a job or of a child.
type Key = (String, String);

/// What the API server was last heard to have.
struct Known<K> {
    by_job: HashMap<Key, BTreeMap<String, Arc<K>>>,
    /// The job of each child, since labels may change.
    jobs: HashMap<Key, String>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { by_job: HashMap::new(), jobs: HashMap::new() }
    }
}

fn key_of(object: &impl Resource) -> Key {
    (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

impl<K: Resource> Known<K> {
    fn put(&mut self, child: K) {
        let key = key_of(&child);
        let job = child.labels().get(label::JOB_NAME).cloned();
        if self.jobs.get(&key) != job.as_ref() {
            self.remove(&key);
        }
        let Some(job) = job else { return };
        let (namespace, name) = key.clone();
        self.by_job.entry((namespace, job.clone())).or_default().insert(name, Arc::new(child));
        self.jobs.insert(key, job);
    }

    fn remove(&mut self, key: &Key) {
        let Some(job) = self.jobs.remove(key) else { return };
        let job = (key.0.clone(), job);
        if let Some(children) = self.by_job.get_mut(&job) {
            children.remove(&key.1);
            if children.is_empty() {
                self.by_job.remove(&job);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &K> {
        self.by_job.values().flat_map(BTreeMap::values).map(|child| &**child)
    }
}

/// An object of a job that a cache may hold.
pub(crate) trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Drops what nobody asks a cached object for: it is never written back, and a controller may hold many thousands.
    fn trim(&mut self) {}
}

/// How a pod is, not what it runs: that is told by the template of its job.
impl Child for Pod {
    fn trim(&mut self) {
        self.spec = None;
    }
}

/// That it is there.
impl Child for Service {
    fn trim(&mut self) {
        self.spec = None;
        self.status = None;
    }
}

impl Child for ConfigMap {}
impl Child for Job {}

/// A cache that a watch fills; clones share it.
pub(crate) struct Children<K> {
    known: Arc<RwLock<Known<K>>>,
    ready: tokio::sync::watch::Receiver<bool>,
}

impl<K: Child> Children<K> {
    /// A cache, and what its changes trigger: the stream fills it and must be read. `job` says whose an object is.
    pub(crate) fn watch<J>(
        api: Api<K>,
        config: watcher::Config,
        job: impl Fn(&K) -> Option<ObjectRef<J>> + Send + 'static,
    ) -> (Self, impl Stream<Item = Result<ObjectRef<J>, watcher::Error>> + Send + 'static)
    where
        J: Resource + 'static,
        J::DynamicType: Clone + Eq + Hash + Send,
    {
        let keep = |child: &mut K| {
            child.trim();
            as_kept(child);
        };
        let events = watch_kind(api, config).modify(keep).backoff(muster_machinery::watch::backoff());
        Self::follow(events, job)
    }

    fn follow<J>(
        events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
        job: impl Fn(&K) -> Option<ObjectRef<J>> + Send + 'static,
    ) -> (Self, impl Stream<Item = Result<ObjectRef<J>, watcher::Error>> + Send + 'static)
    where
        J: Resource + 'static,
        J::DynamicType: Clone + Eq + Hash + Send,
    {
        let (is_ready, ready) = tokio::sync::watch::channel(false);
        let known = Arc::new(RwLock::new(Known::default()));
        let children = Self { known: Arc::clone(&known), ready };
        let mut listed = Known::default();
        let triggers = events.flat_map(move |event| {
            let write = || known.write().unwrap_or_else(PoisonError::into_inner);
            let triggers: Vec<_> = match event {
                Err(error) => vec![Err(error)],
                Ok(Event::Init) => {
                    listed = Known::default();
                    Vec::new()
                }
                Ok(Event::InitApply(child)) => {
                    listed.put(child);
                    Vec::new()
                }
                Ok(Event::InitDone) => {
                    // All of them, and those that went meanwhile: nobody can tell what a watch has missed.
                    let mut known = write();
                    let old = std::mem::replace(&mut *known, std::mem::take(&mut listed));
                    is_ready.send_replace(true);
                    let jobs: Vec<_> = old.all().chain(known.all()).filter_map(&job).collect();
                    let mut seen = HashSet::new();
                    jobs.into_iter().filter(|job| seen.insert(job.clone())).map(Ok).collect()
                }
                Ok(Event::Apply(child)) => {
                    let trigger = job(&child);
                    write().put(child);
                    trigger.map(Ok).into_iter().collect()
                }
                Ok(Event::Delete(child)) => {
                    write().remove(&key_of(&child));
                    job(&child).map(Ok).into_iter().collect()
                }
            };
            futures::stream::iter(triggers)
        });
        (children, triggers)
    }

    /// Waits until the first list is there; false when the watch has ended without one.
    pub(crate) async fn is_ready(&self) -> bool {
        self.ready.clone().wait_for(|ready| *ready).await.is_ok()
    }

    /// Those with the job's label, by name.
    pub(crate) fn of_job(&self, namespace: &str, job: &str) -> Vec<K> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let children = known.by_job.get(&(namespace.to_owned(), job.to_owned()));
        children.into_iter().flat_map(BTreeMap::values).map(|child| (**child).clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, job: Option<&str>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("default".to_owned());
        pod.metadata.labels = job.map(|job| [(label::JOB_NAME.to_owned(), job.to_owned())].into());
        pod
    }

    /// Pods by the jobs `a` and `b`, and the names of the jobs that were triggered.
    fn after(events: Vec<Event<Pod>>) -> ([Vec<String>; 2], Vec<String>) {
        let job = |pod: &Pod| pod.labels().get(label::JOB_NAME).map(|job| ObjectRef::<Pod>::new(job));
        let (children, triggers) = Children::follow(futures::stream::iter(events.into_iter().map(Ok)), job);
        let triggers = triggers.map(|trigger| trigger.unwrap().name).collect().now_or_never().unwrap();
        let of = |job| children.of_job("default", job).iter().map(ResourceExt::name_any).collect();
        assert_eq!(children.of_job("other", "a"), []);
        (["a", "b"].map(of), triggers)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn children_are_found_by_their_job() {
        let mut events = vec![Event::Init, Event::InitApply(pod("a-0", Some("a"))), Event::InitDone];
        events.push(Event::Apply(pod("a-1", Some("a"))));
        events.push(Event::Apply(pod("b-0", Some("b"))));
        events.push(Event::Apply(pod("alone", None)));
        events.push(Event::Delete(pod("a-0", Some("a"))));
        assert_eq!(after(events), ([names(&["a-1"]), names(&["b-0"])], names(&["a", "a", "b", "a"])));
    }

    #[test]
    fn a_child_that_changes_its_label_changes_its_job() {
        let mut events = vec![Event::Init, Event::InitApply(pod("x", Some("a"))), Event::InitDone];
        events.push(Event::Apply(pod("x", Some("b"))));
        assert_eq!(after(events.clone()).0, [names(&[]), names(&["x"])]);
        events.push(Event::Apply(pod("x", None)));
        assert_eq!(after(events).0, [names(&[]), names(&[])]);
    }

    #[test]
    fn a_list_replaces_what_was_known_and_triggers_both() {
        let mut events = vec![Event::Init, Event::InitApply(pod("a-0", Some("a"))), Event::InitDone];
        events.extend([Event::Init, Event::InitApply(pod("b-0", Some("b")))]);
        // A list that is not complete changes nothing.
        assert_eq!(after(events.clone()), ([names(&["a-0"]), names(&[])], names(&["a"])));
        events.push(Event::InitDone);
        assert_eq!(after(events), ([names(&[]), names(&["b-0"])], names(&["a", "a", "b"])));
    }

    #[test]
    fn it_is_ready_with_the_first_list_only() {
        let ready = |events: Vec<Event<Pod>>| {
            let events = futures::stream::iter(events.into_iter().map(Ok)).chain(futures::stream::pending());
            let (children, triggers) = Children::follow(events, |_| None::<ObjectRef<Pod>>);
            let mut triggers = Box::pin(triggers);
            assert!(triggers.next().now_or_never().is_none());
            children.is_ready().now_or_never()
        };
        assert_eq!(ready(vec![Event::Init]), None);
        assert_eq!(ready(vec![Event::Init, Event::InitDone]), Some(true));
    }
}
