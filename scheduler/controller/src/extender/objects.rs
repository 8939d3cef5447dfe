//! From what a pod says of itself to what the extender knows of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Closeness, Gang, GpuDemand};
use muster_scheduler_extender::core::{PodSeen, PodState, Time};

use crate::objects::{Ending, GroupKind, PodFacts, Problem, Stage};
use crate::planner::Groups;

/// Whether the extender that serves these profiles plans such pods. What kube-scheduler gangs by itself is left to it.
pub(super) fn is_ours(facts: &PodFacts, profiles: &BTreeSet<String>) -> bool {
    let described = facts.membership.described_by.as_ref().map(|part| part.group.kind);
    profiles.contains(&facts.scheduler_name) && described != Some(GroupKind::Native)
}

/// What a pod is to the extender that plans for these profiles. A pod behind a scheduling gate is not there yet.
pub(super) fn pod(facts: PodFacts, profiles: &BTreeSet<String>, groups: &Groups) -> PodSeen {
    let ours = is_ours(&facts, profiles);
    let mut membership = facts.membership;
    let owner = facts.owner.filter(|_| membership.counts_ended()).map(|owner| owner.uid);
    let mut missing = None;
    match membership.described_by.as_ref().filter(|_| ours).map(|part| groups.find(part)) {
        Some(Ok((group, least))) => {
            membership.min_available = membership.min_available.max(least);
            if membership.closeness == Closeness::default() {
                membership.closeness = group.closeness.clone();
            }
        }
        Some(Err(held)) => missing = Some(held.sentence().to_owned()),
        None => {}
    }
    // Gangs of other schedulers are theirs: their room counts, their plans are left alone.
    let gang = (ours && membership.named).then(|| {
        Arc::new(Gang {
            namespace: membership.gang.namespace,
            name: membership.gang.name,
            min_available: membership.min_available,
            closeness: membership.closeness,
            spares: membership.spares,
            shape: membership.shape,
            all_reduce: membership.all_reduce,
            ..Gang::default()
        })
    });
    let (field, instead) = ("spec.resourceClaims", GPU_RESOURCE);
    let claims = (!facts.claims.is_empty()).then(|| Problem::Unplanned { field, instead }.to_string());
    let wants_gpus = facts.member.gpu_demand() != GpuDemand::None;
    let planned = ours && (gang.is_some() || wants_gpus);
    PodSeen {
        key: facts.key,
        member: facts.member,
        planned,
        gang,
        owner,
        priority: facts.priority,
        created: Time(facts.created.saturating_mul(1000)),
        own: false,
        held: facts.problems.first().map(ToString::to_string).or(claims).or(missing).filter(|_| planned),
        state: match facts.stage {
            Stage::Waiting => PodState::Waiting,
            Stage::Bound(assignment) | Stage::Leaving(assignment) => PodState::Bound(assignment),
            Stage::Ended(Ending::Succeeded) => PodState::Ended { succeeded_by_another: false },
            Stage::Gated(_) | Stage::Ended(Ending::Failed | Ending::Deleted) => {
                PodState::Ended { succeeded_by_another: true }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ForeignGroup;
    use crate::planner::GroupEvent;
    use serde_json::{Value, json};

    fn seen(annotations: Value, spec: Value) -> PodSeen {
        let object = json!({
            "metadata": {"name": "g-0", "namespace": "d", "uid": "u", "annotations": annotations},
            "spec": spec,
        });
        let facts = PodFacts::read(&serde_json::from_value(object).unwrap());
        pod(facts, &BTreeSet::from(["muster".to_owned()]), &Groups::default())
    }

    fn spec(scheduler: &str, gpus: u32) -> Value {
        let limits = json!({"nvidia.com/gpu": gpus.to_string()});
        json!({"schedulerName": scheduler, "containers": [{"name": "c", "resources": {"limits": limits}}]})
    }

    #[test]
    fn pods_of_the_profiles_are_planned_when_they_have_a_gang_or_want_gpus() {
        let gang = json!({"muster.dev/gang": "g", "muster.dev/gang-min-available": "2"});
        let own = seen(gang.clone(), spec("muster", 0));
        assert!(own.planned);
        assert_eq!(own.gang.as_ref().map(|gang| (gang.name.as_str(), gang.min_available)), Some(("g", 2)));
        let others = seen(gang, spec("other", 1));
        assert!(!others.planned && others.gang.is_none());
        assert!(seen(json!({}), spec("muster", 1)).planned);
        assert!(!seen(json!({}), spec("muster", 0)).planned, "kube-scheduler places it as well");
    }

    #[test]
    fn gangs_that_objects_of_others_describe_wait_for_them_or_are_left_to_kube_scheduler() {
        let read = |metadata: Value, more: Value, groups: &Groups| {
            let mut object = json!({"metadata": metadata, "spec": spec("muster", 1)});
            object["metadata"]["name"] = json!("p");
            object["spec"]["schedulingGroup"] = more;
            let facts = PodFacts::read(&serde_json::from_value(object).unwrap());
            pod(facts, &BTreeSet::from(["muster".to_owned()]), groups)
        };
        let mut groups = Groups::default();
        let labels = json!({"labels": {"scheduling.x-k8s.io/pod-group": "g"}});
        let held = read(labels.clone(), Value::Null, &groups).held.unwrap();
        assert_eq!(held, "PodGroup.scheduling.x-k8s.io /g has not been read yet");
        let object = json!({"metadata": {"name": "g"}, "spec": {"minMember": 3}});
        let group = ForeignGroup::read(GroupKind::Coscheduling, &serde_json::from_value(object).unwrap());
        groups.hear(GroupEvent::Seen(Box::new(group)));
        let described = read(labels, Value::Null, &groups);
        assert_eq!((described.held, described.gang.unwrap().min_available), (None, 3));
        assert!(!read(json!({}), json!({"podGroupName": "g"}), &groups).planned);
    }

    #[test]
    fn a_pod_whose_wishes_cannot_be_read_holds_its_gang() {
        let unreadable = json!({"muster.dev/gang": "g", "muster.dev/gang-min-available": "many"});
        let held = seen(unreadable.clone(), spec("muster", 0)).held.unwrap();
        assert!(held.contains("gang-min-available"), "{held}");
        assert_eq!(seen(unreadable, spec("other", 0)).held, None, "that is for its own scheduler to say");
    }

    #[test]
    fn a_gang_with_claims_of_devices_is_held_as_kube_scheduler_chooses_these_pod_by_pod() {
        let gang = json!({"muster.dev/gang": "g", "muster.dev/gang-min-available": "2"});
        let mut claiming = spec("muster", 0);
        claiming["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": "one"}]);
        let sentence = "spec.resourceClaims asks for what Muster does not place here; ask for nvidia.com/gpu, or let the \
                        pod be bound by a scheduler that places it";
        assert_eq!(seen(gang, claiming.clone()).held.as_deref(), Some(sentence));
        assert_eq!(seen(json!({}), claiming).held, None, "a lone pod is kube-scheduler's");
    }
}
