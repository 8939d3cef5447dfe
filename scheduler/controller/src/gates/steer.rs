//! The change that opens a pod's gate and leaves it one node to go to.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};
use muster_scheduler_api::{GANG_GATE, annotations};
use muster_scheduler_core::Assignment;
use serde_json::{Value, json};

/// How a pod stands with respect to a place that it is to be steered to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Steering {
    /// This merge patch steers it and opens the gate.
    Needed(Value),
    /// It has been steered there already, or runs there.
    Done,
    /// It cannot be steered there any more: it is another pod, or was let go by somebody else.
    Impossible,
}

/// What is left to do to steer `pod` to its place.
pub(crate) fn steering(pod: &Pod, place: &Assignment) -> Steering {
    if pod.metadata.uid.as_ref() != Some(&place.uid) || pod.metadata.deletion_timestamp.is_some() {
        return Steering::Impossible;
    }
    let Some(spec) = &pod.spec else { return Steering::Impossible };
    let gates = spec.scheduling_gates.iter().flatten();
    let others: Vec<_> = gates.clone().filter(|gate| gate.name != GANG_GATE).collect();
    if gates.clone().count() == others.len() {
        let annotations = pod.metadata.annotations.as_ref();
        let steered = annotations.and_then(|all| all.get(annotations::PLACED_ON));
        let there = spec.node_name.as_ref().filter(|node| !node.is_empty()).or(steered);
        return if there == Some(&place.node) { Steering::Done } else { Steering::Impossible };
    }
    let slots: Vec<String> = place.gpu_indices.iter().map(u32::to_string).collect();
    let mut chosen = json!({annotations::PLACED_ON: place.node});
    if !slots.is_empty() {
        chosen[annotations::GPU_INDICES] = json!(slots.join(","));
    }
    // The gates and terms are replaced as a whole: the version says that they are still those that were read.
    Steering::Needed(json!({
        "metadata": {
            "uid": place.uid,
            "resourceVersion": pod.metadata.resource_version,
            "annotations": chosen,
        },
        "spec": {
            "schedulingGates": if others.is_empty() { Value::Null } else { json!(others) },
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": terms(pod, &place.node)}}},
        },
    }))
}

/// The pod's terms of required node affinity, each with the node's name added: nothing else may be changed of them.
fn terms(pod: &Pod, node: &str) -> Vec<NodeSelectorTerm> {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let mut terms = required.map(|required| required.node_selector_terms.clone()).unwrap_or_default();
    let named = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    if terms.is_empty() {
        return vec![NodeSelectorTerm { match_fields: Some(vec![named]), ..NodeSelectorTerm::default() }];
    }
    for term in &mut terms {
        let requirements =
            term.match_expressions.iter().flatten().count() + term.match_fields.iter().flatten().count();
        // A term without requirements matches no node, and must stay so.
        if requirements > 0 {
            term.match_fields.get_or_insert_default().push(named.clone());
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"}, "spec": {
            "containers": [], "schedulingGates": [{"name": "muster.dev/gang"}]}});
        if let (Some(into), Value::Object(from)) = (pod["spec"].as_object_mut(), spec) {
            into.extend(from);
        }
        serde_json::from_value(pod).unwrap()
    }

    fn place() -> Assignment {
        Assignment { uid: "u".into(), node: "n".into(), gpu_indices: vec![2, 3], ..Assignment::default() }
    }

    fn patch(pod: &Pod) -> Value {
        let Steering::Needed(patch) = steering(pod, &place()) else { panic!("the gate is closed") };
        patch
    }

    fn terms_of(patch: &Value) -> &Value {
        &patch["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    }

    #[test]
    fn the_gate_opens_to_one_node_with_the_chosen_slots() {
        let patch = patch(&pod(json!({})));
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({"muster.dev/placed-on": "n", "muster.dev/gpu-indices": "2,3"})
        );
        assert_eq!(
            (&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]),
            (&json!("u"), &json!("7"))
        );
        assert_eq!(patch["spec"]["schedulingGates"], Value::Null);
        let name = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
        assert_eq!(*terms_of(&patch), json!([{"matchFields": [name]}]));
    }

    #[test]
    fn gates_of_others_stay_closed_and_terms_are_only_added_to() {
        let zone = json!({"key": "zone", "operator": "Exists"});
        let steered = pod(json!({
            "schedulingGates": [{"name": "example.com/other"}, {"name": "muster.dev/gang"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [zone]}, {}]}}}}));
        let patch = patch(&steered);
        assert_eq!(patch["spec"]["schedulingGates"], json!([{"name": "example.com/other"}]));
        let name = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
        assert_eq!(*terms_of(&patch), json!([{"matchExpressions": [zone], "matchFields": [name]}, {}]));
    }

    #[test]
    fn what_is_done_is_not_done_again_and_what_is_lost_is_known() {
        let mut opened = pod(json!({"schedulingGates": []}));
        assert_eq!(steering(&opened, &place()), Steering::Impossible, "somebody else opened it");
        opened.metadata.annotations = Some([("muster.dev/placed-on".to_owned(), "n".to_owned())].into());
        assert_eq!(steering(&opened, &place()), Steering::Done);
        assert_eq!(steering(&pod(json!({"schedulingGates": [], "nodeName": "n"})), &place()), Steering::Done);
        assert_eq!(
            steering(&pod(json!({"schedulingGates": [], "nodeName": "m"})), &place()),
            Steering::Impossible
        );
        let successor = Assignment { uid: "later".into(), ..place() };
        assert_eq!(steering(&pod(json!({})), &successor), Steering::Impossible);
    }
}
