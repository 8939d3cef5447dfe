//! How much a placement spoils of what is still free, judged by the demand seen so far.
//!
//! Two measures. [`fragments`] is the expected share of a node's free GPUs that the next pod cannot use (the
//! measure of FGD, fragmentation gradient descent). [`FillValue`] looks further: how much of the node's GPUs
//! will be handed out when it is filled to the end by pods of the mix. A placement costs the value it destroys
//! beyond what the pod itself uses; [`Fleet`] finds the cheapest node among thousands in microseconds.
//!
//! Pure and deterministic: the same calls give the same answers.

mod fill;
mod fleet;
mod mix;
#[cfg(test)]
mod tests;

pub use fill::{Cost, FillValue};
pub use fleet::{Choice, Fleet};
pub use mix::{ClassSet, Free, Host, Mix, Want, fragments};
