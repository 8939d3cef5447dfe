//! The controllers a laptop needs because no kube-controller-manager runs there: garbage collection, namespaces,
//! jobs, cron jobs, deployments and their replica sets, stateful sets, daemon sets, endpoint slices, volumes, claims of
//! devices, horizontal pod autoscalers.
//!
//! `Options` → [`Service`]. Ordinary controllers that take only a [`kube::Client`]; on a real cluster its own do this
//! work, and these are never installed. What a controller decides is a pure function in a module of its own
//! (`plan`, `graph`, `rollout`, `conditions`, `status`); the rest watches, asks that function and writes. One watch per kind serves all of them.
//!
//! Every controller may be stopped at any point: it acts only on a cache that shows its own last writes, and what it
//! creates is either named after its cause or found again through its owner reference.

mod amount;
mod at_once;
mod autoscaler;
mod catalogue;
mod claims;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod error;
mod events;
mod garbage;
mod hash;
mod history;
mod informer;
mod informers;
mod job;
mod monitor;
mod namespace;
mod node_lifecycle;
mod owners;
mod pod_writer;
mod pods;
mod queue;
mod replica_set;
mod resource_claim;
mod service;
mod stateful_set;
mod volume;
mod worker;

pub use service::{Options, Service, ServiceError};

/// The field manager of what these controllers write.
const MANAGER: &str = "kube-controller-manager";
