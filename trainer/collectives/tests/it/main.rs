//! Collectives between real ranks: threads with a communicator each, and processes that get killed.

mod failures;
mod mismatches;
mod reductions;
mod support;
