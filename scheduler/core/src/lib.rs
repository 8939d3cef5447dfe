//! Pure planning: who runs where. Data in, decisions out; no clock, no IO, no client.
//!
//! [`Ledger`] knows nodes and what is taken on them; [`Ledger::place`] finds places for a whole gang or says
//! why there are none ([`Waiting`]); nothing is taken until [`Ledger::take`].

pub mod amounts;
pub mod bundle;
pub mod claims;
mod cost;
mod counts;
pub mod devices;
pub mod ended;
pub mod explain;
pub mod fragmentation;
pub mod gang;
mod inside;
pub mod ledger;
pub mod map;
pub mod node;
pub mod placement;
mod ranks;
pub mod resources;
pub mod room;
pub mod search;
pub mod shape;
pub mod space;
mod traffic;

pub use claims::{ClaimKey, Grant};
pub use devices::{DeviceIndices, GpuDemand};
pub use ended::Ended;
pub use explain::Waiting;
pub use gang::{Closeness, Gang, Member, PodKey, Slice};
pub use inside::Interiors;
pub use ledger::{Assignment, ClaimGrant, Ledger, Placement, PlannedDevice, TakeError};
pub use map::{Domain, Map};
pub use node::{GpuTopology, Node, Taint, Toleration};
pub use placement::GangDemand;
pub use resources::{ParseQuantityError, Resources};
pub use room::Room;
pub use search::{Demand, Group, Levels, Nearest, Nearness, Slot, Slots};
pub use shape::Shape;
pub use space::{NodeId, Space};
pub use traffic::{GangName, Place, Talk};
