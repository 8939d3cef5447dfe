//! Pod by pod, blind to the network.

use muster_scheduler_core::fragmentation::{ClassSet, Free, Host, Mix, Want, fragments};
use muster_scheduler_core::{Demand, GpuDemand, NodeId, Room, Shape, Slots, Space};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::scheduler::placers::{Placer, one_by_one};

/// Any node that has room.
#[derive(Debug)]
pub struct Scatter {
    random: StdRng,
}

impl Scatter {
    /// Differs by seed.
    pub fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }
}

impl Placer for Scatter {
    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots> {
        one_by_one(space, demand, |space, shape, nodes| {
            let fits: Vec<NodeId> =
                nodes.iter().copied().filter(|node| shape.times_in(space.room(*node)) > 0).collect();
            (!fits.is_empty()).then(|| (fits[self.random.random_range(0..fits.len())], None))
        })
    }
}

/// The node with the least left: of GPUs, then of processor.
#[derive(Debug, Clone, Copy)]
pub struct BestFit;

impl Placer for BestFit {
    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots> {
        one_by_one(space, demand, |space, shape, nodes| {
            tightest(space, shape, nodes).map(|node| (node, None))
        })
    }
}

/// The first of the nodes that have room with the least left.
pub(super) fn tightest(space: &Space, shape: &Shape, nodes: &[NodeId]) -> Option<NodeId> {
    let fits = nodes.iter().copied().filter(|node| shape.times_in(space.room(*node)) > 0);
    fits.min_by_key(|node| {
        let room = space.room(*node);
        (room.devices.thousandths(), host(space, room)[0])
    })
}

fn host(space: &Space, room: &Room) -> Host {
    ["cpu", "memory"].map(|name| space.dimensions().place(name).map_or(0, |place| room.amounts.get(place)))
}

/// Fragmentation gradient descent, as the FGD paper describes it, on the demand that came so far: the node whose
/// expected fragments grow least; among near equals the one with the least left.
#[derive(Debug, Clone, Default)]
pub struct Descent {
    mix: Mix,
}

impl Descent {
    fn want(space: &Space, shape: &Shape) -> Want {
        let amount = |name| space.dimensions().place(name).map_or(0, |place| shape.amounts.get(place));
        Want { gpu: shape.gpu, host: [amount("cpu"), amount("memory")], classes: ClassSet::ALL }
    }
}

impl Placer for Descent {
    fn came(&mut self, demand: &Demand, space: &Space) {
        for group in &demand.groups {
            self.mix.observe(&Self::want(space, &group.shape), f64::from(group.count));
        }
    }

    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots> {
        one_by_one(space, demand, |space, shape, nodes| {
            let fits = nodes.iter().copied().filter(|node| shape.times_in(space.room(*node)) > 0);
            let want = Self::want(space, shape);
            // In steps of 40 thousandths of a device, as published.
            let key = |node: &NodeId| {
                let room = space.room(*node);
                ((self.growth(space, room, &want) / 40.0).round() as i64, room.devices.thousandths())
            };
            fits.min_by_key(key).map(|node| (node, None))
        })
    }
}

impl Descent {
    fn growth(&self, space: &Space, room: &Room, want: &Want) -> f64 {
        let before = Free { class: 0, host: host(space, room), devices: room.devices.left() };
        let mut devices = room.devices.left().to_vec();
        match want.gpu {
            GpuDemand::None => {}
            GpuDemand::Whole(count) => {
                devices
                    .iter_mut()
                    .filter(|left| **left == 1000)
                    .take(count as usize)
                    .for_each(|left| *left = 0);
            }
            GpuDemand::Share(share) => {
                // The device that the space will choose: the fullest with room.
                if let Some(left) = devices.iter_mut().filter(|left| **left >= share).min() {
                    *left -= share;
                }
            }
        }
        let host = [before.host[0] - want.host[0], before.host[1] - want.host[1]];
        let after = Free { class: 0, host, devices: &devices };
        fragments(&after, &self.mix) - fragments(&before, &self.mix)
    }
}
