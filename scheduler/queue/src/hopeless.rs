//! Forms that found no room in any future: nobody looks for it again until the nodes could give more.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use muster_scheduler_core::space::Space;

use crate::job::Running;
use crate::tree::QueueId;

/// What never fits: a queue, and the fingerprint of forms.
pub(crate) type NeverFits = (QueueId, (u64, u32));

/// Forms that found no room in any future, on nodes as they would be without any job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hopeless {
    nodes: u64,
    forms: BTreeSet<NeverFits>,
}

impl Hopeless {
    /// Forgets everything when the nodes would give something else than before, were all jobs to end: a pod that
    /// is no job's has gone, say.
    pub(crate) fn look<'a>(&mut self, space: &Space, running: impl Iterator<Item = &'a Running>) {
        if !self.forms.is_empty() && self.nodes != emptied(space, running) {
            self.forms.clear();
        }
    }

    pub(crate) fn contains(&self, form: &NeverFits) -> bool {
        self.forms.contains(form)
    }

    pub(crate) fn extend<'a>(
        &mut self,
        forms: Vec<NeverFits>,
        space: &Space,
        running: impl Iterator<Item = &'a Running>,
    ) {
        if !forms.is_empty() {
            self.nodes = emptied(space, running);
            self.forms.extend(forms);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.forms.clear();
    }
}

/// A number that is the same as long as the nodes without any job are.
fn emptied<'a>(space: &Space, running: impl Iterator<Item = &'a Running>) -> u64 {
    let mut space = space.clone();
    for one in running {
        space.give_back_slots(&one.hold.form.demand, &one.hold.slots);
    }
    let mut hasher = DefaultHasher::new();
    for (id, _) in space.nodes() {
        (id, space.room(id)).hash(&mut hasher);
    }
    hasher.finish()
}
