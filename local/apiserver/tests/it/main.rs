//! The server from outside: over TLS with its token, and through the client it hands out.

#![expect(clippy::expect_used, reason = "a test ends at the first surprise")]

mod clients;
mod decoder;
mod harness;
mod meant_differences;
mod recorded;
mod restart;
