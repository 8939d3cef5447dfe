//! What an object uses of a resource quota, and whether a quota has room for it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::group;
use crate::json::{at, entries, flag, list, text};
use crate::quantity::Quantity;

/// Amounts by resource name, as `spec.hard` names them.
pub type Usage = BTreeMap<String, Quantity>;

/// A quota has no room for an object. The server answers 403 with `RESOURCE "NAME" is forbidden: ` before this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")]
pub struct QuotaExceeded {
    quota: String,
    requested: String,
    used: String,
    limited: String,
}

/// Core kinds whose plural alone is a quota resource, besides `count/PLURAL`.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// What one object uses; `plural` is its resource's name, for example `pods`.
pub fn usage(api_version: &str, kind: &str, plural: &str, object: &Value) -> Usage {
    let api_group = group(api_version);
    let one = Quantity::units(1);
    let mut usage = Usage::new();
    let counted =
        if api_group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{api_group}") };
    usage.insert(counted, one);
    if !api_group.is_empty() {
        return usage;
    }
    let ended = kind == "Pod" && matches!(text(at(object, &["status"]), "phase"), "Succeeded" | "Failed");
    if COUNTED.contains(&plural) && !ended {
        usage.insert(plural.to_owned(), one);
    }
    match kind {
        "Pod" if !ended => pod(object, &mut usage),
        "Service" => service(object, &mut usage),
        "PersistentVolumeClaim" => claim(object, &mut usage),
        _ => {}
    }
    usage
}

fn pod(object: &Value, usage: &mut Usage) {
    for (list_name, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, amount) in pod_amounts(at(object, &["spec"]), list_name) {
            let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            // Only the standard resources can be limited apart from their requests.
            if standard || list_name == "requests" {
                usage.insert(format!("{prefix}{name}"), amount);
            }
            if list_name == "requests" && (standard || name.starts_with("hugepages-")) {
                usage.insert(name, amount);
            }
        }
    }
}

/// A pod's requests or limits: what its containers need together, or more if an init container needs more.
pub fn pod_amounts(spec: &Value, list_name: &str) -> Usage {
    let mut running = Usage::new();
    let mut peak = Usage::new();
    let amounts = |holder: &Value| -> Usage {
        entries(holder, list_name)
            .filter_map(|(name, value)| Some((name.to_owned(), Quantity::from_json(value)?)))
            .collect()
    };
    let container_amounts = |container| amounts(at(container, &["resources"]));
    for container in list(spec, "initContainers") {
        let own = container_amounts(container);
        if text(container, "restartPolicy") == "Always" {
            add(&mut running, &own);
            raise(&mut peak, &running);
        } else {
            let mut beside = running.clone();
            add(&mut beside, &own);
            raise(&mut peak, &beside);
        }
    }
    for container in list(spec, "containers") {
        add(&mut running, &container_amounts(container));
    }
    raise(&mut running, &peak);
    for (name, amount) in amounts(at(spec, &["resources"])) {
        running.insert(name, amount);
    }
    let overhead = entries(spec, "overhead")
        .filter(|(name, _)| list_name == "requests" || running.contains_key(*name))
        .filter_map(|(name, value)| Some((name.to_owned(), Quantity::from_json(value)?)))
        .collect();
    add(&mut running, &overhead);
    running
}

fn add(sum: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.plus(*amount);
    }
}

fn raise(floor: &mut Usage, other: &Usage) {
    for (name, amount) in other {
        let entry = floor.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

fn service(object: &Value, usage: &mut Usage) {
    let spec = at(object, &["spec"]);
    let ports = Quantity::units(list(spec, "ports").len() as i64);
    match text(spec, "type") {
        "NodePort" => {
            usage.insert("services.nodeports".to_owned(), ports);
        }
        "LoadBalancer" => {
            usage.insert("services.loadbalancers".to_owned(), Quantity::units(1));
            if flag(spec, "allocateLoadBalancerNodePorts") {
                usage.insert("services.nodeports".to_owned(), ports);
            }
        }
        _ => {}
    }
}

fn claim(object: &Value, usage: &mut Usage) {
    let spec = at(object, &["spec"]);
    let storage = Quantity::from_json(at(spec, &["resources", "requests", "storage"]));
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        let name = format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims");
        usage.insert(name, Quantity::units(1));
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
}

/// The quota's `status.used` after a change of usage, or why there is no room. `more` is the usage added (for an update,
/// what it grows by); resources that the quota does not limit are ignored. `None` when nothing that it limits changes.
pub fn charge(quota: &Value, more: &Usage) -> Result<Option<Value>, QuotaExceeded> {
    let status = at(quota, &["status"]);
    let mut used: Map<String, Value> = at(status, &["used"]).as_object().cloned().unwrap_or_default();
    let (mut requested_texts, mut used_texts, mut limited_texts) = (Vec::new(), Vec::new(), Vec::new());
    let mut changed = false;
    for (name, hard) in entries(status, "hard") {
        let (Some(requested), Some(hard)) = (more.get(name), Quantity::from_json(hard)) else { continue };
        let before = used.get(name).and_then(Quantity::from_json).unwrap_or(Quantity::ZERO);
        let after = before.plus(*requested);
        if after > hard && *requested > Quantity::ZERO {
            requested_texts.push(format!("{name}={requested}"));
            used_texts.push(format!("{name}={before}"));
            limited_texts.push(format!("{name}={hard}"));
        }
        changed |= !requested.is_zero();
        used.insert(name.to_owned(), Value::from(after.to_string()));
    }
    if requested_texts.is_empty() {
        return Ok(changed.then_some(Value::Object(used)));
    }
    Err(QuotaExceeded {
        quota: text(at(quota, &["metadata"]), "name").to_owned(),
        requested: requested_texts.join(","),
        used: used_texts.join(","),
        limited: limited_texts.join(","),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{charge, usage};

    #[test]
    fn a_pod_uses_its_requests_and_a_full_quota_says_so() {
        let pod = json!({"spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "1", "nvidia.com/gpu": "2"}, "limits": {"cpu": "2"}}},
                {"name": "b", "resources": {"requests": {"cpu": "500m", "nvidia.com/gpu": "1"}}}
            ]
        }});
        let used = usage("v1", "Pod", "pods", &pod);
        let texts: Vec<String> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(
            texts,
            [
                "count/pods=1",
                "cpu=3",
                "limits.cpu=2",
                "pods=1",
                "requests.cpu=3",
                "requests.nvidia.com/gpu=3"
            ]
        );

        let quota = |in_use: &str| {
            json!({
                "metadata": {"name": "q"},
                "status": {"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": in_use}}
            })
        };
        assert_eq!(charge(&quota("1"), &used), Ok(Some(json!({"requests.nvidia.com/gpu": "4"}))));
        assert_eq!(
            charge(&quota("2"), &used).unwrap_err().to_string(),
            "exceeded quota: q, requested: requests.nvidia.com/gpu=3, used: requests.nvidia.com/gpu=2, limited: \
             requests.nvidia.com/gpu=4"
        );
    }
}
