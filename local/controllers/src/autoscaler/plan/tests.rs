use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// An autoscaler of one to ten pods.
fn autoscaler(metrics: Value) -> HorizontalPodAutoscaler {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "u", "generation": 3 },
        "spec": {
            "minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        },
    }))
    .unwrap()
}

fn cpu(target: Value) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
}

fn half() -> Value {
    cpu(json!({ "type": "Utilization", "averageUtilization": 50 }))
}

fn custom() -> Value {
    json!({ "type": "Pods", "pods": {
        "metric": { "name": "requests" }, "target": { "type": "AverageValue", "averageValue": "1" } } })
}

/// A pod that asks for one core and has been ready for long.
fn pod(name: &str, change: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "main", "resources": { "requests": { "cpu": "1" } } }] },
        "status": {
            "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z" }],
        },
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        pod["status"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn usage(pods: &[(&str, &str)]) -> PodMetricsList {
    let items = pods.iter().map(|(name, cpu)| {
        json!({
            "metadata": { "name": name }, "timestamp": "2026-01-01T00:59:59Z", "window": "500ms",
            "containers": [{ "name": "main", "usage": { "cpu": cpu } }],
        })
    });
    serde_json::from_value(json!({ "items": items.collect::<Vec<_>>() })).unwrap()
}

fn look(autoscaler: &HorizontalPodAutoscaler, current: i32, used: &[(&str, &str)]) -> Plan {
    let pods: Vec<Arc<Pod>> = used.iter().map(|(name, _)| pod(name, json!({}))).collect();
    let usage = usage(used);
    let observed = Observation { autoscaler, current, pods: Ok(&pods), usage: Ok(&usage), now: now() };
    plan(&observed, Memory::default())
}

/// Whether a condition is true, and why; false and nothing when it is not there.
fn condition(plan: &Plan, type_: &str) -> (bool, String) {
    let mut all = plan.status.conditions.iter().flatten();
    let found = all.find(|condition| condition.type_ == type_);
    found
        .map(|condition| (condition.status == "True", condition.reason.clone().unwrap_or_default()))
        .unwrap_or_default()
}

fn said(is_true: bool, reason: &str) -> (bool, String) {
    (is_true, reason.to_owned())
}

fn told(plan: &Plan) -> Vec<(&str, &str)> {
    plan.notes.iter().map(|note| (note.reason, &*note.message)).collect()
}

#[test]
fn busy_pods_get_company_and_everybody_is_told() {
    let autoscaler = autoscaler(json!([half()]));
    let mut plan = look(&autoscaler, 2, &[("a", "900m"), ("b", "900m")]);
    let why = "cpu resource utilization (percentage of request) above target".to_owned();
    assert_eq!(plan.rescale, Some(Rescale { replicas: 4, why: why.clone() }));
    assert_eq!((plan.status.current_replicas, plan.status.desired_replicas), (Some(2), 4));
    assert_eq!(condition(&plan, "ScalingActive"), said(true, "ValidMetricFound"));
    assert_eq!(condition(&plan, "ScalingLimited"), said(false, "DesiredWithinRange"));
    let current = serde_json::to_value(&plan.status.current_metrics).unwrap();
    let measured = json!({ "averageUtilization": 90, "averageValue": "900m" });
    assert_eq!(current, json!([{ "type": "Resource", "resource": { "name": "cpu", "current": measured } }]));

    let mut failed = plan.clone();
    failed.rescaled(Err("no"), now());
    assert_eq!(condition(&failed, "AbleToScale"), said(false, "FailedUpdateScale"));
    assert_eq!(told(&failed), [("FailedRescale", &*format!("New size: 4; reason: {why}; error: no"))]);
    assert_eq!((failed.status.desired_replicas, failed.status.last_scale_time.clone()), (2, None));

    plan.rescaled(Ok(()), now());
    assert_eq!(condition(&plan, "AbleToScale"), said(true, "SucceededRescale"));
    assert_eq!(told(&plan), [("SuccessfulRescale", &*format!("New size: 4; reason: {why}"))]);
    assert_eq!(plan.status.last_scale_time, Some(Time(now())));
    assert_eq!(plan.status.observed_generation, Some(3));
}

#[test]
fn idle_pods_go_once_the_window_is_over() {
    let autoscaler = autoscaler(json!([half()]));
    let idle = [("a", "0"), ("b", "0"), ("c", "0")];
    let first = look(&autoscaler, 3, &idle);
    assert_eq!(first.rescale, None, "after a start the number found holds for a while");
    assert_eq!(condition(&first, "AbleToScale"), said(true, "ScaleDownStabilized"));
    let pods: Vec<_> = idle.iter().map(|(name, _)| pod(name, json!({}))).collect();
    let (usage, later) = (usage(&idle), now() + SignedDuration::from_secs(300));
    let observed =
        Observation { autoscaler: &autoscaler, current: 3, pods: Ok(&pods), usage: Ok(&usage), now: later };
    let second = plan(&observed, first.memory);
    assert_eq!(second.rescale, Some(Rescale { replicas: 1, why: "All metrics below target".into() }));
    assert_eq!(condition(&second, "ScalingLimited"), said(true, "TooFewReplicas"));
}

#[test]
fn bounds_hold_without_any_metric_and_none_means_off() {
    let autoscaler = autoscaler(json!([half()]));
    let above = look(&autoscaler, 12, &[]);
    let why = "Current number of replicas above Spec.MaxReplicas".to_owned();
    assert_eq!(above.rescale, Some(Rescale { replicas: 10, why }));
    let off = look(&autoscaler, 0, &[]);
    assert_eq!(
        (off.rescale.clone(), condition(&off, "ScalingActive")),
        (None, said(false, "ScalingDisabled"))
    );
    let mut at_least_three = autoscaler;
    at_least_three.spec.min_replicas = Some(3);
    let why = "Current number of replicas below Spec.MinReplicas".to_owned();
    assert_eq!(look(&at_least_three, 1, &[]).rescale, Some(Rescale { replicas: 3, why }));
}

#[test]
fn a_metric_that_says_nothing_keeps_pods_from_going_but_not_from_coming() {
    let mut autoscaler = autoscaler(json!([custom(), half()]));
    autoscaler.spec.behavior =
        serde_json::from_value(json!({ "scaleDown": { "stabilizationWindowSeconds": 0 } })).unwrap();
    let busy = look(&autoscaler, 1, &[("a", "2")]);
    assert_eq!(busy.rescale.as_ref().map(|rescale| rescale.replicas), Some(4));
    assert_eq!(condition(&busy, "ScalingActive"), said(true, "ValidMetricFound"));
    let idle = look(&autoscaler, 2, &[("a", "0"), ("b", "0")]);
    assert_eq!(
        (idle.rescale.clone(), condition(&idle, "ScalingActive")),
        (None, said(false, "FailedGetPodsMetric"))
    );
    let reason = "unable to get metric requests: unable to fetch metrics from custom metrics API: no custom metrics API \
                  (custom.metrics.k8s.io) registered";
    assert_eq!(
        told(&idle),
        [
            ("FailedGetPodsMetric", reason),
            (
                "FailedComputeMetricsReplicas",
                &*format!("invalid metrics (1 invalid out of 2), first error is: {reason}")
            ),
        ]
    );
    assert_eq!(idle.status.current_metrics.as_ref().map(Vec::len), Some(2), "each metric keeps its place");
}

#[test]
fn the_metric_that_asks_for_most_counts() {
    let milli = cpu(json!({ "type": "AverageValue", "averageValue": "300m" }));
    let side = json!({ "type": "ContainerResource", "containerResource": {
        "name": "cpu", "container": "main", "target": { "type": "Utilization", "averageUtilization": 60 } } });
    let plan = look(&autoscaler(json!([half(), milli, side])), 1, &[("a", "900m")]);
    assert_eq!(plan.rescale, Some(Rescale { replicas: 3, why: "cpu resource above target".into() }));
    let shown = serde_json::to_value(&plan.status.current_metrics).unwrap();
    assert_eq!(shown[2]["containerResource"]["current"]["averageUtilization"], 90);
    assert_eq!(shown[1]["resource"]["current"], json!({ "averageValue": "900m" }));
}

#[test]
fn every_obstacle_is_named() {
    let reason = |metric: Value, pods: Vec<Arc<Pod>>, usage: Result<&PodMetricsList, &str>| {
        let autoscaler = autoscaler(json!([metric]));
        let observed =
            Observation { autoscaler: &autoscaler, current: 1, pods: Ok(&pods), usage, now: now() };
        let plan = plan(&observed, Memory::default());
        assert_eq!(plan.rescale, None);
        let (is_true, reason) = condition(&plan, "ScalingActive");
        assert!(!is_true && plan.notes[0].reason == reason, "{:?}", plan.notes);
        format!("{reason}: {}", plan.notes[0].message)
    };
    let one = || vec![pod("a", json!({}))];
    let measured = usage(&[("a", "1")]);
    assert_eq!(
        reason(half(), one(), Err("the server is ill")),
        "FailedGetResourceMetric: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch \
         metrics from resource metrics API: the server is ill"
    );
    assert_eq!(
        reason(half(), Vec::new(), Ok(&measured)),
        "FailedGetResourceMetric: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics \
         returned from resource metrics API"
    );
    let mut asks_for_nothing = pod("a", json!({}));
    Arc::make_mut(&mut asks_for_nothing).spec.get_or_insert_default().containers[0].resources = None;
    assert_eq!(
        reason(half(), vec![asks_for_nothing], Ok(&measured)),
        "FailedGetResourceMetric: failed to get cpu utilization: missing request for cpu in container main of Pod a"
    );
    let starting = json!({ "startTime": "2026-01-01T00:59:00Z", "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:59:58Z" }] });
    let settled = reason_of_ready(&starting, &measured);
    assert_eq!(settled, 1, "a whole window has passed since it became ready");
    let unready = json!({ "startTime": "2026-01-01T00:59:00Z", "conditions": [
        { "type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:59:00Z" }] });
    assert_eq!(
        reason(half(), vec![pod("a", unready)], Ok(&measured)),
        "FailedGetResourceMetric: failed to get cpu utilization: did not receive metrics for targeted pods (pods might \
         be unready)"
    );
    let other = json!({ "type": "ContainerResource", "containerResource": {
        "name": "cpu", "container": "side", "target": { "type": "Utilization", "averageUtilization": 60 } } });
    assert!(
        reason(other, one(), Ok(&measured))
            .ends_with("container side not present in metrics for pod default/a")
    );
    let external = json!({ "type": "External", "external": {
        "metric": { "name": "queue" }, "target": { "type": "Value", "value": "1" } } });
    assert!(
        reason(external, one(), Ok(&measured))
            .starts_with("FailedGetExternalMetric: unable to get external metric")
    );
    let unset = cpu(json!({ "type": "Value", "value": "1" }));
    assert!(reason(unset, one(), Ok(&measured)).contains("neither an average utilization target nor"));
}

/// How many of one pod count as ready.
fn reason_of_ready(status: &Value, measured: &PodMetricsList) -> usize {
    let pods = [pod("a", status.clone())];
    let samples =
        measured.samples("default", &["a"], "cpu", crate::autoscaler::usage::Part::Pod, now()).unwrap();
    crate::autoscaler::group::Group::of(&pods, &samples, "cpu", now()).ready.len()
}

#[test]
fn pods_that_cannot_be_told_apart_are_left_alone() {
    let autoscaler = autoscaler(json!([half()]));
    let usage = usage(&[]);
    let look = |error: &SelectorError| {
        let observed = Observation {
            autoscaler: &autoscaler,
            current: 2,
            pods: Err(error),
            usage: Ok(&usage),
            now: now(),
        };
        plan(&observed, Memory::default())
    };
    let missing = look(&SelectorError::Missing);
    assert_eq!(condition(&missing, "ScalingActive"), said(false, "InvalidSelector"));
    assert_eq!(told(&missing)[0], ("SelectorRequired", "selector is required"));
    let both =
        SelectorError::Ambiguous { selector: "app=web".into(), others: vec!["a/b".into(), "a/c".into()] };
    let plan = look(&both);
    assert_eq!(
        (plan.rescale.clone(), condition(&plan, "ScalingActive")),
        (None, said(false, "AmbiguousSelector"))
    );
}

#[test]
fn a_condition_keeps_its_time_while_it_holds() {
    let mut autoscaler = autoscaler(json!([half()]));
    let (failed, note) = unreadable(&autoscaler, "gone", now());
    assert_eq!((note.reason, &*note.message), ("FailedGetScale", "gone"));
    autoscaler.status = Some(failed);
    let later = now() + SignedDuration::from_secs(60);
    let (again, _) = unreadable(&autoscaler, "still gone", later);
    let shown = &again.conditions.as_ref().unwrap()[0];
    assert_eq!(shown.last_transition_time, Some(Time(now())));
    assert!(shown.message.as_ref().unwrap().ends_with("still gone"));
    autoscaler.status = Some(again);
    let found = look(&autoscaler, 1, &[("a", "500m")]);
    assert_eq!(condition(&found, "AbleToScale"), said(true, "ReadyForNewScale"));
}
