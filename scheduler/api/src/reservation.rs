//! The durable plan of a gang, written before its first pod is bound.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where each pod of a gang will run. A scheduler that restarts half way through the bindings reads it and
/// finishes them, so that a gang is all or nothing across crashes too.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "muster.dev",
    version = "v1alpha1",
    kind = "GangReservation",
    namespaced,
    status = "GangReservationStatus",
    doc = "The planned placement of one gang, written before its first pod is bound.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct GangReservationSpec {
    /// Name of the gang.
    pub gang: String,
    /// Counts the plans of this gang; a binding of an older plan is void.
    pub epoch: i64,
    /// The pods and their places.
    pub members: Vec<ReservedMember>,
}

/// The place of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedMember {
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod: a later pod of the same name has no part in this plan.
    pub uid: String,
    /// Name of the node.
    pub node: String,
    /// GPU slots of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_indices: Vec<u32>,
    /// Devices of its claims, as far as these are allocated with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ReservedClaim>,
}

/// What a claim of a pod gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedClaim {
    /// Name of the ResourceClaim.
    pub name: String,
    /// Its devices.
    pub devices: Vec<ReservedDevice>,
}

/// A device of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservedDevice {
    /// The request, and below `/` the alternative where there are several.
    pub request: String,
    /// The driver.
    pub driver: String,
    /// The driver's pool.
    pub pool: String,
    /// The device in the pool.
    pub device: String,
    /// Whether the claim only looks at the device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin_access: bool,
}

/// How far the plan has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GangReservationStatus {
    /// Planned, then Bound, or Opened where another scheduler binds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ReservationPhase>,
}

/// How far a reservation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReservationPhase {
    /// Written; bindings may be under way.
    Planned,
    /// Every pod that Muster does not bind was let go to its node; the scheduler that it names binds it.
    Opened,
    /// Every pod is bound.
    Bound,
}
