//! Each check names its field.

use muster_trainer_core::jobset::validate;
use serde_json::{Value, json};

use super::world::{World, manifest};

fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut manifest = manifest(&[("data", 1), ("node", 1)]);
    change(&mut manifest["spec"]);
    let set = serde_json::from_value(manifest).unwrap();
    validate(&set).iter().map(ToString::to_string).collect()
}

#[test]
fn each_check_names_its_field() {
    assert!(errors(|_| ()).is_empty());
    let all = [
        errors(|spec| spec["replicatedJobs"][1]["name"] = json!("data")),
        errors(|spec| spec["replicatedJobs"][1]["name"] = json!("x".repeat(60))),
        errors(|spec| spec["network"] = json!({"subdomain": "a.b"})),
        errors(|spec| spec["replicatedJobs"][0]["dependsOn"] = json!([{"name": "node", "status": "Ready"}])),
        errors(|spec| {
            spec["startupPolicy"] = json!({"startupPolicyOrder": "InOrder"});
            spec["replicatedJobs"][1]["dependsOn"] = json!([{"name": "data", "status": "Ready"}]);
        }),
        errors(|spec| spec["successPolicy"] = json!({"operator": "All", "targetReplicatedJobs": ["x"]})),
        errors(|spec| spec["failurePolicy"] = json!({"restartStrategy": "InPlaceRestart"})),
        errors(|spec| {
            spec["failurePolicy"] = json!({"rules": [{"name": "a", "action": "FailJobSet",
                "onJobFailureReasons": ["Bored"], "onJobFailureMessagePatterns": ["("], "targetReplicatedJobs": ["x"]}]});
        }),
        errors(|spec| spec["coordinator"] = json!({"replicatedJob": "x"})),
        errors(|spec| spec["coordinator"] = json!({"replicatedJob": "node", "jobIndex": 1, "podIndex": 2})),
    ];
    insta::assert_yaml_snapshot!(all);
}

#[test]
fn a_set_that_is_not_valid_fails_and_says_why() {
    let mut manifest = manifest(&[("node", 1)]);
    manifest["spec"]["coordinator"] = json!({"replicatedJob": "driver"});
    let mut world = World::new(manifest);
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("InvalidJobSet"));
    let message = world.status().condition("Failed").unwrap().message.clone();
    assert_eq!(
        message,
        "the set is not valid: spec.coordinator.replicatedJob: there is no replicated job `driver`"
    );
    assert!(world.jobs.is_empty());
}
