//! What is each kind's own: variables, leaders, success, defaults.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Pod};
use muster_trainer_api::{ConditionType, label};
use muster_trainer_core::{KINDS, TrainingKind};
use serde_json::{Value, json};

use crate::world::{Replicas, World, manifest_of};

fn settled(manifest: Value) -> World {
    let mut world = World::new(manifest);
    world.settle();
    world
}

fn running(manifest: Value) -> World {
    let mut world = settled(manifest);
    world.run_all();
    world.settle();
    world
}

fn environment(pod: &Pod, container: usize) -> BTreeMap<String, String> {
    let value = |variable: &EnvVar| {
        let from = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        let from = from.map(|field| format!("<{}>", field.field_path));
        (variable.name.clone(), variable.value.clone().or(from).unwrap())
    };
    pod.spec.as_ref().unwrap().containers[container].env.iter().flatten().map(value).collect()
}

/// Role, ports and variables of every pod.
fn told(world: &World) -> Value {
    let tell = |(name, pod): (&String, &Pod)| {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let ports = container.ports.iter().flatten();
        let ports: Vec<_> =
            ports.map(|port| format!("{} {}", port.name.as_deref().unwrap(), port.container_port)).collect();
        let labels = pod.metadata.labels.as_ref().unwrap();
        let what = json!({
            "role": labels.get(label::JOB_ROLE),
            "operator": labels[label::OPERATOR_NAME],
            "rank": pod.metadata.annotations.as_ref().unwrap().get("muster.dev/rank"),
            "ports": ports,
            "env": environment(pod, 0),
        });
        (name.clone(), what)
    };
    world.pods.iter().map(tell).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn pods_of_each_kind_are_told_of_each_other() {
    let shapes: [(&str, &str, Replicas); 7] = [
        ("tensorflow", "TFJob", &[("Chief", 1), ("Worker", 2), ("PS", 1), ("Evaluator", 1)]),
        ("tensorflow_without_chief", "TFJob", &[("Worker", 2), ("PS", 1)]),
        ("xgboost", "XGBoostJob", &[("Master", 1), ("Worker", 2)]),
        ("xgboost_alone", "XGBoostJob", &[("Master", 1)]),
        ("jax", "JAXJob", &[("Worker", 2)]),
        ("paddle_peers", "PaddleJob", &[("Worker", 2)]),
        ("paddle_servers", "PaddleJob", &[("Master", 1), ("Worker", 2)]),
    ];
    for (name, kind, replicas) in shapes {
        let mut world = World::new(manifest_of(kind, replicas));
        world.options.gang_scheduler = muster_trainer_core::GangScheduler::Muster;
        world.settle();
        insta::assert_yaml_snapshot!(name, told(&world));
    }
}

fn tf_config(world: &World, pod: &str) -> Value {
    serde_json::from_str(&environment(&world.pods[pod], 0)["TF_CONFIG"]).unwrap()
}

#[test]
fn a_tensorflow_process_alone_is_told_of_no_cluster() {
    let world = settled(manifest_of("TFJob", &[("Worker", 1)]));
    assert!(!environment(&world.pods["digits-worker-0"], 0).contains_key("TF_CONFIG"));
    // The training operator counts an evaluator as somebody to be told of, too.
    let world = settled(manifest_of("TFJob", &[("Chief", 1), ("Evaluator", 1)]));
    assert_eq!(tf_config(&world, "digits-evaluator-0")["task"], json!({"type": "evaluator", "index": 0}));
}

#[test]
fn tf_config_is_for_the_container_that_trains() {
    let mut job = manifest_of("TFJob", &[("Worker", 2)]);
    let containers = &mut job["spec"]["tfReplicaSpecs"]["Worker"]["template"]["spec"]["containers"];
    containers.as_array_mut().unwrap().push(json!({"name": "beside", "image": "muster.dev/train:1"}));
    let world = settled(job);
    let pod = &world.pods["digits-worker-1"];
    assert!(environment(pod, 0).contains_key("TF_CONFIG"));
    assert_eq!(
        environment(pod, 1),
        BTreeMap::from([("PYTHONUNBUFFERED".to_owned(), "1".to_owned())]),
        "what every container gets"
    );
}

#[test]
fn addresses_in_tf_config_end_in_the_clusters_domain_where_it_is_given() {
    let mut job = manifest_of("TFJob", &[("Worker", 1), ("PS", 1)]);
    job["spec"]["tfReplicaSpecs"]["PS"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"name": "tfjob-port", "containerPort": 9000}]);
    let mut world = World::new(job);
    world.options.cluster_domain = Some("cluster.example".to_owned());
    world.settle();
    assert_eq!(
        tf_config(&world, "digits-worker-0")["cluster"],
        json!({
            "ps": ["digits-ps-0.team.svc.cluster.example:9000"],
            "worker": ["digits-worker-0.team.svc.cluster.example:2222"],
        })
    );
}

fn dynamic(chief: bool, workers: i32) -> Value {
    let replicas = [("Worker", workers), ("PS", 2), ("Chief", 1)];
    let mut job = manifest_of("TFJob", if chief { &replicas } else { &replicas[..2] });
    job["spec"]["enableDynamicWorker"] = json!(true);
    job
}

#[test]
fn dynamic_workers_know_the_parameter_servers_and_themselves() {
    let world = settled(dynamic(false, 3));
    let servers = ["digits-ps-0.team.svc:2222", "digits-ps-1.team.svc:2222"];
    assert_eq!(
        tf_config(&world, "digits-worker-1"),
        json!({
            "sparseCluster": {"worker": {"1": "digits-worker-1.team.svc:2222"}, "ps": servers},
            "task": {"type": "worker", "index": 1},
        })
    );
    assert_eq!(
        tf_config(&world, "digits-ps-1")["sparseCluster"],
        json!({"worker": {}, "ps": ["digits-ps-1.team.svc:2222"]})
    );
}

#[test]
fn the_loss_of_dynamic_workers_is_borne_and_told_once() {
    let mut world = running(dynamic(false, 3));
    world.exit("digits-worker-1", 3);
    world.settle();
    assert_eq!(world.conditions(), ["Created=True", "Running=True"]);
    assert_eq!(world.counts("Worker"), (2, 0, 1));
    let told = |world: &World| world.reasons().iter().filter(|reason| **reason == "ExitedWithCode").count();
    assert_eq!(told(&world), 1);
    world.exit("digits-worker-2", 3);
    world.settle();
    assert_eq!(told(&world), 2);
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
    world.exit("digits-worker-0", 3);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Failed=True", "nobody is left");
}

#[test]
fn a_chief_goes_on_without_any_dynamic_worker_but_not_without_a_parameter_server() {
    let mut world = running(dynamic(true, 1));
    world.exit("digits-worker-0", 1);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Running=True");
    world.exit("digits-chief-0", 0);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Succeeded=True");
    let mut world = running(dynamic(true, 1));
    world.exit("digits-ps-1", 1);
    world.settle();
    assert_eq!(world.conditions().last().unwrap(), "Failed=True");
}

#[test]
fn dynamic_workers_come_and_go_without_a_restart() {
    let mut world = running(dynamic(false, 3));
    let kept = world.pods["digits-worker-0"].metadata.uid.clone();
    for count in [1, 4] {
        world.edit(|job| job["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] = json!(count));
        world.settle();
        world.run_all();
        world.settle();
        assert_eq!(world.counts("Worker"), (count, 0, 0));
    }
    assert_eq!(world.pods["digits-worker-0"].metadata.uid, kept);
    assert!(!world.reasons().contains(&"TFJobRestarting"));
}

/// Replicas, the pods that end well one after the other, and whose end is the job's.
type Story = (&'static str, Replicas, Value, &'static [&'static str]);

#[test]
fn each_kind_has_its_rule_of_success() {
    let none = || json!({});
    let stories: [Story; 10] = [
        ("TFJob", &[("Chief", 1), ("Worker", 2)], none(), &["worker-0", "worker-1", "chief-0"]),
        ("TFJob", &[("Master", 1), ("Worker", 1)], none(), &["worker-0", "master-0"]),
        ("TFJob", &[("Worker", 2), ("PS", 1)], none(), &["worker-1", "worker-0"]),
        ("TFJob", &[("Worker", 2)], json!({"successPolicy": ""}), &["worker-1", "worker-0"]),
        ("TFJob", &[("Worker", 2)], json!({"successPolicy": "AllWorkers"}), &["worker-0", "worker-1"]),
        ("XGBoostJob", &[("Master", 1), ("Worker", 2)], none(), &["worker-0", "worker-1", "master-0"]),
        ("JAXJob", &[("Worker", 2)], none(), &["worker-0", "worker-1"]),
        ("PaddleJob", &[("Master", 2), ("Worker", 1)], none(), &["worker-0", "master-0", "master-1"]),
        ("PaddleJob", &[("Worker", 2)], none(), &["worker-0", "worker-1"]),
        ("PyTorchJob", &[("Worker", 2)], none(), &["worker-1", "worker-0"]),
    ];
    for (kind, replicas, fields, ends) in stories {
        let mut job = manifest_of(kind, replicas);
        job["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut world = running(job);
        assert_eq!(world.conditions(), ["Created=True", "Running=True"], "{kind} {replicas:?}");
        for (place, pod) in ends.iter().enumerate() {
            world.exit(&format!("digits-{pod}"), 0);
            world.settle();
            let expected = if place + 1 == ends.len() { "Succeeded=True" } else { "Running=True" };
            assert_eq!(world.conditions().last().unwrap(), expected, "{kind} {replicas:?}: {pod}");
        }
        assert!(world.reasons().contains(&format!("{kind}Succeeded").as_str()));
    }
}

/// A gang of each kind, and one of its pods.
fn gangs() -> Vec<(Value, &'static str)> {
    vec![
        (manifest_of("PyTorchJob", &[("Master", 1), ("Worker", 2)]), "digits-worker-1"),
        (manifest_of("TFJob", &[("Chief", 1), ("PS", 1), ("Worker", 2)]), "digits-ps-0"),
        (manifest_of("XGBoostJob", &[("Master", 1), ("Worker", 2)]), "digits-worker-0"),
        (manifest_of("JAXJob", &[("Worker", 2)]), "digits-worker-0"),
        (manifest_of("PaddleJob", &[("Worker", 2)]), "digits-worker-1"),
    ]
}

/// Sets what a failure means, for all replicas.
fn with_policy(mut job: Value, policy: &str) -> Value {
    let kind = TrainingKind::find("kubeflow.org/v1", job["kind"].as_str().unwrap()).unwrap().kind;
    for replica in job["spec"][kind.replica_specs].as_object_mut().unwrap().values_mut() {
        replica["restartPolicy"] = json!(policy);
    }
    job
}

#[test]
fn every_kind_is_among_the_gangs_of_these_tests() {
    let tested: Vec<_> = gangs().iter().map(|(job, _)| job["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(tested, KINDS.iter().map(|training| training.kind.name).collect::<Vec<_>>());
}

#[test]
fn a_failure_means_what_the_kinds_default_says() {
    for (job, pod) in gangs() {
        let kind = job["kind"].as_str().unwrap().to_owned();
        let mut world = running(job);
        world.exit(pod, 1);
        world.settle();
        let restarts = matches!(kind.as_str(), "PyTorchJob" | "PaddleJob");
        let expected = if restarts { "Restarting=True" } else { "Failed=True" };
        assert_eq!(world.conditions().last().unwrap(), expected, "{kind}");
        let reason = if restarts { "Restarting" } else { "Failed" };
        assert!(world.reasons().contains(&format!("{kind}{reason}").as_str()), "{kind}");
    }
}

/// What may happen to a pod that is nobody's fault.
const TAKEN: [&str; 5] = ["evicted", "preempted", "drained", "deleted", "gone"];

fn take(world: &mut World, pod: &str, how: &str) {
    let disrupted =
        json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    match how {
        "evicted" => world.set_pod_status(pod, json!({"phase": "Failed", "reason": "Evicted"})),
        "preempted" => {
            let mut status = world.exited(143);
            status["conditions"] = disrupted;
            world.set_pod_status(pod, status);
        }
        "gone" => drop(world.pods.remove(pod)),
        _ => {
            if how == "drained" {
                world.set_pod_status(pod, json!({"phase": "Running", "conditions": disrupted}));
            }
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
            world.pods.get_mut(pod).unwrap().metadata.deletion_timestamp = Some(now);
        }
    }
}

#[test]
fn by_no_kinds_default_a_pod_that_the_cluster_takes_ends_the_job() {
    for how in TAKEN {
        for (mut job, pod) in gangs() {
            let kind = job["kind"].as_str().unwrap().to_owned();
            job["spec"]["runPolicy"] = json!({"backoffLimit": 0});
            let mut world = running(job);
            take(&mut world, pod, how);
            world.settle();
            assert_eq!(world.conditions().last().unwrap(), "Restarting=True", "{kind} {how}");
            assert_eq!(
                world.annotation("muster.dev/infrastructure-restart-count"),
                Some("1"),
                "{kind} {how}"
            );
            assert_eq!(world.annotation("muster.dev/restart-count"), None, "{kind} {how}");
        }
    }
}

#[test]
fn by_no_kinds_default_a_pod_that_fails_for_want_of_one_that_was_taken_ends_the_job() {
    for (job, pod) in gangs() {
        let kind = job["kind"].as_str().unwrap().to_owned();
        let mut world = running(job);
        take(&mut world, pod, "drained");
        let peer = world.pods.keys().find(|name| *name != pod).unwrap().clone();
        world.exit(&peer, 1);
        world.settle();
        assert_eq!(world.conditions().last().unwrap(), "Restarting=True", "{kind}");
        assert_eq!(world.annotation("muster.dev/infrastructure-restart-count"), Some("1"), "{kind}");
    }
}

#[test]
fn a_dynamic_worker_that_the_cluster_takes_is_replaced() {
    for how in TAKEN {
        let mut world = running(dynamic(false, 2));
        let kept = world.pods["digits-worker-0"].metadata.uid.clone();
        let lost = world.pods["digits-worker-1"].metadata.uid.clone();
        take(&mut world, "digits-worker-1", how);
        world.settle();
        if matches!(how, "drained" | "deleted") {
            assert_eq!(world.pods["digits-worker-1"].metadata.uid, lost, "{how}: it ends first");
            world.pods.remove("digits-worker-1");
            world.settle();
        }
        world.run_all();
        world.settle();
        assert_ne!(world.pods["digits-worker-1"].metadata.uid, lost, "{how}");
        assert_eq!(world.pods["digits-worker-0"].metadata.uid, kept, "{how}: the others go on");
        assert_eq!(world.annotation("muster.dev/restart-count"), None, "{how}");
        assert_eq!(world.conditions().last().unwrap(), "Running=True", "{how}");
    }
}

#[test]
fn an_exit_code_tells_a_failure_for_good_from_one_that_restarts() {
    for (job, pod) in gangs() {
        for (code, expected) in [(137, "Restarting=True"), (128, "Restarting=True"), (127, "Failed=True")] {
            let mut world = running(with_policy(job.clone(), "ExitCode"));
            world.exit(pod, code);
            world.settle();
            assert_eq!(world.conditions().last().unwrap(), expected, "{} {code}", job["kind"]);
            assert!(world.reasons().contains(&"ExitedWithCode"));
        }
    }
}

#[test]
fn in_every_kind_all_pods_restart_as_one_and_only_the_jobs_own_failures_count() {
    for (job, pod) in gangs() {
        let kind = job["kind"].clone();
        let mut job = with_policy(job, "OnFailure");
        job["spec"]["runPolicy"] = json!({"backoffLimit": 1});
        let mut world = running(job);
        for (failure, counted, free) in [
            (json!({"phase": "Failed", "reason": "Evicted"}), None, Some("1")),
            (world.exited(1), Some("1"), Some("1")),
        ] {
            let before: Vec<_> = world.pods.values().map(|pod| pod.metadata.uid.clone()).collect();
            world.set_pod_status(pod, failure);
            world.settle();
            world.advance(60);
            world.settle();
            assert_eq!(world.pods.len(), before.len(), "{kind}");
            assert!(world.pods.values().all(|pod| !before.contains(&pod.metadata.uid)), "{kind}");
            assert_eq!(world.annotation("muster.dev/restart-count"), counted, "{kind}");
            assert_eq!(world.annotation("muster.dev/infrastructure-restart-count"), free, "{kind}");
            world.run_all();
            world.settle();
            assert_eq!(world.conditions(), ["Created=True", "Running=True"], "{kind}");
        }
        world.exit(pod, 1);
        world.settle();
        assert_eq!(world.conditions().last().unwrap(), "Failed=True", "{kind}: the budget is spent");
    }
}

#[test]
fn in_every_kind_a_smaller_number_of_workers_is_no_failure() {
    for (job, _) in gangs() {
        let kind = job["kind"].as_str().unwrap().to_owned();
        let specs = TrainingKind::find("kubeflow.org/v1", &kind).unwrap().kind.replica_specs;
        let mut job = with_policy(job, "OnFailure");
        job["spec"]["runPolicy"] = json!({"backoffLimit": 0});
        let mut world = running(job);
        world.edit(|job| job["spec"][specs]["Worker"]["replicas"] = json!(1));
        world.settle();
        world.run_all();
        world.settle();
        assert_eq!(world.conditions(), ["Created=True", "Running=True"], "{kind}");
        assert_eq!(world.counts("Worker"), (1, 0, 0), "{kind}");
        assert_eq!(world.annotation("muster.dev/restart-count"), None, "{kind}");
    }
}

#[test]
fn what_is_left_of_an_ended_job_is_what_it_asked_for() {
    for (job, _) in gangs() {
        for (policy, left) in [("None", None), ("Running", Some(1)), ("All", Some(0))] {
            let mut job = job.clone();
            job["spec"]["runPolicy"] = json!({"cleanPodPolicy": policy});
            let kind = job["kind"].clone();
            let mut world = running(job);
            let all = world.pods.len();
            let leader = world
                .pods
                .iter()
                .find(|(_, pod)| pod.metadata.labels.as_ref().unwrap().contains_key(label::JOB_ROLE));
            let leader = leader.unwrap().0.clone();
            world.exit(&leader, 0);
            if matches!(kind.as_str(), Some("JAXJob" | "PaddleJob")) {
                world.exit("digits-worker-1", 0);
            }
            world.settle();
            assert_eq!(world.conditions().last().unwrap(), "Succeeded=True", "{kind}");
            let ended = if matches!(kind.as_str(), Some("JAXJob" | "PaddleJob")) { 2 } else { 1 };
            let left = left.map_or(all, |left| left * ended);
            assert_eq!((world.pods.len(), world.services.len()), (left, left), "{kind} {policy}");
        }
    }
}

#[test]
fn an_elastic_paddle_job_gets_an_autoscaler_and_restarts_in_its_new_size() {
    let mut job = manifest_of("PaddleJob", &[("Worker", 2)]);
    job["spec"]["elasticPolicy"] = json!({
        "minReplicas": 1, "maxReplicas": 4, "maxRestarts": 5,
        "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
    });
    let mut world = running(job);
    let autoscaler = world.autoscaler.clone().unwrap();
    assert_eq!((autoscaler.spec.min_replicas, autoscaler.spec.max_replicas), (Some(1), 4));
    assert_eq!(autoscaler.spec.scale_target_ref.kind, "PaddleJob");
    world.edit(|job| job["spec"]["paddleReplicaSpecs"]["Worker"]["replicas"] = json!(3));
    world.settle();
    let told = environment(&world.pods["digits-worker-0"], 0);
    assert_eq!((told["PADDLE_NNODES"].as_str(), told["PADDLE_MAX_RESTART"].as_str()), ("3", "5"));
    assert_eq!(world.annotation("muster.dev/infrastructure-restart-count"), Some("1"));
    assert_eq!(
        world.message(ConditionType::Restarting),
        "PaddleJob digits is restarting: the job is resized from 2 to 3 pods; replacing all 3 pods (0 counted restarts, 1 free)"
    );
}
