//! What is to be made of pods and their claims. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodResourceClaimStatus};
use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus, ResourceClaimTemplate,
};
use kube::ResourceExt as _;
use kube::api::ObjectMeta;

use crate::owners::controller_reference;
use crate::pods::{is_finished, is_terminating};

/// What keeps a claim with devices from vanishing while they are in use.
pub(super) const PROTECTION: &str = "resource.kubernetes.io/delete-protection";
/// The pod's name for the claim that was made for it.
const NAME_IN_POD: &str = "resource.kubernetes.io/pod-claim-name";

/// Whether a pod needs its claims no more: it has ended, or will never begin.
pub(super) fn is_done(pod: &Pod) -> bool {
    let has_node =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    is_finished(pod) || is_terminating(pod) && !has_node
}

/// Whether claims are to be made for a pod.
pub(super) fn needs_claims(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// The pod's names of claims that are made from templates, with these.
pub(super) fn templates(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    claims.filter_map(|claim| Some((claim.name.as_str(), claim.resource_claim_template_name.as_deref()?)))
}

/// The claims that the pod says that were made for it.
pub(super) fn statuses(pod: &Pod) -> Vec<PodResourceClaimStatus> {
    pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone()).unwrap_or_default()
}

/// That a claim was made for a pod.
pub(super) fn status(name: &str, claim: String) -> PodResourceClaimStatus {
    PodResourceClaimStatus { name: name.to_owned(), resource_claim_name: Some(claim) }
}

/// Names of the claims that a pod uses.
pub(super) fn claims(pod: &Pod) -> Vec<String> {
    let named = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let named = named.filter_map(|claim| claim.resource_claim_name.clone());
    let made = statuses(pod).into_iter().filter_map(|status| status.resource_claim_name);
    named.chain(made).collect()
}

/// Whether a claim was made under this of the pod's names.
pub(super) fn is_for(claim: &ResourceClaim, name: &str) -> bool {
    claim.annotations().get(NAME_IN_POD).is_some_and(|known| known == name)
        && claim.metadata.deletion_timestamp.is_none()
}

/// The claim of a pod that a template describes.
pub(super) fn claim(pod: &Pod, name: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let described = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations: BTreeMap<String, String> = described.annotations.unwrap_or_default();
    annotations.insert(NAME_IN_POD.to_owned(), name.to_owned());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-{name}-", pod.name_any())),
            namespace: pod.namespace(),
            labels: described.labels,
            annotations: Some(annotations),
            finalizers: described.finalizers,
            owner_references: Some(vec![controller_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// The pods that use a claim.
pub(super) fn pods(claim: &ResourceClaim) -> impl Iterator<Item = &ResourceClaimConsumerReference> {
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    users.filter(|user| user.resource == "pods" && user.api_group.as_deref().unwrap_or_default().is_empty())
}

/// The status of a claim that these pods use no more; `None` when that changes nothing. Who was the last leaves its
/// devices to others.
pub(super) fn without(claim: &ResourceClaim, done: &BTreeSet<String>) -> Option<ResourceClaimStatus> {
    let mut status = claim.status.clone()?;
    let users = status.reserved_for.get_or_insert_default();
    let before = users.len();
    users.retain(|user| !done.contains(&user.uid));
    let unused = users.is_empty();
    let leaving = claim.metadata.deletion_timestamp.is_some() && status.allocation.is_some();
    if users.len() == before && !(unused && leaving) {
        return None;
    }
    Some(if unused { ResourceClaimStatus::default() } else { status })
}

/// Whether nothing is in use that would have to be protected.
pub(super) fn needs_no_protection(claim: &ResourceClaim) -> bool {
    let unused = claim.status.as_ref().is_none_or(|status| {
        status.allocation.is_none() && status.reserved_for.as_ref().is_none_or(Vec::is_empty)
    });
    unused
        && claim.metadata.deletion_timestamp.is_some()
        && claim.finalizers().iter().any(|finalizer| finalizer == PROTECTION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(status: serde_json::Value, deleted: bool) -> ResourceClaim {
        let mut object = json!({
            "metadata": {"name": "c", "finalizers": [PROTECTION]}, "spec": {}, "status": status});
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn the_last_pod_that_ends_leaves_the_devices_to_others() {
        let user = |uid: &str| json!({"resource": "pods", "name": uid, "uid": uid});
        let used = claim(json!({"allocation": {}, "reservedFor": [user("a"), user("b")]}), false);
        let done = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect();
        assert_eq!(without(&used, &done(&[])), None);
        let left = without(&used, &done(&["a"])).unwrap();
        assert_eq!((left.allocation.is_some(), left.reserved_for.unwrap().len()), (true, 1));
        assert_eq!(without(&used, &done(&["a", "b"])), Some(ResourceClaimStatus::default()));
    }

    #[test]
    fn a_claim_that_nobody_uses_may_go() {
        assert!(!needs_no_protection(&claim(json!({}), false)), "nobody deletes it");
        assert!(needs_no_protection(&claim(json!({}), true)));
        let held = claim(json!({"allocation": {}}), true);
        assert!(!needs_no_protection(&held));
        assert_eq!(without(&held, &BTreeSet::new()), Some(ResourceClaimStatus::default()));
    }

    #[test]
    fn a_pod_is_done_when_it_has_ended_or_never_begins() {
        let pod = |node: &str, phase: &str, deleted: bool| -> Pod {
            let mut pod = json!({"metadata": {}, "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}});
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(pod).unwrap()
        };
        assert!(!is_done(&pod("", "Pending", false)) && !is_done(&pod("n", "Running", true)));
        assert!(is_done(&pod("n", "Failed", false)) && is_done(&pod("", "Pending", true)));
    }
}
