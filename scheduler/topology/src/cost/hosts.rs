//! The interiors of all nodes.

use std::ops::Range;

use crate::interior::NodeInterior;
use crate::tree::{Position, Topology};

/// The interior of every node; nodes that are alike share one.
#[derive(Debug, Clone)]
pub struct Hosts {
    kinds: Vec<NodeInterior>,
    /// Per position.
    kind_of: Vec<u32>,
    /// GPUs before each position, and all of them at the end.
    gpus_before: Vec<u32>,
}

impl Hosts {
    /// Nodes that all look alike inside.
    pub fn uniform(topology: &Topology, interior: NodeInterior) -> Self {
        Self::new(topology, vec![interior], |_| 0)
    }

    /// `kind_of` says for each node (by the caller's index) which of `kinds` it is; beyond the last means the
    /// last. Without any kinds all nodes are without GPUs.
    pub fn new(topology: &Topology, mut kinds: Vec<NodeInterior>, kind_of: impl Fn(usize) -> usize) -> Self {
        if kinds.is_empty() {
            kinds.push(NodeInterior::standard(crate::interior::Accelerator::PCIE, 0));
        }
        let positions = (0..topology.node_count() as u32).map(Position);
        let kind_of: Vec<u32> = positions
            .map(|position| kind_of(topology.node_at(position)).min(kinds.len() - 1) as u32)
            .collect();
        let mut gpus_before = vec![0];
        let mut gpus = 0;
        for kind in &kind_of {
            gpus += kinds[*kind as usize].gpu_count() as u32;
            gpus_before.push(gpus);
        }
        Self { kinds, kind_of, gpus_before }
    }

    /// The interior of the node at a position.
    pub fn interior(&self, position: Position) -> &NodeInterior {
        &self.kinds[self.kind_of[position.index()] as usize]
    }

    /// How many GPUs the nodes of a range of positions have.
    pub fn gpus_in(&self, positions: &Range<u32>) -> u32 {
        self.gpus_before[positions.end as usize] - self.gpus_before[positions.start as usize]
    }

    /// Which of [`Hosts::kinds`] the node at a position is.
    pub fn kind(&self, position: Position) -> usize {
        self.kind_of[position.index()] as usize
    }

    /// The distinct interiors.
    pub fn kinds(&self) -> &[NodeInterior] {
        &self.kinds
    }
}
