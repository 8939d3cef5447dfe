//! The definition of `mpijobs.kubeflow.org`: two versions of one resource.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::mpi::V2;
use crate::names::{GROUP, VERSION};
use crate::schema::{Error, Parts};

const REPLICA_SPECS: &str = "mpiReplicaSpecs";

/// Fields of `v2beta1`, with the defaults that only that version fills in.
const V2_FIELDS: &[(&str, &str, &str)] = &[
    ("launcherCreationPolicy", "LauncherCreationPolicy", "AtStartup"),
    ("mpiImplementation", "MPIImplementation", "OpenMPI"),
    ("sshAuthMountPath", "SSHAuthMountPath", "/root/.ssh"),
];

/// Both versions have the fields of both, for what a version does not know is pruned when it is stored, and the
/// conversion `None` changes nothing but the version's name.
pub(super) fn definition(parts: &Parts) -> Result<CustomResourceDefinition, Error> {
    let columns = json!([
        {"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"},
        {"jsonPath": ".status.conditions[-1:].type", "name": "State", "type": "string"},
    ]);
    let version = |name: &str, storage: bool, schema: Value| {
        json!({
            "name": name,
            "served": true,
            "storage": storage,
            "additionalPrinterColumns": columns,
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}},
        })
    };
    let definition = json!({
        "metadata": {"name": format!("mpijobs.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": "MPIJob", "listKind": "MPIJobList", "plural": "mpijobs", "singular": "mpijob"},
            "versions": [version(VERSION, true, v1(parts)?), version(V2, false, v2(parts)?)],
        },
    });
    serde_json::from_value(definition)
        .map_err(|source| Error::Definition { kind: "MPIJob".to_owned(), source })
}

fn v1(parts: &Parts) -> Result<Value, Error> {
    let mut fields = of_v1();
    for (name, part, _) in V2_FIELDS {
        fields.push((name, json!({"$ref": part})));
    }
    fields.push(("runLauncherAsWorker", json!({"$ref": "RunLauncherAsWorker"})));
    fields.push(("slotsPerWorker", json!({"$ref": "SlotsPerWorker"})));
    parts.job(REPLICA_SPECS, &fields)
}

fn v2(parts: &Parts) -> Result<Value, Error> {
    let mut fields = of_v1();
    let with_default = |part: &str, default: Value| -> Result<Value, Error> {
        let mut schema = parts.part(part)?;
        schema["default"] = default;
        Ok(schema)
    };
    for (name, part, default) in V2_FIELDS {
        fields.push((name, with_default(part, json!(default))?));
    }
    fields.push(("runLauncherAsWorker", with_default("RunLauncherAsWorker", json!(false))?));
    fields.push(("slotsPerWorker", with_default("SlotsPerWorker", json!(1))?));
    let mut schema = parts.job(REPLICA_SPECS, &fields)?;
    let properties = &mut schema["properties"];
    let queue = "/spec/properties/runPolicy/properties/schedulingPolicy/properties/queue";
    if let Some(queue) = properties.pointer_mut(queue).and_then(Value::as_object_mut) {
        queue.remove("x-kubernetes-validations");
    }
    let conditions = &mut properties["status"]["properties"]["conditions"];
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    conditions["items"]["properties"]["status"]["enum"] = json!(["True", "False", "Unknown"]);
    Ok(schema)
}

/// The fields of `v1` alone.
fn of_v1() -> Vec<(&'static str, Value)> {
    vec![
        ("cleanPodPolicy", json!({"$ref": "MPICleanPodPolicy"})),
        ("mainContainer", json!({"$ref": "MainContainer"})),
    ]
}
