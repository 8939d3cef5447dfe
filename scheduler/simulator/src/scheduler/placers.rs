//! Where gangs go: re-implementations of known placements, from their documentation.

mod kueue;
mod scatter;
mod volcano;

use std::sync::Arc;

use muster_scheduler_core::{Demand, DeviceIndices, Node, NodeId, Shape, Slot, Slots, Space};

pub use kueue::KueueTopology;
pub use scatter::{BestFit, Descent, Scatter};
pub use volcano::VolcanoTiers;

/// Finds places for a whole gang, or none. What is free stays as it is.
pub trait Placer {
    /// A job came: placers that judge by demand count it.
    fn came(&mut self, _demand: &Demand, _space: &Space) {}

    /// Places for all pods, in rank order.
    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots>;
}

/// Puts pods one after the other on the node that `choose` names for each, all or none.
fn one_by_one(
    space: &mut Space,
    demand: &Demand,
    mut choose: impl FnMut(&Space, &Shape, &[NodeId]) -> Option<(NodeId, Option<DeviceIndices>)>,
) -> Option<Slots> {
    let mut slots = Slots::default();
    let mut complete = true;
    'groups: for (index, group) in demand.groups.iter().enumerate() {
        let eligible = eligible(space, &group.shape);
        for _ in 0..group.count {
            let Some(slot) = choose(space, &group.shape, &eligible).and_then(|(node, devices)| {
                let devices = devices.or_else(|| space.choose_devices(node, &group.shape))?;
                Some(Slot { group: index, node, devices, granted: None })
            }) else {
                complete = false;
                break 'groups;
            };
            space.take(slot.node, &group.shape, &slot.devices);
            slots.0.push(slot);
        }
    }
    space.give_back_slots(demand, &slots);
    complete.then_some(slots)
}

/// Nodes that a shape may use at all, by name.
fn eligible(space: &Space, shape: &Shape) -> Vec<NodeId> {
    let fits = |node: &Arc<Node>| node.unfit_for(shape.selection()).is_none();
    space.nodes().filter(|(_, node)| fits(node)).map(|(id, _)| id).collect()
}
