//! Whether the definitions accept and reject what those of the training operator do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use muster_trainer_api::{PyTorchJob, crds};
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
    for definition in crds().unwrap() {
        let name = definition.metadata.name.clone().unwrap();
        let plural = definition.spec.names.plural.clone();
        let file = shared.join(format!("upstream/crds/training-operator-v1/kubeflow.org_{plural}.yaml"));
        let theirs: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let ours = serde_json::to_value(definition).unwrap();
        let mut found = BTreeSet::new();
        let schema =
            |definition: &Value| definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        differences("schema", &schema(&ours), &schema(&theirs), &mut found);
        let without_schema = |definition: &Value| {
            let mut spec = definition["spec"].clone();
            spec["versions"][0].as_object_mut().unwrap().remove("schema");
            spec
        };
        differences("spec", &without_schema(&ours), &without_schema(&theirs), &mut found);
        let expected: BTreeSet<_> = EXPECTED.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(found, expected, "{name}");
    }
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
    let mut definition = serde_json::to_value(&crds().unwrap()[0]).unwrap();
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
    let job: PyTorchJob = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(job).unwrap(), manifest);
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
