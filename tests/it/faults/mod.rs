//! What breaks on a machine, and what must hold all the same.

mod disk;
mod elastic;
mod election;
mod missing;
mod parts;
mod random;
mod whole;
mod worker;

pub(crate) use parts::until;
