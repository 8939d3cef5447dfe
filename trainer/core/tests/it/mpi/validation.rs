//! Which MPI jobs are refused, and what is said.

use muster_trainer_core::mpi;
use serde_json::{Value, json};

use super::world::{manifest, manifest_v1};

fn errors(manifest: Value) -> Vec<String> {
    let job = serde_json::from_value(manifest).unwrap();
    mpi::job(&job).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut job = manifest(2);
    change(&mut job);
    errors(job)
}

#[test]
fn each_check_names_its_field() {
    assert_eq!(errors(manifest(2)), [""; 0]);
    assert_eq!(errors(manifest(0)), [""; 0], "a launcher alone may run mpirun on itself");
    let specs = "mpiReplicaSpecs";
    let mut all = Vec::new();
    all.extend(changed(|job| job["metadata"]["name"] = json!("1-pi")));
    all.extend(changed(|job| job["metadata"]["name"] = json!("p".repeat(55))));
    all.extend(changed(|job| {
        job["metadata"]["annotations"] =
            json!({"muster.dev/remote-shell": "rsh", "muster.dev/restart-scope": "node"});
    }));
    all.extend(changed(|job| job["spec"][specs]["Master"] = job["spec"][specs]["Worker"].clone()));
    all.extend(changed(|job| drop(job["spec"][specs].as_object_mut().unwrap().remove("Launcher"))));
    all.extend(changed(|job| job["spec"][specs]["Launcher"]["replicas"] = json!(2)));
    all.extend(changed(|job| job["spec"][specs]["Worker"]["replicas"] = json!(0)));
    all.extend(changed(|job| job["spec"][specs]["Worker"]["restartPolicy"] = json!("ExitCode")));
    all.extend(changed(|job| job["spec"][specs]["Worker"]["template"] = json!({})));
    all.extend(changed(|job| {
        job["spec"][specs]["Worker"]["template"]["spec"]["containers"][0] = json!({"name": "mpi"});
    }));
    all.extend(changed(|job| job["spec"]["slotsPerWorker"] = json!(0)));
    all.extend(changed(|job| job["spec"]["sshAuthMountPath"] = json!("ssh")));
    all.extend(changed(|job| job["spec"]["launcherCreationPolicy"] = json!("Later")));
    all.extend(changed(|job| job["spec"]["mpiImplementation"] = json!("LAM")));
    all.extend(changed(|job| job["spec"]["mainContainer"] = json!("trainer")));
    all.extend(changed(|job| job["spec"]["cleanPodPolicy"] = json!("Some")));
    all.extend(changed(|job| {
        job["spec"]["runPolicy"] = json!({"managedBy": "me", "cleanPodPolicy": "Some", "backoffLimit": -1});
    }));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn both_operators_names_and_the_older_version_s_restart_policies_are_taken() {
    for name in ["kubeflow.org/mpi-operator", "kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue"] {
        assert_eq!(changed(|job| job["spec"]["runPolicy"] = json!({"managedBy": name})), [""; 0]);
    }
    for policy in ["Always", "OnFailure", "Never", "ExitCode"] {
        let mut job = manifest_v1(2);
        job["spec"]["mpiReplicaSpecs"]["Worker"]["restartPolicy"] = json!(policy);
        assert_eq!(errors(job), [""; 0]);
    }
}

#[test]
fn replica_types_are_read_in_any_case() {
    let mut job = manifest(3);
    let specs = job["spec"]["mpiReplicaSpecs"].take();
    job["spec"]["mpiReplicaSpecs"] = json!({"lAUNCHER": specs["Launcher"], "worker": specs["Worker"]});
    assert_eq!(mpi::job(&serde_json::from_value(job).unwrap()).unwrap().workers(), 3);
}
