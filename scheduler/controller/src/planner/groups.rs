//! Objects of other systems that describe gangs: what was seen of them, and what is still to be read.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::{ForeignGroup, GroupKey, GroupKind, GroupPart};

use super::Planner;
use super::standing::Held;

/// Whether the objects of a kind can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// They are being read.
    Unread,
    /// All of them have been read, and changes are watched.
    Read,
    /// The kind is not installed.
    Absent,
    /// The API server refuses to show them; its words.
    Refused(String),
}

/// News of such objects.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupEvent {
    /// Whether a kind can be read has changed.
    Kind(GroupKind, Availability),
    /// An object appeared or changed.
    Seen(Box<ForeignGroup>),
    /// An object is gone.
    Gone(GroupKey),
}

/// Whose gangs news concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Concerned {
    /// Those of all objects of a kind.
    AllOf(GroupKind),
    /// That of one object.
    One(GroupKey),
}

impl Concerned {
    /// Whether the gang of this object is among them.
    pub(crate) fn includes(&self, key: &GroupKey) -> bool {
        match self {
            Self::AllOf(kind) => key.kind == *kind,
            Self::One(one) => key == one,
        }
    }
}

/// What is known of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    seen: BTreeMap<GroupKey, ForeignGroup>,
    kinds: BTreeMap<GroupKind, Availability>,
    /// Kinds that pods have named and that nobody reads yet.
    wanted: BTreeSet<GroupKind>,
}

impl Groups {
    /// Notes that pods name such an object.
    pub(crate) fn want(&mut self, kind: GroupKind) {
        self.kinds.entry(kind).or_insert_with(|| {
            self.wanted.insert(kind);
            Availability::Unread
        });
    }

    /// Kinds that are to be watched from now on; each is told once.
    pub(crate) fn take_wanted(&mut self) -> BTreeSet<GroupKind> {
        std::mem::take(&mut self.wanted)
    }

    /// Takes in what has happened, and says whom it concerns, if anybody.
    pub(crate) fn hear(&mut self, event: GroupEvent) -> Option<Concerned> {
        match event {
            GroupEvent::Kind(kind, availability) => {
                let before = self.kinds.insert(kind, availability.clone());
                (before != Some(availability)).then_some(Concerned::AllOf(kind))
            }
            GroupEvent::Seen(group) => {
                let key = group.key.clone();
                let unchanged = self.seen.get(&key) == Some(&*group);
                self.seen.insert(key.clone(), *group);
                (!unchanged).then_some(Concerned::One(key))
            }
            GroupEvent::Gone(key) => self.seen.remove(&key).map(|_| Concerned::One(key)),
        }
    }

    /// The object that describes a gang, and the fewest of its pods that start.
    pub(crate) fn find(&self, described_by: &GroupPart) -> Result<(&ForeignGroup, usize), Held> {
        let GroupPart { group, part } = described_by;
        let Some(seen) = self.seen.get(group) else {
            return Err(Held::Missing(match self.kinds.get(&group.kind) {
                None | Some(Availability::Unread) => format!("{group} has not been read yet"),
                Some(Availability::Read) => format!("{group} does not exist; create it, or name another"),
                Some(Availability::Absent) => {
                    format!("{group} cannot exist: the kind is not installed in this cluster")
                }
                Some(Availability::Refused(why)) => format!("{group} cannot be read: {why}"),
            }));
        };
        match seen.least(part.as_deref()) {
            Ok(least) => Ok((seen, least)),
            Err(problem) => Err(Held::Problem(format!("{group}: {problem}"))),
        }
    }
}

impl Planner {
    /// Kinds whose objects pods name, and that are to be watched from now on; each is told once.
    pub fn group_kinds_to_watch(&mut self) -> BTreeSet<GroupKind> {
        self.pods.groups.take_wanted()
    }

    /// An object of another system that describes a gang appeared, changed or went.
    pub fn group_changed(&mut self, event: GroupEvent) {
        match self.pods.groups.hear(event) {
            None => {}
            Some(Concerned::AllOf(kind)) => {
                self.changed.extend(self.pods.described_by_kind(kind).cloned());
            }
            Some(Concerned::One(key)) => self.changed.extend(self.pods.described_by(&key).cloned()),
        }
    }
}
