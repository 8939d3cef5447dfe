//! What ranks exchange in a step.

use muster_scheduler_topology::cost::{Collective, CostModel, Slot as Rank};
use muster_scheduler_topology::{GroupShape, JobTraffic, Position, Topology};

/// The model for ranks that exchange so many bytes in a step.
pub(super) struct Model<'a> {
    pub(super) costs: CostModel<'a>,
    pub(super) topology: &'a Topology,
    pub(super) bytes: u64,
}

impl Model<'_> {
    /// Predicted seconds of communication in a step.
    pub(super) fn seconds(&self, shape: Option<&GroupShape>, ranks: &[Rank]) -> f64 {
        let all = || self.costs.predict(Collective::AllReduce, self.bytes, ranks);
        let found = match shape {
            Some(shape) => self.costs.predict_groups(self.bytes, ranks, shape),
            None => all().map(|prediction| prediction.seconds),
        };
        found.unwrap_or(0.0)
    }

    /// What is sent over uplinks that others use, too, on average over a step of so many seconds.
    pub(super) fn traffic(&self, shape: Option<&GroupShape>, ranks: &[Rank], step: f64) -> JobTraffic {
        if !share_uplinks(self.topology, ranks.iter().map(|rank| rank.position)) {
            return JobTraffic::default();
        }
        let found = if let Some(shape) = shape {
            self.costs.groups_traffic(self.bytes, ranks, shape, step)
        } else {
            let seconds = self.seconds(None, ranks);
            self.costs.traffic(Collective::AllReduce, self.bytes, ranks, seconds / step.max(seconds))
        };
        found.unwrap_or_default()
    }
}

/// Whether uplinks between these positions are others', too: those of islands are not.
pub(super) fn share_uplinks(topology: &Topology, positions: impl Iterator<Item = Position>) -> bool {
    let common = topology.common_ancestor(positions);
    topology.level_of(common).index() + 1 < topology.island_level().index()
}
