//! Devices that pods claim by dynamic resource allocation: which there are, who reaches them, and which are left.
//!
//! What a claim asks for comes in resolved ([`ClaimDemand`]): which devices it may have, by number. Which of them pods
//! on one node get is decided for all of these pods together (`allocate`), so that no pod's choice spoils another's.

mod allocate;
mod demand;
mod device;
mod held;
mod stock;
mod table;

pub use demand::{Alternative, Amount, ClaimDemand, ClaimRequest, Constraint, MemberClaim};
pub use device::{
    AttributeValues, ClaimedDevice, Consumption, DeviceId, DeviceNumber, DeviceSet, Inventory, Reach,
};
pub use held::ClaimKey;
pub use stock::{Grant, GrantedDevice};

pub(crate) use held::{HeldClaims, Shift};
pub(crate) use stock::Stock;
pub(crate) use table::Table;
