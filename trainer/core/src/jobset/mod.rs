//! The rules of `JobSet`: which Jobs a set needs, what the failure of one means, what the status says.
//!
//! [`plan`] is one function from what is seen of a set to what is to be done; its [`Plan`] comes in stages
//! that may be cut short anywhere.
//!
//! # Restart
//! Every Job carries the number of restarts that the set had seen when it was created. A restart is one write
//! of the status that counts it; from then on Jobs of an earlier attempt are deleted, their failures count no
//! more, and their successors are created once they are gone. The counters are in the status of the set, so
//! they outlive the Jobs they count.
//!
//! # Where this departs from the JobSet controller
//! * Checks and defaults that JobSet has in webhooks are made when a set is planned; a set that cannot be
//!   carried out fails, with reason `InvalidJobSet`.
//! * Jobs get no `ttlSecondsAfterFinished`: a completed Job that vanished would be created, and run, again.
//! * An indexed Job that names its parallelism only has as many completions.
//! * `InPlaceRestart` needs an agent in the pods and is refused.

mod children;
mod failure;
mod objects;
mod order;
mod plan;
mod planner;
mod validation;

pub(crate) use children::pods_of;
pub(crate) use objects::join_gang;
pub use objects::{coordinator_address, job_name, subdomain};
pub(crate) use order::{is_in_order, is_staged, may_start};
pub use plan::{Effect, JobDeletion, Observed, Plan, plan};
pub use validation::validate;
