//! One module a command.

pub(crate) mod bench;
pub(crate) mod controller;
pub(crate) mod crds;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod down;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod mpi_agent;
pub(crate) mod node;
pub(crate) mod nslookup;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod simulate;
pub(crate) mod submit;
pub(crate) mod top;
pub(crate) mod topology;
pub(crate) mod train;
pub(crate) mod uninstall;
pub(crate) mod up;
pub(crate) mod version;
pub(crate) mod whatif;
