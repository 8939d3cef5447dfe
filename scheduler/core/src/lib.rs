//! Pure planning: who runs where. Data in, decisions out; no clock, no IO, no client.
//!
//! [`Ledger`] knows nodes and what is taken on them; [`Ledger::place`] finds places for a whole gang or says
//! why there are none ([`Waiting`]); nothing is taken until [`Ledger::take`].

pub mod explain;
pub mod gang;
pub mod ledger;
pub mod node;
mod placement;
pub mod resources;

pub use explain::Waiting;
pub use gang::{Gang, Member, PodKey};
pub use ledger::{Assignment, Ledger, Placement, TakeError};
pub use node::{Node, Taint, Toleration};
pub use resources::{ParseQuantityError, Resources};
