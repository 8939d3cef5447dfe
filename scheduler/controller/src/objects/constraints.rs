//! Which nodes a pod may go to.

use k8s_openapi::api::core::v1 as core;
use muster_scheduler_core::Toleration;
use muster_scheduler_core::node::Requirement;

/// A toleration.
pub(super) fn toleration(given: &core::Toleration) -> Toleration {
    let exists = given.operator.as_deref() == Some("Exists");
    Toleration {
        key: given.key.clone().filter(|key| !key.is_empty()),
        value: if exists { None } else { Some(given.value.clone().unwrap_or_default()) },
        effect: given.effect.clone().filter(|effect| !effect.is_empty()),
    }
}

/// Terms of which one must hold; empty means any node.
pub(super) fn required(affinity: &core::Affinity) -> Vec<Vec<Requirement>> {
    let selector = affinity
        .node_affinity
        .as_ref()
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selector.map(selected).unwrap_or_default()
}

/// Terms of which one must hold.
pub(crate) fn selected(selector: &core::NodeSelector) -> Vec<Vec<Requirement>> {
    let mut terms: Vec<Vec<Requirement>> = selector.node_selector_terms.iter().map(term).collect();
    // A term without requirements matches no node.
    terms.retain(|term| !term.is_empty());
    if terms.is_empty() {
        terms.push(vec![Requirement::NameIn(Vec::new())]);
    }
    terms
}

/// Whether the terms leave no node but this one.
pub(super) fn only_on(terms: &[Vec<Requirement>], node: &str) -> bool {
    let names =
        |requirement: &Requirement| matches!(requirement, Requirement::NameIn(names) if *names == [node]);
    !terms.is_empty() && terms.iter().all(|term| term.iter().any(names))
}

fn term(term: &core::NodeSelectorTerm) -> Vec<Requirement> {
    let fields = term.match_fields.iter().flatten().map(|field| {
        let names = field.values.clone().unwrap_or_default();
        // The only field is the name, and the only operators are these two.
        if field.operator == "NotIn" { Requirement::NameNotIn(names) } else { Requirement::NameIn(names) }
    });
    let expressions = term.match_expressions.iter().flatten().map(|expression| {
        let key = expression.key.clone();
        let values = expression.values.clone().unwrap_or_default();
        let number = || values.first().and_then(|value| value.parse().ok()).unwrap_or_default();
        match expression.operator.as_str() {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "DoesNotExist" => Requirement::DoesNotExist(key),
            "Gt" => Requirement::Greater(key, number()),
            "Lt" => Requirement::Less(key, number()),
            _ => Requirement::Exists(key),
        }
    });
    fields.chain(expressions).collect()
}

/// Fields that restrict where a pod may go, and that only kube-scheduler looks at.
pub(super) fn unheeded(spec: &core::PodSpec) -> Vec<&'static str> {
    let affinity = spec.affinity.as_ref();
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let near = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref());
    let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let far = far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref());
    let mut spread = spec.topology_spread_constraints.iter().flatten();
    let given = [
        (near.is_some_and(|terms| !terms.is_empty()), "podAffinity"),
        (far.is_some_and(|terms| !terms.is_empty()), "podAntiAffinity"),
        (spread.any(|spread| spread.when_unsatisfiable == "DoNotSchedule"), "topologySpreadConstraints"),
    ];
    given.into_iter().filter_map(|(is_given, field)| is_given.then_some(field)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_without_key_or_value_match_everything() {
        let given = serde_json::from_value(json!({"operator": "Exists"})).unwrap();
        assert_eq!(toleration(&given), Toleration::default());
    }

    #[test]
    fn what_no_plan_looks_at_is_known() {
        let term = json!([{"topologyKey": "kubernetes.io/hostname"}]);
        let spec = |required: &str| {
            serde_json::from_value(json!({
                "containers": [], "affinity": {"podAntiAffinity": {required: term}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]}))
            .unwrap()
        };
        assert_eq!(unheeded(&spec("requiredDuringSchedulingIgnoredDuringExecution")), ["podAntiAffinity"]);
        assert_eq!(unheeded(&spec("preferredDuringSchedulingIgnoredDuringExecution")), [""; 0]);
    }

    #[test]
    fn names_are_excluded_and_empty_terms_match_nothing() {
        let terms = |terms: serde_json::Value| {
            let affinity = json!({"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
            required(&serde_json::from_value(affinity).unwrap())
        };
        let not_a =
            json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]}]);
        assert_eq!(terms(not_a), [[Requirement::NameNotIn(vec!["a".into()])]]);
        assert_eq!(terms(json!([{}])), [[Requirement::NameIn(Vec::new())]]);
    }
}
