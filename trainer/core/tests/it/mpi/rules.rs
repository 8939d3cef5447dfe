//! The life of an MPI job: conditions, restarts, suspension, its end.

use muster_trainer_api::{ConditionType, annotation};
use muster_trainer_core::Counter;
use serde_json::{Value, json};

use super::world::{World, exited, manifest, manifest_v1};
use crate::world::phase;

fn running(change: impl FnOnce(&mut Value)) -> World {
    let mut job = manifest(2);
    change(&mut job);
    let mut world = World::new(job);
    world.run_all();
    world
}

fn end_launcher(world: &mut World, code: i32) {
    let pod = world.launcher_pod();
    world.set_pod_status(&pod, exited(code));
    world.settle();
}

#[test]
fn a_job_runs_when_the_launcher_and_all_workers_do_and_succeeds_with_the_launcher() {
    let mut world = World::new(manifest(2));
    world.settle();
    assert_eq!(world.conditions(), ["Created=True"]);
    world.run("pi-worker-0");
    let launcher = world.launcher_pod();
    world.run(&launcher);
    world.settle();
    assert_eq!(world.conditions(), ["Created=True"]);
    world.run("pi-worker-1");
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    assert_eq!((world.counts("Launcher"), world.counts("Worker")), ((1, 0, 0), (2, 0, 0)));
    end_launcher(&mut world, 0);
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Succeeded=True"]);
    assert_eq!((world.counts("Launcher"), world.counts("Worker")), ((0, 1, 0), (2, 0, 0)));
    assert_eq!(world.pods.len(), 3, "the clean pod policy None keeps everything");
}

#[test]
fn the_discovery_script_names_the_workers_that_run_and_is_kept_current() {
    let mut world = World::new(manifest(3));
    world.settle();
    assert_eq!(world.file("discover_hosts.sh"), "#!/bin/sh\n");
    world.run("pi-worker-2");
    world.run("pi-worker-0");
    world.settle();
    let both = "#!/bin/sh\necho pi-worker-0.pi.team.svc\necho pi-worker-2.pi.team.svc\n";
    assert_eq!(world.file("discover_hosts.sh"), both);
    world.run_all();
    world.edit(|job| job.spec.mpi_replica_specs.get_mut("Worker").unwrap().replicas = Some(1));
    world.settle();
    assert_eq!(world.file("hostfile"), "pi-worker-0.pi.team.svc slots=1\n");
    assert_eq!(world.file("discover_hosts.sh"), "#!/bin/sh\necho pi-worker-0.pi.team.svc\n");
    assert_eq!(world.conditions(), ["Created=True", "Running=True"], "a smaller job goes on");
    world.edit(|job| job.spec.mpi_replica_specs.get_mut("Worker").unwrap().replicas = Some(4));
    world.run_all();
    assert_eq!(world.file("discover_hosts.sh").lines().count(), 5);
    assert_eq!(world.annotation(annotation::GANG_GENERATION), None, "no resize is a restart");
}

#[test]
fn a_launcher_that_fails_is_tried_again_and_then_the_job_fails_with_its_reason() {
    let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": 1}));
    end_launcher(&mut world, 3);
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
    world.run_all();
    let pod = world.launcher_pod();
    let mut status = exited(3);
    status["reason"] = json!("OOMKilled");
    status["message"] = json!("out of memory");
    world.set_pod_status(&pod, status);
    world.settle();
    let (reason, message) = world.said(ConditionType::Failed);
    assert_eq!(reason, "BackoffLimitExceeded/OOMKilled");
    assert_eq!(message, "Job BackoffLimitExceeded: out of memory");
    assert_eq!(world.annotation(annotation::RESTART_COUNT), None, "the workers were not touched");
}

#[test]
fn the_older_version_s_policies_hold_for_its_launcher() {
    let job = |policy: Value| {
        let mut job = manifest_v1(1);
        job["spec"]["mpiReplicaSpecs"]["Launcher"]["restartPolicy"] = policy;
        let mut world = World::new(job);
        world.settle();
        world.launchers["pi-launcher"].spec.clone().unwrap()
    };
    let policy = |policy| job(policy).template.spec.unwrap().restart_policy.unwrap();
    assert_eq!((policy(json!(null)), job(json!(null)).backoff_limit), ("Never".to_owned(), Some(0)));
    assert_eq!(job(json!("OnFailure")).backoff_limit, Some(i32::MAX));
    assert_eq!(policy(json!("Always")), "OnFailure");
    let by_exit_code = job(json!("ExitCode"));
    let rule = &by_exit_code.pod_failure_policy.unwrap().rules[0];
    assert_eq!(rule.action, "FailJob");
    assert!(rule.on_exit_codes.as_ref().unwrap().values.contains(&127));
    assert!(!rule.on_exit_codes.as_ref().unwrap().values.contains(&137));
}

#[test]
fn an_evicted_worker_fails_the_job_and_stops_its_launcher() {
    let mut world = running(|_| {});
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."});
    world.set_pod_status("pi-worker-1", evicted);
    world.settle();
    let (reason, message) = world.said(ConditionType::Failed);
    assert_eq!(reason, "MPIJobEvicted");
    assert_eq!(message, "worker pi-worker-1 was evicted: The node was low on memory.");
    assert_eq!(world.launcher_pods().count(), 0);
}

#[test]
fn a_worker_that_fails_restarts_launcher_and_workers_as_one() {
    let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": 2}));
    let before: Vec<_> = world.pods.values().map(|pod| pod.metadata.uid.clone()).collect();
    world.set_pod_status("pi-worker-1", exited(7));
    // The launcher has noticed, and its Job has begun to count.
    let launcher = world.launcher_pod();
    world.set_pod_status(&launcher, exited(1));
    world.control_launchers();
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Restarting=True"]);
    assert_eq!(
        world.said(ConditionType::Restarting).1,
        "MPIJob pi is restarting: worker pi-worker-1 failed with exit code 7; replacing the launcher and all 2 workers (1 of at most 2 counted restarts, 0 free)"
    );
    assert!(world.pods.values().all(|pod| !before.contains(&pod.metadata.uid)));
    assert_eq!(world.launchers["pi-launcher"].spec.as_ref().unwrap().backoff_limit, Some(1), "one budget");
    world.run_all();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    world.set_pod_status("pi-worker-0", exited(7));
    world.settle();
    world.advance(600);
    world.run_all();
    world.set_pod_status("pi-worker-0", exited(7));
    world.settle();
    let (reason, message) = world.said(ConditionType::Failed);
    assert_eq!(reason, "MPIJobFailed");
    assert_eq!(
        message,
        "worker pi-worker-0 failed with exit code 7, and no restart is left: the backoff limit is 2, with 2 counted restarts and 0 failures of the launcher before"
    );
}

#[test]
fn a_worker_that_goes_after_the_launcher_has_ended_well_restarts_nothing() {
    let mut world = running(|_| {});
    let launcher = world.launcher_pod();
    world.set_pod_status(&launcher, exited(0));
    world.set_pod_status("pi-worker-1", exited(7));
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Succeeded=True");
    assert_eq!(world.annotation(annotation::GANG_GENERATION), None);
}

#[test]
fn what_the_cluster_takes_is_a_free_restart() {
    let mut world = running(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": 0}));
    world.pods.remove("pi-worker-0");
    world.settle();
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("1"));
    world.run_all();
    let preempted =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    world.set_pod_status("pi-worker-1", json!({"phase": "Failed", "conditions": preempted}));
    let launcher = world.launcher_pod();
    world.set_pod_status(&launcher, exited(1));
    world.control_launchers();
    world.settle();
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("2"));
    assert_eq!(world.annotation(annotation::RESTART_COUNT), None);
    assert!(world.said(ConditionType::Restarting).1.contains("lost (PreemptionByScheduler)"));
    world.advance(600);
    world.run_all();
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
}

/// The status of a pod that the cluster takes.
fn taken() -> Value {
    let disrupted =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]);
    json!({"phase": "Failed", "conditions": disrupted})
}

/// A job whose script runs once, and again if it was submitted to be requeued.
fn batch(requeue: bool) -> World {
    running(|job| {
        job["spec"]["runPolicy"] = json!({"backoffLimit": 0});
        job["spec"]["mpiReplicaSpecs"]["Launcher"]["restartPolicy"] = json!("Never");
        if requeue {
            job["metadata"]["annotations"] = json!({annotation::REQUEUE: "true"});
        }
    })
}

#[test]
fn a_launcher_that_the_cluster_takes_starts_a_job_anew_that_is_requeued() {
    for late in [false, true] {
        let mut world = batch(true);
        let before: Vec<_> = world.pods.values().map(|pod| pod.metadata.uid.clone()).collect();
        let launcher = world.launcher_pod();
        world.set_pod_status(&launcher, taken());
        if late {
            // Its Job has put another in its place.
            world.control_launchers();
        }
        world.settle();
        world.advance(600);
        world.run_all();
        assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("1"));
        assert_eq!(world.annotation(annotation::RESTART_COUNT), None);
        assert!(world.pods.values().all(|pod| !before.contains(&pod.metadata.uid)), "the workers, too");
        assert_eq!(world.conditions().last().unwrap(), "Running=True");
        let said =
            world.events.iter().any(|event| event.message.contains("was lost (EvictionByEvictionAPI)"));
        assert!(said, "{:?}", world.events);
    }
    let mut world = batch(true);
    world.set_pod_status("pi-worker-1", json!({"phase": "Failed", "reason": "Evicted"}));
    world.settle();
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("1"));
    let mut world = batch(true);
    end_launcher(&mut world, 3);
    assert_eq!(world.said(ConditionType::Failed).0, "BackoffLimitExceeded", "its own failure counts");
}

#[test]
fn a_launcher_that_the_cluster_takes_fails_any_other_job() {
    let mut world = batch(false);
    let launcher = world.launcher_pod();
    world.set_pod_status(&launcher, taken());
    world.settle();
    assert_eq!(world.said(ConditionType::Failed).0, "BackoffLimitExceeded");
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), None);
}

#[test]
fn an_elastic_launcher_goes_on_while_its_worker_is_replaced() {
    let mut world = running(|job| {
        job["metadata"]["annotations"] = json!({annotation::RESTART_SCOPE: "pod"});
    });
    let launcher = world.launcher_pod();
    world.set_pod_status("pi-worker-1", exited(7));
    world.settle();
    assert_eq!(world.launcher_pod(), launcher);
    assert_eq!(phase(&world.pods["pi-worker-1"]), "Pending");
    assert_eq!(world.annotation(annotation::RESTART_COUNT), Some("1"));
    assert_eq!(world.file("discover_hosts.sh"), "#!/bin/sh\necho pi-worker-0.pi.team.svc\n");
}

fn elastic(manifest: Value, run_policy: Value) -> World {
    let mut job = manifest;
    job["metadata"]["annotations"] = json!({annotation::RESTART_SCOPE: "pod"});
    job["spec"]["runPolicy"] = run_policy;
    let mut world = World::new(job);
    world.run_all();
    world
}

#[test]
fn workers_of_an_elastic_launcher_that_fail_again_and_again_end_the_job_and_each_is_told() {
    let mut world = elastic(manifest(2), json!({"backoffLimit": 2}));
    for restart in 1..=2 {
        world.set_pod_status("pi-worker-1", exited(7));
        let plan = world.reconcile();
        assert_eq!(plan.counters, [Counter::Restarted]);
        assert_eq!(world.conditions(), ["Created=True", "Restarting=True"]);
        assert_eq!(
            world.said(ConditionType::Restarting).1,
            format!(
                "MPIJob pi is restarting: worker pi-worker-1 failed with exit code 7; replacing it ({restart} of at most 2 counted restarts, 0 free)"
            )
        );
        world.settle();
        world.advance(600);
        world.run_all();
        assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    }
    let told = world.events.iter().filter(|event| event.reason == "MPIJobRestarting").count();
    assert_eq!(told, 2);
    world.set_pod_status("pi-worker-0", exited(7));
    world.settle();
    let (reason, message) = world.said(ConditionType::Failed);
    assert_eq!(reason, "MPIJobFailed");
    assert!(
        message.starts_with("worker pi-worker-0 failed with exit code 7, and no restart is left"),
        "{message}"
    );
    assert_eq!(world.launcher_pods().count(), 0);
}

#[test]
fn workers_of_an_elastic_launcher_that_the_cluster_takes_spend_nothing_and_are_told() {
    let mut world = elastic(manifest(2), json!({"backoffLimit": 0}));
    for _ in 0..3 {
        world.set_pod_status("pi-worker-1", taken());
        world.settle();
        assert_eq!(world.conditions(), ["Created=True", "Restarting=True"]);
        world.advance(600);
        world.run_all();
        assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    }
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), Some("3"));
    assert_eq!(world.annotation(annotation::RESTART_COUNT), None);
}

#[test]
fn the_older_version_replaces_workers_of_an_elastic_launcher_as_often_as_it_takes_unless_it_says() {
    let mut world = elastic(manifest_v1(2), json!({}));
    for _ in 0..8 {
        world.set_pod_status("pi-worker-1", exited(7));
        world.settle();
        world.advance(600);
        world.run_all();
    }
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
    let mut world = elastic(manifest_v1(2), json!({"backoffLimit": 0}));
    world.set_pod_status("pi-worker-1", exited(7));
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Failed=True");
}

#[test]
fn a_suspended_job_keeps_its_launcher_s_job_and_is_resumed() {
    let mut world = running(|_| {});
    let uid = world.launchers["pi-launcher"].metadata.uid.clone();
    world.edit(|job| job.spec.run_policy.suspend = Some(true));
    world.settle();
    assert!(world.pods.is_empty());
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Suspended=True"]);
    assert_eq!(world.launchers["pi-launcher"].spec.as_ref().unwrap().suspend, Some(true));
    world.advance(60);
    world.edit(|job| job.spec.run_policy.suspend = Some(false));
    world.run_all();
    assert_eq!(world.conditions(), ["Created=True", "Suspended=False", "Running=True"]);
    assert_eq!(world.launchers["pi-launcher"].metadata.uid, uid);
    assert_eq!(world.annotation(annotation::INFRASTRUCTURE_RESTART_COUNT), None, "that was no failure");
}

#[test]
fn where_a_suspended_launcher_runs_can_be_decided_before_it_is_resumed() {
    let mut world = running(|_| {});
    world.edit(|job| job.spec.run_policy.suspend = Some(true));
    world.settle();
    world.edit(|job| {
        job.spec.run_policy.suspend = Some(false);
        let spec = job.spec.mpi_replica_specs.get_mut("Launcher").unwrap().template.spec.as_mut().unwrap();
        spec.node_selector = Some([("zone".to_owned(), "a".to_owned())].into());
    });
    world.run_all();
    let template = world.launchers["pi-launcher"].spec.clone().unwrap().template.spec.unwrap();
    assert_eq!(template.node_selector.unwrap()["zone"], "a");
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
}

#[test]
fn a_job_born_suspended_makes_nothing() {
    let mut job = manifest(2);
    job["spec"]["runPolicy"] = json!({"suspend": true});
    let mut world = World::new(job);
    world.settle();
    assert!(world.pods.is_empty() && world.launchers.is_empty() && world.companions.is_empty());
    assert_eq!(world.conditions(), ["Created=True", "Suspended=True"]);
}

#[test]
fn a_launcher_that_waits_is_created_when_all_workers_are_ready() {
    let mut job = manifest(2);
    job["spec"]["launcherCreationPolicy"] = json!("WaitForWorkersReady");
    let mut world = World::new(job);
    world.settle();
    world.run("pi-worker-0");
    world.set_pod_status("pi-worker-1", json!({"phase": "Running"}));
    world.settle();
    assert!(world.launchers.is_empty(), "one worker runs and is not ready");
    world.run("pi-worker-1");
    world.settle();
    assert_eq!(world.launchers.len(), 1);
}

#[test]
fn clean_pod_policies_and_the_time_to_live_of_both_versions() {
    let ended = |mut job: Value, policy: &str| {
        job["spec"]["runPolicy"] = json!({"cleanPodPolicy": policy, "ttlSecondsAfterFinished": 30});
        let mut world = World::new(job);
        world.run_all();
        end_launcher(&mut world, 0);
        world
    };
    let workers = |world: &World| world.pods.keys().filter(|name| name.contains("worker")).count();
    assert_eq!(workers(&ended(manifest(2), "None")), 2);
    assert_eq!(workers(&ended(manifest(2), "Running")), 0);
    let mut world = ended(manifest(2), "All");
    assert_eq!((workers(&world), world.launchers.len()), (0, 1));
    world.advance(31);
    world.settle();
    assert!(world.launchers.is_empty(), "the MPI operator's time to live is the launcher's");
    assert_eq!(world.conditions().last().unwrap(), "Succeeded=True", "and nothing runs again");
    assert_eq!(world.launcher_pods().count(), 0);
    let mut world = ended(manifest_v1(2), "None");
    world.advance(31);
    world.settle();
    assert!(world.job.is_none(), "the training operator's is the job's");
}

#[test]
fn a_deadline_ends_a_job_that_never_got_room() {
    let mut world = World::new({
        let mut job = manifest(1);
        job["spec"]["runPolicy"] = json!({"activeDeadlineSeconds": 30});
        job
    });
    world.settle();
    world.advance(31);
    world.settle();
    assert_eq!(world.said(ConditionType::Failed).0, "DeadlineExceeded");
    assert_eq!(world.conditions(), ["Created=True", "Running=False", "Failed=True"]);
    assert_eq!(world.launcher_pods().count(), 0);
}

#[test]
fn jobs_of_other_controllers_are_left_alone() {
    for (controller, ours) in [("kubeflow.org/mpi-operator", true), ("kueue.x-k8s.io/multikueue", false)] {
        let mut job = manifest(1);
        job["spec"]["runPolicy"] = json!({"managedBy": controller});
        let mut world = World::new(job);
        assert_eq!(world.reconcile().is_empty(), !ours, "{controller}");
    }
}
