//! What the tests stand on: programs with deadlines, clusters with a folder of their own, and recorded talks.

pub(crate) mod cluster;
pub(crate) mod conversation;
pub(crate) mod home;
pub(crate) mod manifests;
pub(crate) mod normalise;
pub(crate) mod program;

pub(crate) use cluster::Cluster;
pub(crate) use conversation::Conversation;
pub(crate) use home::Home;
pub(crate) use program::{Finished, Program};
