//! What holds for every tensor library.

pub(crate) mod operations;
pub(crate) mod tasks;
