//! What Kubernetes' objects say, in the terms of the ledger and the line; read once for every front end.
//!
//! Everything here is pure: objects in, facts out. What cannot be read is told as a [`Problem`], never ignored.

pub(crate) mod claims;
pub(crate) mod constraints;
mod groups;
mod membership;
mod node;
mod pod;
mod requests;
mod wishes;

pub use claims::{ClaimSource, PodClaim};
pub use groups::{ForeignGroup, GroupKey, GroupKind};
pub use membership::{GangKey, GroupPart, Membership};
pub use node::node;
pub use pod::{Ending, PodFacts, Stage};
pub use requests::requests;
pub use wishes::Problem;
