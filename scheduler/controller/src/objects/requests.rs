//! Amounts that pods ask for and nodes have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use muster_scheduler_core::Resources;

/// What a pod needs: the larger of its containers together and each of its init containers, and a pod slot.
pub fn requests(pod: &core::PodSpec) -> Resources {
    let mut running = Resources::new();
    for container in &pod.containers {
        running.add(&of_container(container));
    }
    let mut sidecars = Resources::new();
    let mut peak = Resources::new();
    for container in pod.init_containers.iter().flatten() {
        let needs = of_container(container);
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
    running.add(&amounts(pod.overhead.as_ref()));
    running.with("pods", 1000)
}

/// A container without a request asks for its limit.
fn of_container(container: &core::Container) -> Resources {
    let Some(given) = &container.resources else { return Resources::new() };
    let mut together: BTreeMap<&String, &Quantity> = given.limits.iter().flatten().collect();
    together.extend(given.requests.iter().flatten());
    read(together)
}

/// Amounts by name.
pub(super) fn amounts(given: Option<&BTreeMap<String, Quantity>>) -> Resources {
    read(given.into_iter().flatten())
}

fn read<'a>(given: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Resources {
    let mut resources = Resources::new();
    for (name, quantity) in given {
        // The API server refuses what is not a quantity.
        if let Err(error) = resources.add_quantity(name, &quantity.0) {
            tracing::debug!(%error, resource = name, "ignored an amount");
        }
    }
    resources
}

/// Whole units of a resource.
pub(super) fn whole(resources: &Resources, name: &str) -> u32 {
    u32::try_from(resources.get(name) / 1000).unwrap_or(0)
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
}
