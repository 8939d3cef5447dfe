//! `PodGroup`s of three systems.

use muster_scheduler_core::Closeness;
use serde_json::Value;

use super::{ForeignGroup, count, list, text};

/// Of the coscheduling plugin. Its `minResources` and `scheduleTimeoutSeconds` bound how long a half-placed gang may
/// hold room; a gang that is planned whole holds none.
pub(super) fn coscheduling(mut group: ForeignGroup, spec: &Value) -> ForeignGroup {
    group.min_available = count(spec, "minMember", 1).map(|least| least.max(1));
    group
}

/// Of Volcano. Its tiers are levels of the topology by their names, or as `tier-N`.
pub(super) fn volcano(mut group: ForeignGroup, spec: &Value) -> ForeignGroup {
    group.min_available = count(spec, "minMember", 1).and_then(|least| {
        let tasks = spec["minTaskMember"].as_object().into_iter().flatten();
        let together: u64 = tasks.filter_map(|(_, least)| least.as_u64()).sum();
        let together = usize::try_from(together).map_err(|_| "its minTaskMember is too much".to_owned())?;
        Ok(least.max(together).max(1))
    });
    group.queue = text(spec, "queue");
    group.priority_class = text(spec, "priorityClassName");
    let topology = &spec["networkTopology"];
    let tier = topology["highestTierAllowed"].as_u64().map(|tier| format!("tier-{tier}"));
    if let Some(level) = text(topology, "highestTierName").or(tier) {
        if topology["mode"] == "soft" {
            group.closeness.preferred = vec![level];
        } else {
            group.closeness.required = Some(level);
        }
    }
    group
}

/// Of Kubernetes itself. The basic policy places each pod alone.
pub(super) fn native(mut group: ForeignGroup, spec: &Value) -> ForeignGroup {
    group.min_available = count(&spec["schedulingPolicy"]["gang"], "minCount", 1).map(|least| least.max(1));
    let mut keys = list(&spec["schedulingConstraints"]["topology"]).filter_map(|one| text(one, "key"));
    group.closeness = Closeness { required: keys.next(), ..Closeness::default() };
    group.priority = spec["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok());
    group.priority_class = text(spec, "priorityClassName");
    group
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::json;

    use super::super::GroupKind;
    use super::*;

    fn read(kind: GroupKind, spec: Value) -> ForeignGroup {
        let object: DynamicObject =
            serde_json::from_value(json!({"metadata": {"name": "g", "namespace": "team"}, "spec": spec}))
                .unwrap();
        ForeignGroup::read(kind, &object)
    }

    #[test]
    fn coscheduling_names_its_least_members() {
        let spec = json!({"minMember": 3, "scheduleTimeoutSeconds": 10, "minResources": {"cpu": "3"}});
        let group = read(GroupKind::Coscheduling, spec);
        assert_eq!(group.key.to_string(), "PodGroup.scheduling.x-k8s.io team/g");
        assert_eq!(group.min_available, Ok(3));
        assert_eq!(read(GroupKind::Coscheduling, json!({})).min_available, Ok(1));
        let wrong = read(GroupKind::Coscheduling, json!({"minMember": -1}));
        assert_eq!(wrong.min_available, Err("its minMember is -1; it must be a whole number".into()));
    }

    #[test]
    fn volcano_names_queue_class_and_tiers_too() {
        let topology = |mode: &str| json!({"mode": mode, "highestTierAllowed": 2});
        let spec = json!({"minMember": 2, "minTaskMember": {"master": 1, "worker": 3}, "queue": "research",
            "priorityClassName": "urgent", "networkTopology": topology("hard")});
        let group = read(GroupKind::Volcano, spec);
        assert_eq!((group.min_available, group.queue.as_deref()), (Ok(4), Some("research")));
        assert_eq!(group.priority_class.as_deref(), Some("urgent"));
        assert_eq!(group.closeness.required.as_deref(), Some("tier-2"));
        let soft = read(GroupKind::Volcano, json!({"networkTopology": topology("soft")}));
        assert_eq!((soft.closeness.required, soft.closeness.preferred), (None, vec!["tier-2".to_owned()]));
    }

    #[test]
    fn kubernetes_own_groups_are_gangs_or_pods_on_their_own() {
        let spec = json!({"schedulingPolicy": {"gang": {"minCount": 4}}, "priority": 7,
            "schedulingConstraints": {"topology": [{"key": "example.com/rack"}]}});
        let group = read(GroupKind::Native, spec);
        assert_eq!((group.min_available, group.priority), (Ok(4), Some(7)));
        assert_eq!(group.closeness.required.as_deref(), Some("example.com/rack"));
        assert_eq!(read(GroupKind::Native, json!({"schedulingPolicy": {"basic": {}}})).min_available, Ok(1));
    }
}
