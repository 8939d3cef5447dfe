//! Queues: who may use how much, and the calendar of capacity set aside.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// A queue. Queues form a tree: a queue without jobs of its own is what others call a cohort. Jobs name theirs
/// by the label `muster.dev/queue`; jobs without one are in the queue `default`, which exists without being
/// declared and has no limits.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "muster.dev",
    version = "v1alpha1",
    kind = "Queue",
    status = "QueueStatus",
    doc = "Quota, weight and preemption rules of the jobs of one queue, and of the queues below it.",
    printcolumn = r#"{"name":"Parent","type":"string","jsonPath":".spec.parent"}"#,
    printcolumn = r#"{"name":"Waiting","type":"integer","jsonPath":".status.waiting"}"#,
    printcolumn = r#"{"name":"Running","type":"integer","jsonPath":".status.running"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct QueueSpec {
    /// The queue above this one; a queue without one is a root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its weight in the fair share among its siblings; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001))]
    pub weight: Option<f64>,
    /// Quality of service of its jobs: among jobs of one priority each point counts as much as an hour of waiting.
    /// When absent that of the queue above, 0 at the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000, max = 1000))]
    pub quality: Option<i32>,
    /// Quota by resource. A resource that no queue of the tree has quota of is not limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<ResourceQuota>,
    /// Whom its jobs may evict.
    #[serde(default)]
    pub preemption: QueuePreemption,
}

/// What a queue has of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuota {
    /// The resource, such as `nvidia.com/gpu`.
    pub resource: String,
    /// Its own.
    #[schemars(schema_with = "schema::quantity")]
    pub nominal: Quantity,
    /// The most it may use beyond its own; as much as others lend when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub borrowing_limit: Option<Quantity>,
    /// The most of its own that others may use while it does not; all of it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub lending_limit: Option<Quantity>,
}

/// Whom a queue's jobs may evict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueuePreemption {
    /// Within this queue.
    #[serde(default)]
    pub within_queue: Preempts,
    /// In other queues, to take back quota that they borrowed.
    #[serde(default = "Preempts::any")]
    pub reclaim: Preempts,
}

impl Default for QueuePreemption {
    fn default() -> Self {
        Self { within_queue: Preempts::LowerPriority, reclaim: Preempts::Any }
    }
}

/// Jobs that may be evicted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preempts {
    /// None.
    Never,
    /// Those of lower priority.
    #[default]
    LowerPriority,
    /// All.
    Any,
}

impl Preempts {
    fn any() -> Self {
        Self::Any
    }
}

/// What a queue has and does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Gangs that wait.
    #[serde(default)]
    pub waiting: i64,
    /// Gangs that run.
    #[serde(default)]
    pub running: i64,
    /// What is used of the queue, by resource that has quota: by its own gangs, and by queues below it beyond what
    /// they keep for themselves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub usage: BTreeMap<String, Quantity>,
    /// How much of that is beyond the queue's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub borrowed: BTreeMap<String, Quantity>,
    /// How well it is due by its fair share, in thousandths: 0 has used the most, 1000 the least.
    #[serde(default)]
    pub due: i64,
    /// `Ready`: its place in the tree and its quota are sound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Capacity set aside for a time: for jobs that name it (annotation `muster.dev/reservation`), or for nobody
/// while nodes are maintained.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "muster.dev",
    version = "v1alpha1",
    kind = "AdvanceReservation",
    status = "AdvanceReservationStatus",
    doc = "Nodes set aside for a time, once or again and again.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Purpose","type":"string","jsonPath":".spec.purpose"}"#,
    printcolumn = r#"{"name":"Begins","type":"date","jsonPath":".spec.begins"}"#,
    printcolumn = r#"{"name":"Lasts","type":"integer","jsonPath":".spec.lastsSeconds"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AdvanceReservationSpec {
    /// Whom the nodes are for.
    #[serde(default)]
    pub purpose: WindowPurpose,
    /// When it begins for the first time.
    #[schemars(schema_with = "schema::time")]
    pub begins: Time,
    /// How long it lasts.
    #[schemars(range(min = 1))]
    pub lasts_seconds: i64,
    /// It comes again after this long, counted from begin to begin; once only when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub every_seconds: Option<i64>,
    /// It does not begin again from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub until: Option<Time>,
    /// Labels of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Names of the nodes; with a selector too, both must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
}

/// Whom reserved nodes are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WindowPurpose {
    /// Jobs that name the reservation.
    #[default]
    Jobs,
    /// Nobody.
    Maintenance,
}

/// What has come of a reservation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvanceReservationStatus {
    /// How far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<AdvanceReservationPhase>,
    /// Why it does not count, when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many nodes it sets aside.
    #[serde(default)]
    pub nodes: i64,
    /// When it begins next, or began when it is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub from: Option<Time>,
    /// When it ends then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub to: Option<Time>,
}

/// How far an advance reservation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdvanceReservationPhase {
    /// It does not count.
    Rejected,
    /// It will begin.
    Accepted,
    /// Its nodes are set aside now.
    Active,
    /// It does not begin again.
    Ended,
}
