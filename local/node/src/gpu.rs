//! Which pod holds which GPU of a node. Pure: a slot has at most one holder, by construction.

/// The GPU slots of one node, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GpuSlots {
    holders: Vec<Option<String>>,
}

impl GpuSlots {
    /// `count` free slots.
    pub(crate) fn new(count: u32) -> Self {
        Self { holders: vec![None; count as usize] }
    }

    /// Gives `count` slots to the pod `uid`: `wanted` if they are that many, in range and free, else the lowest
    /// free ones. A pod that holds slots already keeps those. The error is the number of free slots.
    pub(crate) fn allocate(&mut self, uid: &str, count: u32, wanted: &[u32]) -> Result<Vec<u32>, u32> {
        let held = self.held(uid);
        if !held.is_empty() {
            return Ok(held);
        }
        let free = self.free();
        let mut unique = wanted.to_vec();
        unique.sort_unstable();
        unique.dedup();
        let fits = unique.len() == count as usize && unique.iter().all(|index| free.contains(index));
        let chosen = if fits { unique } else { free.iter().copied().take(count as usize).collect() };
        if chosen.len() < count as usize {
            return Err(free.len() as u32);
        }
        for index in &chosen {
            self.holders[*index as usize] = Some(uid.to_owned());
        }
        Ok(chosen)
    }

    /// Whether the pod `uid` would get `count` slots later but not now: too few are free of those there are.
    pub(crate) fn must_wait(&self, uid: &str, count: u32) -> bool {
        let count = count as usize;
        self.held(uid).is_empty() && count <= self.holders.len() && count > self.free().len()
    }

    /// Frees what the pod `uid` holds.
    pub(crate) fn release(&mut self, uid: &str) {
        for holder in &mut self.holders {
            if holder.as_deref() == Some(uid) {
                *holder = None;
            }
        }
    }

    fn held(&self, uid: &str) -> Vec<u32> {
        self.indices(|holder| holder == Some(uid))
    }

    fn free(&self) -> Vec<u32> {
        self.indices(|holder| holder.is_none())
    }

    fn indices(&self, matches: impl Fn(Option<&str>) -> bool) -> Vec<u32> {
        (0..)
            .zip(&self.holders)
            .filter(|(_, holder)| matches(holder.as_deref()))
            .map(|(index, _)| index)
            .collect()
    }
}

/// Reads the binder's wish, e.g. `"0,1"`; anything else is no wish.
pub(crate) fn parse_indices(text: &str) -> Vec<u32> {
    text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_wish_is_honoured_only_if_it_can_be() {
        let mut slots = GpuSlots::new(4);
        assert_eq!(slots.allocate("a", 2, &parse_indices("3, 1")), Ok(vec![1, 3]));
        assert_eq!(slots.allocate("b", 1, &[3]), Ok(vec![0]), "slot 3 is taken");
        assert_eq!(slots.allocate("c", 2, &[]), Err(1));
        assert!(slots.must_wait("c", 2) && !slots.must_wait("c", 1), "one slot is free");
        assert!(!slots.must_wait("c", 5), "five slots never come free");
        assert_eq!(slots.allocate("a", 2, &[]), Ok(vec![1, 3]), "asking again changes nothing");
    }

    proptest! {
        #[test]
        fn no_slot_has_two_holders(steps in prop::collection::vec((0u8..6, 0u32..5, prop::collection::vec(0u32..10, 0..4), any::<bool>()), 1..60)) {
            let mut slots = GpuSlots::new(8);
            let mut held: HashMap<String, Vec<u32>> = HashMap::new();
            for (pod, count, wanted, release) in steps {
                let uid = pod.to_string();
                if release {
                    slots.release(&uid);
                    held.remove(&uid);
                } else if let Ok(indices) = slots.allocate(&uid, count, &wanted) {
                    if let Some(before) = held.get(&uid).filter(|before| !before.is_empty()) {
                        prop_assert_eq!(before, &indices);
                    } else {
                        prop_assert_eq!(indices.len(), count as usize);
                        held.insert(uid, indices);
                    }
                }
                let mut all: Vec<u32> = held.values().flatten().copied().collect();
                let total = all.len();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), total);
                prop_assert!(all.iter().all(|index| *index < 8));
            }
        }
    }
}
