use super::*;

#[test]
fn a_share_of_the_processors_is_a_field_of_its_own() {
    let mut autoscaler = json!({ "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 50 } });
    let written = autoscaler.clone();
    to_v2(&mut autoscaler);
    let target = json!({ "type": "Utilization", "averageUtilization": 50 });
    assert_eq!(
        autoscaler["spec"]["metrics"],
        json!([{ "type": "Resource", "resource": { "name": "cpu", "target": target } }])
    );
    to_v1(&mut autoscaler);
    assert_eq!(
        autoscaler["spec"]["targetCPUUtilizationPercentage"],
        written["spec"]["targetCPUUtilizationPercentage"]
    );
    assert!(autoscaler["spec"].get("metrics").is_none() && autoscaler.get("metadata").is_none());
    let mut bare = json!({ "spec": { "maxReplicas": 3 } });
    to_v2(&mut bare);
    assert_eq!(
        bare["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80,
        "Kubernetes' default"
    );
}

/// Everything that `v2` says survives a look through `v1`.
#[test]
fn nothing_is_lost_on_the_way() {
    let metric = json!({ "name": "hits", "selector": { "matchLabels": { "a": "b" } } });
    let rules = json!({ "stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [
        { "type": "Pods", "value": 4, "periodSeconds": 15 }] });
    let whole = json!({
        "metadata": { "name": "web", "annotations": { "own": "1" } },
        "spec": {
            "scaleTargetRef": { "kind": "Deployment", "name": "web" }, "minReplicas": 2, "maxReplicas": 5,
            "metrics": [
                { "type": "Resource", "resource": {
                    "name": "memory", "target": { "type": "AverageValue", "averageValue": "1Gi" } } },
                { "type": "ContainerResource", "containerResource": {
                    "name": "cpu", "container": "c", "target": { "type": "Utilization", "averageUtilization": 5 } } },
                { "type": "Pods", "pods": {
                    "metric": metric, "target": { "type": "AverageValue", "averageValue": "1" } } },
                { "type": "Object", "object": {
                    "describedObject": { "kind": "Service", "name": "s" }, "metric": metric,
                    "target": { "type": "Value", "value": "7" } } },
                { "type": "External", "external": {
                    "metric": metric, "target": { "type": "AverageValue", "averageValue": "2" } } },
                { "type": "Resource", "resource": {
                    "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } } },
            ],
            "behavior": { "scaleUp": rules, "scaleDown": rules },
        },
        "status": {
            "currentReplicas": 2, "desiredReplicas": 3,
            "conditions": [{ "type": "AbleToScale", "status": "True" }],
            "currentMetrics": [
                { "type": "" },
                { "type": "Resource", "resource": {
                    "name": "cpu", "current": { "averageUtilization": 30, "averageValue": "300m" } } },
            ],
        },
    });
    let mut shown = whole.clone();
    to_v1(&mut shown);
    assert_eq!(shown["spec"]["targetCPUUtilizationPercentage"], 60);
    assert_eq!(shown["status"]["currentCPUUtilizationPercentage"], 30);
    let notes = shown["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(notes.len(), 5);
    assert!(notes[BEHAVIOR].as_str().unwrap().contains("\"StabilizationWindowSeconds\":5"));
    assert!(notes[METRICS].as_str().unwrap().contains("\"targetAverageValue\":\"1Gi\""));
    to_v2(&mut shown);
    assert_eq!(shown, whole);
}

#[test]
fn annotations_that_are_no_json_are_dropped() {
    let mut autoscaler = json!({
        "metadata": { "annotations": { METRICS: "[{", BEHAVIOR: "3", CONDITIONS: "{}" } },
        "spec": { "maxReplicas": 3, "targetCPUUtilizationPercentage": 50 }, "status": {},
    });
    to_v2(&mut autoscaler);
    assert!(autoscaler["metadata"].get("annotations").is_none());
    assert_eq!(autoscaler["spec"]["metrics"].as_array().map(Vec::len), Some(1));
    assert!(autoscaler["spec"].get("behavior").is_none() && autoscaler["status"].get("conditions").is_none());
}
