//! What all `kubeflow.org/v1` kinds share: run policy and replicas.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

/// What happens to the pods of a finished job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CleanPodPolicy {
    /// Delete every pod.
    All,
    /// Delete pods that run or wait; keep those that ended.
    Running,
    /// Keep every pod.
    None,
    /// Anything else; the schema lets it pass, validation does not.
    #[serde(untagged)]
    Unknown(String),
}

/// What the failure of a pod means for its job; one that the infrastructure takes (an eviction, a preemption, a lost node)
/// has not failed, and is replaced whatever the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Restart.
    Always,
    /// Restart.
    OnFailure,
    /// The job fails.
    Never,
    /// Exit codes from 128 restart, smaller ones fail the job.
    ExitCode,
    /// Anything else; the schema lets it pass, validation does not.
    #[serde(untagged)]
    Unknown(String),
}

impl RestartPolicy {
    /// The policy as it is written in a manifest.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
            Self::ExitCode => "ExitCode",
            Self::Unknown(other) => other,
        }
    }
}

/// How a job runs and how it is cleaned up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunPolicy {
    /// What happens to the pods of a finished job; [`CleanPodPolicy::None`] when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_pod_policy: Option<CleanPodPolicy>,
    /// Seconds after the end at which the job object is deleted; never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Seconds from the start or the latest resumption after which the job fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// How many restarts caused by the job's own code are allowed; no bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
    /// How the job's pods are scheduled as a gang.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_policy: Option<SchedulingPolicy>,
    /// Whether the job's pods are withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The controller in charge, see [`managed_by`](crate::names::managed_by). Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// How a job's pods are scheduled as a gang.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingPolicy {
    /// How many pods must be placeable together; all of them when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_available: Option<i32>,
    /// Queue in which the gang waits. Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Resources the gang needs before it may start; computed from its pods when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_resources: Option<BTreeMap<String, Quantity>>,
    /// Priority class of the gang.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// Seconds the gang may wait for its members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_timeout_seconds: Option<i32>,
}

/// A set of like pods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSpec {
    /// How many pods; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What the pods look like.
    pub template: PodTemplateSpec,
    /// What a failure means; the kind's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
}
