//! The planner as a whole, driven through virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps says where it failed")]

mod changes;
mod cluster;
mod drive;
mod laws;
mod loads;
mod nearness;
mod philly;
mod stories;
mod victims;
