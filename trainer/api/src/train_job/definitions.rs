//! The `CustomResourceDefinition`s of training jobs and runtimes.

use std::iter;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use super::names::{GROUP, VERSION};
use crate::schema::{Error, Parts};

/// The definitions of the three kinds, ready to be applied to a cluster; each is put together when it is asked for.
pub fn crds(parts: &Parts) -> impl Iterator<Item = Result<CustomResourceDefinition, Error>> {
    let runtimes = [("TrainingRuntime", "Namespaced"), ("ClusterTrainingRuntime", "Cluster")];
    iter::once_with(|| job(parts))
        .chain(runtimes.into_iter().map(|(kind, scope)| runtime(parts, kind, scope)))
}

fn job(parts: &Parts) -> Result<CustomResourceDefinition, Error> {
    let mut version = json!({
        "schema": {"openAPIV3Schema": parts.object("TrainJobSpec", Some("TrainJobStatus"))?},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"jsonPath": ".status.conditions[-1:].type", "name": "State", "type": "string"},
            {"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"},
        ],
    });
    version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = json!([
        {
            "message": "metadata.name must match RFC 1035 DNS label format",
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        },
        {
            "message": "metadata.name must be no more than 63 characters",
            "rule": "size(self.metadata.name) <= 63",
        },
    ]);
    build("TrainJob", "Namespaced", version)
}

fn runtime(parts: &Parts, kind: &str, scope: &str) -> Result<CustomResourceDefinition, Error> {
    build(kind, scope, json!({"schema": {"openAPIV3Schema": parts.object("TrainingRuntimeSpec", None)?}}))
}

fn build(kind: &str, scope: &str, mut version: Value) -> Result<CustomResourceDefinition, Error> {
    let singular = kind.to_lowercase();
    version["name"] = json!(VERSION);
    version["served"] = json!(true);
    version["storage"] = json!(true);
    let definition = json!({
        "metadata": {"name": format!("{singular}s.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": format!("{singular}s"),
                "singular": singular,
            },
            "versions": [version],
        },
    });
    serde_json::from_value(definition).map_err(|source| Error::Definition { kind: kind.to_owned(), source })
}
