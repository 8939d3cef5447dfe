//! A process kubelet: runs the pods of one or several Node objects as process trees on this machine.
//!
//! The way down: [`Service`] watches pods and keeps a worker per pod; a worker asks the [spawner] for the pod's init
//! process; that one starts containers, writes their logs and outlives the agent.
//!
//! [spawner]: spawner_main

mod agent;
mod backoff;
mod cgroup;
mod environment;
mod expand;
mod gpu;
mod hosts;
mod images;
mod init;
mod network;
mod options;
mod plan;
mod protocol;
mod quantity;
mod runtime;
mod services;
mod sources;
mod spawner;
mod status;
mod streams;
mod sys;
mod volumes;

pub use agent::{Error, Handle, Service, tear_down};
pub use images::{ImageRule, ImageRuleError};
pub use network::Error as NetworkError;
pub use options::{Isolation, NodeDescription, Options, StreamPatience};
pub use spawner::spawner_main;
