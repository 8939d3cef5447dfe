//! The laws of planning, over random clusters and gangs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claims;
mod laws;
mod nearness;
mod sentences;
mod spares;
