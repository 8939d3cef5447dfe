//! Each check names its field.

use muster_trainer_core::train_job::validate;
use serde_json::{Value, json};

use super::world::{World, job, runtime};

fn errors(spec: Value, runtime: Value) -> Vec<String> {
    errors_of(job(spec), runtime)
}

fn errors_of(job: Value, runtime: Value) -> Vec<String> {
    let world = World::new(job, runtime);
    let runtime = world.view.runtime.unwrap();
    validate(&world.view.job, &runtime.spec).iter().map(ToString::to_string).collect()
}

fn torch() -> Value {
    runtime(json!({"torch": {}}))
}

#[test]
fn each_check_names_its_field() {
    assert!(errors(json!({}), torch()).is_empty());
    let patch = |group: Value| json!({"runtimePatches": [{"manager": "me", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [group]}}}}]});
    let containers = |containers: Value| {
        patch(
            json!({"name": "node", "template": {"spec": {"template": {"spec": {"containers": containers}}}}}),
        )
    };
    let mut headless = torch();
    headless["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["metadata"] = json!({});
    let variable = |name: &str| json!({"trainer": {"env": [{"name": name, "value": "1"}]}});
    let fewest = |said: &str, runtime: Value| {
        let mut job = job(json!({"trainer": {"numNodes": 4}}));
        job["metadata"]["annotations"] = json!({"muster.dev/min-nodes": said});
        errors_of(job, runtime)
    };
    let workers = |slots: &str| {
        let mut runtime = runtime(json!({"mpi": {}}));
        let groups = runtime["spec"]["template"]["spec"]["replicatedJobs"].as_array_mut().unwrap();
        groups[0]["name"] = json!("launcher");
        let mut others = groups[0].clone();
        others["name"] = json!("large");
        others["template"]["metadata"] = json!({"annotations": {"muster.dev/mpi-slots": slots}});
        groups.push(others);
        runtime
    };
    let with_group = |change: fn(&mut Value)| {
        let mut runtime = runtime(json!({"torch": {}}));
        let groups = runtime["spec"]["template"]["spec"]["replicatedJobs"].as_array_mut().unwrap();
        let mut other = groups[0].clone();
        other["name"] = json!("other");
        change(&mut other);
        groups.push(other);
        runtime
    };
    let all = [
        errors(json!({}), headless),
        errors(json!({"trainer": {"numNodes": 0}}), torch()),
        errors(json!({"initializer": {"dataset": {"storageUri": "hf://a/b"}, "model": {}}}), torch()),
        errors(variable("PET_NNODES"), torch()),
        errors(variable("JAX_PROCESS_ID"), runtime(json!({"jax": {}}))),
        errors(variable("DMLC_TASK_ID"), runtime(json!({"xgboost": {}}))),
        errors(variable("OMPI_MCA_orte_default_hostfile"), runtime(json!({"mpi": {}}))),
        errors(patch(json!({"name": "nodes"})), torch()),
        errors(containers(json!([{"name": "side"}])), torch()),
        errors(containers(json!([{"name": "node", "env": [{"name": "A"}]}])), torch()),
        errors(json!({}), runtime(json!({"flux": {}}))),
        errors(json!({}), with_group(|_| ())),
        errors(json!({}), with_group(|other| other["replicas"] = json!(2))),
        fewest("5", torch()),
        fewest("some", torch()),
        fewest("1", runtime(json!({"jax": {}}))),
        errors(json!({}), workers("none")),
    ];
    insta::assert_yaml_snapshot!(all);
}

#[test]
fn a_job_that_is_not_valid_fails_and_says_why() {
    let mut world = World::new(job(json!({"trainer": {"numNodes": 0}})), torch());
    world.settle();
    assert_eq!(world.reason("Failed").as_deref(), Some("TrainJobInvalid"));
    let message = world.status().condition("Failed").unwrap().message.clone();
    assert_eq!(message, "the job is not valid: spec.trainer.numNodes: must be at least 1, not 0");
    assert!(world.view.jobset.is_none());
}
