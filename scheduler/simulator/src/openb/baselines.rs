//! The policies that the paper compares, each from its description: they score every node that has room, the
//! highest score wins, the first node among equals.

use std::collections::{BTreeSet, HashMap};

use muster_scheduler_core::GpuDemand;
use muster_scheduler_core::fragmentation::{Choice, Free, Mix, Want, fragments};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::openb::Trace;

/// Names of all policies of this benchmark; the last one is ours.
pub const POLICIES: [&str; 7] =
    ["random", "dot-product", "gpu-clustering", "gpu-packing", "best-fit", "fgd", "muster"];

/// Largest processor and GPU thousandths of a node, by which amounts are normalised.
const LARGEST: [f64; 2] = [128_000.0, 8_000.0];
/// FGD's target workload: the kinds of pods that make up this share of the trace.
const TYPICAL: f64 = 0.95;

/// A policy of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// Any node, any device.
    Random,
    /// The node whose free room is least aligned with the pod.
    DotProduct,
    /// Nodes that already run pods with the same number of GPUs.
    GpuClustering,
    /// Devices in use before free ones, nodes in use before empty ones.
    GpuPacking,
    /// The least weighted sum of what is left.
    BestFit,
    /// The steepest descent of expected fragments (fragmentation gradient descent).
    Fgd,
}

impl Baseline {
    /// A policy by name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "random" => Self::Random,
            "dot-product" => Self::DotProduct,
            "gpu-clustering" => Self::GpuClustering,
            "gpu-packing" => Self::GpuPacking,
            "best-fit" => Self::BestFit,
            "fgd" => Self::Fgd,
            _ => return None,
        })
    }
}

/// What a node has left.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Room {
    class: usize,
    host: [i64; 2],
    devices: Vec<u16>,
    /// Kinds of GPU demand that run here.
    kinds: BTreeSet<GpuDemand>,
    all_devices: usize,
}

impl Room {
    pub(super) fn free(&self) -> Free<'_> {
        Free { class: self.class, host: self.host, devices: &self.devices }
    }

    fn wholly_free(&self) -> usize {
        self.devices.iter().filter(|left| **left == 1000).count()
    }

    pub(super) fn take(&mut self, device: Option<u8>, want: &Want) {
        self.host = [self.host[0] - want.host[0], self.host[1] - want.host[1]];
        self.kinds.insert(kind(want.gpu));
        match (want.gpu, device) {
            (GpuDemand::Share(share), Some(device)) => self.devices[usize::from(device)] -= share,
            (GpuDemand::Whole(count), _) => {
                let free = self.devices.iter_mut().filter(|left| **left == 1000);
                free.take(count as usize).for_each(|left| *left = 0);
            }
            _ => {}
        }
    }
}

/// Shares of any size are one kind.
fn kind(gpu: GpuDemand) -> GpuDemand {
    if let GpuDemand::Share(_) = gpu { GpuDemand::Share(1) } else { gpu }
}

/// A run of one policy.
pub(super) struct Scorer {
    policy: Baseline,
    random: StdRng,
    typical: Mix,
    known: HashMap<(usize, [i64; 2], Vec<u16>), f64>,
    pub(super) rooms: Vec<Room>,
}

impl Scorer {
    pub(super) fn new(policy: Baseline, trace: &Trace, seed: u64) -> Self {
        let mut mix = Mix::default();
        // The target workload tells pods apart by processor and GPU; memory does not count.
        trace.pods.iter().for_each(|pod| mix.observe(&Want { host: [pod.want.host[0], 0], ..pod.want }, 1.0));
        let room = |machine: &crate::openb::Machine| Room {
            class: machine.model,
            host: machine.host,
            devices: vec![1000; machine.devices],
            kinds: BTreeSet::new(),
            all_devices: machine.devices,
        };
        Self {
            policy,
            random: StdRng::seed_from_u64(seed),
            typical: mix.typical(TYPICAL),
            known: HashMap::new(),
            rooms: trace.machines.iter().map(room).collect(),
        }
    }

    pub(super) fn choose(&mut self, want: &Want) -> Option<Choice> {
        let mut best: Option<(i64, Choice)> = None;
        let mut fitting = 0_u32;
        for node in 0..self.rooms.len() {
            if !self.rooms[node].free().holds(want) {
                continue;
            }
            fitting += 1;
            let (score, device) = match self.policy {
                // Each of n fitting nodes is the last kept with a chance of 1/n.
                Baseline::Random => {
                    (i64::from(self.random.random_ratio(1, fitting)), self.any_device(node, want))
                }
                Baseline::DotProduct => {
                    (dot_product(&self.rooms[node], want), fullest(&self.rooms[node], want))
                }
                Baseline::GpuClustering => {
                    (clustering(&self.rooms[node], want), fullest(&self.rooms[node], want))
                }
                Baseline::GpuPacking => (packing(&self.rooms[node], want), fullest(&self.rooms[node], want)),
                Baseline::BestFit => (best_fit(&self.rooms[node], want), fullest(&self.rooms[node], want)),
                Baseline::Fgd => self.descent(node, want),
            };
            let wins = match self.policy {
                Baseline::Random => score == 1,
                _ => best.is_none_or(|(highest, _)| score > highest),
            };
            if wins {
                best = Some((score, Choice { node, device }));
            }
        }
        best.map(|(_, choice)| choice)
    }

    fn any_device(&mut self, node: usize, want: &Want) -> Option<u8> {
        let GpuDemand::Share(share) = want.gpu else { return None };
        let devices = &self.rooms[node].devices;
        let fitting: Vec<usize> = (0..devices.len()).filter(|device| devices[*device] >= share).collect();
        Some(fitting[self.random.random_range(0..fitting.len())] as u8)
    }

    /// The gradient as published: squeezed by a sigmoid and cut to whole points of a hundred.
    fn descent(&mut self, node: usize, want: &Want) -> (i64, Option<u8>) {
        let before = self.fragments(node, None);
        let squeeze = |after: f64| (100.0 / (1.0 + ((after - before) / 1000.0).exp())) as i64;
        let GpuDemand::Share(share) = want.gpu else {
            let after = self.fragments(node, Some((want, None)));
            return (squeeze(after), None);
        };
        let mut best: Option<(i64, u8)> = None;
        for device in 0..self.rooms[node].devices.len() {
            if self.rooms[node].devices[device] >= share {
                let score = squeeze(self.fragments(node, Some((want, Some(device as u8)))));
                if best.is_none_or(|(highest, _)| score > highest) {
                    best = Some((score, device as u8));
                }
            }
        }
        best.map_or((0, None), |(score, device)| (score, Some(device)))
    }

    /// Expected fragments of a node, as it is or with one more pod.
    fn fragments(&mut self, node: usize, more: Option<(&Want, Option<u8>)>) -> f64 {
        let mut room = self.rooms[node].clone();
        if let Some((want, device)) = more {
            room.take(device, want);
        }
        let key = (room.class, [room.host[0], 0], room.devices.clone());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let expected = fragments(&room.free(), &self.typical);
        self.known.insert(key, expected);
        expected
    }
}

/// The fullest device that has room for a share.
fn fullest(room: &Room, want: &Want) -> Option<u8> {
    let GpuDemand::Share(share) = want.gpu else { return None };
    let fitting = (0..room.devices.len()).filter(|device| room.devices[*device] >= share);
    fitting.min_by_key(|device| room.devices[*device]).map(|device| device as u8)
}

fn dot_product(room: &Room, want: &Want) -> i64 {
    let processor = room.host[0] as f64 / LARGEST[0] * (want.host[0] as f64 / LARGEST[0]);
    let gpu =
        f64::from(room.free().thousandths()) / LARGEST[1] * (f64::from(want.gpu.thousandths()) / LARGEST[1]);
    (100.0 * (1.0 - f64::midpoint(processor, gpu))) as i64
}

fn clustering(room: &Room, want: &Want) -> i64 {
    if want.gpu == GpuDemand::None {
        return 0;
    }
    let full = 25 * (8000 - i64::from(room.free().thousandths())) / 8000;
    let kinds = room.kinds.iter().filter(|kind| **kind != GpuDemand::None).count();
    match (room.kinds.contains(&kind(want.gpu)), kinds) {
        (true, 1) => 75 + full,
        (true, _) => 50 + full,
        (false, 0) => 25 + full,
        (false, _) => full,
    }
}

fn packing(room: &Room, want: &Want) -> i64 {
    if want.gpu == GpuDemand::None {
        return 0;
    }
    let free = room.wholly_free();
    if free == room.all_devices {
        return (100 / 3 - free as i64).max(free as i64);
    }
    match want.gpu {
        GpuDemand::Share(_) => {
            let left = fullest(room, want).map_or(1000, |device| room.devices[usize::from(device)]);
            if left == 1000 { 49 } else { (100 - i64::from(left) / 100).max(50) }
        }
        _ => (50 - i64::from(want.gpu.thousandths() / 1000)).max(100 / 3),
    }
}

fn best_fit(room: &Room, want: &Want) -> i64 {
    let processor = (room.host[0] - want.host[0]) as f64 / LARGEST[0];
    let gpu = (f64::from(room.free().thousandths()) - f64::from(want.gpu.thousandths())) / LARGEST[1];
    (100.0 * (1.0 - f64::midpoint(processor, gpu))) as i64
}
