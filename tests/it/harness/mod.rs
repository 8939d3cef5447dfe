//! What the tests stand on: programs with deadlines, clusters with a folder of their own, and recorded talks.

pub(crate) mod cluster;
pub(crate) mod conversation;
pub(crate) mod gated;
pub(crate) mod home;
pub(crate) mod manifests;
pub(crate) mod normalise;
pub(crate) mod parts;
pub(crate) mod program;

pub(crate) use cluster::Cluster;
pub(crate) use conversation::Conversation;
pub(crate) use gated::GatedJob;
pub(crate) use home::Home;
pub(crate) use parts::{Part, Parts};
pub(crate) use program::{Finished, Program};
