//! The cheapest node among thousands, in microseconds.
//!
//! Nodes with equal room are one state, however many they are; what a kind of pod costs in a state is worked
//! out once and kept until the mix of demand has changed noticeably.

use std::collections::{BTreeSet, HashMap};

use smallvec::SmallVec;

use crate::devices::{GpuDemand, WHOLE};
use crate::fragmentation::fill::{FillValue, Sums};
use crate::fragmentation::mix::{Free, Host, Mix, Want};

/// Pods seen before the values are worked out for the first time, and the growth at which they are again.
const FIRST_PODS: f64 = 32.0;
const GROWTH: f64 = 1.3;
/// What a node's remaining room counts beside the value lost, in thousandths of a device for room as large as
/// the largest node: enough to choose the fullest among near equals (best fit).
const BEST_FIT: f32 = 10.0;
/// Costs that are not known yet.
const UNKNOWN: f32 = f32::NAN;

/// Where to put a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The node's number.
    pub node: usize,
    /// For a share: the device.
    pub device: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    class: usize,
    host: Host,
    /// In descending order.
    devices: SmallVec<[u16; 8]>,
}

impl Key {
    fn free(&self) -> Free<'_> {
        Free { class: self.class, host: self.host, devices: &self.devices }
    }
}

#[derive(Debug, Clone)]
struct State {
    key: Key,
    nodes: BTreeSet<usize>,
    sums: Option<Box<Sums>>,
}

#[derive(Debug, Clone)]
struct Node {
    class: usize,
    host: Host,
    devices: SmallVec<[u16; 8]>,
    state: usize,
}

/// The free room of all nodes and the demand seen so far.
#[derive(Debug, Clone)]
pub struct Fleet {
    nodes: Vec<Option<Node>>,
    /// The largest processor, memory and devices that a node had.
    largest: [f32; 3],
    classes: usize,
    most_devices: usize,
    states: Vec<State>,
    by_key: HashMap<Key, usize>,
    vacant: Vec<usize>,
    mix: Mix,
    /// Pods at which the values are worked out again.
    refresh_at: f64,
    values: FillValue,
    /// Costs by state, for each kind of pod.
    costs: HashMap<Want, Vec<f32>>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            largest: [1.0; 3],
            classes: 0,
            most_devices: 0,
            states: Vec::new(),
            by_key: HashMap::new(),
            vacant: Vec::new(),
            mix: Mix::default(),
            refresh_at: FIRST_PODS,
            values: FillValue::of(&Mix::default(), 1, 0),
            costs: HashMap::new(),
        }
    }
}

impl Fleet {
    /// Says what a node has free now.
    pub fn set(&mut self, node: usize, free: &Free<'_>) {
        self.remove(node);
        let sizes = [free.host[0] as f32, free.host[1] as f32, free.thousandths() as f32];
        for (largest, size) in self.largest.iter_mut().zip(sizes) {
            *largest = largest.max(size);
        }
        if free.class >= self.classes || free.devices.len() > self.most_devices {
            self.classes = self.classes.max(free.class + 1);
            self.most_devices = self.most_devices.max(free.devices.len());
            self.refresh();
        }
        let devices = SmallVec::from_slice(free.devices);
        if self.nodes.len() <= node {
            self.nodes.resize(node + 1, None);
        }
        let mut key = Key { class: free.class, host: free.host, devices };
        let devices = key.devices.clone();
        key.devices.sort_unstable_by(|left, right| right.cmp(left));
        let state = self.enter(key, node);
        self.nodes[node] = Some(Node { class: free.class, host: free.host, devices, state });
    }

    /// Forgets a node.
    pub fn remove(&mut self, node: usize) {
        if let Some(old) = self.nodes.get_mut(node).and_then(Option::take) {
            self.leave(old.state, node);
        }
    }

    /// What a node has free.
    pub fn free(&self, node: usize) -> Option<Free<'_>> {
        let node = self.nodes.get(node)?.as_ref()?;
        Some(Free { class: node.class, host: node.host, devices: &node.devices })
    }

    /// The demand seen so far.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Counts a pod that was asked for, whether it found room or not.
    pub fn observe(&mut self, want: &Want) {
        self.mix.observe(want, 1.0);
        if self.mix.total() >= self.refresh_at {
            self.refresh_at = self.mix.total() * GROWTH;
            self.refresh();
        }
    }

    /// The node, among those that `admits` lets through, on which the pod destroys the least value.
    pub fn best(&mut self, want: &Want, admits: impl Fn(usize) -> bool) -> Option<Choice> {
        let costs = self.costs.entry(*want).or_default();
        costs.resize(self.states.len(), UNKNOWN);
        let mut best: Option<(f32, usize, usize)> = None;
        for (index, (state, cost)) in self.states.iter_mut().zip(costs).enumerate() {
            if cost.is_nan() {
                *cost = work_out(&self.values, &self.largest, state, want);
            }
            if best.is_some_and(|(least, _, _)| *cost > least) || cost.is_infinite() {
                continue;
            }
            let Some(node) = state.nodes.iter().copied().find(|node| admits(*node)) else { continue };
            if best.is_none_or(|(least, first, _)| *cost < least || node < first) {
                best = Some((*cost, node, index));
            }
        }
        let (_, node, state) = best?;
        let on = self.values.cost(&self.states[state].key.free(), want)?.left_on_device;
        let devices = &self.nodes[node].as_ref()?.devices;
        let device = on.and_then(|left| devices.iter().position(|device| *device == left));
        Some(Choice { node, device: device.map(|device| device as u8) })
    }

    /// What a pod costs on a node, less is better; nothing when it does not fit. In thousandths of a device.
    pub fn cost(&mut self, node: usize, want: &Want) -> Option<f32> {
        let state = self.nodes.get(node)?.as_ref()?.state;
        let costs = self.costs.entry(*want).or_default();
        costs.resize(self.states.len(), UNKNOWN);
        if costs[state].is_nan() {
            costs[state] = work_out(&self.values, &self.largest, &mut self.states[state], want);
        }
        costs[state].is_finite().then_some(costs[state])
    }

    /// Takes what a pod asks for; wholly free devices are taken in order.
    pub fn take(&mut self, choice: Choice, want: &Want) {
        let Some(Some(node)) = self.nodes.get(choice.node) else { return };
        let mut devices = node.devices.clone();
        match (want.gpu, choice.device) {
            (GpuDemand::Share(share), Some(device)) => {
                if let Some(left) = devices.get_mut(usize::from(device)) {
                    *left = left.saturating_sub(share);
                }
            }
            (GpuDemand::Whole(count), _) => {
                devices
                    .iter_mut()
                    .filter(|left| **left == WHOLE)
                    .take(count as usize)
                    .for_each(|left| *left = 0);
            }
            _ => {}
        }
        let host = [node.host[0] - want.host[0], node.host[1] - want.host[1]];
        let class = node.class;
        self.set(choice.node, &Free { class, host, devices: &devices });
    }

    fn enter(&mut self, key: Key, node: usize) -> usize {
        if let Some(state) = self.by_key.get(&key) {
            self.states[*state].nodes.insert(node);
            return *state;
        }
        let state = State { key: key.clone(), nodes: BTreeSet::from([node]), sums: None };
        let index = if let Some(index) = self.vacant.pop() {
            self.states[index] = state;
            self.costs.values_mut().filter_map(|costs| costs.get_mut(index)).for_each(|cost| *cost = UNKNOWN);
            index
        } else {
            self.states.push(state);
            self.states.len() - 1
        };
        self.by_key.insert(key, index);
        index
    }

    fn leave(&mut self, state: usize, node: usize) {
        let nodes = &mut self.states[state].nodes;
        nodes.remove(&node);
        if nodes.is_empty() {
            self.by_key.remove(&self.states[state].key);
            self.vacant.push(state);
        }
    }

    fn refresh(&mut self) {
        self.values = FillValue::of(&self.mix, self.classes, self.most_devices);
        self.costs.clear();
        self.states.iter_mut().for_each(|state| state.sums = None);
    }
}

/// The value destroyed and a little for the room that stays; infinite when the pod does not fit.
fn work_out(values: &FillValue, largest: &[f32; 3], state: &mut State, want: &Want) -> f32 {
    let free = state.key.free();
    if !free.holds(want) {
        return f32::INFINITY;
    }
    let sums = state.sums.get_or_insert_with(|| Box::new(values.sums(&free)));
    let Some(cost) = values.cost_after(sums, &free, want) else { return f32::INFINITY };
    let processor = (free.host[0] - want.host[0]) as f32 / largest[0];
    let devices = (free.thousandths() as f32 - want.gpu.thousandths() as f32) / largest[2];
    cost.lost + BEST_FIT * (processor + devices)
}
