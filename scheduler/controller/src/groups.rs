//! Watches objects of other systems that describe gangs, once pods name them: most clusters have few of the kinds.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::time::timeout;

use crate::objects::{ForeignGroup, GroupKey, GroupKind};
use crate::places;
use crate::planner::{Availability, GroupEvent};

/// A kind that is not installed is looked for again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// All objects of a kind as they are now; when they cannot be read, why.
pub(crate) async fn list(client: &Client, kind: GroupKind) -> Vec<GroupEvent> {
    let resource = match places::find(client, kind.api()).await {
        Ok(Some(resource)) => resource,
        Ok(None) => return vec![GroupEvent::Kind(kind, Availability::Absent)],
        Err(error) => return vec![refused(kind, &error)],
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match api.list(&ListParams::default()).await {
        Ok(objects) => {
            let mut reader = Reader::new(client, kind);
            let mut events = vec![GroupEvent::Kind(kind, Availability::Read)];
            for object in &objects {
                events.push(GroupEvent::Seen(Box::new(reader.read(object).await)));
            }
            events
        }
        Err(error) => vec![refused(kind, &error)],
    }
}

fn refused(kind: GroupKind, error: &kube::Error) -> GroupEvent {
    GroupEvent::Kind(kind, Availability::Refused(muster_machinery::hint::chain(error)))
}

/// Tells all objects of a kind, for as long as somebody listens: `tell` answers whether anybody does.
pub(crate) async fn watch(client: Client, kind: GroupKind, tell: impl Fn(GroupEvent) -> bool) {
    loop {
        let news = match places::find(&client, kind.api()).await {
            Ok(Some(resource)) => {
                let watch = Watch { reader: Reader::new(&client, kind), tell: &tell };
                if !watch.follow(&resource).await {
                    return;
                }
                GroupEvent::Kind(kind, Availability::Absent)
            }
            Ok(None) => GroupEvent::Kind(kind, Availability::Absent),
            Err(error) => refused(kind, &error),
        };
        if !tell(news) {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

struct Watch<'a, T> {
    reader: Reader<'a>,
    tell: &'a T,
}

impl<T: Fn(GroupEvent) -> bool> Watch<'_, T> {
    /// Follows a kind until it is taken out of the cluster; false when nobody listens any more.
    async fn follow(mut self, resource: &ApiResource) -> bool {
        let Reader { client, kind, .. } = self.reader;
        let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
        let events = watcher(api, watcher::Config::default()).backoff(muster_machinery::watch::backoff());
        let mut events = pin!(events);
        let mut known: BTreeSet<GroupKey> = BTreeSet::new();
        let mut listed: BTreeSet<GroupKey> = BTreeSet::new();
        loop {
            let next = if self.reader.unresolved.is_empty() {
                events.try_next().await
            } else if let Ok(next) = timeout(LOOK_AGAIN, events.try_next()).await {
                next
            } else {
                let unresolved = std::mem::take(&mut self.reader.unresolved);
                let mut heard = true;
                for object in unresolved.values() {
                    heard &= (self.tell)(GroupEvent::Seen(Box::new(self.reader.read(object).await)));
                }
                if heard {
                    continue;
                }
                return false;
            };
            let heard = match next {
                Ok(Some(Event::Init)) => {
                    listed.clear();
                    true
                }
                Ok(Some(Event::InitApply(object) | Event::Apply(object))) => {
                    let group = self.reader.read(&object).await;
                    known.insert(group.key.clone());
                    listed.insert(group.key.clone());
                    (self.tell)(GroupEvent::Seen(Box::new(group)))
                }
                Ok(Some(Event::InitDone)) => {
                    let gone: Vec<GroupKey> = known.difference(&listed).cloned().collect();
                    self.gone(&mut known, gone) && (self.tell)(GroupEvent::Kind(kind, Availability::Read))
                }
                Ok(Some(Event::Delete(object))) => {
                    let key = ForeignGroup::read(kind, &object).key;
                    self.gone(&mut known, vec![key])
                }
                Ok(None) => return true,
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                    let all = known.iter().cloned().collect();
                    return self.gone(&mut known, all);
                }
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 403 => {
                    (self.tell)(GroupEvent::Kind(kind, Availability::Refused(status.message)))
                }
                Err(error) => {
                    tracing::debug!(%error, kind = %kind, "the watch broke; resuming");
                    true
                }
            };
            if !heard {
                return false;
            }
        }
    }

    fn gone(&mut self, known: &mut BTreeSet<GroupKey>, keys: Vec<GroupKey>) -> bool {
        keys.into_iter().all(|key| {
            known.remove(&key);
            self.reader.unresolved.remove(&key);
            (self.tell)(GroupEvent::Gone(key))
        })
    }
}

/// Reads objects, and what they refer to.
struct Reader<'a> {
    client: &'a Client,
    kind: GroupKind,
    /// Values of priority classes, which never change.
    classes: BTreeMap<String, i32>,
    /// Objects whose priority class could not be read, and may be later.
    unresolved: BTreeMap<GroupKey, DynamicObject>,
}

impl<'a> Reader<'a> {
    fn new(client: &'a Client, kind: GroupKind) -> Self {
        Self { client, kind, classes: BTreeMap::new(), unresolved: BTreeMap::new() }
    }

    async fn read(&mut self, object: &DynamicObject) -> ForeignGroup {
        let mut group = ForeignGroup::read(self.kind, object);
        self.unresolved.remove(&group.key);
        if let (None, Some(class)) = (group.priority, group.priority_class.clone()) {
            match self.value(&class).await {
                Ok(value) => group.priority = Some(value),
                Err(error) => {
                    let why = muster_machinery::hint::chain(&error);
                    self.unresolved.insert(group.key.clone(), object.clone());
                    group.min_available = Err(format!("its PriorityClass {class} cannot be read: {why}"));
                }
            }
        }
        group
    }

    async fn value(&mut self, class: &str) -> Result<i32, kube::Error> {
        if let Some(value) = self.classes.get(class) {
            return Ok(*value);
        }
        let api: Api<PriorityClass> = Api::all(self.client.clone());
        let value = api.get(class).await?.value.unwrap_or(0);
        self.classes.insert(class.to_owned(), value);
        Ok(value)
    }
}
