//! Status, clean-up, deadlines, suspension and scaling.

use muster_trainer_api::ConditionType;
use serde_json::json;

use crate::world::{World, manifest};

fn running(workers: i32, run_policy: serde_json::Value) -> World {
    let mut job = manifest(workers);
    job["spec"]["runPolicy"] = run_policy;
    let mut world = World::new(job);
    world.settle();
    world.run_all();
    world.settle();
    world
}

#[test]
fn a_job_runs_when_its_master_runs() {
    let mut world = World::new(manifest(2));
    world.settle();
    assert_eq!(world.conditions(), ["Created=True"]);
    world.run("digits-worker-0");
    world.settle();
    assert_eq!(world.conditions(), ["Created=True"]);
    assert_eq!(world.counts("Worker"), (1, 0, 0));
    world.run("digits-master-0");
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
}

#[test]
fn the_end_of_the_master_is_the_end_of_the_job() {
    let mut world = running(2, json!({}));
    world.exit("digits-master-0", 0);
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Succeeded=True"]);
    assert_eq!(world.counts("Worker"), (0, 2, 0));
    assert_eq!(world.pods.len(), 3, "the default keeps every pod");
    assert!(world.reasons().contains(&"PyTorchJobSucceeded"));
}

#[test]
fn without_a_master_all_workers_must_end_well() {
    let mut job = manifest(2);
    job["spec"]["pytorchReplicaSpecs"].as_object_mut().unwrap().remove("Master");
    let mut world = World::new(job);
    world.settle();
    world.run_all();
    world.exit("digits-worker-1", 0);
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    world.exit("digits-worker-0", 0);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Succeeded=True");
}

#[test]
fn one_elastic_worker_that_ends_well_is_enough() {
    let mut job = manifest(2);
    job["spec"]["pytorchReplicaSpecs"].as_object_mut().unwrap().remove("Master");
    job["spec"]["elasticPolicy"] = json!({});
    let mut world = World::new(job);
    world.settle();
    world.run_all();
    world.exit("digits-worker-1", 0);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Succeeded=True");
}

#[test]
fn clean_pod_policy_decides_which_pods_stay() {
    for (policy, pods, services) in [("None", 3, 3), ("Running", 1, 1), ("All", 0, 0)] {
        let mut world = running(2, json!({"cleanPodPolicy": policy}));
        world.exit("digits-master-0", 0);
        world.settle();
        assert_eq!((world.pods.len(), world.services.len()), (pods, services), "{policy}");
    }
}

#[test]
fn running_pods_of_a_failed_job_go_only_if_asked() {
    let mut job = manifest(2);
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = json!("Never");
    job["spec"]["runPolicy"] = json!({"cleanPodPolicy": "Running"});
    let mut world = World::new(job);
    world.settle();
    world.run_all();
    world.exit("digits-worker-0", 1);
    world.settle();
    assert_eq!(world.pod_names(), ["digits-worker-0"]);
    assert_eq!(world.conditions().last().unwrap(), "Failed=True");
    assert_eq!(
        world.message(ConditionType::Failed),
        "PyTorchJob digits has failed: pod digits-worker-0 failed with exit code 1 and its restart policy is Never"
    );
}

#[test]
fn an_ended_job_never_changes() {
    let mut world = running(1, json!({}));
    world.exit("digits-master-0", 0);
    world.settle();
    let ended = world.job.clone().unwrap();
    world.exit("digits-worker-0", 1);
    world.pods.remove("digits-master-0");
    world.advance(1_000_000);
    world.settle();
    let job = world.job.as_ref().unwrap();
    assert_eq!((&job.status, &job.metadata), (&ended.status, &ended.metadata));
    assert_eq!(world.pod_names(), ["digits-worker-0"]);
}

#[test]
fn a_job_is_deleted_after_its_time_to_live() {
    let mut world = running(1, json!({"ttlSecondsAfterFinished": 60}));
    world.exit("digits-master-0", 0);
    world.settle();
    world.advance(59);
    assert_eq!(world.plan().requeue_after.unwrap().as_secs(), 1);
    world.advance(1);
    world.settle();
    assert!(world.job.is_none());
}

#[test]
fn a_missing_completion_time_does_not_keep_a_job_forever() {
    let mut world = running(1, json!({"ttlSecondsAfterFinished": 60}));
    world.exit("digits-master-0", 0);
    world.settle();
    world.job.as_mut().unwrap().status.completion_time = None;
    world.advance(60);
    world.settle();
    assert!(world.job.is_none());
}

#[test]
fn a_job_that_runs_too_long_fails_and_is_cleaned_up() {
    let mut world = running(1, json!({"activeDeadlineSeconds": 10, "cleanPodPolicy": "All"}));
    world.advance(9);
    assert_eq!(world.plan().requeue_after.unwrap().as_secs(), 1);
    world.advance(1);
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Failed=True"]);
    assert!(world.pods.is_empty() && world.services.is_empty());
}

#[test]
fn a_suspended_job_has_no_pods_and_resumes_with_a_new_clock() {
    let mut world = running(2, json!({"activeDeadlineSeconds": 10}));
    world.grace = 30;
    world.edit(|job| job["spec"]["runPolicy"]["suspend"] = json!(true));
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Suspended=True"]);
    assert_eq!(world.counts("Worker"), (0, 0, 0));
    assert!(world.services.is_empty());
    assert!(world.pods.values().all(|pod| pod.metadata.deletion_timestamp.is_some()));
    world.advance(20);
    world.edit(|job| job["spec"]["runPolicy"]["suspend"] = json!(false));
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Suspended=False"]);
    assert!(
        world.pods.values().all(|pod| pod.metadata.deletion_timestamp.is_some()),
        "the old pods end first"
    );
    world.pods.clear();
    world.settle();
    world.run_all();
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Suspended=False", "Running=True"]);
    assert_eq!(world.annotation("muster.dev/restart-count"), None);
    assert_eq!(world.reasons().iter().filter(|reason| **reason == "PyTorchJobResumed").count(), 1);
}

#[test]
fn a_job_created_suspended_creates_nothing() {
    let mut job = manifest(1);
    job["spec"]["runPolicy"] = json!({"suspend": true});
    let mut world = World::new(job);
    world.settle();
    assert!(world.pods.is_empty() && world.services.is_empty());
    assert_eq!(world.conditions(), ["Created=True", "Suspended=True"]);
}

#[test]
fn a_job_of_another_controller_is_left_alone() {
    let mut job = manifest(1);
    job["spec"]["runPolicy"] = json!({"managedBy": "kueue.x-k8s.io/multikueue"});
    let mut world = World::new(job);
    assert_eq!(world.reconcile(), muster_trainer_core::Plan::default());
}

#[test]
fn scaling_down_is_no_failure() {
    let mut job = manifest(3);
    job["spec"]["pytorchReplicaSpecs"].as_object_mut().unwrap().remove("Master");
    job["spec"]["elasticPolicy"] = json!({"minReplicas": 1, "maxReplicas": 3});
    let mut world = World::new(job);
    world.grace = 30;
    world.settle();
    world.run_all();
    world.settle();
    world.edit(|job| job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = json!(1));
    world.settle();
    world.exit("digits-worker-2", 143);
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    assert_eq!(world.counts("Worker"), (1, 0, 0));
    assert_eq!(world.services.len(), 1);
    assert!(!world.reasons().contains(&"PyTorchJobRestarting"));
}

#[test]
fn objects_of_others_are_left_alone() {
    let mut world = running(1, json!({"cleanPodPolicy": "All"}));
    let mut stranger = world.pods["digits-worker-0"].clone();
    stranger.metadata.owner_references = None;
    world.pods.insert("stranger".to_owned(), stranger);
    world.exit("digits-master-0", 0);
    world.settle();
    assert_eq!(world.pod_names(), ["stranger"]);
}

#[test]
fn an_autoscaler_goes_with_the_suspension_and_the_end() {
    let mut job = manifest(1);
    job["spec"]["elasticPolicy"] = json!({"metrics": [{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]});
    let mut world = World::new(job);
    world.settle();
    assert!(world.autoscaler.is_some());
    world.edit(|job| job["spec"]["runPolicy"]["suspend"] = json!(true));
    world.settle();
    assert!(world.autoscaler.is_none());
    world.edit(|job| job["spec"]["runPolicy"]["suspend"] = json!(false));
    world.settle();
    assert!(world.autoscaler.is_some());
    world.edit(|job| job["spec"]["runPolicy"]["cleanPodPolicy"] = json!("All"));
    world.run_all();
    world.exit("digits-master-0", 0);
    world.settle();
    assert!(world.autoscaler.is_none());
}
