//! A Kubernetes-compatible API server in process.
//!
//! `Options` → [`Service`] → [`Handle`]: the server keeps its objects in a state folder, listens on loopback with its
//! own certificate authority, and answers as Kubernetes 1.36 does. Everything is generic over one table of
//! resources; what a kind wants beyond that comes from the schema and admission crates.

mod app;
mod auth;
mod body;
mod bootstrap;
mod builtin;
mod change;
mod custom;
mod definitions;
mod discovery;
mod eviction;
mod http_server;
mod janitor;
mod lines;
mod meta;
mod negotiate;
mod node;
mod objects;
mod openapi;
mod own_service;
mod patching;
mod plugins;
mod rbac;
mod read;
mod registry;
mod request;
mod respond;
mod reviews;
mod rules;
mod scale;
mod service;
mod status;
mod streams;
mod subresource;
mod table;
mod telemetry;
mod tls;
mod tokens;
mod usage;
mod watch;

pub use service::{Handle, Options, Service, ServiceError};
