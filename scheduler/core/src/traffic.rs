//! What running gangs send over the uplinks that they share: whoever is placed next is weighed against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_topology::cost::Slot as Rank;
use muster_scheduler_topology::{GroupShape, JobTraffic, Load};

use crate::devices::{DeviceIndices, GpuDemand};
use crate::gang::PodKey;
use crate::ledger::Ledger;
use crate::map::Map;
use crate::ranks;
use crate::search::{Demand, Slots};
use crate::space::NodeId;

/// A gang by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GangName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A pod's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its GPUs there.
    pub devices: DeviceIndices,
}

/// Who communicates in a gang that runs, and how much.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Talk {
    /// The places of its pods, in the order of their ranks.
    pub places: Vec<Place>,
    /// How their ranks are grouped; otherwise all sum up together.
    pub shape: Option<GroupShape>,
    /// Bytes that they sum up in each step, where that is known.
    pub all_reduce: Option<u64>,
    /// Seconds that a step takes, where they have been measured.
    pub step: Option<f64>,
}

/// A gang that talks.
#[derive(Debug, Clone)]
struct Talker {
    talk: Talk,
    traffic: JobTraffic,
    /// Predicted seconds of a step that it communicates.
    seconds: f64,
}

/// All that talk, and the map on which that is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    map: Option<Arc<Map>>,
    talkers: BTreeMap<GangName, Talker>,
}

impl Ledger {
    /// A gang runs: from now on its traffic counts for whoever is placed. Told again it replaces what was told before.
    pub fn talks(&mut self, gang: GangName, talk: Talk) {
        self.follow_map();
        let map = self.bare_space().map();
        if self.traffic().talkers.get(&gang).is_some_and(|known| known.talk == talk) {
            return;
        }
        let ranks = ranks_of(&map, &talk);
        self.is_silent(&gang);
        let load = self.bare_space().load().cloned();
        let (seconds, traffic) = map.costs().talk(&map, load.as_ref(), &talk, &ranks);
        self.traffic_mut().map = Some(Arc::clone(&map));
        if seconds <= 0.0 {
            return;
        }
        if self.bare_space().load().is_none() && traffic != JobTraffic::default() {
            let idle = Load::idle(map.topology());
            self.bare_space().set_load(Some(Arc::new(idle)));
        }
        if let Some(load) = self.bare_space().load_mut() {
            load.add(&traffic);
        }
        self.traffic_mut().talkers.insert(gang, Talker { talk, traffic, seconds });
    }

    /// A gang runs no more.
    pub fn is_silent(&mut self, gang: &GangName) {
        let Some(talker) = self.traffic_mut().talkers.remove(gang) else { return };
        if let Some(load) = self.bare_space().load_mut() {
            load.remove(&talker.traffic);
        }
    }

    /// Seconds of a step that a running gang is predicted to communicate, beside those that ran when it was told of.
    /// Nothing for one that does not communicate.
    pub fn predicted(&self, gang: &GangName) -> Option<f64> {
        Some(self.traffic().talkers.get(gang)?.seconds).filter(|seconds| *seconds > 0.0)
    }

    /// Brings the load to the map of now, where that is another. Nodes that come, go or move do that; most changes of
    /// nodes leave the tree as it is.
    pub(crate) fn follow_map(&mut self) {
        if self.bare_space().known_map().is_some() || self.traffic().talkers.is_empty() {
            return;
        }
        let map = self.bare_space().map();
        let before = self.traffic_mut().map.replace(Arc::clone(&map));
        if before.is_some_and(|before| before.topology() == map.topology()) {
            return;
        }
        let mut load = Load::idle(map.topology());
        let mut talkers = std::mem::take(&mut self.traffic_mut().talkers);
        for talker in talkers.values_mut() {
            let (_, traffic) = map.costs().talk(&map, None, &talker.talk, &ranks_of(&map, &talker.talk));
            load.add(&traffic);
            talker.traffic = traffic;
        }
        self.traffic_mut().talkers = talkers;
        self.bare_space().set_load(Some(Arc::new(load)));
    }

    /// Where a pod is that has something.
    pub fn place_of(&self, pod: &PodKey) -> Option<Place> {
        let (node, shape, devices) = self.holding(pod)?;
        let devices = match shape.gpu {
            // Nobody wrote down which: suppose the first.
            GpuDemand::Whole(count) if devices.is_empty() => (0..count as u8).collect(),
            GpuDemand::None | GpuDemand::Share(_) | GpuDemand::Whole(_) => devices.clone(),
        };
        Some(Place { node, devices })
    }

    /// What a gang says that runs on these slots.
    pub fn talk_on(&mut self, demand: &Demand, slots: &Slots) -> Talk {
        let order = ranks::in_order(&self.space().map(), demand, slots);
        let place =
            |index: usize| Place { node: slots.0[index].node, devices: slots.0[index].devices.clone() };
        Talk {
            places: order.into_iter().map(place).collect(),
            shape: demand.shape,
            all_reduce: demand.all_reduce,
            step: None,
        }
    }
}

/// The ranks of a gang's pods. A pod without GPUs is none beside others that have some.
fn ranks_of(map: &Map, talk: &Talk) -> Vec<Rank> {
    let any_gpu = talk.places.iter().any(|place| !place.devices.is_empty());
    let ranked = talk.places.iter().filter(|place| !any_gpu || !place.devices.is_empty());
    let on_map = ranked.filter_map(|place| Some((map.position(place.node)?, &place.devices)));
    on_map.flat_map(|(position, devices)| ranks::on_node(position, devices)).collect()
}
