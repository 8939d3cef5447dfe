//! The laws of planning, over random clusters and gangs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claims;
mod contention;
mod insides;
mod laws;
mod nearness;
mod sentences;
mod shapes;
mod spares;
