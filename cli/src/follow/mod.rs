//! Follows one training job: what is known of it, how that is shown, and what is said at the end.

pub(crate) mod metrics;
pub(crate) mod progress;
pub(crate) mod state;
pub(crate) mod summary;
pub(crate) mod watch;
