//! Services as pods see them: who is behind a name or an address. Pure.

pub(crate) mod directory;
pub(crate) mod message;
pub(crate) mod resolver;
pub(crate) mod variables;
pub(crate) mod zone;

/// The domain of the cluster.
pub(crate) const DOMAIN: &str = "cluster.local";
