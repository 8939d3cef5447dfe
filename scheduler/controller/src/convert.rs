//! From Kubernetes objects to what the ledger knows.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use muster_scheduler_api::annotations;
use muster_scheduler_core::node::Requirement;
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Assignment, Member, Node, Resources, Taint, Toleration};

/// A node as the ledger knows it.
pub(crate) fn node(object: &core::Node) -> Node {
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let allocatable = resources(status.allocatable.as_ref());
    let taints = spec.taints.unwrap_or_default().into_iter();
    Node {
        name: object.metadata.name.clone().unwrap_or_default(),
        labels: object.metadata.labels.clone().unwrap_or_default(),
        taints: taints
            .map(|taint| Taint {
                key: taint.key,
                value: taint.value.unwrap_or_default(),
                effect: taint.effect,
            })
            .collect(),
        schedulable: ready && !spec.unschedulable.unwrap_or(false),
        gpu_slots: whole(&allocatable, GPU_RESOURCE),
        allocatable,
    }
}

/// What a pod needs: the larger of its containers together and each of its init containers, and a pod slot.
pub(crate) fn requests(pod: &core::PodSpec) -> Resources {
    let mut running = Resources::new();
    for container in &pod.containers {
        running.add(&container_requests(container));
    }
    let mut sidecars = Resources::new();
    let mut peak = Resources::new();
    for container in pod.init_containers.iter().flatten() {
        let needs = container_requests(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&needs);
        } else {
            let mut together = sidecars.clone();
            together.add(&needs);
            peak.maximum(&together);
        }
    }
    running.add(&sidecars);
    running.maximum(&peak);
    running.add(&resources(pod.overhead.as_ref()));
    running.with("pods", 1000)
}

fn container_requests(container: &core::Container) -> Resources {
    let given = container.resources.clone().unwrap_or_default();
    let mut amounts = given.limits.unwrap_or_default();
    amounts.extend(given.requests.unwrap_or_default());
    resources(Some(&amounts))
}

fn resources(amounts: Option<&BTreeMap<String, Quantity>>) -> Resources {
    let mut resources = Resources::new();
    for (name, quantity) in amounts.into_iter().flatten() {
        // The API server refuses what is not a quantity.
        if let Err(error) = resources.add_quantity(name, &quantity.0) {
            tracing::debug!(%error, resource = name, "ignored an amount");
        }
    }
    resources
}

fn whole(resources: &Resources, name: &str) -> u32 {
    u32::try_from(resources.get(name) / 1000).unwrap_or(0)
}

/// What a bound pod has on its node; `None` when it is not bound or has ended.
pub(crate) fn assignment(pod: &core::Pod) -> Option<Assignment> {
    let spec = pod.spec.as_ref()?;
    let node = spec.node_name.clone().filter(|name| !name.is_empty())?;
    let ended = matches!(pod.status.as_ref()?.phase.as_deref(), Some("Succeeded" | "Failed"));
    let slots = annotation(pod, annotations::GPU_INDICES).unwrap_or_default();
    (!ended).then(|| Assignment {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        node,
        resources: requests(spec),
        gpu_indices: slots.split(',').filter_map(|slot| slot.trim().parse().ok()).collect(),
        gpu_share: 0,
    })
}

/// A pod that waits as a member of a gang.
pub(crate) fn member(pod: &core::Pod) -> Member {
    let spec = pod.spec.clone().unwrap_or_default();
    let requests = requests(&spec);
    Member {
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        gpus: whole(&requests, GPU_RESOURCE),
        requests,
        node_selector: spec.node_selector.unwrap_or_default(),
        required_affinity: spec.affinity.map(|affinity| required(&affinity)).unwrap_or_default(),
        tolerations: spec.tolerations.unwrap_or_default().into_iter().map(toleration).collect(),
        rank: annotation(pod, annotations::RANK).and_then(|rank| rank.parse().ok()).unwrap_or(u32::MAX),
        ..Member::default()
    }
}

/// An annotation of a pod.
pub(crate) fn annotation<'a>(pod: &'a core::Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn toleration(given: core::Toleration) -> Toleration {
    let exists = given.operator.as_deref() == Some("Exists");
    Toleration {
        key: given.key.filter(|key| !key.is_empty()),
        value: if exists { None } else { Some(given.value.unwrap_or_default()) },
        effect: given.effect.filter(|effect| !effect.is_empty()),
    }
}

fn required(affinity: &core::Affinity) -> Vec<Vec<Requirement>> {
    let selector = affinity
        .node_affinity
        .as_ref()
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(selector) = selector else { return Vec::new() };
    let mut terms: Vec<Vec<Requirement>> = selector.node_selector_terms.iter().map(term).collect();
    // A term without requirements matches no node.
    terms.retain(|term| !term.is_empty());
    if terms.is_empty() {
        terms.push(vec![Requirement::NameIn(Vec::new())]);
    }
    terms
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_the_larger_of_its_phases() {
        let spec: core::PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "prepare", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}},
            ],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m"}, "limits": {"nvidia.com/gpu": "2"}}},
                {"name": "b", "resources": {"requests": {"cpu": "500m"}}},
            ],
        }))
        .unwrap();
        let needs = requests(&spec);
        assert_eq!((needs.get("cpu"), needs.get("nvidia.com/gpu"), needs.get("pods")), (2100, 2000, 1000));
        assert_eq!(needs.get("memory"), (1 << 30) * 1000);
    }

    #[test]
    fn tolerations_without_key_or_value_match_everything() {
        let pod: core::Pod = serde_json::from_value(
            json!({"spec": {"containers": [], "tolerations": [{"operator": "Exists"}]}}),
        )
        .unwrap();
        assert_eq!(member(&pod).tolerations, [Toleration::default()]);
    }

    #[test]
    fn names_are_excluded_and_empty_terms_match_nothing() {
        let terms = |terms: serde_json::Value| {
            let pod: core::Pod =
                serde_json::from_value(json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}}))
                .unwrap();
            member(&pod).required_affinity
        };
        let not_a =
            json!([{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]}]);
        assert_eq!(terms(not_a), [[Requirement::NameNotIn(vec!["a".into()])]]);
        assert_eq!(terms(json!([{}])), [[Requirement::NameIn(Vec::new())]]);
    }
}
