//! Whether the definitions accept and reject what those of the training operator do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_trainer_api::schema::Parts;
use muster_trainer_api::{JAXJob, MpiJobSpec, PaddleJob, PyTorchJob, TFJob, XGBoostJob, crds};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The folder of reference material, if this machine has it.
pub(crate) fn shared() -> Option<PathBuf> {
    let shared = std::env::var_os("MUSTER_SHARED").map(PathBuf::from);
    if shared.is_none() {
        eprintln!("skipped: MUSTER_SHARED is not set, there are no upstream definitions to compare with");
    }
    shared
}

/// Where our definitions differ from the training operator's on purpose, and why.
const EXPECTED: &[(&str, &str)] = &[(
    "schema.spec.x-kubernetes-validations",
    "managedBy is immutable; the training operator's webhook means to enforce that, but compares an object with itself",
)];

/// Where the two versions of `MPIJob` differ beyond that: each has the fields of the other.
const EXPECTED_OF_MPI_V1: &[&str] = &[
    "schema.spec.launcherCreationPolicy",
    "schema.spec.mpiImplementation",
    "schema.spec.runLauncherAsWorker",
    "schema.spec.sshAuthMountPath",
];

/// Also, the MPI operator describes pods of Kubernetes 1.35, whose alpha field 1.36 has replaced by another.
const EXPECTED_OF_MPI_V2: &[&str] = &[
    "schema.spec.cleanPodPolicy",
    "schema.spec.mainContainer",
    "schema.spec.mpiReplicaSpecs.additionalProperties.template.spec.schedulingGroup",
    "schema.spec.mpiReplicaSpecs.additionalProperties.template.spec.workloadRef",
    "version.additionalPrinterColumns",
];

/// Every place where two definitions differ in more than their descriptions.
pub(crate) fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut BTreeSet<String>) {
    match (ours, theirs) {
        (Value::Object(our_fields), Value::Object(their_fields)) => {
            let keys: BTreeSet<_> = our_fields.keys().chain(their_fields.keys()).collect();
            let holds_fields = path.ends_with(".properties") || path == "properties";
            for key in keys.into_iter().filter(|key| holds_fields || *key != "description") {
                let below = if key == "properties" && !holds_fields {
                    format!("{path}.properties")
                } else {
                    format!("{path}.{key}")
                };
                let absent = Value::Null;
                let our_value = our_fields.get(key).unwrap_or(&absent);
                let their_value = their_fields.get(key).unwrap_or(&absent);
                differences(&below, our_value, their_value, found);
            }
        }
        (Value::Array(our_items), Value::Array(their_items)) if our_items.len() == their_items.len() => {
            for (index, (our_item, their_item)) in our_items.iter().zip(their_items).enumerate() {
                differences(&format!("{path}[{index}]"), our_item, their_item, found);
            }
        }
        _ if ours == theirs => {}
        _ => {
            found.insert(path.replace(".properties", ""));
        }
    }
}

#[test]
fn the_definitions_differ_from_upstream_only_on_purpose() {
    let Some(shared) = shared() else { return };
    let crds = shared.join("upstream/crds");
    for definition in crds_as_json() {
        let names = &definition["spec"]["names"];
        let file = format!("kubeflow.org_{}.yaml", names["plural"].as_str().unwrap());
        let training = crds.join("training-operator-v1").join(&file);
        let is_mpi = names["kind"] == "MPIJob";
        let own: &[&str] = if is_mpi { EXPECTED_OF_MPI_V1 } else { &[] };
        compare(&definition, "v1", &training, own);
        if is_mpi {
            compare(
                &definition,
                "v2beta1",
                &crds.join("mpi-operator-v2beta1").join(&file),
                EXPECTED_OF_MPI_V2,
            );
        }
    }
}

fn crds_as_json() -> Vec<Value> {
    let parts = Parts::load().unwrap();
    crds(&parts).map(|definition| serde_json::to_value(definition.unwrap()).unwrap()).collect()
}

/// Compares one version of a definition with upstream's, which has that version alone.
fn compare(ours: &Value, version: &str, file: &std::path::Path, own: &[&str]) {
    let theirs: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let found_version = |definition: &Value| {
        let versions = definition["spec"]["versions"].as_array().unwrap();
        versions.iter().find(|candidate| candidate["name"] == version).unwrap().clone()
    };
    let (mut our_version, mut their_version) = (found_version(ours), found_version(&theirs));
    let schema = |version: &mut Value| version["schema"]["openAPIV3Schema"].take();
    let mut found = BTreeSet::new();
    differences("schema", &schema(&mut our_version), &schema(&mut their_version), &mut found);
    // Of two versions one is stored.
    for version in [&mut our_version, &mut their_version] {
        version.as_object_mut().unwrap().remove("storage");
    }
    differences("version", &our_version, &their_version, &mut found);
    let without_versions = |definition: &Value| {
        let mut spec = definition["spec"].clone();
        spec.as_object_mut().unwrap().remove("versions");
        spec
    };
    differences("spec", &without_versions(ours), &without_versions(&theirs), &mut found);
    let expected = EXPECTED.iter().map(|(path, _)| *path).chain(own.iter().copied()).map(str::to_owned);
    assert_eq!(found, expected.collect::<BTreeSet<_>>(), "{} {version}", ours["metadata"]["name"]);
}

#[test]
fn only_the_newer_version_of_an_mpi_job_fills_in_its_fields_and_the_older_is_stored() {
    let definition = crds_as_json().into_iter().find(|crd| crd["spec"]["names"]["kind"] == "MPIJob").unwrap();
    let defaults = |index: usize| {
        let fields =
            &definition["spec"]["versions"][index]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let fields = fields["properties"].as_object().unwrap().iter();
        let with_default = fields.filter(|(_, schema)| schema.get("default").is_some());
        with_default.map(|(name, schema)| format!("{name}={}", schema["default"])).collect::<Vec<_>>()
    };
    assert_eq!(definition["spec"]["versions"][0]["storage"], true);
    assert_eq!(defaults(0), [""; 0]);
    let filled_in = [
        "launcherCreationPolicy=\"AtStartup\"",
        "mpiImplementation=\"OpenMPI\"",
        "runLauncherAsWorker=false",
        "slotsPerWorker=1",
        "sshAuthMountPath=\"/root/.ssh\"",
    ];
    assert_eq!(defaults(1), filled_in);
}

#[test]
fn an_mpi_job_tells_in_which_version_it_was_written() {
    let spec = |fields: Value| serde_json::from_value::<MpiJobSpec>(fields).unwrap();
    let v1 = json!({"mpiReplicaSpecs": {}, "slotsPerWorker": 2, "mainContainer": "mpi", "cleanPodPolicy": "All", "runPolicy": {}});
    assert!(!spec(v1.clone()).is_v2());
    assert_eq!(serde_json::to_value(spec(v1.clone())).unwrap(), v1);
    let v2 = json!({"mpiReplicaSpecs": {}, "sshAuthMountPath": "/home/mpiuser/.ssh", "mpiImplementation": "MPICH", "launcherCreationPolicy": "Later", "runLauncherAsWorker": true, "runPolicy": {}});
    assert!(spec(v2.clone()).is_v2());
    assert_eq!(serde_json::to_value(spec(v2.clone())).unwrap(), v2);
}

#[test]
fn the_comparison_finds_what_differs() {
    let ours = json!({"type": "object", "description": "a", "properties": {"description": {"type": "string"}, "a": {}}});
    let theirs = json!({"type": "object", "description": "b", "required": ["a"], "properties": {"description": {"type": "integer"}}});
    let mut found = BTreeSet::new();
    differences("", &ours, &theirs, &mut found);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [".a", ".description.type", ".required"]);
}

#[test]
fn the_definition_without_its_pod_template() {
    let mut definition = crds_as_json().remove(0);
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    *definition
        .pointer_mut(&format!("{spec}/pytorchReplicaSpecs/additionalProperties/properties/template"))
        .unwrap() = json!("the pod template");
    *definition.pointer_mut(&format!("{spec}/elasticPolicy/properties/metrics/items")).unwrap() =
        json!("the metric");
    insta::assert_yaml_snapshot!(definition);
}

#[test]
fn what_is_read_is_written_again() {
    let manifest = json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "digits", "namespace": "team"},
        "spec": {
            "nprocPerNode": "gpu",
            "runPolicy": {
                "cleanPodPolicy": "Running", "ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 3600,
                "backoffLimit": 3, "suspend": false, "managedBy": "kubeflow.org/training-operator",
                "schedulingPolicy": {
                    "minAvailable": 2, "queue": "research", "minResources": {"cpu": "4"},
                    "priorityClass": "high", "scheduleTimeoutSeconds": 10,
                },
            },
            "elasticPolicy": {
                "minReplicas": 1, "maxReplicas": 2, "rdzvBackend": "etcd", "rdzvPort": 1, "rdzvHost": "h",
                "rdzvId": "i", "rdzvConf": [{"key": "k", "value": "v"}], "standalone": true, "nProcPerNode": 2,
                "maxRestarts": 3, "metrics": [{"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
            },
            "pytorchReplicaSpecs": {"Worker": {
                "replicas": 2, "restartPolicy": "ExitCode",
                "template": {"spec": {"containers": [{"name": "pytorch", "image": "host"}]}},
            }},
        },
        "status": {
            "conditions": [{"type": "Running", "status": "True", "reason": "PyTorchJobRunning", "message": "m",
                "lastUpdateTime": "2026-11-20T10:00:00Z", "lastTransitionTime": "2026-11-20T10:00:00Z"}],
            "replicaStatuses": {"Worker": {"active": 2, "selector": "a=b"}},
            "startTime": "2026-11-20T10:00:00Z",
        },
    });
    assert_read::<PyTorchJob>(&manifest);
}

fn assert_read<K: Serialize + DeserializeOwned>(manifest: &Value) {
    let job: K = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(job).unwrap(), *manifest);
}

#[test]
fn what_is_read_of_the_other_kinds_is_written_again() {
    let manifest = |kind: &str, spec: Value| {
        let mut manifest = json!({
            "apiVersion": "kubeflow.org/v1", "kind": kind, "metadata": {"name": "digits"},
            "spec": {"runPolicy": {"suspend": true}},
        });
        manifest["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        manifest
    };
    let replica =
        json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": "host"}]}}});
    for policy in ["", "AllWorkers", "Most"] {
        assert_read::<TFJob>(&manifest(
            "TFJob",
            json!({"successPolicy": policy, "enableDynamicWorker": true, "tfReplicaSpecs": {"PS": replica}}),
        ));
    }
    assert_read::<XGBoostJob>(&manifest("XGBoostJob", json!({"xgbReplicaSpecs": {"Master": replica}})));
    assert_read::<JAXJob>(&manifest("JAXJob", json!({"jaxReplicaSpecs": {"Worker": replica}})));
    let elastic = json!({"minReplicas": 1, "maxReplicas": 2, "maxRestarts": 3, "metrics": [{"type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]});
    let spec = json!({"elasticPolicy": elastic, "paddleReplicaSpecs": {"Worker": replica}});
    assert_read::<PaddleJob>(&manifest("PaddleJob", spec));
}

#[test]
fn values_that_the_schema_lets_pass_are_read() {
    let job: PyTorchJob = serde_json::from_value(json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "digits"},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "Sometimes", "schedulingPolicy": {"minResources": {"cpu": 4}}},
            "pytorchReplicaSpecs": {"worker": {
                "restartPolicy": "Maybe",
                "template": {"spec": {"containers": [{"name": "pytorch", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}},
            }},
        },
        "status": {"conditions": null, "replicaStatuses": null},
    }))
    .unwrap();
    assert_eq!(serde_json::to_value(&job).unwrap()["spec"]["runPolicy"]["cleanPodPolicy"], "Sometimes");
}
