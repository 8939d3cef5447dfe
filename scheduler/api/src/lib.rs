//! Names by which pods, nodes and gangs speak to the scheduler, and the kinds of the `muster.dev` group.

mod queue;
mod reservation;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use queue::{
    AdvanceReservation, AdvanceReservationPhase, AdvanceReservationSpec, AdvanceReservationStatus, Preempts,
    Queue, QueuePreemption, QueueSpec, QueueStatus, ResourceQuota, WindowPurpose,
};
pub use reservation::{
    GangReservation, GangReservationSpec, GangReservationStatus, ReservationPhase, ReservedClaim,
    ReservedDevice, ReservedMember,
};

/// The scheduler that binds Muster's gangs (`spec.schedulerName`).
pub const SCHEDULER_NAME: &str = "muster";
/// The scheduler of pods that name none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// The scheduling gate by which pods of any scheduler wait until their gang has been planned.
pub const GANG_GATE: &str = "muster.dev/gang";

/// Annotations of pods, and one of nodes.
pub mod annotations {
    /// The pod's gang: pods of a namespace with the same value start together or not at all.
    pub const GANG: &str = "muster.dev/gang";
    /// The kind of owner whose pods are a gang: `Job`, `JobSet`, `ReplicatedJob`, `LeaderWorkerSet` or `RayCluster`.
    pub const GANG_BY: &str = "muster.dev/gang-by";
    /// How many pods of the gang must be placed at once.
    pub const GANG_MIN_AVAILABLE: &str = "muster.dev/gang-min-available";
    /// The pod's place in the gang's communication order, from 0.
    pub const RANK: &str = "muster.dev/rank";
    /// Levels within whose domain all pods of the gang must be, such as `topology.kubernetes.io/zone`.
    pub const REQUIRED_LEVEL: &str = "muster.dev/required-topology";
    /// Levels within whose domain all pods of the gang should be, the best first, separated by commas.
    pub const PREFERRED_LEVELS: &str = "muster.dev/preferred-topology";
    /// The level over whose domains the pods of the gang are spread evenly.
    pub const SPREAD_LEVEL: &str = "muster.dev/spread-topology";
    /// Ranks that must stay together, as `SIZE@LEVEL`: `8@host` keeps groups of eight ranks within a node.
    pub const SLICE: &str = "muster.dev/topology-slice";
    /// How the gang's ranks are grouped, as `tensor=8,pipeline=2,data=4` (or `tp`, `pp`, `dp`; 1 where left out). Each GPU
    /// is a rank, those of a pod follow each other; without GPUs each pod is one. Tensor groups are placed nearest.
    pub const GROUP_SHAPE: &str = "muster.dev/group-shape";
    /// Bytes that each rank sums up with others in a step, such as `14000000000` or `13Gi`: its gradients, as a rule.
    pub const ALL_REDUCE_BYTES: &str = "muster.dev/all-reduce-bytes";
    /// Seconds that a step took lately. The job writes it on any of its pods while it runs.
    pub const STEP_SECONDS: &str = "muster.dev/step-seconds";
    /// Of a node: what `nvidia-smi topo -m` prints there.
    pub const GPU_TOPOLOGY: &str = "muster.dev/gpu-topology";
    /// Places held beside the gang's own, near it, for members whose node fails.
    pub const SPARES: &str = "muster.dev/gang-spares";
    /// Thousandths of one GPU that the pod shares with others. Such a pod asks for no GPU of the device plugin; it is
    /// told which one it shares by [`GPU_INDICES`], which the downward API can put into `NVIDIA_VISIBLE_DEVICES`.
    pub const GPU_SHARE: &str = "muster.dev/gpu-share";
    /// The advance reservation in which the gang runs.
    pub const RESERVATION: &str = "muster.dev/reservation";
    /// How long the gang runs at most, such as `90m`; lets others be planned behind it.
    pub const TIME_LIMIT: &str = "muster.dev/time-limit";
    /// How long the gang waits, rather than start at once, for places nearer to each other than those that are free, such
    /// as `10m`; `0s` for not at all. What the scheduler's policy says is never exceeded, and holds when this is absent.
    pub const WAIT_FOR_NEARER: &str = "muster.dev/wait-for-nearer";
    /// The node to which a pod was steered when its gate was opened.
    pub const PLACED_ON: &str = "muster.dev/placed-on";
    /// How often the gang writes a checkpoint from which it continues, such as `10m`: it loses no more when it is
    /// evicted, and may be proposed to be moved.
    pub const CHECKPOINT_EVERY: &str = "muster.dev/checkpoint-every";
    /// `never`: the gang is not evicted for others.
    pub const EVICTION: &str = "muster.dev/eviction";
    /// GPU slots of the node that the scheduler chose, such as `0,1`; written with the binding.
    pub const GPU_INDICES: &str = "muster.dev/gpu-indices";
}

/// Labels of pods and jobs.
pub mod labels {
    /// The queue.
    pub const QUEUE: &str = "muster.dev/queue";
    /// Of a gang's plan: who wrote it, and so takes it away when the gang is gone.
    pub const PLANNED_BY: &str = "muster.dev/planned-by";
}

/// The queue of jobs that name none; it exists without being declared.
pub const DEFAULT_QUEUE: &str = "default";

/// The definitions of the scheduler's kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![GangReservation::crd(), Queue::crd(), AdvanceReservation::crd()]
}
