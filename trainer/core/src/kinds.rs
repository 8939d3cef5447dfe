//! Every training kind, found by its name.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::job::Job;
use crate::kind::Kind;
use crate::validation::FieldError;
use crate::{jax, paddle, pytorch, tensorflow, xgboost};

/// A training kind and how its objects become jobs.
#[derive(Debug, Clone, Copy)]
pub struct TrainingKind {
    /// Its data.
    pub kind: &'static Kind,
    /// Reads, checks and completes an object as the API server holds it.
    pub read: fn(Value) -> Result<Job, Vec<FieldError>>,
}

/// Every kind that these rules are for.
pub static KINDS: &[TrainingKind] = &[
    TrainingKind { kind: &pytorch::KIND, read: |object| read(object, pytorch::job) },
    TrainingKind { kind: &tensorflow::KIND, read: |object| read(object, tensorflow::job) },
    TrainingKind { kind: &xgboost::KIND, read: |object| read(object, xgboost::job) },
    TrainingKind { kind: &jax::KIND, read: |object| read(object, jax::job) },
    TrainingKind { kind: &paddle::KIND, read: |object| read(object, paddle::job) },
];

impl TrainingKind {
    /// The kind of objects with this `apiVersion` and `kind`.
    pub fn find(api_version: &str, kind: &str) -> Option<&'static Self> {
        let (group, version) = api_version.split_once('/')?;
        let of_group =
            group == muster_trainer_api::names::GROUP && version == muster_trainer_api::names::VERSION;
        KINDS.iter().find(|training| of_group && training.kind.name == kind)
    }
}

fn read<K: DeserializeOwned>(
    object: Value,
    job: impl Fn(&K) -> Result<Job, Vec<FieldError>>,
) -> Result<Job, Vec<FieldError>> {
    match serde_json::from_value(object) {
        Ok(read) => job(&read),
        Err(error) => Err(vec![FieldError::new("spec", format!("cannot be read: {error}"))]),
    }
}
