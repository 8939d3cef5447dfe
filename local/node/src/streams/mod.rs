//! What clients say over the connections of `exec`, `attach` and `port-forward`. Pure.

pub(crate) mod channel;
pub(crate) mod query;
pub(crate) mod spdy;
pub(crate) mod status;
