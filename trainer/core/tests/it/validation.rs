//! Which jobs are refused, and what is said.

use muster_trainer_api::{ConditionType, JobStatus, RunPolicy};
use muster_trainer_core::{TrainingKind, pytorch, reject, validate_update};
use serde_json::{Value, json};

use crate::world::{manifest, manifest_of};

fn errors(manifest: Value) -> Vec<String> {
    let training = TrainingKind::find("kubeflow.org/v1", manifest["kind"].as_str().unwrap()).unwrap();
    (training.read)(manifest).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut job = manifest(1);
    change(&mut job);
    errors(job)
}

#[test]
fn each_check_names_its_field() {
    assert_eq!(errors(manifest(1)), [""; 0]);
    let mut all = Vec::new();
    let specs = "pytorchReplicaSpecs";
    all.extend(changed(|job| job["metadata"]["name"] = json!("1-job")));
    all.extend(changed(|job| job["metadata"]["name"] = json!("a".repeat(60))));
    all.extend(changed(|job| job["metadata"]["annotations"] = json!({"muster.dev/restart-scope": "node"})));
    all.extend(changed(|job| job["spec"][specs]["Chief"] = job["spec"][specs]["Worker"].clone()));
    all.extend(changed(|job| job["spec"][specs]["worker"] = job["spec"][specs]["Worker"].clone()));
    all.extend(changed(|job| job["spec"][specs] = json!({})));
    all.extend(changed(|job| job["spec"][specs]["Master"]["replicas"] = json!(2)));
    all.extend(changed(|job| job["spec"][specs]["Worker"]["replicas"] = json!(0)));
    all.extend(changed(|job| job["spec"][specs]["Worker"]["restartPolicy"] = json!("Sometimes")));
    all.extend(changed(|job| job["spec"][specs]["Worker"]["template"] = json!({})));
    all.extend(changed(|job| {
        job["spec"][specs]["Worker"]["template"]["spec"]["containers"][0] = json!({"name": "tensorflow"});
    }));
    all.extend(changed(|job| {
        job["spec"]["runPolicy"] = json!({"managedBy": "me", "cleanPodPolicy": "Some"});
    }));
    all.extend(changed(|job| job["spec"]["runPolicy"] = json!({"backoffLimit": -1})));
    all.extend(changed(|job| {
        job["spec"]["elasticPolicy"] = json!({"minReplicas": 3, "maxReplicas": 2, "nProcPerNode": 2});
        job["spec"]["nprocPerNode"] = json!("2");
        job["spec"][specs].as_object_mut().unwrap().remove("Worker");
    }));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn each_kind_has_checks_of_its_own() {
    let with = |kind: &str, replicas: &[(&str, i32)], change: &dyn Fn(&mut Value)| {
        let mut job = manifest_of(kind, replicas);
        change(&mut job["spec"]);
        errors(job)
    };
    let unchanged = |_: &mut Value| {};
    let elastic = |spec: &mut Value| {
        spec["elasticPolicy"] = json!({"minReplicas": 3, "maxReplicas": 2});
    };
    let all = [
        with("TFJob", &[("Chief", 1), ("Master", 1)], &unchanged),
        with("TFJob", &[("PS", 1), ("Evaluator", 1)], &unchanged),
        with("TFJob", &[("Worker", 2), ("Launcher", 1)], &|spec| spec["successPolicy"] = json!("Most")),
        with("XGBoostJob", &[("Worker", 2)], &unchanged),
        with("XGBoostJob", &[("Master", 2)], &unchanged),
        with("JAXJob", &[("Master", 1), ("Worker", 1)], &unchanged),
        with("PaddleJob", &[("Master", 1)], &elastic),
        with("PaddleJob", &[("Worker", 0)], &unchanged),
    ];
    assert!(all.iter().all(|errors| !errors.is_empty()));
    insta::assert_snapshot!(all.concat().join("\n"));
    let upper = with("TFJob", &[("ps", 1), ("WORKER", 1), ("cHIEF", 1)], &unchanged);
    assert_eq!(upper, [""; 0], "types are read in any case");
}

#[test]
fn a_job_that_cannot_be_read_is_refused_by_its_kind() {
    let mut job = manifest_of("TFJob", &[("Worker", 1)]);
    job["spec"]["tfReplicaSpecs"]["Worker"]["replicas"] = json!("two");
    let said = errors(job);
    assert!(said.len() == 1 && said[0].starts_with("spec: cannot be read: invalid type: string"), "{said:?}");
}

#[test]
fn replica_types_are_read_in_any_case() {
    let mut job = manifest(1);
    let specs = job["spec"]["pytorchReplicaSpecs"].take();
    job["spec"]["pytorchReplicaSpecs"] = json!({"mASTER": specs["Master"], "worker": specs["Worker"]});
    let job = pytorch::job(&serde_json::from_value(job).unwrap()).unwrap();
    assert_eq!(
        job.replicas.iter().map(|replica| replica.type_.name).collect::<Vec<_>>(),
        ["Master", "Worker"]
    );
}

#[test]
fn a_refused_job_fails_once_and_says_why() {
    let mut job = manifest(1);
    job["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = json!(2);
    let errors = pytorch::job(&serde_json::from_value(job).unwrap()).unwrap_err();
    let now = "2026-11-20T10:00:00Z".parse().unwrap();
    let plan = reject(&pytorch::KIND, &JobStatus::default(), &errors, now);
    let status = plan.status.unwrap();
    let failed = status.condition(&ConditionType::Failed).unwrap();
    assert_eq!(failed.reason.as_deref(), Some("PyTorchJobFailedValidation"));
    assert_eq!(
        failed.message.as_deref(),
        Some("the job is not valid: spec.pytorchReplicaSpecs[Master].replicas: must be 1, not 2")
    );
    assert!(reject(&pytorch::KIND, &status, &errors, now).is_empty());
}

#[test]
fn who_manages_a_job_cannot_change() {
    let policy = |value: Value| serde_json::from_value::<RunPolicy>(value).unwrap();
    let ours = policy(json!({"managedBy": "kubeflow.org/training-operator"}));
    let other = policy(json!({"managedBy": "kueue.x-k8s.io/multikueue"}));
    assert!(validate_update(&ours, &ours).is_ok());
    assert!(validate_update(&other, &ours).is_err());
    assert!(validate_update(&ours, &RunPolicy::default()).is_err());
    let queue = |name| policy(json!({"schedulingPolicy": {"queue": name}}));
    assert!(validate_update(&queue("a"), &queue("b")).is_err());
}
