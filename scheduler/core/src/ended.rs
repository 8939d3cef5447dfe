//! Members that have ended well: their gang needs so many pods less from then on.

use std::collections::BTreeMap;

use crate::gang::PodKey;
use crate::traffic::GangName;

/// A pod that has ended well and is still there to be seen.
#[derive(Debug, Clone)]
struct Done {
    uid: String,
    gang: GangName,
    owner: String,
}

/// Pods of gangs that have ended well, as long as they are there to be seen.
///
/// They are counted by the controller that they are from: a later run that calls its gang the same has another, and
/// needs all of its own.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    pods: BTreeMap<PodKey, Done>,
    counts: BTreeMap<GangName, BTreeMap<String, usize>>,
}

impl Ended {
    /// A member has ended well. Pods without a controller are not counted: nobody replaces one that is lost.
    pub fn well(&mut self, pod: PodKey, uid: String, gang: GangName, owner: String) {
        if self.pods.get(&pod).is_some_and(|done| done.uid == uid) {
            return;
        }
        self.replaced(&pod);
        *self.counts.entry(gang.clone()).or_default().entry(owner.clone()).or_default() += 1;
        self.pods.insert(pod, Done { uid, gang, owner });
    }

    /// The pod of this uid is gone. The gang that it had ended well in.
    pub fn gone(&mut self, pod: &PodKey, uid: &str) -> Option<GangName> {
        self.pods.get(pod).filter(|done| done.uid == uid)?;
        self.replaced(pod)
    }

    /// Another pod has this name now. The gang that the one before had ended well in.
    pub fn replaced(&mut self, pod: &PodKey) -> Option<GangName> {
        let Done { gang, owner, .. } = self.pods.remove(pod)?;
        if let Some(owners) = self.counts.get_mut(&gang) {
            let left = owners.get(&owner).map_or(0, |count| count - 1);
            if left == 0 {
                owners.remove(&owner);
            } else {
                owners.insert(owner, left);
            }
            if owners.is_empty() {
                self.counts.remove(&gang);
            }
        }
        Some(gang)
    }

    /// Whether any member of the gang has ended well.
    pub fn any_of(&self, gang: &GangName) -> bool {
        self.counts.contains_key(gang)
    }

    /// Members of the gang that have ended well and are from these controllers.
    pub fn count<'a>(&self, gang: &GangName, owners: impl IntoIterator<Item = &'a str>) -> usize {
        let Some(counts) = self.counts.get(gang) else { return 0 };
        owners.into_iter().filter_map(|owner| counts.get(owner)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_count_for_their_own_controller_until_they_are_gone() {
        let gang = GangName { namespace: "a".into(), name: "g".into() };
        let pod = |name: &str| PodKey::new("a", name);
        let mut ended = Ended::default();
        for (name, uid, owner) in [("p", "1", "x"), ("p", "1", "x"), ("q", "2", "x"), ("r", "3", "y")] {
            ended.well(pod(name), uid.into(), gang.clone(), owner.into());
        }
        assert_eq!(
            (ended.count(&gang, ["x"]), ended.count(&gang, ["x", "y"]), ended.count(&gang, ["z"])),
            (2, 3, 0)
        );
        assert_eq!(ended.gone(&pod("q"), "1"), None, "another pod of the name is gone");
        assert_eq!(ended.gone(&pod("q"), "2"), Some(gang.clone()));
        assert_eq!(ended.replaced(&pod("p")), Some(gang.clone()));
        assert_eq!((ended.count(&gang, ["x"]), ended.any_of(&gang)), (0, true));
        assert_eq!(ended.gone(&pod("r"), "3"), Some(gang.clone()));
        assert!(!ended.any_of(&gang) && ended.counts.is_empty() && ended.pods.is_empty());
    }
}
