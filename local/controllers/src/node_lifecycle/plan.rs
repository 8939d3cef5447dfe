//! What a Node must say while its agent is silent, and once it speaks again.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The taint of a node whose agent is silent.
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// What only the agent can know.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// As the node lifecycle controller of Kubernetes words it; people search for these.
const REASON: &str = "NodeStatusUnknown";
const MESSAGE: &str = "Kubelet stopped posting node status.";

/// The conditions to write for a silent agent; none when all say so already.
pub(crate) fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let present = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let present: Vec<&NodeCondition> = present.collect();
    let unknown = |name: &&str| {
        let before = present.iter().find(|condition| condition.type_ == **name);
        before.is_none_or(|condition| condition.status != "Unknown").then(|| NodeCondition {
            type_: (*name).to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(REASON.to_owned()),
            message: Some(MESSAGE.to_owned()),
            last_heartbeat_time: before.and_then(|condition| condition.last_heartbeat_time.clone()),
            last_transition_time: Some(Time(now)),
        })
    };
    CONDITIONS.iter().filter_map(unknown).collect()
}

/// The taints that the node should have, if not those it has.
pub(crate) fn taints(node: &Node, silent: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let before = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted = before.clone();
    if silent {
        for effect in ["NoSchedule", "NoExecute"] {
            if !wanted.iter().any(|taint| taint.key == UNREACHABLE && taint.effect == effect) {
                wanted.push(Taint {
                    key: UNREACHABLE.to_owned(),
                    effect: effect.to_owned(),
                    time_added: (effect == "NoExecute").then_some(Time(now)),
                    ..Taint::default()
                });
            }
        }
    } else {
        wanted.retain(|taint| taint.key != UNREACHABLE);
    }
    (wanted != before).then_some(wanted)
}

/// Whether the agent says that the node takes pods.
pub(crate) fn is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": "1970-01-01T00:00:01Z"},
                {"type": "LightIsolation", "status": "False"},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn a_silent_node_is_unknown_once() {
        let (mut node, now) = (node(), Timestamp::from_second(100).unwrap());
        let conditions = unknown_conditions(&node, now);
        assert_eq!(conditions.len(), 4);
        assert_eq!(conditions[0].last_heartbeat_time, Some(Time(Timestamp::from_second(1).unwrap())));
        let wanted = taints(&node, true, now).unwrap();
        assert_eq!(wanted.iter().filter(|taint| taint.key == UNREACHABLE).count(), 2);
        node.status.as_mut().unwrap().conditions = Some(conditions);
        node.spec.as_mut().unwrap().taints = Some(wanted);
        assert!(unknown_conditions(&node, now).is_empty() && taints(&node, true, now).is_none());
        assert!(!is_ready(&node));
    }

    #[test]
    fn a_node_that_is_back_keeps_the_taints_of_others() {
        let (mut node, now) = (node(), Timestamp::UNIX_EPOCH);
        assert!(is_ready(&node) && taints(&node, false, now).is_none());
        node.spec.as_mut().unwrap().taints = taints(&node, true, now);
        let left = taints(&node, false, now).unwrap();
        assert_eq!(left.iter().map(|taint| taint.key.as_str()).collect::<Vec<_>>(), ["own"]);
    }
}
