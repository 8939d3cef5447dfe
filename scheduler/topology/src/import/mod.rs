//! Topologies from what others write down.

pub mod labels;
