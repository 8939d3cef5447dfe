//! The server from outside: over TLS with its token, and through the client it hands out.

mod clients;
mod decoder;
mod harness;
mod meant_differences;
mod recorded;
mod restart;
