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

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    seen: BTreeMap<GroupKey, ForeignGroup>,
    kinds: BTreeMap<GroupKind, Availability>,
    /// Kinds that pods have named and that nobody reads yet.
    wanted: BTreeSet<GroupKind>,
}

impl Groups {
    /// Notes that pods name such an object.
    pub(super) fn want(&mut self, kind: GroupKind) {
        if self.kinds.insert(kind, Availability::Unread).is_none() {
            self.wanted.insert(kind);
        }
    }

    /// The object that describes a gang, and the fewest of its pods that start.
    pub(super) fn find(&self, described_by: &GroupPart) -> Result<(&ForeignGroup, usize), Held> {
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
        std::mem::take(&mut self.pods.groups.wanted)
    }

    /// An object of another system that describes a gang appeared, changed or went.
    pub fn group_changed(&mut self, event: GroupEvent) {
        let groups = &mut self.pods.groups;
        let concerns: Box<dyn Fn(&GroupKey) -> bool> = match event {
            GroupEvent::Kind(kind, availability) => {
                if groups.kinds.insert(kind, availability.clone()) == Some(availability) {
                    return;
                }
                Box::new(move |key| key.kind == kind)
            }
            GroupEvent::Seen(group) => {
                let key = group.key.clone();
                let unchanged = groups.seen.get(&key) == Some(&*group);
                groups.seen.insert(key.clone(), *group);
                if unchanged {
                    return;
                }
                Box::new(move |other| *other == key)
            }
            GroupEvent::Gone(key) => {
                groups.seen.remove(&key);
                Box::new(move |other| *other == key)
            }
        };
        self.changed.extend(self.pods.described_by(concerns));
    }
}
