//! The `CustomResourceDefinition`s of the training kinds.

use std::iter;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::names::{GROUP, VERSION};
use crate::schema::{Error, Parts};

mod mpi;

/// What the definitions of two kinds differ in.
struct Definition {
    kind: &'static str,
    singular: &'static str,
    plural: &'static str,
    replica_specs: &'static str,
    /// The kind's own fields of `spec`, as references to parts.
    fields: Vec<(&'static str, Value)>,
    /// Replica type whose number the `scale` subresource sets.
    scaled_replica_type: Option<&'static str>,
}

fn definitions() -> Vec<Definition> {
    vec![pytorch_job(), tf_job(), xgboost_job(), jax_job(), paddle_job()]
}

fn pytorch_job() -> Definition {
    Definition {
        kind: "PyTorchJob",
        singular: "pytorchjob",
        plural: "pytorchjobs",
        replica_specs: "pytorchReplicaSpecs",
        fields: vec![
            ("elasticPolicy", json!({"$ref": "PyTorchElasticPolicy"})),
            (
                "nprocPerNode",
                json!({
                    "type": "string",
                    "description": "Processes per pod: auto, cpu, gpu or a number. Defaults to auto.",
                }),
            ),
        ],
        scaled_replica_type: Some("Worker"),
    }
}

fn tf_job() -> Definition {
    Definition {
        kind: "TFJob",
        singular: "tfjob",
        plural: "tfjobs",
        replica_specs: "tfReplicaSpecs",
        fields: vec![
            (
                "enableDynamicWorker",
                json!({
                    "type": "boolean",
                    "description": "Whether workers come and go while the job runs; each is then told of itself \
                                    and of the parameter servers alone.",
                }),
            ),
            (
                "successPolicy",
                json!({
                    "type": "string",
                    "description": "Which workers must end well where no chief or master does: the first one \
                                    (the default), or AllWorkers.",
                }),
            ),
        ],
        scaled_replica_type: None,
    }
}

fn xgboost_job() -> Definition {
    Definition {
        kind: "XGBoostJob",
        singular: "xgboostjob",
        plural: "xgboostjobs",
        replica_specs: "xgbReplicaSpecs",
        fields: Vec::new(),
        scaled_replica_type: None,
    }
}

fn jax_job() -> Definition {
    Definition {
        kind: "JAXJob",
        singular: "jaxjob",
        plural: "jaxjobs",
        replica_specs: "jaxReplicaSpecs",
        fields: Vec::new(),
        scaled_replica_type: Some("Worker"),
    }
}

fn paddle_job() -> Definition {
    Definition {
        kind: "PaddleJob",
        singular: "paddlejob",
        plural: "paddlejobs",
        replica_specs: "paddleReplicaSpecs",
        fields: vec![("elasticPolicy", json!({"$ref": "PaddleElasticPolicy"}))],
        scaled_replica_type: Some("Worker"),
    }
}

/// The definitions of the kinds of `kubeflow.org`, ready to be applied to a cluster; each is put together when it is
/// asked for, since all at once are tens of megabytes.
pub fn crds(parts: &Parts) -> impl Iterator<Item = Result<CustomResourceDefinition, Error>> {
    let replicated = definitions().into_iter().map(|definition| definition.build(parts));
    replicated.chain(iter::once_with(|| mpi::definition(parts)))
}

impl Definition {
    fn build(&self, parts: &Parts) -> Result<CustomResourceDefinition, Error> {
        let mut subresources = json!({"status": {}});
        if let Some(replica_type) = self.scaled_replica_type {
            let replica_specs = self.replica_specs;
            subresources["scale"] = json!({
                "specReplicasPath": format!(".spec.{replica_specs}.{replica_type}.replicas"),
                "statusReplicasPath": format!(".status.replicaStatuses.{replica_type}.active"),
                "labelSelectorPath": format!(".status.replicaStatuses.{replica_type}.selector"),
            });
        }
        let definition = json!({
            "metadata": {"name": format!("{}.{GROUP}", self.plural)},
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.singular,
                },
                "versions": [{
                    "name": VERSION,
                    "served": true,
                    "storage": true,
                    "additionalPrinterColumns": [
                        {"jsonPath": ".status.conditions[-1:].type", "name": "State", "type": "string"},
                        {"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date"},
                    ],
                    "schema": {"openAPIV3Schema": parts.job(self.replica_specs, &self.fields)?},
                    "subresources": subresources,
                }],
            },
        });
        serde_json::from_value(definition)
            .map_err(|source| Error::Definition { kind: self.kind.to_owned(), source })
    }
}
