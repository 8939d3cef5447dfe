//! `JobSet` (`jobset.x-k8s.io/v1alpha2`): jobs that belong together, as the JobSet project defines them.
//!
//! A cluster that has JobSet installed keeps its own definition and controller; the embedded cluster gets
//! [`crd`] and Muster's controller.

pub mod names;
mod status;

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema::{Error, Parts};
pub use names::{condition_type, label, reason};
pub use status::{JobSetStatus, ReplicatedJobStatus};

/// Jobs that belong together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "jobset.x-k8s.io",
    version = "v1alpha2",
    kind = "JobSet",
    plural = "jobsets",
    singular = "jobset",
    namespaced,
    status = "JobSetStatus",
    schema = "disabled",
    derive = "PartialEq",
    doc = "Jobs that belong together."
)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSetSpec {
    /// Groups of like jobs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicated_jobs: Vec<ReplicatedJob>,
    /// How pods find each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Which jobs must complete for the set to be complete; all of them when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// What the failure of a job means; the set fails when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    /// In which order the groups are created; all at once when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_policy: Option<StartupPolicy>,
    /// Whether the jobs are suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The pod whose address every pod of the set is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<Coordinator>,
    /// The controller in charge, see [`names::CONTROLLER`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// Seconds after the end at which the set is deleted; never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Volume claims that the jobs share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_policies: Vec<VolumeClaimPolicy>,
}

/// A group of like jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicatedJob {
    /// Its name, unique in the set.
    pub name: String,
    /// What counts together for `jobset.sigs.k8s.io/group-name`; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// How many jobs; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What the jobs look like.
    pub template: JobTemplateSpec,
    /// Groups that come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<DependsOn>,
}

/// A group that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependsOn {
    /// The group.
    pub name: String,
    /// How far it must be.
    pub status: DependsOnStatus,
}

/// How far a group must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DependsOnStatus {
    /// All its jobs are ready.
    Ready,
    /// All its jobs are complete.
    Complete,
}

/// How pods find each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// Whether pods get names in a headless service; they do when absent.
    #[serde(rename = "enableDNSHostnames", skip_serializing_if = "Option::is_none")]
    pub enable_dns_hostnames: Option<bool>,
    /// Name of that service; the name of the set when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Whether pods are found before they are ready; they are when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_not_ready_addresses: Option<bool>,
}

/// Whether a policy wants all jobs or any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Every job.
    #[default]
    All,
    /// One job is enough.
    Any,
}

/// When the set is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SuccessPolicy {
    /// Whether all jobs must complete or any.
    pub operator: Operator,
    /// The groups that count; all of them when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_replicated_jobs: Vec<String>,
}

/// What the failure of a job means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailurePolicy {
    /// How often the set may restart; never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<i32>,
    /// How its jobs are recreated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_strategy: Option<RestartStrategy>,
    /// The first rule that matches a failed job says what happens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<FailurePolicyRule>,
}

/// How the jobs of a restarting set are recreated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartStrategy {
    /// Each as soon as its predecessor is gone.
    #[default]
    Recreate,
    /// All of them, once all predecessors are gone.
    BlockingRecreate,
    /// Inside their pods, by an agent; not offered here.
    InPlaceRestart,
}

/// A rule of a [`FailurePolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailurePolicyRule {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What happens.
    pub action: FailureAction,
    /// Reasons of the job's condition `Failed`; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_job_failure_reasons: Vec<String>,
    /// Regular expressions, one of which matches that condition's message; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_job_failure_message_patterns: Vec<String>,
    /// Groups of the failed job; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_replicated_jobs: Vec<String>,
}

/// What happens when a job fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// The set fails.
    FailJobSet,
    /// All jobs are recreated, `maxRestarts` times at most.
    RestartJobSet,
    /// All jobs are recreated, at no charge.
    RestartJobSetAndIgnoreMaxRestarts,
    /// The failed job is recreated, `maxRestarts` times at most.
    RestartJob,
    /// The failed job is recreated, at no charge.
    RestartJobAndIgnoreMaxRestarts,
}

/// In which order groups are created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartupPolicy {
    /// The order.
    pub startup_policy_order: StartupOrder,
}

/// In which order groups are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartupOrder {
    /// All at once.
    AnyOrder,
    /// Each when those before it are ready.
    InOrder,
}

/// A pod by its place in the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Coordinator {
    /// The group.
    pub replicated_job: String,
    /// The job in the group.
    #[serde(default)]
    pub job_index: i64,
    /// The pod in the job.
    #[serde(default)]
    pub pod_index: i64,
}

/// Volume claims that the jobs of a set share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeClaimPolicy {
    /// The claims; each is created as `NAME-SET`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<PersistentVolumeClaim>,
    /// What becomes of them when the set is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<ClaimRetention>,
}

/// What becomes of claims when their set is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimRetention {
    /// Whether they go or stay.
    pub when_deleted: WhenDeleted,
}

/// Whether claims go with their set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenDeleted {
    /// They go.
    #[default]
    Delete,
    /// They stay.
    Retain,
}

/// The definition of the kind.
pub fn crd(parts: &Parts) -> Result<CustomResourceDefinition, Error> {
    let definition = json!({
        "metadata": {"name": "jobsets.jobset.x-k8s.io"},
        "spec": {
            "group": names::GROUP,
            "scope": "Namespaced",
            "names": {"kind": "JobSet", "listKind": "JobSetList", "plural": "jobsets", "singular": "jobset"},
            "versions": [{
                "name": names::VERSION,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": [
                    {"jsonPath": ".status.terminalState", "name": "TerminalState", "type": "string",
                     "description": "How the set ended"},
                    {"jsonPath": ".status.restarts", "name": "Restarts", "type": "string",
                     "description": "How often all jobs were recreated"},
                    {"jsonPath": ".status.conditions[?(@.type==\"Completed\")].status", "name": "Completed",
                     "type": "string"},
                    {"jsonPath": ".spec.suspend", "name": "Suspended", "type": "string",
                     "description": "Whether the jobs are suspended"},
                    {"jsonPath": ".metadata.creationTimestamp", "name": "Age", "type": "date",
                     "description": "When the set was created"},
                ],
                "schema": {"openAPIV3Schema": parts.object("JobSetSpec", Some("JobSetStatus"))?},
                "subresources": {"status": {}},
            }],
        },
    });
    serde_json::from_value(definition)
        .map_err(|source| Error::Definition { kind: "JobSet".to_owned(), source })
}
