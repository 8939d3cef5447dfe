//! Watches, as plain changes: what is there, and what is gone.

use std::collections::HashMap;
use std::pin::pin;

use futures::TryStreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use muster_machinery::watch::without_managers;
use tokio::sync::mpsc;

/// An object by namespace and name.
type Key = (Option<String>, String);

/// What has happened to an object.
pub(crate) enum Change<'a, K> {
    /// It is there, and looks so.
    Seen(&'a K),
    /// It is gone.
    Gone { namespace: &'a str, name: &'a str, uid: &'a str },
}

/// Turns a watcher's events into plain changes. A list after a lost watch also tells which objects vanished
/// meanwhile; for that only their names and uids are kept.
#[derive(Debug, Default)]
pub(crate) struct Relisting {
    /// Nothing is decided on half a picture.
    pub(crate) complete: bool,
    /// Uid, and the list that it was in last.
    known: HashMap<Key, (String, u64)>,
    lists: u64,
}

impl Relisting {
    pub(crate) fn hear<K: ResourceExt>(&mut self, event: Event<K>, mut tell: impl FnMut(Change<'_, K>)) {
        match event {
            Event::Init => self.lists += 1,
            Event::InitApply(object) | Event::Apply(object) => {
                let uid = object.uid().unwrap_or_default();
                self.known.insert((object.namespace(), object.name_any()), (uid, self.lists));
                tell(Change::Seen(&object));
            }
            Event::InitDone => {
                self.complete = true;
                let lists = self.lists;
                self.known.retain(|(namespace, name), (uid, last)| {
                    if *last < lists {
                        let namespace = namespace.as_deref().unwrap_or_default();
                        tell(Change::Gone { namespace, name, uid });
                    }
                    *last == lists
                });
            }
            Event::Delete(object) => {
                let (namespace, name) = (object.namespace(), object.name_any());
                let uid = object.uid().unwrap_or_default();
                let namespace_text = namespace.as_deref().unwrap_or_default();
                tell(Change::Gone { namespace: namespace_text, name: &name, uid: &uid });
                self.known.remove(&(namespace, name));
            }
        }
    }
}

/// Sends what a watcher sees; it reconnects by itself with back-off.
pub(crate) async fn watch<K, H>(api: Api<K>, wrap: fn(Event<K>) -> H, sender: mpsc::UnboundedSender<H>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
    H: Send,
{
    use kube::runtime::WatchStreamExt;
    let events = watcher(api, watcher::Config::default()).modify(without_managers);
    let mut events = pin!(events.backoff(muster_machinery::watch::backoff()));
    let mut warned = false;
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                warned = false;
                if sender.send(wrap(event)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            // The kind is not installed here: there are none of it.
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                let none = [Event::Init, Event::InitDone].map(wrap);
                if none.into_iter().any(|event| sender.send(event).is_err()) {
                    return;
                }
            }
            Err(
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
            ) if status.code == 403 && !warned => {
                warned = true;
                let (resource, group) = (K::plural(&()), K::group(&()));
                tracing::warn!(%resource, %group, error = status.message, "no right to list and watch this resource; nothing is planned before a role grants it");
            }
            Err(error) => tracing::debug!(%error, "the watch broke; resuming"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, uid: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.uid = Some(uid.to_owned());
        pod
    }

    #[test]
    fn what_a_list_lacks_is_gone_by_its_last_uid() {
        let mut relisting = Relisting::default();
        let mut gone = Vec::new();
        let mut hear = |relisting: &mut Relisting, event| {
            relisting.hear(event, |change| {
                if let Change::Gone { name, uid, .. } = change {
                    gone.push((name.to_owned(), uid.to_owned()));
                }
            });
        };
        for event in [Event::Init, Event::InitApply(pod("a", "1")), Event::InitApply(pod("b", "1"))] {
            hear(&mut relisting, event);
        }
        hear(&mut relisting, Event::InitDone);
        hear(&mut relisting, Event::Apply(pod("c", "1")));
        hear(&mut relisting, Event::Apply(pod("a", "2")));
        for event in [Event::Init, Event::InitApply(pod("c", "1")), Event::InitDone] {
            hear(&mut relisting, event);
        }
        assert!(relisting.complete);
        hear(&mut relisting, Event::Delete(pod("c", "1")));
        gone.sort();
        assert_eq!(gone, [("a", "2"), ("b", "1"), ("c", "1")].map(|(n, u)| (n.to_owned(), u.to_owned())));
    }
}
