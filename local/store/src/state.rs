//! What is in memory: the current objects and the newest events of each resource. Pure; the lock is outside.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use crate::entry::Entry;
use crate::error::Error;
use crate::key::{ObjectKey, Place};
use crate::watch::{Event, EventKind};

/// Newest events of a resource whose objects stay uncompressed: more than a watcher takes at once, so that those who keep
/// up never meet another. What has not changed since is packed too: most objects are written a few times, and then rest.
const PLAIN_EVENTS: usize = 256;

/// Memory that an event costs beside the JSON of its object.
const EVENT_OVERHEAD_BYTES: usize = 320;

/// Which objects to list, in the order of namespace and name.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    resource: &'a str,
    namespace: Option<&'a str>,
    after: Option<(&'a str, &'a str)>,
    limit: Option<usize>,
}

impl<'a> Query<'a> {
    /// All objects of a resource, such as `core/pods`.
    pub fn new(resource: &'a str) -> Self {
        Self { resource, namespace: None, after: None, limit: None }
    }

    /// Only those of one namespace; `None` leaves all.
    #[must_use]
    pub fn namespace(self, namespace: Option<&'a str>) -> Self {
        Self { namespace, ..self }
    }

    /// Only those after this namespace and name: where the page before ended. It need not exist any more.
    #[must_use]
    pub fn after(self, after: Option<(&'a str, &'a str)>) -> Self {
        Self { after, ..self }
    }

    /// At most this many; `None` sets no bound.
    #[must_use]
    pub fn limit(self, limit: Option<usize>) -> Self {
        Self { limit, ..self }
    }

    /// The first place that can match.
    fn start(&self) -> Bound<Place> {
        let first = self.namespace.map(|namespace| (namespace, ""));
        match self.after {
            Some(after) if first.is_none_or(|first| after >= first) => {
                Bound::Excluded((after.0.into(), after.1.into()))
            }
            _ => first.map_or(Bound::Unbounded, |(namespace, name)| {
                Bound::Included((namespace.into(), name.into()))
            }),
        }
    }

    /// Whether a place at or after the start matches; the ones that do are contiguous.
    fn contains(&self, place: &Place) -> bool {
        self.namespace.is_none_or(|namespace| *place.0 == *namespace)
    }
}

/// The objects of one list, all as of one revision.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The revision that the list shows: everything up to it and nothing after it.
    pub revision: u64,
    /// The objects in the order of namespace and name.
    pub entries: Vec<Arc<Entry>>,
    /// How many more match after the last one; above 0 only with a limit.
    pub remaining: usize,
}

/// Bounds of the history of one resource.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// One change that the log has taken.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) entry: Arc<Entry>,
    pub(crate) deleted: bool,
}

/// Objects and newest events of one resource.
#[derive(Debug)]
struct Resource {
    objects: BTreeMap<Place, Arc<Entry>>,
    events: VecDeque<Event>,
    event_bytes: usize,
    /// Revision of the newest event that is no longer among `events`.
    dropped: u64,
    changed: watch::Sender<()>,
}

impl Resource {
    fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            event_bytes: 0,
            dropped: 0,
            changed: watch::Sender::new(()),
        }
    }

    /// Applies the change and returns the event it makes.
    fn apply(&mut self, change: Change) -> Event {
        let Change { entry, deleted } = change;
        let place = entry.key().place();
        let previous =
            if deleted { self.objects.remove(&place) } else { self.objects.insert(place, entry.clone()) };
        let kind = match (deleted, &previous) {
            (true, _) => EventKind::Deleted,
            (false, Some(_)) => EventKind::Modified,
            (false, None) => EventKind::Added,
        };
        Event { kind, revision: entry.revision(), entry, previous }
    }

    fn remember(&mut self, event: Event, limits: HistoryLimits) {
        self.event_bytes += event_bytes(&event);
        self.events.push_back(event);
        let old = self.events.len().checked_sub(PLAIN_EVENTS + 1);
        if let Some(event) = old.and_then(|old| self.events.get(old)) {
            event.pack();
        }
        while self.events.len() > limits.events || self.event_bytes > limits.bytes {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        self.event_bytes -= event_bytes(&event);
        self.dropped = event.revision;
        true
    }

    /// Index of the first event after the revision.
    fn position(&self, after: u64) -> usize {
        self.events.partition_point(|event| event.revision <= after)
    }
}

fn event_bytes(event: &Event) -> usize {
    event.entry.size() + EVENT_OVERHEAD_BYTES
}

/// Everything that readers and watchers see.
#[derive(Debug)]
pub(crate) struct State {
    resources: HashMap<Arc<str>, Resource>,
    limits: HistoryLimits,
    revision: u64,
    compacted: u64,
    closed: bool,
}

impl State {
    /// An empty store. Clients take resource version 0 as "any", so counting starts at 1.
    pub(crate) fn new(limits: HistoryLimits) -> Self {
        Self { resources: HashMap::new(), limits, revision: 1, compacted: 0, closed: false }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The key with parts that are in memory already in the place of its own.
    pub(crate) fn share(&self, key: ObjectKey) -> ObjectKey {
        let Some((resource, known)) = self.resources.get_key_value(&key.resource) else { return key };
        let neighbour = known.objects.range((key.namespace.clone(), Arc::default())..).next();
        let namespace = match neighbour {
            Some(((namespace, _), _)) if *namespace == key.namespace => namespace.clone(),
            _ => key.namespace,
        };
        ObjectKey { resource: resource.clone(), namespace, name: key.name }
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<Entry>> {
        self.resources.get(&key.resource)?.objects.get(&key.place())
    }

    /// Applies a change that is newer than all before it.
    pub(crate) fn apply(&mut self, change: Change) {
        self.revision = change.entry.revision();
        let limits = self.limits;
        let resource = self.resource(&change.entry.key().resource.clone());
        let event = resource.apply(change);
        resource.remember(event, limits);
    }

    fn resource(&mut self, name: &Arc<str>) -> &mut Resource {
        self.resources.entry(name.clone()).or_insert_with(Resource::new)
    }

    /// Wakes the watchers of a resource.
    pub(crate) fn notify(&self, resource: &str) {
        if let Some(resource) = self.resources.get(resource) {
            resource.changed.send_replace(());
        }
    }

    /// Forgets the events up to the revision and refuses to look further back.
    pub(crate) fn compact(&mut self, through: u64) {
        self.compacted = self.compacted.max(through);
        self.revision = self.revision.max(through);
        for resource in self.resources.values_mut() {
            while resource.events.front().is_some_and(|event| event.revision <= through) {
                resource.drop_oldest();
            }
        }
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        for resource in self.resources.values() {
            resource.changed.send_replace(());
        }
    }

    /// What wakes a watcher of the resource.
    pub(crate) fn subscribe(&mut self, resource: &Arc<str>) -> watch::Receiver<()> {
        self.resource(resource).changed.subscribe()
    }

    /// Whether everything that happened to the resource after the revision is known.
    pub(crate) fn check_history(&self, resource: &str, revision: u64) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        let dropped = self.resources.get(resource).map_or(0, |resource| resource.dropped);
        let oldest = dropped.max(self.compacted);
        if revision < oldest { Err(Error::Expired { requested: revision, oldest }) } else { Ok(()) }
    }

    /// Up to `limit` events after the revision, oldest first, and the revision up to which they are complete.
    pub(crate) fn events_after(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
        limit: usize,
    ) -> Result<(Vec<Event>, u64), Error> {
        let Some(resource) = self.resources.get(resource) else { return Ok((Vec::new(), self.revision)) };
        // Compaction alone does not end a watch that had no events to miss.
        if revision < resource.dropped {
            return Err(Error::Expired { requested: revision, oldest: resource.dropped.max(self.compacted) });
        }
        let mut found = Vec::new();
        for event in resource.events.range(resource.position(revision)..) {
            if namespace.is_some_and(|namespace| *event.entry.key().namespace != *namespace) {
                continue;
            }
            if found.len() == limit {
                let complete = found.last().map_or(revision, |event: &Event| event.revision);
                return Ok((found, complete));
            }
            found.push(event.clone());
        }
        Ok((found, self.revision))
    }

    pub(crate) fn list(&self, query: &Query<'_>) -> Listing {
        let Some(resource) = self.resources.get(query.resource) else {
            return Listing { revision: self.revision, entries: Vec::new(), remaining: 0 };
        };
        let range = resource.objects.range((query.start(), Bound::Unbounded));
        let matching = range.take_while(|(place, _)| query.contains(place)).map(|(_, entry)| entry);
        page(self.revision, matching, query.limit)
    }

    /// The list as it was at an older revision: today's objects with the events since then undone.
    pub(crate) fn list_at(&self, query: &Query<'_>, revision: u64) -> Result<Listing, Error> {
        self.check_history(query.resource, revision)?;
        let Some(resource) = self.resources.get(query.resource) else {
            return Ok(Listing { revision, entries: Vec::new(), remaining: 0 });
        };
        let since = resource.position(revision);
        if since == resource.events.len() {
            return Ok(Listing { revision, ..self.list(query) });
        }
        let range = (query.start(), Bound::Unbounded);
        let mut objects: BTreeMap<Place, &Arc<Entry>> = resource
            .objects
            .range(range.clone())
            .take_while(|(place, _)| query.contains(place))
            .map(|(place, entry)| (place.clone(), entry))
            .collect();
        for event in resource.events.range(since..).rev() {
            match &event.previous {
                Some(previous) => objects.insert(event.entry.key().place(), previous),
                None => objects.remove(&event.entry.key().place()),
            };
        }
        let matching =
            objects.range(range).filter(|(place, _)| query.contains(place)).map(|(_, entry)| *entry);
        Ok(page(revision, matching, query.limit))
    }
}

fn page<'a>(
    revision: u64,
    mut matching: impl Iterator<Item = &'a Arc<Entry>>,
    limit: Option<usize>,
) -> Listing {
    let entries = matching.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
    Listing { revision, entries, remaining: matching.count() }
}
