//! The store against a model that copies everything at every revision.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use muster_store::{
    Entry, Error, Event, EventKind, Handle, Mutation, ObjectKey, Options, Query, Start, Watch,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{FaultyLog, object};

const RESOURCES: [&str; 2] = ["core/pods", "apps/deployments"];
const NAMESPACES: [&str; 2] = ["a", "a-b"];
const NAMES: [&str; 3] = ["x", "y", "z"];

#[derive(Debug, Clone)]
struct Write {
    key: ObjectKey,
    kind: EventKind,
    /// Whether it names the right revision.
    stale: bool,
    number: u64,
}

#[derive(Debug, Clone)]
enum Operation {
    Transact(Vec<Write>),
    /// Compacts up to this share, in percent, of what has happened.
    Compact(u64),
    /// Closes the store and opens it anew; ends the watches.
    Restart,
    Watch {
        resource: usize,
        namespace: Option<usize>,
    },
    /// Takes up to this many events out of every watch.
    Drain(usize),
    /// The log fails once.
    Fail,
}

fn key() -> impl Strategy<Value = ObjectKey> {
    (0..RESOURCES.len(), 0..NAMESPACES.len(), 0..NAMES.len()).prop_map(|(resource, namespace, name)| {
        ObjectKey::new(RESOURCES[resource], NAMESPACES[namespace], NAMES[name])
    })
}

fn write() -> impl Strategy<Value = Write> {
    let kind = prop_oneof![Just(EventKind::Added), Just(EventKind::Modified), Just(EventKind::Deleted)];
    (key(), kind, prop::bool::weighted(0.05), 0..1_000_u64).prop_map(|(key, kind, stale, number)| Write {
        key,
        kind,
        stale,
        number,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        20 => write().prop_map(|write| Operation::Transact(vec![write])),
        5 => prop::collection::vec(write(), 0..4).prop_map(Operation::Transact),
        1 => (0..100_u64).prop_map(Operation::Compact),
        1 => Just(Operation::Restart),
        3 => (0..RESOURCES.len(), prop::option::of(0..NAMESPACES.len()))
            .prop_map(|(resource, namespace)| Operation::Watch { resource, namespace }),
        3 => (0..5_usize).prop_map(Operation::Drain),
        1 => Just(Operation::Fail),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    revision: u64,
    create_revision: u64,
    object: Value,
}

impl Stored {
    fn of(entry: &Arc<Entry>) -> Self {
        let object: Value = serde_json::from_slice(&entry.json()).unwrap();
        assert_eq!(object, *entry.object());
        Self { revision: entry.revision(), create_revision: entry.create_revision(), object }
    }
}

/// Revision, kind and object of one successful write.
type Effect = (u64, EventKind, ObjectKey, Stored);
type Objects = BTreeMap<ObjectKey, Stored>;

/// Every state there ever was, by revision, and what led to it.
struct Model {
    states: BTreeMap<u64, Objects>,
    events: BTreeMap<u64, (EventKind, ObjectKey, Stored)>,
    compacted: u64,
}

impl Model {
    fn new() -> Self {
        Self { states: BTreeMap::from([(1, Objects::new())]), events: BTreeMap::new(), compacted: 0 }
    }

    fn revision(&self) -> u64 {
        *self.states.last_key_value().unwrap().0
    }

    fn objects(&self) -> &Objects {
        self.states.last_key_value().unwrap().1
    }

    /// What a write asks for, given what the key's revision is when its turn comes.
    fn mutation(write: &Write, current: Option<&Stored>) -> Mutation {
        let expected_revision = current.map_or(1, |stored| stored.revision) + u64::from(write.stale) * 1_000;
        let (key, object) = (write.key.clone(), object(&write.key, write.number));
        match write.kind {
            EventKind::Added => Mutation::Create { key, object },
            EventKind::Modified => Mutation::Update { key, expected_revision, object },
            EventKind::Deleted => {
                let last = write.number.is_multiple_of(2).then_some(object);
                Mutation::Delete { key, expected_revision, last }
            }
        }
    }

    /// The mutations of a transaction and whether it must succeed; when it does, its effects.
    fn transact(&self, writes: &[Write]) -> (Vec<Mutation>, Option<Vec<Effect>>) {
        let mut objects = self.objects().clone();
        let mut mutations = Vec::new();
        let mut effects = Some(Vec::new());
        for (revision, write) in (self.revision() + 1..).zip(writes) {
            let current = objects.get(&write.key).cloned();
            mutations.push(Self::mutation(write, current.as_ref()));
            let allowed = match write.kind {
                EventKind::Added => current.is_none(),
                EventKind::Modified | EventKind::Deleted => current.is_some() && !write.stale,
            };
            if !allowed {
                effects = None;
                continue;
            }
            let mut object = object(&write.key, write.number);
            if write.kind == EventKind::Deleted && !write.number.is_multiple_of(2) {
                object = current.as_ref().unwrap().object.clone();
            }
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            let create_revision = current.map_or(revision, |stored| stored.create_revision);
            let stored = Stored { revision, create_revision, object };
            match write.kind {
                EventKind::Deleted => objects.remove(&write.key),
                _ => objects.insert(write.key.clone(), stored.clone()),
            };
            if let Some(effects) = &mut effects {
                effects.push((revision, write.kind, write.key.clone(), stored));
            }
        }
        (mutations, effects)
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for (revision, kind, key, stored) in effects {
            let mut objects = self.objects().clone();
            match kind {
                EventKind::Deleted => objects.remove(&key),
                _ => objects.insert(key.clone(), stored.clone()),
            };
            self.states.insert(revision, objects);
            self.events.insert(revision, (kind, key, stored));
        }
    }

    fn list(&self, revision: u64, resource: &str, namespace: Option<&str>) -> Vec<(ObjectKey, Stored)> {
        let matching = self.states[&revision].iter().filter(|(key, _)| matches(key, resource, namespace));
        matching.map(|(key, stored)| (key.clone(), stored.clone())).collect()
    }
}

fn matches(key: &ObjectKey, resource: &str, namespace: Option<&str>) -> bool {
    *key.resource == *resource && namespace.is_none_or(|namespace| *key.namespace == *namespace)
}

/// A watch and what it must yield next.
struct Watcher {
    watch: Watch,
    resource: &'static str,
    namespace: Option<&'static str>,
    position: u64,
}

impl Watcher {
    /// Takes up to `limit` events and compares; false once the watch has expired.
    fn drain(&mut self, model: &Model, limit: usize, options: &Options) -> bool {
        for _ in 0..limit {
            let missed = || {
                let of_resource =
                    |(_, (_, key, _)): &(&u64, &(_, ObjectKey, _))| *key.resource == *self.resource;
                model.events.range(self.position + 1..).filter(of_resource)
            };
            let taken = match self.watch.try_next() {
                Ok(taken) => taken,
                Err(Error::Expired { .. }) => {
                    let compacted = missed().any(|(revision, _)| *revision <= model.compacted);
                    assert!(missed().count() > options.history_events || compacted, "expired too early");
                    return false;
                }
                Err(error) => panic!("{error}"),
            };
            let caught_up = self.watch.caught_up();
            let mut expected = model
                .events
                .range(self.position + 1..)
                .filter(|(_, (_, key, _))| matches(key, self.resource, self.namespace));
            match (taken, expected.next()) {
                (Some(event), Some((revision, expected))) => {
                    assert_event(&event, *revision, expected);
                    self.position = event.revision;
                    let undelivered = model
                        .events
                        .range((
                            Bound::Excluded(self.position),
                            Bound::Included(caught_up.max(self.position)),
                        ))
                        .any(|(_, (_, key, _))| matches(key, self.resource, self.namespace));
                    assert!(caught_up >= self.position && !undelivered, "a bookmark would lie");
                }
                (None, None) => {
                    assert_eq!(caught_up, model.revision());
                    return true;
                }
                (taken, expected) => panic!("got {taken:?}, expected {expected:?}"),
            }
        }
        true
    }
}

fn assert_event(event: &Event, revision: u64, expected: &(EventKind, ObjectKey, Stored)) {
    assert_eq!(event.revision, revision);
    assert_eq!((event.kind, event.entry.key()), (expected.0, &expected.1));
    assert_eq!(Stored::of(&event.entry), expected.2);
    assert_eq!(event.previous.is_none(), event.kind == EventKind::Added);
}

/// Whether the error of a call is one that the history's bound allows.
fn is_expired<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Expired { .. }))
}

/// For every pair of revisions: the list at the first and the events between them make the list at the second.
fn compare_history(store: &Handle, model: &Model, options: &Options) {
    assert_eq!(store.current_revision(), model.revision());
    let views = RESOURCES.iter().flat_map(|resource| {
        [None, Some(NAMESPACES[0]), Some(NAMESPACES[1])]
            .into_iter()
            .map(move |namespace| (*resource, namespace))
    });
    for (resource, namespace) in views {
        let query = Query::new(resource).namespace(namespace);
        for revision in 0..=model.revision() + 1 {
            let listing = store.list_at(&query, revision);
            let watch = store.watch(resource, namespace, Start::After(revision));
            if revision > model.revision() {
                assert!(
                    matches!(listing, Err(Error::Future { .. }))
                        && matches!(watch, Err(Error::Future { .. }))
                );
                continue;
            }
            let later =
                model.events.range(revision + 1..).filter(|(_, (_, key, _))| *key.resource == *resource);
            let known = revision >= model.compacted && later.count() <= options.history_events;
            if !known || (revision == 0 && is_expired(&listing)) {
                assert!(
                    is_expired(&listing) && is_expired(&watch),
                    "{resource} at {revision} should have expired"
                );
                continue;
            }
            let listing = listing.unwrap();
            assert_eq!((listing.revision, listing.remaining), (revision, 0));
            let mut replayed: Vec<(ObjectKey, Stored)> =
                listing.entries.iter().map(|entry| (entry.key().clone(), Stored::of(entry))).collect();
            if revision > 0 {
                assert_eq!(replayed, model.list(revision, resource, namespace));
                compare_pages(store, &query, revision, &replayed);
            }
            let mut watch = watch.unwrap();
            for (revision, expected) in model
                .events
                .range(revision + 1..)
                .filter(|(_, (_, key, _))| matches(key, resource, namespace))
            {
                let event = watch.try_next().unwrap().unwrap();
                assert_event(&event, *revision, expected);
                replayed.retain(|(key, _)| key != event.entry.key());
                if event.kind != EventKind::Deleted {
                    replayed.push((event.entry.key().clone(), Stored::of(&event.entry)));
                }
                replayed.sort_by(|left, right| left.0.cmp(&right.0));
                assert_eq!(replayed, model.list(*revision, resource, namespace));
            }
            assert!(watch.try_next().unwrap().is_none());
        }
    }
}

fn compare_pages(store: &Handle, query: &Query<'_>, revision: u64, all: &[(ObjectKey, Stored)]) {
    let mut after: Option<ObjectKey> = None;
    let mut seen = 0;
    loop {
        let query = query.limit(Some(2)).after(after.as_ref().map(|key| (&*key.namespace, &*key.name)));
        let page = store.list_at(&query, revision).unwrap();
        for entry in &page.entries {
            assert_eq!(*entry.key(), all[seen].0);
            seen += 1;
        }
        assert_eq!(page.remaining, all.len() - seen);
        if page.remaining == 0 {
            break;
        }
        after = page.entries.last().map(|entry| entry.key().clone());
    }
    assert_eq!(seen, all.len());
}

async fn run(operations: Vec<Operation>, options: Options) {
    let log = FaultyLog::new();
    let mut store = log.open(options.clone());
    let mut model = Model::new();
    let mut watchers: Vec<Watcher> = Vec::new();
    for operation in operations {
        match operation {
            Operation::Transact(writes) => {
                let (mutations, effects) = model.transact(&writes);
                let failing = log.faults.lock().failing_appends > 0;
                match (store.transact(mutations).await, effects) {
                    (Ok(entries), Some(effects)) => {
                        assert!(effects.is_empty() || !failing);
                        let stored: Vec<_> = entries.iter().map(Stored::of).collect();
                        let expected: Vec<_> = effects.iter().map(|effect| effect.3.clone()).collect();
                        assert_eq!(stored, expected);
                        model.apply(effects);
                    }
                    (Err(Error::Log(_)), Some(_)) => assert!(failing),
                    (Err(_), None) => {}
                    (result, effects) => panic!("got {result:?}, expected {effects:?}"),
                }
            }
            Operation::Compact(percent) => {
                let through = model.revision() * percent / 100;
                store.compact(through).await.unwrap();
                model.compacted = model.compacted.max(through);
            }
            Operation::Restart => {
                watchers.clear();
                store.close().await.unwrap();
                store = log.open(options.clone());
            }
            Operation::Watch { resource, namespace } => {
                let (resource, namespace) = (RESOURCES[resource], namespace.map(|index| NAMESPACES[index]));
                let (listing, watch) = store.list_and_watch(resource, namespace).unwrap();
                let listed: Vec<_> =
                    listing.entries.iter().map(|entry| (entry.key().clone(), Stored::of(entry))).collect();
                assert_eq!(listed, model.list(model.revision(), resource, namespace));
                watchers.push(Watcher { watch, resource, namespace, position: listing.revision });
            }
            Operation::Drain(limit) => watchers.retain_mut(|watcher| watcher.drain(&model, limit, &options)),
            Operation::Fail => log.faults.lock().failing_appends = 1,
        }
    }
    watchers.retain_mut(|watcher| watcher.drain(&model, usize::MAX, &options));
    compare_history(&store, &model, &options);
    store.close().await.unwrap();
    compare_history(&log.open(options.clone()), &model, &options);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_store_behaves_like_the_model(
        operations in prop::collection::vec(operation(), 1..80),
        history_events in prop_oneof![Just(5_usize), Just(10_000)],
        parsed_bytes in prop_oneof![Just(0_usize), Just(2_000), Just(1 << 20)],
    ) {
        let options = Options { history_events, parsed_bytes, ..Options::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations, options));
    }
}
