//! How a set goes from its creation to its end.

use k8s_openapi::api::batch::v1::Job;
use muster_trainer_core::EventType;
use serde_json::{Value, json};

use super::world::{World, manifest};

fn with(groups: &[(&str, i32)], spec: Value) -> World {
    let mut manifest = manifest(groups);
    for (key, value) in spec.as_object().unwrap() {
        manifest["spec"][key] = value.clone();
    }
    World::new(manifest)
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().unwrap().suspend == Some(true)
}

fn attempt(job: &Job) -> &str {
    &job.metadata.labels.as_ref().unwrap()["jobset.sigs.k8s.io/restart-attempt"]
}

#[test]
fn all_jobs_run_and_the_set_is_complete_when_all_are() {
    let mut world = with(&[("driver", 1), ("node", 2)], json!({}));
    world.settle();
    assert_eq!(world.names(), ["train-driver-0", "train-node-0", "train-node-1"]);
    assert_eq!(world.service.as_ref().unwrap().metadata.name.as_deref(), Some("train"));
    world.ready("train-node-0");
    world.settle();
    let node = world.status().replicated_jobs_status[1].clone();
    assert_eq!((node.ready, node.active, node.succeeded), (1, 1, 0));
    for job in ["train-driver-0", "train-node-0"] {
        world.complete(job);
        world.settle();
        assert_eq!(world.reason("Completed"), None);
    }
    world.complete("train-node-1");
    world.settle();
    assert_eq!(world.reason("Completed").as_deref(), Some("AllJobsCompleted"));
    assert_eq!(world.status().terminal_state.as_deref(), Some("Completed"));
    assert_eq!(world.names().len(), 3, "what has ended is kept");
}

#[test]
fn a_success_policy_says_which_jobs_count() {
    let policy = json!({"operator": "Any", "targetReplicatedJobs": ["driver"]});
    let mut world = with(&[("driver", 2), ("node", 1)], json!({"successPolicy": policy}));
    world.settle();
    world.complete("train-node-0");
    world.settle();
    assert_eq!(world.reason("Completed"), None);
    world.complete("train-driver-1");
    world.settle();
    assert!(world.reason("Completed").is_some());
    assert_eq!(world.names(), ["train-driver-1", "train-node-0"], "what still ran is deleted");
}

#[test]
fn an_ended_set_counts_no_pods_that_are_gone_and_every_job_that_has_ended() {
    let policy = json!({"targetReplicatedJobs": ["driver"]});
    let mut world = with(&[("driver", 1), ("node", 3)], json!({"successPolicy": policy}));
    world.settle();
    world.grace = 30;
    for job in ["train-node-0", "train-node-1", "train-node-2"] {
        world.ready(job);
    }
    world.complete("train-driver-0");
    world.settle();
    assert!(world.reason("Completed").is_some());
    let node = |world: &World| world.status().replicated_jobs_status[1].clone();
    assert_eq!((node(&world).ready, node(&world).active), (3, 3), "they are asked to go");
    world.complete("train-node-0");
    world.jobs.remove("train-node-1");
    world.jobs.remove("train-node-2");
    world.settle();
    assert_eq!((node(&world).ready, node(&world).active, node(&world).succeeded), (0, 0, 1));
    world.jobs.clear();
    world.settle();
    let succeeded: Vec<_> =
        world.status().replicated_jobs_status.iter().map(|group| group.succeeded).collect();
    assert_eq!(succeeded, [1, 1], "what is cleared away has ended all the same");
}

#[test]
fn without_a_failure_policy_the_first_failure_ends_the_set() {
    let mut world = with(&[("node", 2)], json!({}));
    world.settle();
    world.fail("train-node-1");
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("FailedJobs"));
    assert_eq!(world.names(), ["train-node-1"]);
    let event = world.events.last().unwrap();
    assert_eq!((event.type_, event.reason.as_str()), (EventType::Warning, "FailedJobs"));
    assert!(event.message.contains("train-node-1"), "{}", event.message);
}

#[test]
fn a_restart_is_one_action_with_one_counter() {
    let mut world = with(&[("node", 3)], json!({"failurePolicy": {"maxRestarts": 1}}));
    world.settle();
    for job in ["train-node-0", "train-node-2"] {
        world.fail(job);
    }
    world.settle();
    assert_eq!(world.status().restarts, 1);
    assert_eq!(world.status().restarts_count_towards_max, 1);
    assert_eq!(world.names().len(), 3);
    assert!(world.jobs.values().all(|job| attempt(job) == "1"));
    world.fail("train-node-1");
    world.settle();
    assert_eq!(world.status().restarts, 1);
    assert_eq!(world.reason("Failed").as_deref(), Some("ReachedMaxRestarts"));
}

#[test]
fn the_budget_outlives_deleted_jobs() {
    let mut world = with(&[("node", 1)], json!({"failurePolicy": {"maxRestarts": 1}}));
    world.settle();
    world.fail("train-node-0");
    world.settle();
    world.jobs.clear();
    world.settle();
    assert_eq!((world.status().restarts, world.names().len()), (1, 1));
    world.fail("train-node-0");
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("ReachedMaxRestarts"));
}

#[test]
fn blocking_recreate_waits_for_all_predecessors() {
    for (strategy, early) in [("Recreate", 1), ("BlockingRecreate", 0)] {
        let policy = json!({"maxRestarts": 1, "restartStrategy": strategy});
        let mut world = with(&[("node", 2)], json!({"failurePolicy": policy}));
        world.settle();
        world.grace = 30;
        world.fail("train-node-0");
        world.settle();
        world.jobs.remove("train-node-0");
        world.settle();
        let fresh = world.jobs.values().filter(|job| attempt(job) == "1").count();
        assert_eq!(fresh, early, "{strategy}");
        world.jobs.remove("train-node-1");
        world.settle();
        assert!(world.names().len() == 2 && world.jobs.values().all(|job| attempt(job) == "1"));
    }
}

#[test]
fn the_first_rule_that_matches_says_what_happens() {
    let rules = json!([
        {"name": "hardware", "action": "RestartJobSetAndIgnoreMaxRestarts", "onJobFailureMessagePatterns": ["node gpu-\\d+"],
         "targetReplicatedJobs": ["node"]},
        {"name": "late", "action": "FailJobSet", "onJobFailureReasons": ["DeadlineExceeded"]},
        {"name": "data", "action": "RestartJob", "targetReplicatedJobs": ["data"]},
    ]);
    let mut world =
        with(&[("data", 2), ("node", 1)], json!({"failurePolicy": {"maxRestarts": 1, "rules": rules}}));
    world.settle();
    world.fail("train-node-0");
    world.settle();
    assert_eq!((world.status().restarts, world.status().restarts_count_towards_max), (1, 0));
    let untouched = world.jobs["train-data-0"].metadata.uid.clone();
    world.fail("train-data-1");
    world.settle();
    assert_eq!(world.status().replicated_jobs_status[0].job_restarts, [0, 1]);
    assert_eq!(world.jobs["train-data-0"].metadata.uid, untouched, "the others go on");
    assert_eq!(world.status().restarts, 1);
    world.fail("train-data-1");
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("ReachedMaxRestarts"));
    let reasons: Vec<_> = world.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "RestartJobSetAndIgnoreMaxRestartsFailurePolicyAction",
            "RestartJobFailurePolicyAction",
            "ReachedMaxRestarts"
        ]
    );
}

#[test]
fn a_rule_can_end_the_set_and_what_no_rule_matches_restarts_it() {
    let rules =
        json!([{"name": "late", "action": "FailJobSet", "onJobFailureReasons": ["DeadlineExceeded"]}]);
    let mut world = with(&[("node", 1)], json!({"failurePolicy": {"maxRestarts": 5, "rules": rules}}));
    world.settle();
    world.fail("train-node-0");
    world.settle();
    assert_eq!(world.status().restarts, 1);
    world.end("train-node-0", "Failed", "DeadlineExceeded", "");
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("FailJobSetFailurePolicyAction"));
}

#[test]
fn a_group_waits_for_those_it_depends_on() {
    let mut manifest = manifest(&[("data", 1), ("node", 1)]);
    manifest["spec"]["replicatedJobs"][1]["dependsOn"] = json!([{"name": "data", "status": "Complete"}]);
    let mut world = World::new(manifest);
    world.settle();
    assert_eq!(world.names(), ["train-data-0"]);
    assert!(world.reason("StartupPolicyInProgress").is_some());
    world.ready("train-data-0");
    world.settle();
    assert_eq!(world.names(), ["train-data-0"]);
    world.complete("train-data-0");
    world.settle();
    assert_eq!(world.names(), ["train-data-0", "train-node-0"]);
    assert_eq!(world.reason("StartupPolicyInProgress"), None);
    assert!(world.reason("StartupPolicyCompleted").is_some());
}

#[test]
fn a_suspended_set_is_resumed_where_its_pods_may_go_then() {
    let mut world = with(&[("node", 2)], json!({"suspend": true}));
    world.settle();
    assert!(world.names().len() == 2 && world.jobs.values().all(is_suspended));
    assert_eq!(world.reason("Suspended").as_deref(), Some("SuspendedJobs"));
    assert_eq!(world.status().replicated_jobs_status[0].suspended, 2);
    let set = world.set.as_mut().unwrap();
    set.spec.suspend = Some(false);
    let pod = set.spec.replicated_jobs[0].template.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    pod.node_selector = Some([("zone".to_owned(), "a".to_owned())].into());
    world.settle();
    assert!(!world.jobs.values().any(is_suspended));
    let spec = world.jobs["train-node-0"].spec.as_ref().unwrap().template.spec.clone().unwrap();
    assert_eq!(spec.node_selector.unwrap()["zone"], "a");
    assert_eq!(world.status().condition("Suspended").unwrap().reason, "ResumeJobs");
    world.complete("train-node-0");
    world.set.as_mut().unwrap().spec.suspend = Some(true);
    world.settle();
    assert!(!is_suspended(&world.jobs["train-node-0"]), "what is complete stays so");
    assert!(is_suspended(&world.jobs["train-node-1"]));
}

#[test]
fn a_set_goes_after_its_time_and_does_not_come_back() {
    let mut world = with(&[("node", 1)], json!({"ttlSecondsAfterFinished": 60}));
    world.settle();
    world.complete("train-node-0");
    world.settle();
    let plan = world.plan();
    assert!(plan.is_empty());
    assert_eq!(plan.requeue_after.unwrap().as_secs(), 60);
    world.advance(60);
    world.settle();
    assert!(world.set.is_none() && world.jobs.is_empty());
}

#[test]
fn another_controllers_set_is_left_alone() {
    let mut world = with(&[("node", 1)], json!({"managedBy": "kueue.x-k8s.io/multikueue"}));
    world.settle();
    assert!(world.jobs.is_empty() && world.service.is_none());
}
