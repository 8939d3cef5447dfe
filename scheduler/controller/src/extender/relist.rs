//! A watch that may be lost and listed anew, as plain changes.

use std::collections::{HashMap, HashSet};

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// Namespace and name.
type Key = (String, String);

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change<K> {
    /// It appeared or changed.
    Seen(K),
    /// It is gone.
    Gone {
        /// Its namespace, empty for none.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}

/// Which objects are there.
#[derive(Debug, Default)]
pub(super) struct Relist {
    /// Whether they have all been listed once.
    pub(super) complete: bool,
    uids: HashMap<Key, String>,
    listed: HashSet<Key>,
}

impl Relist {
    /// What an event of the watch changes.
    pub(super) fn hear<K: ResourceExt>(&mut self, event: Event<K>) -> Vec<Change<K>> {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listed.insert(key(&object));
                self.uids.insert(key(&object), object.uid().unwrap_or_default());
                vec![Change::Seen(object)]
            }
            Event::InitDone => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                let vanished = self.uids.extract_if(|key, _| !listed.contains(key));
                vanished.map(|((namespace, name), uid)| Change::Gone { namespace, name, uid }).collect()
            }
            Event::Apply(object) => {
                self.uids.insert(key(&object), object.uid().unwrap_or_default());
                vec![Change::Seen(object)]
            }
            Event::Delete(object) => {
                let (namespace, name) = key(&object);
                let uid = object.uid().unwrap_or_default();
                self.uids.remove(&(namespace.clone(), name.clone()));
                vec![Change::Gone { namespace, name, uid }]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::ObjectMeta;

    use super::*;

    fn pod(name: &str, uid: &str) -> Pod {
        let metadata = ObjectMeta {
            namespace: Some("d".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        };
        Pod { metadata, ..Pod::default() }
    }

    #[test]
    fn what_vanished_while_nobody_watched_is_told_with_its_uid() {
        let mut relist = Relist::default();
        relist.hear::<Pod>(Event::Init);
        for name in ["a", "b"] {
            assert_eq!(relist.hear(Event::InitApply(pod(name, name))), [Change::Seen(pod(name, name))]);
        }
        assert!(!relist.complete);
        assert_eq!(relist.hear::<Pod>(Event::InitDone), []);
        assert!(relist.complete);
        relist.hear(Event::Apply(pod("c", "c")));
        // The watch is lost; meanwhile one is deleted and one replaced.
        relist.hear::<Pod>(Event::Init);
        relist.hear(Event::InitApply(pod("b", "second b")));
        relist.hear(Event::InitApply(pod("c", "c")));
        let (namespace, name, uid) = ("d".to_owned(), "a".to_owned(), "a".to_owned());
        assert_eq!(relist.hear::<Pod>(Event::InitDone), [Change::Gone { namespace, name, uid }]);
    }
}
