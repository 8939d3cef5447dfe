//! The fragmentation benchmark of the openb traces: single pods arrive until 130 % of the GPUs are asked for,
//! none ever leaves, and the figure is the share of GPUs handed out.
//!
//! The traces are Alibaba's, the protocol and the five baselines are those of the FGD paper (USENIX ATC 2023),
//! re-implemented from its description and the documentation of its simulator.

mod arrivals;
mod baselines;
mod bound;
mod read;
mod run;
mod variants;
mod workload;

pub use arrivals::arrivals;
pub use baselines::{Baseline, POLICIES};
pub use bound::upper_bound;
pub use read::{Machine, Pod, ReadError, Trace, machines, pods};
pub use run::{Allocation, Run, run};
pub use variants::{VARIANTS, Variant, variant};
pub use workload::workload;
