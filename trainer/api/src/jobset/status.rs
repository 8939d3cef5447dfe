//! The status of a `JobSet`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

use super::names::condition_type;

/// What the controller last saw of a set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSetStatus {
    /// Observations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How often all jobs were recreated. Jobs of an earlier attempt are deleted, and their failures count no
    /// more; so it is written before the first of them is.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: i32,
    /// How many of these restarts count against `failurePolicy.maxRestarts`.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts_count_towards_max: i32,
    /// `Completed` or `Failed`, once the set has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_state: Option<String>,
    /// How the jobs of each group fare.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicated_jobs_status: Vec<ReplicatedJobStatus>,
    /// Of another controller's restarts in place; kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_in_place_restart_attempt: Option<i32>,
    /// Of another controller's restarts in place; kept as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_in_place_restart_attempt: Option<i32>,
}

/// How the jobs of a group fare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicatedJobStatus {
    /// The group.
    pub name: String,
    /// Jobs whose pods are all ready or have succeeded.
    pub ready: i32,
    /// Jobs that are complete.
    pub succeeded: i32,
    /// Jobs that have failed.
    pub failed: i32,
    /// Jobs with a pod that runs or waits.
    pub active: i32,
    /// Jobs that are suspended.
    pub suspended: i32,
    /// How often each job was recreated by itself, by its index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub job_restarts: Vec<i32>,
    /// How many of these count against `failurePolicy.maxRestarts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub job_restarts_count_towards_max: Vec<i32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(count: &i32) -> bool {
    *count == 0
}

impl JobSetStatus {
    /// The condition of this type, if it was ever set.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether the condition of this type is set and `True`.
    pub fn is(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == "True")
    }

    /// Whether the set is complete or has failed.
    pub fn is_finished(&self) -> bool {
        self.is(condition_type::COMPLETED) || self.is(condition_type::FAILED)
    }
}
