//! Lowers what is free on a node to what is free there at another time, so that what is found fits at both.

use muster_scheduler_core::amounts::Amounts;
use muster_scheduler_core::devices::GpuDemand;
use muster_scheduler_core::gang::Member;
use muster_scheduler_core::resources::Resources;
use muster_scheduler_core::room::Room;
use muster_scheduler_core::shape::Shape;
use muster_scheduler_core::space::{NodeId, Space};

/// Takes on `node` whatever is free beyond `to`, resource by resource and device by device.
pub(crate) fn lower(space: &mut Space, node: NodeId, to: &Room) {
    let room = space.room(node).clone();
    if room == *to {
        return;
    }
    let mut excess = Resources::new();
    let mut place = 0;
    while let Some(name) = space.dimensions().name(place) {
        let more = room.amounts.get(place) - to.amounts.get(place);
        if more > 0 {
            excess = excess.with(name, more);
        }
        place += 1;
    }
    if excess != Resources::new() {
        let shape = space.shape(&Member { requests: excess, ..Member::default() });
        space.take(node, &shape, &[]);
    }
    for (device, left) in room.devices.left().iter().enumerate() {
        let more = left.saturating_sub(to.devices.left().get(device).copied().unwrap_or(0));
        if more > 0 {
            space.take(node, &of_gpus(GpuDemand::Share(more)), &[device as u8]);
        }
    }
    let unnamed = space.room(node).devices.whole().saturating_sub(to.devices.whole());
    if unnamed > 0 {
        space.take(node, &of_gpus(GpuDemand::Whole(unnamed)), &[]);
    }
}

fn of_gpus(gpu: GpuDemand) -> Shape {
    Shape {
        amounts: Amounts::default(),
        gpu,
        node_selector: std::collections::BTreeMap::new(),
        required_affinity: Vec::new(),
        tolerations: Vec::new(),
    }
}
