//! What the Jobs, services and claims of a set look like.

use serde_json::json;

use super::world::{World, manifest};

#[test]
fn a_job_carries_its_place_in_the_set() {
    let mut manifest = manifest(&[("driver", 1), ("node", 2)]);
    manifest["spec"]["coordinator"] = json!({"replicatedJob": "driver", "podIndex": 1});
    manifest["spec"]["replicatedJobs"][1]["groupName"] = json!("workers");
    let mut world = World::new(manifest);
    world.settle();
    insta::assert_yaml_snapshot!(world.jobs["train-node-1"]);
    insta::assert_yaml_snapshot!(world.service.unwrap());
}

#[test]
fn groups_that_wait_for_each_other_are_gangs_of_their_own() {
    let mut manifest = manifest(&[("data", 1), ("node", 2)]);
    manifest["spec"]["startupPolicy"] = json!({"startupPolicyOrder": "InOrder"});
    let mut world = World::new(manifest);
    world.settle();
    let template = &world.jobs["train-data-0"].spec.as_ref().unwrap().template;
    let annotations = template.metadata.as_ref().unwrap().annotations.as_ref().unwrap();
    assert_eq!(annotations["muster.dev/gang-by"], "ReplicatedJob");
}

#[test]
fn pods_of_another_scheduler_join_no_gang() {
    let mut manifest = manifest(&[("node", 1)]);
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["schedulerName"] =
        json!("volcano");
    let mut world = World::new(manifest);
    world.settle();
    let template = world.jobs["train-node-0"].spec.clone().unwrap().template;
    assert_eq!(template.spec.unwrap().scheduler_name.as_deref(), Some("volcano"));
    assert!(!template.metadata.unwrap().annotations.unwrap().contains_key("muster.dev/gang-by"));
}

#[test]
fn claims_are_created_once_and_mounted_by_name() {
    let mut manifest = manifest(&[("node", 1), ("other", 1)]);
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    manifest["spec"]["volumeClaimPolicies"] = json!([
        {"templates": [claim]},
        {"templates": [{"metadata": {"name": "kept"}, "spec": {}}], "retentionPolicy": {"whenDeleted": "Retain"}},
    ]);
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    let mut world = World::new(manifest);
    let owners: Vec<_> =
        world.plan().create_claims.iter().map(|claim| claim.metadata.owner_references.is_some()).collect();
    assert_eq!(owners, [true, false], "a claim that stays has no owner");
    world.settle();
    assert_eq!(world.claims, ["data-train", "kept-train"]);
    let volumes = |job: &str| world.jobs[job].spec.clone().unwrap().template.spec.unwrap().volumes;
    assert_eq!(
        volumes("train-node-0").unwrap()[0].persistent_volume_claim.as_ref().unwrap().claim_name,
        "data-train"
    );
    assert!(volumes("train-other-0").is_none());
}
