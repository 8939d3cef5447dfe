//! The server from outside: over TLS with its token, and through the client it hands out.

#![expect(clippy::expect_used, reason = "a test ends at the first surprise")]

mod autoscalers;
mod bounds;
mod clients;
mod custom_resources;
mod decoder;
mod harness;
mod lists;
mod meant_differences;
mod mutations;
mod own_service;
mod ownership;
mod recorded;
mod restart;
mod terminating;
mod writes;
