//! How a job goes from its creation to its end.

use serde_json::json;

use muster_trainer_core::train_job::{Plan, StatusServer, Waiting, plan_without_jobsets};

use super::world::{World, job, runtime};

fn torch() -> serde_json::Value {
    runtime(json!({"torch": {}}))
}

#[test]
fn the_jobsets_end_is_the_jobs() {
    for (theirs, ours, why) in
        [("Completed", "Complete", "AllJobsCompleted"), ("Failed", "Failed", "ReachedMaxRestarts")]
    {
        let mut world = World::new(job(json!({})), torch());
        world.settle();
        let node =
            json!({"name": "node", "ready": 1, "succeeded": 0, "failed": 0, "active": 1, "suspended": 0});
        world.report(json!({"replicatedJobsStatus": [node]}));
        world.settle();
        assert_eq!(serde_json::to_value(&world.status().jobs_status).unwrap(), json!([node]));
        assert!(!world.status().is_finished());
        world.end(theirs, why);
        world.settle();
        assert_eq!(world.reason(ours).as_deref(), Some(why));
        assert_eq!(world.events.last().unwrap().reason, why);
    }
}

/// How the group of nodes fares, as the JobSet says.
fn node(ready: i32, failed: i32, active: i32) -> serde_json::Value {
    json!({"name": "node", "ready": ready, "succeeded": 0, "failed": failed, "active": active, "suspended": 0})
}

#[test]
fn the_counts_of_an_ended_job_follow_its_last_pods() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    world.end("Failed", "FailedJobs");
    let set = |world: &mut World, counts| {
        let mut status = serde_json::to_value(&world.view.jobset.as_ref().unwrap().status).unwrap();
        status["replicatedJobsStatus"] = json!([counts]);
        world.report(status);
        world.settle();
    };
    let counts = |world: &World| serde_json::to_value(&world.status().jobs_status).unwrap();
    set(&mut world, node(1, 1, 1));
    let ended = world.status().conditions;
    assert_eq!(counts(&world), json!([node(1, 1, 1)]));
    set(&mut world, node(0, 1, 0));
    assert_eq!(counts(&world), json!([node(0, 1, 0)]));
    assert_eq!(world.status().conditions, ended);
}

#[test]
fn a_job_that_ended_its_jobset_counts_none_of_its_pods() {
    let mut world = World::new(job(json!({"activeDeadlineSeconds": 60})), torch());
    world.settle();
    world.report(json!({"replicatedJobsStatus": [node(1, 1, 1)]}));
    world.settle();
    world.advance(60);
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("DeadlineExceeded"));
    assert!(world.view.jobset.is_none());
    assert_eq!(serde_json::to_value(world.status().jobs_status).unwrap(), json!([node(0, 1, 0)]));
}

#[test]
fn a_jobset_that_runs_is_never_changed() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    let before = world.view.jobset.clone();
    world.view.runtime.as_mut().unwrap().spec.template.spec.replicated_jobs.clear();
    world.settle();
    assert_eq!(world.view.jobset, before, "whatever becomes of the runtime");
    world.view.runtime = None;
    world.end("Completed", "AllJobsCompleted");
    world.settle();
    assert!(world.reason("Complete").is_some());
}

#[test]
fn a_job_is_suspended_changed_and_resumed() {
    let mut world = World::new(job(json!({"suspend": true})), torch());
    world.settle();
    let suspend = |world: &World| world.view.jobset.as_ref().unwrap().spec.suspend;
    assert_eq!((suspend(&world), world.reason("Suspended").as_deref()), (Some(true), Some("Suspended")));
    let patch = json!([{"manager": "kueue", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [
        {"name": "node", "template": {"spec": {"template": {"spec": {"nodeSelector": {"zone": "a"}}}}}}]}}}}]);
    world.change(|job| job.spec.runtime_patches = serde_json::from_value(patch).unwrap());
    world.settle();
    let spec = world.view.jobset.clone().unwrap().spec.replicated_jobs[0].template.spec.clone().unwrap();
    assert_eq!(spec.template.spec.unwrap().node_selector.unwrap()["zone"], "a");
    world.change(|job| job.spec.suspend = Some(false));
    world.settle();
    assert_eq!((suspend(&world), world.reason("Suspended")), (Some(false), None));
    assert_eq!(world.status().condition("Suspended").unwrap().reason, "Resumed");
    world.change(|job| job.spec.suspend = Some(true));
    world.settle();
    assert_eq!(suspend(&world), Some(true));
    assert_eq!(world.jobsets, 1);
}

/// torchrun and the scheduler are told the same, and the former only once.
#[test]
fn the_nodes_a_job_can_do_without_stay_as_they_were_made() {
    let mut manifest = job(json!({"suspend": true, "trainer": {"numNodes": 4}}));
    manifest["metadata"]["annotations"] = json!({"muster.dev/min-nodes": "2"});
    let mut world = World::new(manifest, torch());
    world.settle();
    let told = |world: &World| {
        let set = world.view.jobset.as_ref().unwrap();
        let pods = set.spec.replicated_jobs[0].template.spec.clone().unwrap().template;
        let variables = pods.spec.unwrap().containers[0].env.clone().unwrap();
        let nodes =
            variables.into_iter().find(|variable| variable.name == "PET_NNODES").unwrap().value.unwrap();
        (nodes, pods.metadata.unwrap().annotations.unwrap()["muster.dev/gang-min-available"].clone())
    };
    assert_eq!(told(&world), ("2:4".to_owned(), "2".to_owned()));
    world.change(|job| {
        job.metadata.annotations.as_mut().unwrap().insert("muster.dev/min-nodes".to_owned(), "1".to_owned());
        job.spec.trainer.as_mut().unwrap().num_nodes = Some(3);
    });
    world.settle();
    assert_eq!(told(&world), ("2:4".to_owned(), "2".to_owned()));
}

/// The JobSet is not made anew of a runtime that was edited, which JobSet would refuse.
#[test]
fn a_job_whose_runtime_was_edited_meanwhile_is_suspended_and_resumed() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    let made = world.view.jobset.clone().unwrap().spec;
    world.edit_runtime("newer", "b");
    world.view.runtime.as_mut().unwrap().spec.ml_policy.as_mut().unwrap().num_nodes = Some(3);
    world.settle();
    assert_eq!(world.view.jobset.as_ref().unwrap().spec, made, "what runs stays as it is");
    for suspend in [true, false] {
        world.change(|job| job.spec.suspend = Some(suspend));
        world.settle();
        let spec = world.view.jobset.clone().unwrap().spec;
        assert_eq!(spec.suspend, Some(suspend));
        let job = spec.replicated_jobs[0].template.spec.clone().unwrap();
        assert_eq!(job.completions, Some(1));
        let pod = job.template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some("host"));
        assert_eq!(pod.node_selector.unwrap()["zone"], "b");
    }
    assert!(world.events.iter().any(|event| event.reason == "JobSetKept"), "what does not change is told");
    assert_eq!(world.jobsets, 1);
}

#[test]
fn a_job_whose_runtime_is_gone_or_makes_no_sense_any_more_is_suspended_and_resumed() {
    for breaks in [true, false] {
        let mut world = World::new(job(json!({})), torch());
        world.settle();
        if breaks {
            world.view.runtime.as_mut().unwrap().spec.template.spec.replicated_jobs.clear();
        } else {
            world.view.runtime = None;
        }
        for suspend in [true, false] {
            world.change(|job| job.spec.suspend = Some(suspend));
            world.settle();
            assert_eq!(world.view.jobset.as_ref().unwrap().spec.suspend, Some(suspend));
            assert!(!world.status().is_finished());
        }
    }
}

/// As Kueue does, which takes the nodes back when it suspends a job.
#[test]
fn what_a_patch_said_of_pods_goes_with_it_and_what_others_said_stays() {
    let patch = json!([{"manager": "kueue", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [
        {"name": "node", "template": {"spec": {"template": {"spec": {
            "nodeSelector": {"zone": "a"}, "tolerations": [{"key": "spot", "operator": "Exists"}],
            "schedulingGates": [{"name": "gate"}]}}}}}]}}}}]);
    let mut world = World::new(job(json!({"suspend": true, "runtimePatches": patch})), torch());
    world.settle();
    let pod = |world: &World| {
        let job = world.view.jobset.clone().unwrap().spec.replicated_jobs[0].template.spec.clone();
        job.unwrap().template.spec.unwrap()
    };
    assert_eq!(pod(&world).tolerations.unwrap().len(), 1);
    world.change(|job| job.spec.runtime_patches.clear());
    world.settle();
    let bare = pod(&world);
    assert_eq!((bare.node_selector, bare.tolerations, bare.scheduling_gates), (None, None, None));
    let group = &mut world.view.jobset.as_mut().unwrap().spec.replicated_jobs[0];
    let foreign = Some([("of".to_owned(), "another".to_owned())].into());
    group.template.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector.clone_from(&foreign);
    world.change(|job| job.spec.suspend = Some(false));
    world.settle();
    assert_eq!(pod(&world).node_selector, foreign);
}

#[test]
fn the_deadline_counts_from_the_creation_or_the_latest_resumption() {
    let mut world = World::new(job(json!({"activeDeadlineSeconds": 60})), torch());
    world.settle();
    assert_eq!(world.view.plan(world.now).requeue_after.unwrap().as_secs(), 60);
    world.advance(50);
    world.change(|job| job.spec.suspend = Some(true));
    world.settle();
    world.advance(50);
    world.settle();
    assert!(!world.status().is_finished(), "no time passes while it is suspended");
    world.change(|job| job.spec.suspend = Some(false));
    world.settle();
    world.advance(59);
    world.settle();
    assert!(!world.status().is_finished());
    world.advance(1);
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("DeadlineExceeded"));
    assert!(world.view.jobset.is_none(), "what runs is ended");
}

#[test]
fn a_jobset_that_is_gone_after_its_time_is_not_made_again() {
    let mut runtime = torch();
    runtime["spec"]["template"]["spec"]["ttlSecondsAfterFinished"] = json!(60);
    let mut world = World::new(job(json!({})), runtime);
    world.settle();
    assert_eq!(world.view.jobset.as_ref().unwrap().spec.ttl_seconds_after_finished, None);
    world.end("Failed", "FailedJobs");
    world.settle();
    assert_eq!(world.view.plan(world.now).requeue_after.unwrap().as_secs(), 60);
    world.advance(60);
    world.settle();
    assert!(world.view.jobset.is_none());
    world.advance(60);
    world.settle();
    assert_eq!((world.jobsets, world.reason("Failed").as_deref()), (1, Some("FailedJobs")));
}

#[test]
fn the_restarts_of_a_deleted_jobset_count_on() {
    let mut runtime = torch();
    runtime["spec"]["template"]["spec"]["failurePolicy"] = json!({"maxRestarts": 3});
    let mut world = World::new(job(json!({})), runtime);
    let most = |world: &World| {
        let policy = world.view.jobset.as_ref().unwrap().spec.failure_policy.clone();
        policy.unwrap().max_restarts.unwrap()
    };
    let remembered = |world: &World| {
        let marks = world.view.job.metadata.annotations.clone().unwrap_or_default();
        marks.get("muster.dev/restart-count").cloned()
    };
    world.settle();
    assert_eq!((most(&world), remembered(&world)), (3, None));
    // Each time somebody deletes the JobSet after it has counted one more.
    for (counted, left) in [(1, 2), (1, 1), (0, 1), (1, 0)] {
        world.report(json!({"restarts": 5, "restartsCountTowardsMax": counted}));
        world.settle();
        world.view.jobset = None;
        world.settle();
        assert_eq!(most(&world), left);
    }
    assert_eq!(remembered(&world).as_deref(), Some("3"));
    let policy = world.view.job.metadata.annotations.take();
    world.view.jobset = None;
    world.settle();
    assert_eq!((most(&world), policy.is_some()), (3, true), "who takes the count away gives them anew");
}

#[test]
fn what_single_jobs_of_a_deleted_jobset_have_used_counts_too_and_less_than_nothing_is_never_left() {
    let mut runtime = torch();
    runtime["spec"]["template"]["spec"]["failurePolicy"] = json!({"maxRestarts": 2});
    let mut world = World::new(job(json!({})), runtime);
    world.settle();
    let mut node = node(0, 0, 1);
    node["jobRestartsCountTowardsMax"] = json!([1, 4]);
    world.report(json!({"restartsCountTowardsMax": 1, "replicatedJobsStatus": [node]}));
    world.settle();
    assert_eq!(world.view.job.metadata.annotations.as_ref().unwrap()["muster.dev/restart-count"], "5");
    world.view.jobset = None;
    world.settle();
    let policy = world.view.jobset.clone().unwrap().spec.failure_policy.unwrap();
    assert_eq!(policy.max_restarts, Some(0));
}

#[test]
fn a_jobset_that_is_suspended_keeps_what_is_left_of_its_budget() {
    let mut runtime = torch();
    runtime["spec"]["template"]["spec"]["failurePolicy"] = json!({"maxRestarts": 3});
    let mut world = World::new(job(json!({})), runtime);
    world.settle();
    world.report(json!({"restartsCountTowardsMax": 1}));
    world.settle();
    world.view.jobset = None;
    world.settle();
    let made = world.view.jobset.clone().unwrap().spec.failure_policy;
    for suspend in [true, false] {
        world.change(|job| job.spec.suspend = Some(suspend));
        world.settle();
        assert_eq!(world.view.jobset.clone().unwrap().spec.failure_policy, made);
    }
    assert!(world.events.iter().all(|event| event.reason != "JobSetKept"), "it was made of the same");
}

#[test]
fn a_job_waits_for_its_runtime_and_says_so() {
    let mut world = World::new(job(json!({})), torch());
    let runtime = world.view.runtime.take();
    world.settle();
    assert!(world.view.jobset.is_none() && !world.status().is_finished());
    assert_eq!(
        world.events[0].message,
        "waits for ClusterTrainingRuntime runtime, which spec.runtimeRef names"
    );
    world.view.runtime = runtime;
    world.settle();
    assert!(world.view.jobset.is_some());
}

#[test]
fn a_job_on_something_else_than_a_runtime_fails() {
    let mut world = World::new(job(json!({"runtimeRef": {"name": "x", "kind": "Deployment"}})), torch());
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("TrainingRuntimeNotSupported"));
}

#[test]
fn a_jobset_of_another_is_left_alone_and_told() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    let mut foreign = world.view.jobset.take().unwrap();
    foreign.metadata.owner_references = None;
    world.view.jobset = Some(foreign.clone());
    world.settle();
    assert_eq!(world.view.jobset, Some(foreign));
    assert_eq!(world.events.last().unwrap().reason, "JobSetNameTaken");
}

#[test]
fn a_job_whose_name_is_taken_fails_in_time() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    let mut foreign = world.view.jobset.take().unwrap();
    foreign.metadata.owner_references = None;
    world.view.jobset = Some(foreign);
    let wait = |world: &World| world.view.plan(world.now).requeue_after.map(|wait| wait.as_secs());
    assert_eq!(wait(&world), Some(30), "nobody tells when the name is free");
    world.change(|job| job.spec.active_deadline_seconds = Some(40));
    assert_eq!(wait(&world), Some(30));
    world.advance(30);
    assert_eq!(wait(&world), Some(10), "when its time is over");
    world.advance(10);
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn progress_is_repeated() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    let said = json!({"progressPercentage": 40, "metrics": [{"name": "loss", "value": "0.5"}],
        "lastUpdatedTime": "2026-11-20T10:00:00Z"});
    world.view.trainer_status = Some(serde_json::from_value(said.clone()).unwrap());
    world.settle();
    assert_eq!(serde_json::to_value(world.status().trainer_status).unwrap(), said);
    world.view.trainer_status = None;
    world.end("Completed", "AllJobsCompleted");
    world.settle();
    assert_eq!(
        serde_json::to_value(world.status().trainer_status).unwrap(),
        said,
        "what was said last stays"
    );
}

#[test]
fn pods_that_train_are_told_where_to_report() {
    let mut world = World::new(job(json!({})), torch());
    let server =
        StatusServer { address: "https://muster:9446".to_owned(), authority: "the first".to_owned() };
    world.view.status_server = Some(server.clone());
    world.settle();
    let set = serde_json::to_value(world.view.jobset.clone().unwrap()).unwrap();
    let template = &set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"]["muster.dev/trainer-status-ca"], "the first");
    let node = &template["spec"]["containers"][0];
    let variable = |name: &str| {
        let all = node["env"].as_array().unwrap();
        all.iter()
            .find(|variable| variable["name"] == name)
            .map(|variable| variable["value"].clone())
            .unwrap()
    };
    let path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/train/status";
    assert_eq!(variable("KUBEFLOW_TRAINER_SERVER_URL"), format!("https://muster:9446{path}"));
    let folder = &node["volumeMounts"][0]["mountPath"];
    assert_eq!(variable("KUBEFLOW_TRAINER_SERVER_TOKEN"), format!("{}/token", folder.as_str().unwrap()));
    assert_eq!(variable("KUBEFLOW_TRAINER_SERVER_CA_CERT"), format!("{}/ca.crt", folder.as_str().unwrap()));
    let sources = &template["spec"]["volumes"][0]["projected"]["sources"];
    assert_eq!(sources[0]["serviceAccountToken"]["audience"], format!("trainer.kubeflow.org{path}"));
    // What runs stays as it was made; a job that is suspended learns of another authority.
    world.view.status_server = Some(StatusServer { authority: "the second".to_owned(), ..server });
    let authority = |world: &World| {
        let set = serde_json::to_value(world.view.jobset.clone().unwrap()).unwrap();
        let template = &set["spec"]["replicatedJobs"][0]["template"]["spec"]["template"];
        template["metadata"]["annotations"]["muster.dev/trainer-status-ca"].clone()
    };
    world.settle();
    assert_eq!(authority(&world), "the first");
    world.view.job.spec.suspend = Some(true);
    world.settle();
    world.view.job.spec.suspend = Some(false);
    world.settle();
    assert_eq!(authority(&world), "the second");
    assert!(world.events.iter().all(|event| !event.message.contains("changed")), "{:?}", world.events);
}

/// Complaint 7: a gang that never forms says why.
#[test]
fn what_pods_wait_for_is_told_while_they_do() {
    let mut world = World::new(job(json!({})), torch());
    world.settle();
    let waiting =
        |message: &str| Some(Waiting { reason: "Unschedulable".to_owned(), message: message.to_owned() });
    world.view.waiting = waiting("8 GPUs are wanted, 4 are free");
    world.settle();
    assert_eq!(world.reason("PodsWaiting").as_deref(), Some("Unschedulable"));
    world.view.waiting = waiting("8 GPUs are wanted, 6 are free");
    world.settle();
    let told: Vec<_> = world.events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(told, ["8 GPUs are wanted, 4 are free", "8 GPUs are wanted, 6 are free"]);
    world.view.waiting = None;
    world.settle();
    assert!(world.status().conditions.is_empty());
    world.view.waiting = waiting("8 GPUs are wanted, 6 are free");
    world.settle();
    world.end("Failed", "FailedJobs");
    world.settle();
    assert_eq!(world.reason("PodsWaiting"), None);
}

/// A job whose gang is another scheduler's, and whose PodGroup was created some time ago.
fn of_group(policy: &str, seconds: i64) -> World {
    let mut runtime = torch();
    runtime["spec"]["podGroupPolicy"] = json!({policy: {}});
    let mut world = World::new(job(json!({"trainer": {"numNodes": 2}})), runtime);
    world.settle();
    let group = world.view.pod_group.as_mut().unwrap();
    group["metadata"]["creationTimestamp"] = json!(world.now.to_string());
    world.advance(seconds);
    world
}

/// What the job says that it waits for, when its group has this status.
fn waits_with(world: &mut World, status: serde_json::Value) -> Option<String> {
    world.view.pod_group.as_mut().unwrap()["status"] = status;
    world.settle();
    let status = world.status();
    let condition = status.condition("PodsWaiting")?;
    assert_eq!(condition.reason, "PodGroupPending");
    Some(condition.message.clone())
}

/// Complaint 7, once more: the pods say nothing, or are not there, while their PodGroup waits.
#[test]
fn what_volcano_says_of_a_gang_is_told_while_it_waits() {
    let mut world = of_group("volcano", 30);
    let told = |type_: &str, at: i64| {
        json!({"type": type_, "status": "True", "message": "2/2 tasks in gang unschedulable",
            "lastTransitionTime": format!("2026-11-20T10:00:0{at}Z")})
    };
    let mut waits = |status| waits_with(&mut world, status);
    assert_eq!(
        waits(json!({})).as_deref(),
        Some(
            "PodGroup train is not taken up by Volcano; does its scheduler run, and does queue default exist?"
        )
    );
    assert_eq!(
        waits(json!({"phase": "Pending", "conditions": [told("Unschedulable", 1)]})).as_deref(),
        Some("PodGroup train waits in queue default: 2/2 tasks in gang unschedulable")
    );
    assert_eq!(
        waits(json!({"phase": "Inqueue", "conditions": [told("Scheduled", 1), told("Unschedulable", 2)]}))
            .as_deref(),
        Some("PodGroup train has no room for all of its pods: 2/2 tasks in gang unschedulable")
    );
    let scheduled = json!([told("Unschedulable", 1), told("Scheduled", 2)]);
    assert_eq!(waits(json!({"phase": "Inqueue", "conditions": scheduled})), None);
    assert_eq!(waits(json!({"phase": "Running", "conditions": [told("Unschedulable", 1)]})), None);
    assert_eq!(world.view.plan(world.now).requeue_after, None);
    assert_eq!(world.events.iter().filter(|event| event.reason == "PodGroupPending").count(), 3);
}

#[test]
fn a_group_of_the_coscheduling_plugin_is_told_of_while_it_is_pending() {
    let mut world = of_group("coscheduling", 30);
    assert_eq!(waits_with(&mut world, json!({})), None, "nobody may keep its status");
    assert_eq!(
        waits_with(&mut world, json!({"phase": "Pending"})).as_deref(),
        Some("PodGroup train is pending: there is no room for its 2 pods together")
    );
    world.view.waiting = Some(Waiting {
        reason: "Unschedulable".to_owned(),
        message: "pod train-node-0-0: no GPU".to_owned(),
    });
    world.settle();
    assert_eq!(world.reason("PodsWaiting").as_deref(), Some("Unschedulable"), "pods know best");
    world.view.waiting = None;
    assert_eq!(waits_with(&mut world, json!({"phase": "Scheduling"})), None);
}

#[test]
fn a_group_that_waits_is_looked_at_again_and_a_new_one_is_left_in_peace() {
    let mut world = of_group("volcano", 29);
    assert_eq!(waits_with(&mut world, json!({"phase": "Pending"})), None);
    assert_eq!(world.view.plan(world.now).requeue_after.unwrap().as_secs(), 30);
    world.advance(1);
    assert!(waits_with(&mut world, json!({"phase": "Pending"})).is_some());
    world.change(|job| job.spec.suspend = Some(true));
    assert_eq!(waits_with(&mut world, json!({"phase": "Pending"})), None);
    assert_eq!(world.view.plan(world.now).requeue_after, None, "nothing is wanted of it");
}

#[test]
fn a_gang_waits_for_no_room_before_its_data_is_there() {
    let mut world = of_group("volcano", 30);
    let mut set = world.view.jobset.clone().unwrap();
    let mut data = set.spec.replicated_jobs[0].clone();
    data.name = "dataset-initializer".to_owned();
    let step = "trainer.kubeflow.org/trainjob-ancestor-step";
    data.template.metadata.as_mut().unwrap().labels =
        Some([(step.to_owned(), "dataset-initializer".to_owned())].into());
    set.spec.replicated_jobs[0].depends_on =
        serde_json::from_value(json!([{"name": "dataset-initializer", "status": "Complete"}])).unwrap();
    set.spec.replicated_jobs.push(data);
    world.view.jobset = Some(set);
    assert_eq!(waits_with(&mut world, json!({"phase": "Pending"})), None);
    world.report(json!({"replicatedJobsStatus": [{"name": "dataset-initializer", "succeeded": 1}]}));
    assert!(waits_with(&mut world, json!({"phase": "Pending"})).is_some());
}

#[test]
fn a_job_without_jobset_says_so_once_and_no_more_when_it_is_installed() {
    let mut world = World::new(job(json!({})), torch());
    let plan = plan_without_jobsets(&world.view.job, world.now);
    let [event] = plan.events.as_slice() else { panic!("{:?}", plan.events) };
    assert_eq!(event.reason, "JobSetNotInstalled");
    assert_eq!(
        event.message,
        "waits for JobSet, in which training jobs run: the cluster does not serve JobSet of jobset.x-k8s.io/v1alpha2; install it"
    );
    world.change(|job| job.status = plan.status);
    assert_eq!(world.reason("PodsWaiting").as_deref(), Some("JobSetNotInstalled"));
    assert_eq!(plan_without_jobsets(&world.view.job, world.now), Plan::default());
    world.settle();
    assert!(world.view.jobset.is_some() && world.reason("PodsWaiting").is_none());
    for spec in [json!({"suspend": true}), json!({"managedBy": "kueue.x-k8s.io/multikueue"})] {
        let world = World::new(job(spec), torch());
        assert_eq!(plan_without_jobsets(&world.view.job, world.now), Plan::default(), "it waits for others");
    }
}

#[test]
fn another_controllers_job_is_left_alone() {
    let mut world = World::new(job(json!({"managedBy": "kueue.x-k8s.io/multikueue"})), torch());
    world.settle();
    assert!(world.view.jobset.is_none() && world.view.job.status.is_none());
}
