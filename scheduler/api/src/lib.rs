//! Names by which pods, nodes and gangs speak to the scheduler, and the kinds of the `muster.dev` group.

mod reservation;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use reservation::{
    GangReservation, GangReservationSpec, GangReservationStatus, ReservationPhase, ReservedMember,
};

/// The scheduler that binds Muster's gangs (`spec.schedulerName`).
pub const SCHEDULER_NAME: &str = "muster";
/// The scheduler of pods that name none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// Annotations of pods.
pub mod annotations {
    /// The pod's gang: pods of a namespace with the same value start together or not at all.
    pub const GANG: &str = "muster.dev/gang";
    /// How many pods of the gang must be placed at once.
    pub const GANG_MIN_AVAILABLE: &str = "muster.dev/gang-min-available";
    /// The pod's place in the gang's communication order, from 0.
    pub const RANK: &str = "muster.dev/rank";
    /// GPU slots of the node that the scheduler chose, such as `0,1`; written with the binding.
    pub const GPU_INDICES: &str = "muster.dev/gpu-indices";
}

/// The definitions of the scheduler's kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![GangReservation::crd()]
}
