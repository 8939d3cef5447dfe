//! The status all `kubeflow.org/v1` kinds share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use serde::{Deserialize, Serialize};

/// Type of a [`JobCondition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionType {
    /// The controller has seen the job.
    Created,
    /// The job's leading pods run.
    Running,
    /// Failed pods are being replaced.
    Restarting,
    /// The job has reached its aim.
    Succeeded,
    /// The job has failed for good.
    Failed,
    /// The job's pods are withheld.
    Suspended,
    /// A condition of another controller; kept as it is.
    #[serde(untagged)]
    Other(String),
}

impl ConditionType {
    /// The type as it is written in the status.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Created => "Created",
            Self::Running => "Running",
            Self::Restarting => "Restarting",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Suspended => "Suspended",
            Self::Other(other) => other,
        }
    }
}

/// One observation about a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobCondition {
    /// What is observed.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the condition was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// How the pods of one replica type fare.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaStatus {
    /// Pods that run.
    #[serde(skip_serializing_if = "is_zero")]
    pub active: i32,
    /// Pods that ended well.
    #[serde(skip_serializing_if = "is_zero")]
    pub succeeded: i32,
    /// Pods that failed, or run on a node that is lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: i32,
    /// Deprecated in favour of `selector`; read but never written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Label selector of the pods, in the form the `scale` subresource needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// What the controller last saw of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatus {
    /// Observations, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub conditions: Vec<JobCondition>,
    /// Replica type to the state of its pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_empty")]
    pub replica_statuses: BTreeMap<String, ReplicaStatus>,
    /// When the job was started or last resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the job ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When the controller last changed this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reconcile_time: Option<Time>,
}

/// Go writes empty lists and maps as null.
fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl JobStatus {
    /// The condition of this type, if it was ever set.
    pub fn condition(&self, type_: &ConditionType) -> Option<&JobCondition> {
        self.conditions.iter().find(|condition| condition.type_ == *type_)
    }

    /// Whether the condition of this type is set and `True`.
    pub fn is(&self, type_: &ConditionType) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == "True")
    }

    /// Whether the job has succeeded or failed.
    pub fn is_finished(&self) -> bool {
        self.is(&ConditionType::Succeeded) || self.is(&ConditionType::Failed)
    }
}
