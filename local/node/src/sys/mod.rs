//! The only place that talks to the kernel without a safe wrapper.

pub(crate) mod descriptor;
pub(crate) mod process;
