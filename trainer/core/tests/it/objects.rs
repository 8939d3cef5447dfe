//! What a job's pods, services and groups look like.

use muster_trainer_core::GangScheduler;
use serde_json::json;

use crate::world::{World, manifest};

#[test]
fn a_master_and_three_workers_on_the_gang_scheduler() {
    let mut job = manifest(3);
    for type_ in ["Master", "Worker"] {
        let container = &mut job["spec"]["pytorchReplicaSpecs"][type_]["template"]["spec"]["containers"][0];
        container["resources"] = json!({"limits": {"nvidia.com/gpu": 1}});
        container["env"] = json!([{"name": "LEARNING_RATE", "value": "0.1"}, {"name": "RANK", "value": "7"}]);
    }
    job["spec"]["nprocPerNode"] = json!("2");
    let mut world = World::new(job);
    world.options.gang_scheduler = GangScheduler::Muster;
    world.settle();
    assert_eq!(
        world.pod_names(),
        ["digits-master-0", "digits-worker-0", "digits-worker-1", "digits-worker-2"]
    );
    insta::assert_yaml_snapshot!("master_pod", world.pods["digits-master-0"]);
    insta::assert_yaml_snapshot!("last_worker_pod", world.pods["digits-worker-2"]);
    insta::assert_yaml_snapshot!("master_service", world.services["digits-master-0"]);
    insta::assert_yaml_snapshot!("first_status", world.job.unwrap().status);
}

#[test]
fn an_elastic_job_with_an_autoscaler() {
    let mut job = manifest(3);
    job["spec"]["pytorchReplicaSpecs"].as_object_mut().unwrap().remove("Master");
    job["spec"]["elasticPolicy"] = json!({
        "minReplicas": 1, "maxReplicas": 5, "maxRestarts": 10, "rdzvId": "run-1",
        "rdzvConf": [{"key": "timeout", "value": "60"}, {"key": "join_timeout", "value": "30"}],
        "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
    });
    let mut world = World::new(job);
    world.settle();
    insta::assert_yaml_snapshot!("elastic_worker_pod", world.pods["digits-worker-1"]);
    insta::assert_yaml_snapshot!("autoscaler", world.autoscaler);
}

/// torchrun reads the number with Python's `int`, which takes no empty text.
#[test]
fn a_pod_with_a_rendezvous_of_its_own_says_so_in_a_number() {
    let mut job = manifest(1);
    job["spec"]["pytorchReplicaSpecs"].as_object_mut().unwrap().remove("Master");
    job["spec"]["elasticPolicy"] = json!({"standalone": true});
    let mut world = World::new(job);
    world.settle();
    let container = &world.pods["digits-worker-0"].spec.as_ref().unwrap().containers[0];
    let variables = container.env.as_ref().unwrap();
    let standalone = variables.iter().find(|variable| variable.name == "PET_STANDALONE").unwrap();
    assert_eq!(standalone.value.as_deref(), Some("1"));
}

#[test]
fn pods_of_an_elastic_job_find_the_rendezvous() {
    let mut job = manifest(3);
    job["spec"]["elasticPolicy"] = json!({"minReplicas": 1, "maxReplicas": 5});
    let mut world = World::new(job);
    let rendezvous = muster_trainer_core::Rendezvous {
        addresses: vec![
            "https://muster-rendezvous.muster-system.svc:9445".into(),
            "https://127.0.0.1:1".into(),
        ],
        authority: Some("PEM".into()),
    };
    world.options.rendezvous = Some(rendezvous.clone());
    world.settle();
    insta::assert_yaml_snapshot!("rendezvous_worker_spec", world.pods["digits-worker-1"].spec);
    let mut world = World::new(manifest(3));
    world.options.rendezvous = Some(rendezvous);
    world.settle();
    let spec = serde_json::to_string(&world.pods["digits-worker-1"].spec).unwrap();
    assert!(!spec.contains("rendezvous"), "a job of a fixed size needs none: {spec}");
}

fn group_of(scheduler: &str) -> World {
    let mut job = manifest(2);
    job["metadata"]["annotations"] = json!({"team": "vision"});
    job["spec"]["runPolicy"] = json!({"schedulingPolicy": {
        "minAvailable": 2, "queue": "research", "priorityClass": "high", "scheduleTimeoutSeconds": 30}});
    for type_ in ["Master", "Worker"] {
        let container = &mut job["spec"]["pytorchReplicaSpecs"][type_]["template"]["spec"]["containers"][0];
        container["resources"] = json!({"limits": {"nvidia.com/gpu": 4, "memory": "2Gi"}});
    }
    let mut world = World::new(job);
    world.options.gang_scheduler = scheduler.into();
    world.settle();
    world
}

#[test]
fn volcano_pods_wait_for_their_group_and_the_status_says_so() {
    let mut world = group_of("volcano");
    insta::assert_yaml_snapshot!("volcano_pod_group", world.pod_group);
    assert!(world.pods.is_empty());
    world.pod_group.as_mut().unwrap()["status"] = json!({
        "phase": "Pending",
        "conditions": [{"type": "Unschedulable", "message": "queue research is over its quota"}]});
    world.settle();
    assert!(world.pods.is_empty());
    assert_eq!(world.conditions(), ["Created=True"]);
    assert_eq!(
        world.message(muster_trainer_api::ConditionType::Created),
        "PyTorchJob digits is created; PodGroup digits waits in queue research: queue research is over its quota"
    );
    assert!(world.reasons().contains(&"PodGroupPending"));
    world.pod_group.as_mut().unwrap()["status"]["phase"] = json!("Inqueue");
    world.settle();
    assert_eq!(world.pods.len(), 3);
    assert_eq!(world.message(muster_trainer_api::ConditionType::Created), "PyTorchJob digits is created");
    let pod = &world.pods["digits-worker-1"];
    assert_eq!(pod.spec.as_ref().unwrap().scheduler_name.as_deref(), Some("volcano"));
    let annotations = pod.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["scheduling.k8s.io/group-name"], "digits");
    assert_eq!(annotations["volcano.sh/task-spec"], "worker");
}

#[test]
fn the_coscheduling_plugin_gets_a_group_and_a_label() {
    let world = group_of("gang-plugin");
    insta::assert_yaml_snapshot!("coscheduling_pod_group", world.pod_group);
    let pod = &world.pods["digits-master-0"];
    assert_eq!(pod.spec.as_ref().unwrap().scheduler_name.as_deref(), Some("gang-plugin"));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["scheduling.x-k8s.io/pod-group"], "digits");
}

#[test]
fn a_resized_job_resizes_its_group() {
    let mut world = group_of("gang-plugin");
    world.edit(|job| job["spec"]["runPolicy"]["schedulingPolicy"]["minAvailable"] = json!(3));
    world.settle();
    assert_eq!(world.pod_group.unwrap()["spec"]["minMember"], 3);
}

fn least_of_gang(world: &World, pod: &str) -> String {
    let annotations = world.pods[pod].metadata.annotations.as_ref().unwrap();
    annotations["muster.dev/gang-min-available"].clone()
}

#[test]
fn the_members_of_a_resized_job_say_how_many_of_them_there_are_now() {
    let mut job = manifest(3);
    job["spec"]["elasticPolicy"] = json!({"minReplicas": 1, "maxReplicas": 6});
    job["spec"]["runPolicy"] = json!({"schedulingPolicy": {"minAvailable": 4}});
    let mut world = World::new(job);
    world.options.gang_scheduler = "muster".into();
    world.settle();
    assert_eq!(least_of_gang(&world, "digits-worker-2"), "4");
    let uids = |world: &World| world.pods["digits-master-0"].metadata.uid.clone();
    let before = uids(&world);
    world.edit(|job| job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = json!(1));
    world.settle();
    assert_eq!((least_of_gang(&world, "digits-master-0").as_str(), world.pods.len()), ("2", 2));
    assert_eq!(uids(&world), before, "they run on");
    world.edit(|job| job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = json!(2));
    world.settle();
    for pod in ["digits-master-0", "digits-worker-0", "digits-worker-1"] {
        assert_eq!(least_of_gang(&world, pod), "3");
    }
}

#[test]
fn an_elastic_job_starts_with_the_fewest_that_it_can_do_with() {
    let mut job = manifest(4);
    job["spec"]["elasticPolicy"] = json!({"minReplicas": 2, "maxReplicas": 6});
    let mut world = World::new(job);
    world.options.gang_scheduler = "muster".into();
    world.settle();
    assert_eq!((least_of_gang(&world, "digits-worker-3").as_str(), world.pods.len()), ("3", 5));
    world.edit(|job| job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = json!(1));
    world.settle();
    assert_eq!(least_of_gang(&world, "digits-worker-0"), "2", "never more than there are to be");
}

#[test]
fn another_scheduler_in_the_template_stays_and_is_told_of() {
    let mut job = manifest(1);
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["schedulerName"] = json!("mine");
    let mut world = World::new(job);
    world.options.gang_scheduler = GangScheduler::Muster;
    world.settle();
    assert!(world.reasons().contains(&"SetPodTemplateSchedulerName"));
    let scheduler = |name: &str| world.pods[name].spec.as_ref().unwrap().scheduler_name.clone();
    assert_eq!(scheduler("digits-worker-0").as_deref(), Some("mine"));
    assert_eq!(scheduler("digits-master-0").as_deref(), Some("muster"));
}
