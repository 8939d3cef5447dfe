//! The kube-scheduler extender: the wire protocol and the server in front of the ledger.

pub mod wire;
