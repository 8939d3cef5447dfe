//! Evictions: whether a pod may be evicted now by its disruption budget, and what it says of it.

use muster_admission::selectors::LabelSelector;
use muster_store::Query;
use serde_json::{Value, json};

use crate::app::Call;
use crate::change::scope;
use crate::meta::{at, meta, now, set_at, text};
use crate::objects::{Part, Scope, pod_finished};
use crate::request::WriteOptions;
use crate::status::{ApiError, ApiResult, Cause};

/// Takes the eviction from the pod's budget, or refuses it.
pub(crate) async fn take_from_budget(call: &Call, pod: &Value, dry_run: bool) -> ApiResult<()> {
    let unbound = text(pod, &["status", "phase"]) == "Pending" || text(pod, &["spec", "nodeName"]).is_empty();
    if unbound || pod_finished(pod) || crate::meta::is_deleting(pod) {
        return Ok(());
    }
    let namespace = call.path.namespace.as_deref();
    let budgets = call.app.store.list(&Query::new("policy/poddisruptionbudgets").namespace(namespace));
    let covering: Vec<String> = budgets
        .entries
        .iter()
        .filter(|entry| {
            let selector = LabelSelector::from_json(at(&entry.object(), &["spec", "selector"]));
            selector.is_ok_and(|selector| selector.matches(at(pod, &["metadata", "labels"])))
        })
        .map(|entry| entry.key().name.to_string())
        .collect();
    let budget = match covering.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::internal(why));
        }
    };
    let Some(resource) = call.app.registry.snapshot().find("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let pod_name = meta(pod, "name").to_owned();
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    let mut scope = Scope { resource: &resource, ..scope!(call, &options, "muster-apiserver") };
    let change = &mut |current: &Value| charge(current, budget, &pod_name);
    scope.modify(budget, Part::Subresource("status"), change).await.map(|_| ())
}

/// A pod that says that it is evicted, so that its owner does not take its end for its own failure.
pub(crate) fn announced(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let mut conditions = at(&pod, &["status", "conditions"]).as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "DisruptionTarget");
    conditions.push(json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now(),
    }));
    set_at(&mut pod, &["status", "conditions"], Some(conditions.into()));
    // Whatever others write meanwhile.
    set_at(&mut pod, &["metadata", "resourceVersion"], None);
    pod
}

/// The budget with one disruption less.
fn charge(budget: &Value, name: &str, pod: &str) -> ApiResult<Value> {
    let number = |field: &str| at(budget, &["status", field]).as_i64().unwrap_or(0);
    let refuse = |message: String| {
        let cause = Cause { reason: "DisruptionBudget", message, field: String::new() };
        ApiError::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            &[cause],
        )
    };
    if number("observedGeneration") < crate::meta::generation(budget) {
        return Err(refuse(format!("The disruption budget {name} is still being processed by the server.")));
    }
    let allowed = number("disruptionsAllowed");
    if allowed <= 0 {
        let text = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        return Err(refuse(text));
    }
    let mut budget = budget.clone();
    set_at(&mut budget, &["metadata", "resourceVersion"], None);
    set_at(&mut budget, &["status", "disruptionsAllowed"], Some((allowed - 1).into()));
    set_at(&mut budget, &["status", "disruptedPods", pod], Some(now().into()));
    Ok(budget)
}
