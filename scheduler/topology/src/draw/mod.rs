//! Pictures of a topology: a text tree for terminals, an SVG for pages.

mod inside;
mod svg;
#[cfg(test)]
mod tests;
mod text;

pub use inside::inside;
pub use svg::svg;
pub use text::text;

use crate::tree::{DomainId, Topology};

/// GPUs of each node, for drawing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Per position: GPUs that are free, and all.
    gpus: Vec<(u32, u32)>,
    /// Per position: the links between its GPUs, where they are known.
    insides: Vec<Option<String>>,
}

impl Occupancy {
    /// Free and all GPUs of each node in the order of positions; nodes beyond the end have none.
    pub fn new(gpus: Vec<(u32, u32)>) -> Self {
        Self { gpus, insides: Vec::new() }
    }

    /// The same with the links between the GPUs of each node in words ([`inside`]), where they are known.
    #[must_use]
    pub fn with_insides(self, insides: Vec<Option<String>>) -> Self {
        Self { insides, ..self }
    }

    /// Free and all GPUs of a domain.
    fn of(&self, topology: &Topology, domain: DomainId) -> (u64, u64) {
        let positions = topology.positions(domain);
        let nodes = positions.filter_map(|position| self.gpus.get(position as usize));
        nodes.fold((0, 0), |sum, (free, all)| (sum.0 + u64::from(*free), sum.1 + u64::from(*all)))
    }
}
