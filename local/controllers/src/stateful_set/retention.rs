//! Who owns a claim, so that it goes with its owner: nobody, the set, or a pod that is one too many. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};

use crate::owners::controller_reference;

/// Whose end ends a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    GoesWithSet,
    GoesWithPod,
}

/// What becomes of the claims of a pod that the set wants, or has too many.
fn fate(set: &StatefulSet, condemned: bool) -> Fate {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |when: Option<&String>| when.is_some_and(|when| when == "Delete");
    let scaled = deletes(policy.and_then(|policy| policy.when_scaled.as_ref()));
    let deleted = deletes(policy.and_then(|policy| policy.when_deleted.as_ref()));
    match () {
        () if scaled && condemned => Fate::GoesWithPod,
        () if deleted => Fate::GoesWithSet,
        () => Fate::Stays,
    }
}

/// The owners that a claim should have, if not those it has. `pod` is that of its ordinal.
pub(crate) fn owners(
    set: &StatefulSet,
    pod: &Pod,
    condemned: bool,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let before = claim.owner_references();
    let ours = |owner: &&OwnerReference| {
        Some(&owner.uid) != set.metadata.uid.as_ref() && Some(&owner.uid) != pod.metadata.uid.as_ref()
    };
    let mut wanted: Vec<OwnerReference> = before.iter().filter(ours).cloned().collect();
    match fate(set, condemned) {
        Fate::Stays => {}
        Fate::GoesWithSet => wanted.push(controller_reference(set)),
        Fate::GoesWithPod => wanted.push(controller_reference(pod)),
    }
    let uids = |owners: &[OwnerReference]| -> Vec<String> {
        let mut uids: Vec<String> = owners.iter().map(|owner| owner.uid.clone()).collect();
        uids.sort();
        uids
    };
    (uids(before) != uids(&wanted)).then_some(wanted)
}

/// The owners of a new claim: the set may be gone before anybody looks again.
pub(crate) fn first_owners(set: &StatefulSet) -> Option<Vec<OwnerReference>> {
    (fate(set, false) == Fate::GoesWithSet).then(|| vec![controller_reference(set)])
}

/// Whether the claim still goes with an earlier pod of that name: a new pod must not start on what is about to be
/// deleted.
pub(crate) fn is_stale(claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    let of_pod = |owner: &OwnerReference| owner.kind == Pod::kind(&()) && owner.name == pod_name;
    claim.metadata.deletion_timestamp.is_some() || claim.owner_references().iter().any(of_pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(deleted: &str, scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "uid": "set" },
            "spec": { "selector": {}, "template": {}, "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": deleted, "whenScaled": scaled } },
        }))
        .unwrap()
    }

    fn claim(owners: &[OwnerReference]) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.owner_references = Some(owners.to_vec());
        claim
    }

    #[test]
    fn a_claim_has_the_owner_that_the_policy_names() {
        let mut pod = Pod::default();
        (pod.metadata.name, pod.metadata.uid) = (Some("web-0".into()), Some("pod".into()));
        for (deleted, scaled, condemned, expected) in [
            ("Retain", "Retain", false, None),
            ("Retain", "Retain", true, None),
            ("Delete", "Retain", false, Some("set")),
            ("Delete", "Retain", true, Some("set")),
            ("Retain", "Delete", false, None),
            ("Retain", "Delete", true, Some("pod")),
            ("Delete", "Delete", false, Some("set")),
            ("Delete", "Delete", true, Some("pod")),
        ] {
            let set = set(deleted, scaled);
            let wanted = owners(&set, &pod, condemned, &claim(&[])).unwrap_or_default();
            let first = wanted.first().map(|owner| owner.uid.as_str());
            assert_eq!(first, expected, "{deleted} {scaled} {condemned}");
            assert_eq!(owners(&set, &pod, condemned, &claim(&wanted)), None, "it is right then");
            let first = first_owners(&set).unwrap_or_default();
            assert_eq!(owners(&set, &pod, false, &claim(&first)), None, "so is a new one");
        }
        let scaled = owners(&set("Retain", "Delete"), &pod, true, &claim(&[])).unwrap();
        assert!(is_stale(&claim(&scaled), "web-0") && !is_stale(&claim(&scaled), "web-1"));
        let again = owners(&set("Retain", "Delete"), &pod, false, &claim(&scaled));
        assert_eq!(again, Some(Vec::new()), "a pod that is wanted again frees its claims");
    }
}
