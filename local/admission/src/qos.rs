//! The quality-of-service class of a pod, derived from its CPU and memory requests and limits.

use serde_json::Value;

use crate::json::{at, entries, list};
use crate::quantity::Quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Value) -> &'static str {
    let spec = at(pod, &["spec"]);
    let mut any = false;
    let mut guaranteed = true;
    let pod_level = at(spec, &["resources"]);
    let containers = || list(spec, "initContainers").iter().chain(list(spec, "containers"));
    let requirements: Vec<&Value> = if pod_level.as_object().is_some_and(|resources| !resources.is_empty()) {
        vec![pod_level]
    } else {
        containers().map(|container| at(container, &["resources"])).collect()
    };
    for resources in requirements {
        let amount = |list, name| {
            entries(resources, list)
                .find(|(known, _)| *known == name)
                .and_then(|(_, value)| Quantity::from_json(value))
                .filter(|quantity| !quantity.is_zero())
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", name), amount("limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
