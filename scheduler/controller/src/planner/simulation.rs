//! The planner against a cluster in which everything that can be late, lost, refused or cut short is, by chance:
//! events are delivered late and watches are lost, bindings are refused or their answers lost, nodes go, owners
//! delete and create pods, and the scheduler is killed at any step and starts again from what is written.

mod claims;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use muster_scheduler_api::{GangReservation, GangReservationSpec, ReservedMember};
use muster_scheduler_core::PodKey;

use super::tests::{node, pod};
use super::{Binding, Decision, Outcome, Planner, Written};
use crate::plan::reserved;

const NODES: u64 = 4;
const GPUS: u32 = 4;

/// Chance that is the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// What the scheduler is told, later.
enum News {
    Pod(Box<core::Pod>),
    PodGone(PodKey, String),
    Node(String),
    NodeGone(String),
}

/// A decision that is being carried out.
#[expect(clippy::large_enum_variant, reason = "there are few")]
enum UnderWay {
    Bind { binding: Binding, outcome: Outcome, written: bool, left: Vec<usize> },
    Discard { namespace: String, gang: String, written: Written },
}

/// The plans that the API server has.
#[derive(Default)]
struct Plans {
    /// By gang, with the version of the object.
    written: BTreeMap<String, (GangReservationSpec, u64)>,
    /// The last version of any object.
    version: u64,
}

impl Plans {
    fn reservations(&self) -> Vec<GangReservation> {
        let reservation = |(gang, (spec, version)): (&String, &(GangReservationSpec, u64))| {
            let mut reservation = GangReservation::new(gang, spec.clone());
            reservation.metadata.namespace = Some("a".into());
            reservation.metadata.resource_version = Some(version.to_string());
            reservation.metadata.labels =
                Some([("muster.dev/planned-by".to_owned(), "muster".to_owned())].into());
            reservation
        };
        self.written.iter().map(reservation).collect()
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Takes a plan away, unless it has changed.
    fn discard(&mut self, gang: &str, written: &Written) {
        let same = |(_, version): &(_, u64)| version.to_string() == written.resource_version;
        if self.written.get(gang).is_some_and(same) {
            self.written.remove(gang);
        }
    }

    /// Whether a later plan is there than the one that the binding replaces.
    fn has_later_than(&self, binding: &Binding, outcome: &mut Outcome) -> bool {
        let known = binding.replaces.as_ref().map(|written| written.epoch);
        let later =
            self.written.get(&binding.gang).filter(|(spec, _)| known.is_none_or(|known| spec.epoch > known));
        let Some((spec, version)) = later else { return false };
        outcome.written = Some(Written { epoch: spec.epoch, resource_version: version.to_string() });
        true
    }

    fn write(&mut self, binding: &Binding, outcome: &mut Outcome) {
        let version = self.next_version();
        let epoch = binding.replaces.as_ref().map_or(0, |written| written.epoch) + 1;
        let places = binding.placement.0.iter().map(|(pod, place)| reserved(pod, place));
        let members: Vec<ReservedMember> = binding.settled.iter().cloned().chain(places).collect();
        let spec = GangReservationSpec { gang: binding.gang.clone(), epoch, members };
        self.written.insert(binding.gang.clone(), (spec, version));
        outcome.written = Some(Written { epoch, resource_version: version.to_string() });
    }
}

struct World {
    chance: Chance,
    now: i64,
    nodes: BTreeSet<String>,
    pods: BTreeMap<PodKey, core::Pod>,
    plans: Plans,
    sizes: BTreeMap<String, u32>,
    uids: u64,
    news: VecDeque<News>,
    hands: Vec<UnderWay>,
    planner: Planner,
    /// Gangs that have lost a node.
    hurt: BTreeSet<String>,
    /// Whether anything goes wrong.
    faulty: bool,
    bound: usize,
}

fn node_of(pod: &core::Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            chance: Chance(seed),
            now: 1_000_000,
            nodes: (0..NODES).map(|index| format!("n{index}")).collect(),
            pods: BTreeMap::new(),
            plans: Plans::default(),
            sizes: BTreeMap::new(),
            uids: 0,
            news: VecDeque::new(),
            hands: Vec::new(),
            planner: Planner::new(["muster".to_owned()]),
            hurt: BTreeSet::new(),
            faulty: true,
            bound: 0,
        };
        world.restart();
        world
    }

    /// The scheduler is killed, whatever it was doing, and starts again from what is written.
    fn restart(&mut self) {
        self.hands.clear();
        self.planner = Planner::new(["muster".to_owned()]);
        self.relist();
        for binding in self.planner.restore(&self.plans.reservations()) {
            self.begin(Decision::Bind(binding));
        }
    }

    /// The watches were lost: everything is listed anew.
    fn relist(&mut self) {
        self.news.clear();
        for name in &self.nodes {
            self.planner.node_seen(&node(name, GPUS));
        }
        for pod in self.pods.values() {
            self.planner.pod_seen(pod);
        }
    }

    /// A lost watch of a planner that knows more than there is.
    fn lose_watches(&mut self) {
        let gone: Vec<(PodKey, String)> =
            self.planner.pods.iter().map(|(key, view)| (key.clone(), view.member.uid.clone())).collect();
        let lost: Vec<String> = self.planner.ledger.nodes().map(|node| node.name.clone()).collect();
        self.relist();
        for (key, uid) in gone {
            if !self.pods.contains_key(&key) {
                self.planner.pod_gone(&key, &uid);
            }
        }
        for name in lost.iter().filter(|name| !self.nodes.contains(*name)) {
            self.planner.node_gone(name);
        }
    }

    fn create(&mut self, gang: &str) {
        let of = self.sizes[gang];
        for index in 0..of {
            let key = PodKey::new("a", format!("{gang}-{index}"));
            if self.pods.contains_key(&key) {
                continue;
            }
            self.uids += 1;
            let mut created = pod(gang, index, of, None);
            created.metadata.uid = Some(format!("uid-{}", self.uids));
            self.news.push_back(News::Pod(Box::new(created.clone())));
            self.pods.insert(key, created);
        }
    }

    fn delete(&mut self, key: &PodKey) {
        if let Some(gone) = self.pods.remove(key) {
            self.news.push_back(News::PodGone(key.clone(), gone.metadata.uid.unwrap()));
        }
    }

    fn hear(&mut self) {
        match self.news.pop_front() {
            None => {}
            Some(News::Pod(pod)) => self.planner.pod_seen(&pod),
            Some(News::PodGone(key, uid)) => self.planner.pod_gone(&key, &uid),
            Some(News::Node(name)) => self.planner.node_seen(&node(&name, GPUS)),
            Some(News::NodeGone(name)) => self.planner.node_gone(&name),
        }
    }

    fn decide(&mut self) {
        self.now += 1 + self.chance.below(30) as i64;
        let decisions = self.planner.decide(Timestamp::from_second(self.now).unwrap()).now;
        for decision in decisions {
            self.begin(decision);
        }
    }

    fn begin(&mut self, decision: Decision) {
        match decision {
            Decision::Bind(binding) => {
                let busy = self.hands.iter().any(|other| match other {
                    UnderWay::Bind { binding: other, .. } => other.gang == binding.gang,
                    UnderWay::Discard { gang, .. } => *gang == binding.gang,
                });
                assert!(!busy, "two plans of gang {} at once", binding.gang);
                let outcome = Outcome::nothing_of(&binding);
                let left = (0..binding.placement.0.len()).collect();
                self.hands.push(UnderWay::Bind { binding, outcome, written: false, left });
            }
            Decision::Discard { namespace, gang, written } => {
                self.hands.push(UnderWay::Discard { namespace, gang, written });
            }
            Decision::Evict { pods, .. } => {
                for (key, uid) in pods {
                    if self.pods.get(&key).is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&uid)) {
                        self.delete(&key);
                    }
                }
            }
            Decision::Explain { .. } | Decision::GiveBack { .. } => {}
        }
    }

    /// One request of one decision under way.
    fn progress(&mut self) {
        if self.hands.is_empty() {
            return;
        }
        let index = self.chance.below(self.hands.len() as u64) as usize;
        match self.hands.swap_remove(index) {
            UnderWay::Discard { namespace, gang, written } => {
                self.plans.discard(&gang, &written);
                self.planner.discarded(&namespace, &gang);
            }
            UnderWay::Bind { binding, mut outcome, written: false, left } => {
                if self.write(&binding, &mut outcome) {
                    self.hands.push(UnderWay::Bind { binding, outcome, written: true, left });
                } else {
                    outcome.refuse_all(&binding);
                    self.planner.carried_out(&outcome);
                }
            }
            UnderWay::Bind { binding, mut outcome, written, mut left } => {
                let chosen = self.chance.below(left.len() as u64) as usize;
                self.bind(&binding, left[chosen], &mut left, &mut outcome);
                if left.is_empty() {
                    let all = outcome.refused.len() == binding.placement.0.len();
                    if all && binding.nothing_settled() && !(self.faulty && self.chance.one_in(6)) {
                        self.plans.written.remove(&binding.gang);
                        outcome.written = None;
                    }
                    self.planner.carried_out(&outcome);
                } else {
                    self.hands.push(UnderWay::Bind { binding, outcome, written, left });
                }
            }
        }
    }

    /// Whether the plan is written.
    fn write(&mut self, binding: &Binding, outcome: &mut Outcome) -> bool {
        if self.faulty && self.chance.one_in(8) || self.plans.has_later_than(binding, outcome) {
            return false;
        }
        if binding.placement.0.iter().any(|(_, place)| !self.nodes.contains(&place.node)) {
            // It was planned before the loss was heard of.
            self.hurt.insert(binding.gang.clone());
        }
        self.plans.write(binding, outcome);
        true
    }

    fn bind(&mut self, binding: &Binding, index: usize, left: &mut Vec<usize>, outcome: &mut Outcome) {
        let (key, place) = &binding.placement.0[index];
        // A lost answer before or after it is done: tried again.
        let (lost_before, lost_after) =
            (self.faulty && self.chance.one_in(6), self.faulty && self.chance.one_in(6));
        if lost_before {
            return;
        }
        let refused = self.faulty && self.chance.one_in(10);
        let there = self.pods.get_mut(key).filter(|pod| pod.metadata.uid.as_ref() == Some(&place.uid));
        let done = match there {
            Some(pod) if node_of(pod).is_some() => node_of(pod) == Some(place.node.as_str()),
            Some(pod) if !refused => {
                pod.spec.as_mut().unwrap().node_name = Some(place.node.clone());
                let slots: Vec<String> = place.gpu_indices.iter().map(ToString::to_string).collect();
                let annotations = pod.metadata.annotations.get_or_insert_default();
                annotations.insert("muster.dev/gpu-indices".into(), slots.join(","));
                self.news.push_back(News::Pod(Box::new(pod.clone())));
                self.bound += 1;
                true
            }
            _ => false,
        };
        if lost_after && done {
            return;
        }
        left.retain(|other| *other != index);
        if !done {
            outcome.refused.push((key.clone(), place.uid.clone()));
            outcome.why = refused.then(|| "by chance".to_owned()).or(outcome.why.take());
            if !self.nodes.contains(&place.node) {
                self.hurt.insert(binding.gang.clone());
            }
        }
    }

    /// Pods on nodes that are gone are collected, and their owners create them anew.
    fn collect(&mut self) {
        let lost = |pod: &core::Pod| node_of(pod).is_some_and(|node| !self.nodes.contains(node));
        let lost: Vec<PodKey> =
            self.pods.iter().filter(|(_, pod)| lost(pod)).map(|(key, _)| key.clone()).collect();
        for key in lost {
            let gang = key.name.split('-').next().unwrap().to_owned();
            self.delete(&key);
            self.create(&gang);
            self.hurt.insert(gang);
        }
    }

    /// Something happens.
    fn step(&mut self) {
        match self.chance.below(42) {
            0..3 => {
                let gang = format!("g{}", self.chance.below(8));
                let size = 1 + self.chance.below(6) as u32;
                if self.pods.keys().all(|key| !key.name.starts_with(&format!("{gang}-"))) {
                    self.sizes.insert(gang.clone(), size);
                    self.create(&gang);
                }
            }
            3 => {
                // An owner deletes a whole gang.
                let gang = format!("g{}-", self.chance.below(8));
                let pods: Vec<PodKey> =
                    self.pods.keys().filter(|key| key.name.starts_with(&gang)).cloned().collect();
                for key in &pods {
                    self.delete(key);
                }
            }
            4 => {
                // A node goes, and soon the pods on it.
                let name = format!("n{}", self.chance.below(NODES));
                if self.nodes.len() > 2 && self.nodes.remove(&name) {
                    self.news.push_back(News::NodeGone(name.clone()));
                    let planned = self
                        .plans
                        .written
                        .iter()
                        .filter(|(_, (plan, _))| plan.members.iter().any(|member| member.node == name));
                    self.hurt.extend(planned.map(|(gang, _)| gang.clone()));
                }
            }
            5 => {
                let name = format!("n{}", self.chance.below(NODES));
                if self.nodes.insert(name.clone()) {
                    self.news.push_back(News::Node(name));
                }
            }
            6 => self.restart(),
            7 => self.lose_watches(),
            8..18 => self.decide(),
            18..28 => self.progress(),
            28..30 => self.collect(),
            _ => self.hear(),
        }
        self.check_slots();
    }

    /// No slot of a node is given twice.
    fn check_slots(&self) {
        let mut taken = BTreeSet::new();
        for (key, pod) in &self.pods {
            let Some(node) = node_of(pod) else { continue };
            for slot in pod.metadata.annotations.as_ref().unwrap()["muster.dev/gpu-indices"].split(',') {
                assert!(
                    taken.insert((node.to_owned(), slot.to_owned())),
                    "{key}: slot {slot} of {node} twice"
                );
            }
        }
    }

    /// Nothing goes wrong any more, and nothing happens that the scheduler does not do.
    fn settle(&mut self) {
        self.faulty = false;
        for round in 0..60 {
            if round == 30 {
                self.restart_the_hurt();
            }
            self.collect();
            while !self.news.is_empty() {
                self.hear();
            }
            self.decide();
            while !self.hands.is_empty() {
                self.progress();
            }
            // Whoever was evicted comes back.
            let gangs: BTreeSet<String> =
                self.pods.keys().map(|key| key.name.split('-').next().unwrap().to_owned()).collect();
            for gang in &gangs {
                self.create(gang);
            }
            self.check_slots();
        }
    }

    /// Owners whose gangs have lost a node, and for whose new pods there is no room, begin anew.
    fn restart_the_hurt(&mut self) {
        for (gang, (bound, of)) in self.bound_by_gang() {
            if self.hurt.contains(&gang) && bound > 0 && bound < of {
                let prefix = format!("{gang}-");
                let pods: Vec<PodKey> =
                    self.pods.keys().filter(|key| key.name.starts_with(&prefix)).cloned().collect();
                for key in &pods {
                    self.delete(key);
                }
            }
        }
    }

    /// Bound pods by gang.
    fn bound_by_gang(&self) -> BTreeMap<String, (u32, u32)> {
        let mut gangs: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for (key, pod) in &self.pods {
            let gang = gangs.entry(key.name.split('-').next().unwrap().to_owned()).or_default();
            gang.0 += u32::from(node_of(pod).is_some());
            gang.1 += 1;
        }
        gangs
    }
}

#[test]
fn no_slot_is_given_twice_and_no_gang_stays_partial_whatever_goes_wrong() {
    let mut bound = 0;
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        let gangs = world.bound_by_gang();
        let running: u32 = gangs.values().map(|(bound, _)| bound).sum();
        for (gang, (bound, of)) in &gangs {
            assert!(*bound == 0 || bound == of, "seed {seed}: gang {gang} has {bound} of {of}: {gangs:?}");
            let room = world.nodes.len() as u32 * GPUS - running;
            assert!(
                *bound > 0 || *of > room,
                "seed {seed}: gang {gang} of {of} waits beside {room} free: {gangs:?}"
            );
        }
        let plans: BTreeSet<&String> = world.plans.written.keys().collect();
        let alive: BTreeSet<&String> = gangs.keys().collect();
        assert!(
            plans.is_subset(&alive),
            "seed {seed}: plans {plans:?} of gangs that are gone, beside {alive:?}"
        );
        bound += world.bound;
    }
    assert!(bound > 4_000, "the schedules bind too little to prove anything: {bound}");
}
