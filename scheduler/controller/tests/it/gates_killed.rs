//! The opening of gates, killed at any step: what was planned is finished as it was planned, and no slot is given twice.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use muster_scheduler_api::{GangReservation, GangReservationSpec, ReservedMember};
use muster_scheduler_controller::planner::{Binding, Decision, Outcome, Planner, Written};
use muster_scheduler_core::PodKey;
use proptest::prelude::*;
use serde_json::json;

/// Nodes with their GPUs.
const NODES: [(&str, u32); 3] = [("n0", 4), ("n1", 2), ("n2", 2)];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody creates a gang of so many pods; they are seen one by one.
    Create(u32),
    /// The oldest piece of news arrives.
    Hear,
    Decide,
    /// The next request of one of the bindings that are under way is made.
    Request(u8),
    /// The other scheduler binds one of the pods that were let go.
    Bind(u8),
    /// The pods of a gang go.
    Delete(u8),
    /// The scheduler dies and starts again; the requests that were being made may still land.
    Kill(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..5u32).prop_map(Step::Create),
        12 => Just(Step::Hear),
        6 => Just(Step::Decide),
        12 => any::<u8>().prop_map(Step::Request),
        4 => any::<u8>().prop_map(Step::Bind),
        1 => any::<u8>().prop_map(Step::Delete),
        1 => any::<bool>().prop_map(Step::Kill),
    ]
}

fn node(name: &str, gpus: u32) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"nvidia.com/gpu": gpus.to_string(), "cpu": "64", "pods": "110"},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn pod(gang: u32, index: u32, size: u32) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("g{gang}-{index}"), "namespace": "a", "uid": format!("u{gang}-{index}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"muster.dev/gang": format!("g{gang}"), "muster.dev/gang-min-available": size.to_string(),
                "muster.dev/rank": index.to_string()}},
        "spec": {"schedulerName": "another", "schedulingGates": [{"name": "muster.dev/gang"}], "containers": [
            {"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

/// A binding that is being carried out: whether its plan is written, and how many gates are open.
struct UnderWay {
    binding: Binding,
    written: Option<Written>,
    opened: usize,
}

struct World {
    planner: Planner,
    /// As the API server has them.
    pods: BTreeMap<PodKey, Pod>,
    plans: BTreeMap<String, GangReservation>,
    news: Vec<(PodKey, Option<Pod>, String)>,
    under_way: Vec<UnderWay>,
    gangs: u32,
    clock: i64,
}

impl World {
    fn new() -> Self {
        let planner = Planner::new([]);
        let mut world = Self {
            planner,
            pods: BTreeMap::new(),
            plans: BTreeMap::new(),
            news: Vec::new(),
            under_way: Vec::new(),
            gangs: 0,
            clock: 1_800_000_000,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.planner = Planner::new([]);
        for (name, gpus) in NODES {
            self.planner.node_seen(&node(name, gpus));
        }
        self.news.clear();
        self.pods.values().for_each(|pod| self.planner.pod_seen(pod));
        let restored = self.planner.restore(self.plans.values());
        self.under_way = restored.into_iter().map(UnderWay::new).collect();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create(size) => {
                for index in 0..size {
                    self.write(pod(self.gangs, index, size));
                }
                self.gangs += 1;
            }
            Step::Hear => self.hear(),
            Step::Decide => self.decide(),
            Step::Request(which) if !self.under_way.is_empty() => {
                let which = usize::from(which) % self.under_way.len();
                let mut one = self.under_way.remove(which);
                if let Some(outcome) = self.request(&mut one) {
                    self.planner.carried_out(&outcome);
                } else {
                    self.under_way.push(one);
                }
            }
            Step::Bind(which) => self.bind(usize::from(which)),
            Step::Delete(which) if self.gangs > 0 => self.delete(u32::from(which) % self.gangs),
            Step::Kill(lands) => {
                if lands {
                    for mut one in std::mem::take(&mut self.under_way) {
                        self.request(&mut one);
                    }
                }
                self.start();
            }
            Step::Request(_) | Step::Delete(_) => {}
        }
    }

    fn write(&mut self, pod: Pod) {
        let key = PodKey::new("a", pod.name_any());
        self.news.push((key.clone(), Some(pod.clone()), pod.uid().unwrap()));
        self.pods.insert(key, pod);
    }

    fn hear(&mut self) {
        if self.news.is_empty() {
            return;
        }
        let (key, pod, uid) = self.news.remove(0);
        match pod {
            Some(pod) => self.planner.pod_seen(&pod),
            None => self.planner.pod_gone(&key, &uid),
        }
    }

    fn decide(&mut self) {
        self.clock += 1;
        for decision in self.planner.decide(Timestamp::from_second(self.clock).unwrap()).now {
            match decision {
                Decision::Bind(binding) => self.under_way.push(UnderWay::new(binding)),
                Decision::Discard { namespace, gang, .. } => {
                    self.plans.remove(&gang);
                    self.planner.discarded(&namespace, &gang);
                }
                Decision::Explain { .. } => {}
                Decision::Evict { .. } => panic!("nobody is to be evicted"),
            }
        }
    }

    /// The next request of a binding; what came of it all after the last.
    fn request(&mut self, one: &mut UnderWay) -> Option<Outcome> {
        let binding = &one.binding;
        if one.written.is_none() {
            let plan = self.plan(binding);
            one.written = Some(Written::of(&plan));
            self.plans.insert(binding.gang.clone(), plan);
            return None;
        }
        if let Some((key, place)) = binding.placement.0.get(one.opened) {
            one.opened += 1;
            assert!(binding.gates.contains_key(key), "only gates are opened here");
            if let Some(mut pod) =
                self.pods.get(key).filter(|pod| pod.uid().as_ref() == Some(&place.uid)).cloned()
            {
                pod.spec.as_mut().unwrap().scheduling_gates = None;
                let slots: Vec<String> = place.gpu_indices.iter().map(u32::to_string).collect();
                let annotations = pod.annotations_mut();
                annotations.insert("muster.dev/placed-on".into(), place.node.clone());
                annotations.insert("muster.dev/gpu-indices".into(), slots.join(","));
                self.write(pod);
            }
            return None;
        }
        let (namespace, gang) = (binding.namespace.clone(), binding.gang.clone());
        Some(Outcome { namespace, gang, written: one.written.clone(), refused: Vec::new(), why: None })
    }

    fn plan(&self, binding: &Binding) -> GangReservation {
        let epoch = self.plans.get(&binding.gang).map_or(1, |before| before.spec.epoch + 1);
        let places = binding.placement.0.iter().map(|(pod, place)| ReservedMember {
            pod: pod.name.clone(),
            uid: place.uid.clone(),
            node: place.node.clone(),
            gpu_indices: place.gpu_indices.clone(),
        });
        let members = binding.settled.iter().cloned().chain(places).collect();
        let spec = GangReservationSpec { gang: binding.gang.clone(), epoch, members };
        let mut plan = GangReservation::new(&binding.gang, spec);
        plan.metadata.namespace = Some(binding.namespace.clone());
        plan.metadata.resource_version = Some(epoch.to_string());
        plan
    }

    fn bind(&mut self, which: usize) {
        let free = |pod: &&Pod| place(pod).is_some() && pod.spec.as_ref().unwrap().node_name.is_none();
        let pods: Vec<&Pod> = self.pods.values().filter(free).collect();
        if pods.is_empty() {
            return;
        }
        let mut pod = pods[which % pods.len()].clone();
        let (node, _) = place(&pod).unwrap();
        pod.spec.as_mut().unwrap().node_name = Some(node);
        self.write(pod);
    }

    fn delete(&mut self, gang: u32) {
        let prefix = format!("g{gang}-");
        let gone: Vec<PodKey> =
            self.pods.keys().filter(|key| key.name.starts_with(&prefix)).cloned().collect();
        for key in gone {
            let pod = self.pods.remove(&key).unwrap();
            self.news.push((key, None, pod.uid().unwrap()));
        }
    }

    /// No slot twice, at this moment.
    fn check(&self) {
        let mut taken = BTreeSet::new();
        for (node, slot) in self.pods.values().filter_map(place) {
            assert!(taken.insert((node.clone(), slot.clone())), "slot {slot} of {node} twice");
        }
    }

    /// Lets everything come to rest.
    fn settle(&mut self) {
        for _ in 0..200 {
            while !self.news.is_empty() {
                self.hear();
            }
            self.decide();
            while !self.under_way.is_empty() {
                self.take(Step::Request(0));
            }
            self.check();
            if self.news.is_empty() {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

impl UnderWay {
    fn new(binding: Binding) -> Self {
        Self { binding, written: None, opened: 0 }
    }
}

/// The node and slot of a pod that was let go.
fn place(pod: &Pod) -> Option<(String, String)> {
    let annotation = |name: &str| pod.annotations().get(name).cloned();
    annotation("muster.dev/placed-on").zip(annotation("muster.dev/gpu-indices"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn gangs_are_let_go_whole_or_not_at_all(steps in prop::collection::vec(step(), 0..160)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        world.settle();
        let mut let_go: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for pod in world.pods.values() {
            let counts = let_go.entry(pod.annotations()["muster.dev/gang"].clone()).or_default();
            counts.0 += usize::from(place(pod).is_some());
            counts.1 += 1;
        }
        for (gang, (open, all)) in let_go {
            prop_assert!(open == 0 || open == all, "{} of the {} gates of {} are open", open, all, gang);
        }
    }
}
