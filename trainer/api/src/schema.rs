//! The structural schemas of the training kinds, put together from named parts.
//!
//! The parts are data: `schema/training.yaml` describes `kubeflow.org/v1`, `schema/train_job.yaml` and
//! `schema/jobset.yaml` the kinds of those names, `schema/kubernetes.yaml` the Kubernetes types inside them
//! (structural schemas know no references, so each use is written out in full).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Why a schema cannot be put together; only a damaged build can meet it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part file is no YAML.
    #[error("schema parts cannot be read: {0}")]
    Parts(#[from] serde_saphyr::Error),
    /// A `$ref` names no part.
    #[error("schema part `{0}` does not exist")]
    MissingPart(String),
    /// The result is no `CustomResourceDefinition`.
    #[error("custom resource definition of {kind} is not well formed: {source}")]
    Definition {
        /// The kind it was to define.
        kind: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// The named parts of the schemas.
#[derive(Debug)]
pub struct Parts(BTreeMap<String, Value>);

impl Parts {
    /// Reads the part files.
    pub fn load() -> Result<Self, Error> {
        let mut parts: BTreeMap<String, Value> =
            serde_saphyr::from_str(include_str!("schema/kubernetes.yaml"))?;
        let files = [
            include_str!("schema/training.yaml"),
            include_str!("schema/jobset.yaml"),
            include_str!("schema/train_job.yaml"),
        ];
        for file in files {
            parts.extend(serde_saphyr::from_str::<BTreeMap<String, Value>>(file)?);
        }
        Ok(Self(parts))
    }

    /// A part in full, every reference inside it put in place.
    pub fn part(&self, name: &str) -> Result<Value, Error> {
        self.expand(self.0.get(name).ok_or_else(|| Error::MissingPart(name.to_owned()))?)
    }

    fn expand(&self, node: &Value) -> Result<Value, Error> {
        match node {
            Value::Object(fields) => {
                let mut expanded = Map::new();
                if let Some(Value::String(name)) = fields.get("$ref") {
                    match self.part(name)? {
                        Value::Object(part) => expanded = part,
                        whole => return Ok(whole),
                    }
                }
                for (key, value) in fields.iter().filter(|(key, _)| *key != "$ref") {
                    expanded.insert(key.clone(), self.expand(value)?);
                }
                Ok(Value::Object(expanded))
            }
            Value::Array(items) => {
                items.iter().map(|item| self.expand(item)).collect::<Result<_, _>>().map(Value::Array)
            }
            scalar => Ok(scalar.clone()),
        }
    }

    /// The schema of a whole kind, given the parts that describe its `spec` and `status`.
    pub(crate) fn object(&self, spec: &str, status: Option<&str>) -> Result<Value, Error> {
        let mut schema = json!({
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": self.part(spec)?,
            },
        });
        if let Some(status) = status {
            schema["properties"]["status"] = self.part(status)?;
        }
        Ok(schema)
    }

    /// The schema of a whole training kind.
    ///
    /// `replica_specs` is the name of the field that holds the replicas, `fields` are the kind's own fields.
    pub(crate) fn job(&self, replica_specs: &str, fields: &[(&str, Value)]) -> Result<Value, Error> {
        let mut spec = Map::new();
        spec.insert("runPolicy".to_owned(), self.part("RunPolicy")?);
        spec.insert(replica_specs.to_owned(), self.part("ReplicaSpecs")?);
        for (name, schema) in fields {
            spec.insert((*name).to_owned(), self.expand(schema)?);
        }
        Ok(json!({
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": {
                    "type": "object",
                    "required": [replica_specs],
                    "properties": spec,
                    "x-kubernetes-validations": [{
                        "rule": MANAGED_BY_IS_IMMUTABLE,
                        "message": "spec.runPolicy.managedBy is immutable",
                    }],
                },
                "status": self.part("JobStatus")?,
            },
        }))
    }
}

/// Adding the field counts as a change too, which a rule on the field itself would not see.
const MANAGED_BY_IS_IMMUTABLE: &str = "(has(self.runPolicy) && has(self.runPolicy.managedBy) \
     ? self.runPolicy.managedBy : '') == (has(oldSelf.runPolicy) && has(oldSelf.runPolicy.managedBy) \
     ? oldSelf.runPolicy.managedBy : '')";
