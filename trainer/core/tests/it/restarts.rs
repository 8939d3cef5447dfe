//! What follows from failed and lost pods.

use muster_trainer_api::{ConditionType, annotation};
use serde_json::{Value, json};

use crate::world::{World, manifest};

fn running(change: impl FnOnce(&mut Value)) -> World {
    let mut job = manifest(2);
    change(&mut job);
    let mut world = World::new(job);
    world.settle();
    world.run_all();
    world.settle();
    world
}

fn generations(world: &World) -> Vec<&str> {
    let label = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.metadata.labels.as_ref().unwrap()["muster.dev/gang-generation"].clone()
    };
    let labels: std::collections::BTreeSet<_> = world.pods.values().map(label).collect();
    labels.iter().map(|label| if label == "0" { "0" } else { "1+" }).collect()
}

#[test]
fn one_failed_pod_restarts_the_whole_gang_once() {
    let mut world = running(|_| {});
    let before: Vec<_> = world.pods.values().map(|pod| pod.metadata.uid.clone()).collect();
    world.exit("digits-worker-1", 1);
    let plan = world.reconcile();
    assert!(plan.create_pods.is_empty(), "the old pods go before the new ones come");
    assert_eq!(plan.delete_pods.len(), 3);
    world.settle();
    assert_eq!(world.pods.len(), 3);
    assert!(world.pods.values().all(|pod| !before.contains(&pod.metadata.uid)));
    assert_eq!(generations(&world), ["1+"]);
    assert_eq!(world.annotation(annotation::RESTART_COUNT), Some("1"));
    assert_eq!(world.annotation(annotation::GANG_GENERATION), Some("1"));
    assert_eq!(world.conditions(), ["Created=True", "Restarting=True"]);
    assert_eq!(
        world.message(ConditionType::Restarting),
        "PyTorchJob digits is restarting: pod digits-worker-1 failed with exit code 1; replacing all 3 pods (1 counted restarts, 0 free)"
    );
    world.run_all();
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
}

#[test]
fn late_failures_of_the_old_generation_do_not_count() {
    let mut world = running(|_| {});
    world.grace = 30;
    world.exit("digits-worker-1", 1);
    world.reconcile();
    world.exit("digits-worker-0", 1);
    world.exit("digits-master-0", 137);
    world.settle();
    world.pods.retain(|_, pod| pod.metadata.deletion_timestamp.is_none());
    world.settle();
    assert_eq!(world.annotation(annotation::RESTART_COUNT), Some("1"));
    assert_eq!(world.pods.len(), 3);
}

#[test]
fn gang_pods_are_not_restarted_in_place_but_pods_of_scope_pod_are() {
    let policy =
        |world: &World| world.pods["digits-worker-0"].spec.as_ref().unwrap().restart_policy.clone().unwrap();
    assert_eq!(policy(&running(|_| {})), "Never");
    let pod_scope = |job: &mut Value| {
        job["metadata"]["annotations"] = json!({annotation::RESTART_SCOPE: "pod"});
    };
    assert_eq!(policy(&running(pod_scope)), "OnFailure");
    let exit_code = |job: &mut Value| {
        pod_scope(job);
        job["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = json!("ExitCode");
    };
    assert_eq!(policy(&running(exit_code)), "Never");
}

#[test]
fn exit_codes_decide_between_restart_and_failure() {
    let exit_code = |job: &mut Value| {
        job["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = json!("ExitCode");
    };
    for (code, last) in
        [(1, "Failed=True"), (127, "Failed=True"), (128, "Restarting=True"), (137, "Restarting=True")]
    {
        let mut world = running(exit_code);
        world.exit("digits-worker-0", code);
        world.settle();
        assert_eq!(world.conditions().last().unwrap(), last, "{code}");
        assert!(world.reasons().contains(&"ExitedWithCode"));
    }
    let mut world = running(exit_code);
    world.set_pod_status("digits-worker-0", json!({"phase": "Failed", "reason": "Evicted"}));
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Restarting=True", "an evicted pod has no exit code");
}

#[test]
fn the_backoff_limit_bounds_counted_restarts() {
    for limit in [0, 1, 3] {
        let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": limit}));
        for _ in 0..limit {
            world.exit("digits-worker-0", 1);
            world.settle();
            world.advance(600);
            world.settle();
            world.run_all();
            world.settle();
            assert_eq!(world.conditions().last().unwrap(), "Running=True");
        }
        world.exit("digits-worker-0", 1);
        world.settle();
        assert_eq!(world.conditions().last().unwrap(), "Failed=True", "limit {limit}");
    }
}

#[test]
fn failures_of_the_infrastructure_are_free() {
    let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": 0}));
    let disruption =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    let mut preempted = world.exited(143);
    preempted["conditions"] = disruption;
    for status in [
        preempted,
        json!({"phase": "Failed", "reason": "Evicted"}),
        json!({"phase": "Failed", "reason": "NodeLost"}),
    ] {
        world.set_pod_status("digits-worker-1", status);
        world.settle();
        world.advance(600);
        world.settle();
        world.run_all();
        world.settle();
        assert_eq!(world.conditions().last().unwrap(), "Running=True");
    }
    assert_eq!(world.annotation(annotation::RESTART_COUNT), None);
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("3"));
}

#[test]
fn peers_that_fail_for_want_of_a_lost_pod_are_not_blamed() {
    for policy in ["OnFailure", "ExitCode", "Never"] {
        let mut world = running(|job| {
            job["spec"]["runPolicy"] = json!({"backoffLimit": 0});
            job["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = json!(policy);
        });
        world.exit("digits-worker-0", 1);
        world.set_pod_status("digits-worker-1", json!({"phase": "Failed", "reason": "Evicted"}));
        world.settle();
        assert_eq!(world.annotation(annotation::RESTART_COUNT), None, "{policy}");
        assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("1"));
    }
}

#[test]
fn a_pod_that_vanishes_restarts_the_gang_for_free() {
    let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": 0}));
    world.pods.remove("digits-worker-1");
    world.settle();
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("1"));
    assert_eq!(generations(&world), ["1+"]);
    assert_eq!(world.pods.len(), 3);
}

#[test]
fn pods_that_were_never_created_are_no_loss() {
    let mut world = World::new(manifest(2));
    world.settle();
    world.pods.remove("digits-worker-1");
    world.run_all();
    world.settle();
    assert_eq!(world.pods.len(), 3);
    assert_eq!(generations(&world), ["0"]);
}

#[test]
fn a_pod_deleted_from_outside_restarts_the_gang_for_free() {
    let mut world = running(|_| {});
    let deadline = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
    world.pods.get_mut("digits-worker-1").unwrap().metadata.deletion_timestamp = Some(deadline);
    world.reconcile();
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("1"));
}

#[test]
fn a_pod_on_a_lost_node_is_deleted_by_force_in_the_end() {
    let mut world = running(|_| {});
    world.grace = 30;
    world.exit("digits-worker-0", 1);
    world.settle();
    assert_eq!(world.pods.len(), 2, "two pods do not end");
    assert_eq!(world.plan().requeue_after.unwrap().as_secs(), 60);
    world.advance(60);
    let plan = world.reconcile();
    assert!(plan.delete_pods.len() == 2 && plan.delete_pods.iter().all(|deletion| deletion.force));
    world.settle();
    assert_eq!(world.pods.len(), 3);
}

#[test]
fn restarts_in_quick_succession_wait() {
    let mut world = running(|_| {});
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.exit("digits-worker-0", 1);
        world.settle();
        let wait = world.plan().requeue_after.map_or(0, |wait| wait.as_secs());
        waits.push(wait);
        world.advance(wait as i64);
        world.settle();
        world.run_all();
        world.settle();
    }
    assert_eq!(waits, [0, 1, 2, 4]);
}

#[test]
fn a_resized_gang_restarts_because_its_ranks_count_each_other() {
    let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": 0}));
    world.edit(|job| job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = json!(4));
    world.settle();
    assert_eq!(world.pods.len(), 5);
    assert_eq!(generations(&world), ["1+"]);
    let environment = world.pods["digits-master-0"].spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    let world_size = environment.iter().find(|variable| variable.name == "WORLD_SIZE").unwrap();
    assert_eq!(world_size.value.as_deref(), Some("5"));
}

#[test]
fn scope_pod_replaces_the_failed_pod_alone_and_counts_it_once() {
    let mut world = running(|job| {
        job["metadata"]["annotations"] = json!({annotation::RESTART_SCOPE: "pod"});
        job["spec"]["runPolicy"] = json!({"backoffLimit": 1});
    });
    let kept = world.pods["digits-worker-0"].metadata.uid.clone();
    world.exit("digits-worker-1", 1);
    world.settle();
    assert_eq!(world.pods["digits-worker-0"].metadata.uid, kept);
    assert_eq!(world.pods.len(), 3);
    assert_eq!(world.annotation(annotation::RESTART_COUNT), Some("1"));
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    world.run_all();
    world.settle();
    world.exit("digits-worker-1", 1);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Failed=True");
}

#[test]
fn container_restarts_in_place_spend_the_budget_of_scope_pod() {
    let mut world = running(|job| {
        job["metadata"]["annotations"] = json!({annotation::RESTART_SCOPE: "pod"});
        job["spec"]["runPolicy"] = json!({"backoffLimit": 2});
    });
    let restarted = |count| {
        json!({"phase": "Running", "containerStatuses": [
            {"name": "pytorch", "image": "", "imageID": "", "ready": true, "restartCount": count}]})
    };
    world.set_pod_status("digits-worker-1", restarted(1));
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
    world.set_pod_status("digits-worker-1", restarted(2));
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Failed=True");
}

#[test]
fn pods_of_another_operator_are_taken_over_as_they_are() {
    let mut world = running(|_| {});
    for pod in world.pods.values_mut() {
        pod.metadata.labels.as_mut().unwrap().remove("muster.dev/gang-generation");
        pod.metadata.annotations = None;
    }
    assert!(world.plan().is_empty());
}
