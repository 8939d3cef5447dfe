//! Which nodes run a pod of a daemon set: by name, labels and taints. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt as _;

/// Taints that every pod of a daemon set tolerates, with their effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same for pods in the node's own network.
const TOLERATED_IN_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a daemon set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// It runs a pod.
    Runs,
    /// It keeps the pod that it has, and gets no new one.
    Keeps,
    /// It has none.
    Never,
}

/// The template's pod spec with the tolerations that daemon sets add.
pub(crate) fn tolerant(set: &DaemonSet) -> PodSpec {
    let template = set.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    let mut spec = template.unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some(TOLERATED_IN_HOST_NETWORK);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |own: &Toleration| {
            own.key == toleration.key && own.effect == toleration.effect && own.toleration_seconds.is_none()
        };
        if !tolerations.iter().any(same) {
            tolerations.push(toleration);
        }
    }
    spec
}

/// Judges a node for pods of this spec, which has the tolerations already.
pub(crate) fn judge(spec: &PodSpec, node: &Node) -> Eligibility {
    let name = node.name_any();
    let named = spec.node_name.as_deref().unwrap_or_default();
    if !(named.is_empty() || named == name) || !selects(spec, node) {
        return Eligibility::Never;
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let hostile: Vec<&Taint> =
        taints.filter(|taint| !tolerations.iter().any(|one| tolerates(one, taint))).collect();
    match () {
        () if hostile.iter().any(|taint| taint.effect == "NoExecute") => Eligibility::Never,
        () if hostile.iter().any(|taint| taint.effect == "NoSchedule") => Eligibility::Keeps,
        () => Eligibility::Runs,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (key, effect) = (set(&toleration.key), set(&toleration.effect));
    let named = key.is_none_or(|key| key == taint.key) && effect.is_none_or(|effect| effect == taint.effect);
    let exists = toleration.operator.as_deref() == Some("Exists");
    named && (exists || set(&toleration.value) == set(&taint.value))
}

/// The node selector and the required node affinity.
fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    let wanted = spec.node_selector.iter().flatten();
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| holds(term, node)))
}

/// A term without requirements holds for no node.
fn holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    let field = |one: &NodeSelectorRequirement| one.key == "metadata.name" && meets(one, Some(name.as_str()));
    let label = |one: &NodeSelectorRequirement| meets(one, node.labels().get(&one.key).map(String::as_str));
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(label)
        && fields.iter().all(field)
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = || -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, values.first().filter(|_| values.len() == 1)?.parse().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(own, bound)| own > bound),
        "Lt" => compared().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(pod: Value) -> DaemonSet {
        serde_json::from_value(json!({ "spec": { "selector": {}, "template": { "spec": pod } } })).unwrap()
    }

    fn node(taints: Value) -> Node {
        let labels = json!({ "rack": "r1", "gpus": "8" });
        serde_json::from_value(json!({
            "metadata": { "name": "n1", "labels": labels }, "spec": { "taints": taints },
        }))
        .unwrap()
    }

    fn judged(pod: Value, taints: Value) -> Eligibility {
        judge(&tolerant(&set(pod)), &node(taints))
    }

    #[test]
    fn a_node_is_chosen_by_name_and_labels() {
        let pods = |spec: Value| judged(spec, json!([]));
        let affinity = |term: Value| {
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [term] } } }, "containers": [] })
        };
        let expression = |key: &str, operator: &str, values: Value| {
            affinity(json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }))
        };
        for (spec, expected) in [
            (json!({ "containers": [] }), Eligibility::Runs),
            (json!({ "containers": [], "nodeName": "n1" }), Eligibility::Runs),
            (json!({ "containers": [], "nodeName": "n2" }), Eligibility::Never),
            (json!({ "containers": [], "nodeSelector": { "rack": "r1" } }), Eligibility::Runs),
            (json!({ "containers": [], "nodeSelector": { "rack": "r2" } }), Eligibility::Never),
            (expression("rack", "In", json!(["r0", "r1"])), Eligibility::Runs),
            (expression("rack", "NotIn", json!(["r1"])), Eligibility::Never),
            (expression("zone", "NotIn", json!(["z"])), Eligibility::Runs),
            (expression("zone", "Exists", json!([])), Eligibility::Never),
            (expression("zone", "DoesNotExist", json!([])), Eligibility::Runs),
            (expression("gpus", "Gt", json!(["4"])), Eligibility::Runs),
            (expression("gpus", "Lt", json!(["8"])), Eligibility::Never),
            (expression("rack", "Gt", json!(["4"])), Eligibility::Never),
            (affinity(json!({})), Eligibility::Never),
            (
                affinity(
                    json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] }),
                ),
                Eligibility::Runs,
            ),
        ] {
            assert_eq!(pods(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn taints_keep_pods_away_unless_they_are_tolerated() {
        let taint = |key: &str, effect: &str| json!([{ "key": key, "value": "v", "effect": effect }]);
        let bare = || json!({ "containers": [] });
        let with = |toleration: Value| json!({ "containers": [], "tolerations": [toleration] });
        for (spec, taints, expected) in [
            (bare(), taint("own", "NoSchedule"), Eligibility::Keeps),
            (bare(), taint("own", "NoExecute"), Eligibility::Never),
            (bare(), taint("own", "PreferNoSchedule"), Eligibility::Runs),
            (bare(), taint("node.kubernetes.io/unschedulable", "NoSchedule"), Eligibility::Runs),
            (bare(), taint("node.kubernetes.io/unreachable", "NoExecute"), Eligibility::Runs),
            (bare(), taint("node.kubernetes.io/unreachable", "NoSchedule"), Eligibility::Keeps),
            (bare(), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Eligibility::Keeps),
            (
                json!({ "containers": [], "hostNetwork": true }),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                Eligibility::Runs,
            ),
            (with(json!({ "operator": "Exists" })), taint("own", "NoExecute"), Eligibility::Runs),
            (with(json!({ "key": "own", "value": "v" })), taint("own", "NoSchedule"), Eligibility::Runs),
            (with(json!({ "key": "own", "value": "w" })), taint("own", "NoSchedule"), Eligibility::Keeps),
            (
                with(json!({ "key": "own", "operator": "Exists", "effect": "NoSchedule" })),
                taint("own", "NoExecute"),
                Eligibility::Never,
            ),
        ] {
            assert_eq!(judged(spec.clone(), taints.clone()), expected, "{spec} {taints}");
        }
    }
}
