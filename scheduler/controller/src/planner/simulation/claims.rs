//! The same with pods that claim devices: claims are written on before their pods are bound, and every step of that is
//! late, lost, refused or cut short by chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use muster_scheduler_core::{ClaimKey, PodKey};
use serde_json::json;

use super::super::tests::claims::{claim, claiming, class, exactly, read, slice};
use super::super::tests::node;
use super::super::{Binding, ClaimUse, Decision, DeviceEvent, Outcome, Planner, Written};
use super::{Chance, Plans, node_of};

/// Seeds that once found something.
const FIRST: [u64; 4] = [577, 2681, 4896, 18_677];
const NODES: usize = 3;
const DEVICES: usize = 3;

/// What the scheduler is told of pods, later.
enum PodNews {
    Seen(Box<core::Pod>),
    Gone(PodKey, String),
}

/// A decision that is being carried out.
#[expect(clippy::large_enum_variant, reason = "there are few")]
enum UnderWay {
    Bind { binding: Binding, outcome: Outcome, written: bool, reserved: BTreeSet<usize>, left: Vec<usize> },
    Discard { namespace: String, gang: String, written: Written },
    GiveBack { claim: ClaimKey, resource_version: String, pods: Vec<PodKey> },
}

struct World {
    chance: Chance,
    now: i64,
    pods: BTreeMap<PodKey, core::Pod>,
    claims: BTreeMap<ClaimKey, ResourceClaim>,
    plans: Plans,
    uids: u64,
    pod_news: VecDeque<PodNews>,
    claim_news: VecDeque<DeviceEvent>,
    /// Claims that the scheduler was told of.
    told: BTreeSet<ClaimKey>,
    hands: Vec<UnderWay>,
    planner: Planner,
    faulty: bool,
    bound: usize,
    given_back: usize,
}

fn gang_of(key: &PodKey) -> &str {
    key.name.split('-').next().unwrap()
}

fn pool_of(claim: &ResourceClaim) -> Option<(String, String)> {
    let devices = claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref()?;
    let result = devices.results.as_ref()?.first()?;
    Some((result.pool.clone(), result.device.clone()))
}

fn users(claim: &ResourceClaim) -> Vec<String> {
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    users.map(|user| user.uid.clone()).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            chance: Chance(seed),
            now: 1_000_000,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            plans: Plans::default(),
            uids: 0,
            pod_news: VecDeque::new(),
            claim_news: VecDeque::new(),
            told: BTreeSet::new(),
            hands: Vec::new(),
            planner: Planner::new(["muster".to_owned()]),
            faulty: true,
            bound: 0,
            given_back: 0,
        };
        world.restart();
        world
    }

    /// The scheduler is killed, whatever it was doing, and starts again from what is written.
    fn restart(&mut self) {
        self.hands.clear();
        self.told.clear();
        self.planner = Planner::new(["muster".to_owned()]);
        for index in 0..NODES {
            let name = format!("n{index}");
            self.planner.node_seen(&node(&name, 0));
            self.planner.devices_changed(slice(&name, DEVICES, 0, 1, 1));
        }
        self.planner.devices_changed(class());
        read(&mut self.planner);
        self.relist();
        for binding in self.planner.restore(&self.plans.reservations()) {
            self.begin(Decision::Bind(binding));
        }
    }

    /// The watches were lost: everything is listed anew.
    fn relist(&mut self) {
        self.pod_news.clear();
        self.claim_news.clear();
        let known: Vec<(PodKey, String)> =
            self.planner.pods.iter().map(|(key, view)| (key.clone(), view.member.uid.clone())).collect();
        for pod in self.pods.values() {
            self.planner.pod_seen(pod);
        }
        for (key, uid) in known {
            if !self.pods.contains_key(&key) {
                self.planner.pod_gone(&key, &uid);
            }
        }
        for key in std::mem::take(&mut self.told) {
            if !self.claims.contains_key(&key) {
                self.planner.devices_changed(DeviceEvent::ClaimGone(key));
            }
        }
        for (key, claim) in &self.claims {
            self.told.insert(key.clone());
            self.planner.devices_changed(DeviceEvent::Claim(Box::new(claim.clone())));
        }
    }

    fn create(&mut self, gang: &str, of: u32) {
        for index in 0..of {
            self.uids += 1;
            let mut created = claiming(gang, index, of);
            created.metadata.uid = Some(format!("uid-{}", self.uids));
            created.status.as_mut().unwrap().resource_claim_statuses = None;
            self.pod_news.push_back(PodNews::Seen(Box::new(created.clone())));
            self.pods.insert(PodKey::new("a", format!("{gang}-{index}")), created);
        }
    }

    fn delete(&mut self, gang: &str) {
        let pods: Vec<PodKey> = self.pods.keys().filter(|key| gang_of(key) == gang).cloned().collect();
        for key in pods {
            let gone = self.pods.remove(&key).unwrap();
            self.pod_news.push_back(PodNews::Gone(key, gone.metadata.uid.unwrap()));
        }
    }

    /// The claim was written.
    fn wrote(&mut self, key: &ClaimKey) {
        let claim = self.claims.get_mut(key).unwrap();
        claim.metadata.resource_version = Some(self.plans.next_version().to_string());
        self.claim_news.push_back(DeviceEvent::Claim(Box::new(claim.clone())));
    }

    /// What the controller of claims does: claims are made for pods, and go with them.
    fn control_claims(&mut self) {
        for (key, pod) in &mut self.pods {
            let status = pod.status.as_mut().unwrap();
            if status.resource_claim_statuses.is_some() {
                continue;
            }
            let uid = pod.metadata.uid.clone().unwrap();
            let name = format!("{}-{uid}", key.name);
            let mut made = claim(gang_of(key), 0, &exactly(json!({})));
            made.metadata.name = Some(name.clone());
            made.metadata.uid = Some(format!("claim-{uid}"));
            made.metadata.owner_references.as_mut().unwrap()[0].uid = uid;
            self.claim_news.push_back(DeviceEvent::Claim(made.clone()));
            self.claims.insert(ClaimKey::new("a", name.clone()), *made);
            status.resource_claim_statuses =
                serde_json::from_value(json!([{"name": "gpu", "resourceClaimName": name}])).unwrap();
            self.pod_news.push_back(PodNews::Seen(Box::new(pod.clone())));
        }
        let alive: BTreeSet<String> =
            self.pods.values().map(|pod| format!("claim-{}", pod.metadata.uid.as_ref().unwrap())).collect();
        let gone = |claim: &ResourceClaim| !alive.contains(claim.metadata.uid.as_ref().unwrap());
        let gone: Vec<ClaimKey> =
            self.claims.iter().filter(|(_, claim)| gone(claim)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.claims.remove(&key);
            self.claim_news.push_back(DeviceEvent::ClaimGone(key));
        }
    }

    /// Of pods and claims news come each in their order, but not in that of each other.
    fn hear(&mut self) {
        if self.chance.one_in(2) {
            match self.pod_news.pop_front() {
                None => {}
                Some(PodNews::Seen(pod)) => self.planner.pod_seen(&pod),
                Some(PodNews::Gone(key, uid)) => self.planner.pod_gone(&key, &uid),
            }
        } else if let Some(event) = self.claim_news.pop_front() {
            if let DeviceEvent::Claim(claim) = &event {
                self.told.insert(ClaimKey::new("a", claim.metadata.name.clone().unwrap()));
            }
            self.planner.devices_changed(event);
        }
    }

    fn decide(&mut self) {
        self.now += 1 + self.chance.below(30) as i64;
        for decision in self.planner.decide(Timestamp::from_second(self.now).unwrap()).now {
            self.begin(decision);
        }
    }

    fn begin(&mut self, decision: Decision) {
        match decision {
            Decision::Bind(binding) => {
                let outcome = Outcome::nothing_of(&binding);
                let left = (0..binding.placement.0.len()).collect();
                let reserved = BTreeSet::new();
                self.hands.push(UnderWay::Bind { binding, outcome, written: false, reserved, left });
            }
            Decision::Discard { namespace, gang, written } => {
                self.hands.push(UnderWay::Discard { namespace, gang, written });
            }
            Decision::GiveBack { claim, resource_version, pods } => {
                self.hands.push(UnderWay::GiveBack { claim, resource_version, pods });
            }
            Decision::Evict { .. } => panic!("nobody has a reason to evict"),
            Decision::Explain { .. } => {}
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
            UnderWay::GiveBack { claim, resource_version, pods } => {
                let bound = |pod: &PodKey| self.pods.get(pod).is_some_and(|pod| node_of(pod).is_some());
                let known = self.claims.get(&claim).and_then(|claim| claim.metadata.resource_version.clone());
                let lost = self.faulty && self.chance.one_in(4);
                if !lost && known == Some(resource_version) && !pods.iter().any(bound) {
                    self.claims.get_mut(&claim).unwrap().status = None;
                    self.wrote(&claim);
                    self.given_back += 1;
                }
                self.planner.gave_back(&claim);
            }
            UnderWay::Bind { binding, mut outcome, written: false, reserved, left } => {
                if self.write(&binding, &mut outcome) {
                    self.hands.push(UnderWay::Bind { binding, outcome, written: true, reserved, left });
                } else {
                    outcome.refuse_all(&binding);
                    self.planner.carried_out(&outcome);
                }
            }
            UnderWay::Bind { binding, mut outcome, written, mut reserved, mut left } => {
                let chosen = left[self.chance.below(left.len() as u64) as usize];
                self.bring(&binding, chosen, &mut reserved, &mut left, &mut outcome);
                if left.is_empty() {
                    let all = outcome.refused.len() == binding.placement.0.len();
                    if all && binding.nothing_settled() {
                        self.unreserve_all(&binding);
                    }
                    if all && binding.nothing_settled() && !(self.faulty && self.chance.one_in(6)) {
                        self.plans.written.remove(&binding.gang);
                        outcome.written = None;
                    }
                    for given in binding.claims.values().flatten() {
                        let claim = self.claims.get(&given.claim);
                        let version = claim.map(|claim| claim.metadata.resource_version.clone());
                        outcome.claims.extend(version.map(|version| (given.claim.clone(), version)));
                    }
                    self.planner.carried_out(&outcome);
                } else {
                    self.hands.push(UnderWay::Bind { binding, outcome, written, reserved, left });
                }
            }
        }
    }

    /// Whether the plan is written.
    fn write(&mut self, binding: &Binding, outcome: &mut Outcome) -> bool {
        if self.plans.has_later_than(binding, outcome) || self.faulty && self.chance.one_in(8) {
            return false;
        }
        self.plans.write(binding, outcome);
        true
    }

    /// The next step of one pod: its claim gets its device, then it gets its node.
    fn bring(
        &mut self,
        binding: &Binding,
        index: usize,
        reserved: &mut BTreeSet<usize>,
        left: &mut Vec<usize>,
        outcome: &mut Outcome,
    ) {
        let (key, place) = &binding.placement.0[index];
        let given = &binding.claims[key][0];
        if self.faulty && self.chance.one_in(6) {
            return;
        }
        // Whoever looks finds what was done before an answer was lost.
        let there = self.pods.get(key).filter(|pod| pod.metadata.uid.as_ref() == Some(&place.uid));
        let is_bound = there.and_then(node_of) == Some(place.node.as_str());
        let refused = self.faulty && !is_bound && self.chance.one_in(8);
        let done = if refused {
            false
        } else if reserved.contains(&index) {
            self.bind(key, &place.uid, &place.node)
        } else {
            self.reserve(key, &place.uid, given)
        };
        if !done {
            outcome.refused.push((key.clone(), place.uid.clone()));
            outcome.why = refused.then(|| "by chance".to_owned()).or(outcome.why.take());
            left.retain(|other| *other != index);
            return;
        }
        // A lost answer: the same step again.
        let lost_after = self.faulty && self.chance.one_in(6);
        if !lost_after && !reserved.insert(index) {
            left.retain(|other| *other != index);
        }
    }

    fn reserve(&mut self, pod: &PodKey, uid: &str, given: &ClaimUse) -> bool {
        let Some(claim) = self.claims.get_mut(&given.claim) else { return false };
        if claim.metadata.uid.as_ref() != Some(&given.uid) {
            return false;
        }
        let status = claim.status.get_or_insert_default();
        match (&status.allocation, &given.allocation) {
            (None, None) => return false,
            (Some(has), Some(wanted)) if has != wanted => return false,
            (None, Some(_)) => status.allocation.clone_from(&given.allocation),
            (Some(_), _) => {}
        }
        let users = status.reserved_for.get_or_insert_default();
        if users.iter().all(|user| user.uid != uid) {
            users.push(ResourceClaimConsumerReference {
                api_group: None,
                resource: "pods".into(),
                name: pod.name.clone(),
                uid: uid.to_owned(),
            });
        }
        self.wrote(&given.claim);
        true
    }

    /// Takes back what claims have got; that may come to nothing, too.
    fn unreserve_all(&mut self, binding: &Binding) {
        for (key, place) in &binding.placement.0 {
            if !self.chance.one_in(3) {
                self.unreserve(&place.uid, &binding.claims[key][0]);
            }
        }
    }

    fn unreserve(&mut self, uid: &str, given: &ClaimUse) {
        let Some(claim) = self.claims.get_mut(&given.claim) else { return };
        let Some(status) = &mut claim.status else { return };
        let users = status.reserved_for.get_or_insert_default();
        users.retain(|user| user.uid != uid);
        if users.is_empty() && given.allocation.is_some() {
            claim.status = None;
        }
        self.wrote(&given.claim);
    }

    fn bind(&mut self, key: &PodKey, uid: &str, node: &str) -> bool {
        let there = self.pods.get_mut(key).filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
        let Some(pod) = there else { return false };
        if node_of(pod).is_none() {
            pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
            self.pod_news.push_back(PodNews::Seen(Box::new(pod.clone())));
            self.bound += 1;
        }
        node_of(pod) == Some(node)
    }

    /// Something happens.
    fn step(&mut self) {
        match self.chance.below(42) {
            0..3 => {
                let gang = format!("g{}", self.chance.below(6));
                let size = 1 + self.chance.below(5) as u32;
                if self.pods.keys().all(|key| gang_of(key) != gang) {
                    self.create(&gang, size);
                }
            }
            3 => {
                let gang = format!("g{}", self.chance.below(6));
                self.delete(&gang);
            }
            4 => self.restart(),
            5 => self.relist(),
            6..9 => self.control_claims(),
            9..18 => self.decide(),
            18..29 => self.progress(),
            _ => self.hear(),
        }
        self.check();
    }

    /// No device is given twice, and whoever runs has the claim of its own on its node.
    fn check(&self) {
        let mut taken: BTreeMap<(String, String), &ClaimKey> = BTreeMap::new();
        for (key, claim) in &self.claims {
            if let Some(device) = pool_of(claim)
                && let Some(other) = taken.insert(device.clone(), key)
            {
                panic!("{key} and {other} both have {device:?}");
            }
        }
        for (key, pod) in self.pods.iter().filter(|(_, pod)| node_of(pod).is_some()) {
            let uid = pod.metadata.uid.clone().unwrap();
            let claim = &self.claims[&ClaimKey::new("a", format!("{}-{uid}", key.name))];
            let pool = pool_of(claim).map(|(pool, _)| pool);
            assert_eq!(pool.as_deref(), node_of(pod), "{key} runs where its device is not");
            assert!(users(claim).contains(&uid), "{key} may not use its claim");
        }
    }

    /// Nothing goes wrong any more, and nothing happens that the scheduler does not do.
    fn settle(&mut self) {
        self.faulty = false;
        for _ in 0..60 {
            self.control_claims();
            while !self.pod_news.is_empty() || !self.claim_news.is_empty() {
                self.hear();
            }
            self.decide();
            while !self.hands.is_empty() {
                self.progress();
            }
            self.check();
        }
    }
}

#[test]
fn no_device_is_given_twice_and_no_gang_stays_partial_whatever_goes_wrong() {
    let (mut bound, mut given_back) = (0, 0);
    for seed in FIRST.into_iter().chain(0..400) {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        let mut gangs: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (key, pod) in &world.pods {
            let gang = gangs.entry(gang_of(key)).or_default();
            gang.0 += usize::from(node_of(pod).is_some());
            gang.1 += 1;
        }
        let running: usize = gangs.values().map(|(bound, _)| bound).sum();
        let held = world.claims.values().filter(|claim| pool_of(claim).is_some()).count();
        assert_eq!(held, running, "seed {seed}: claims of pods that do not run have devices");
        for (gang, (bound, of)) in &gangs {
            assert!(*bound == 0 || bound == of, "seed {seed}: gang {gang} has {bound} of {of}: {gangs:?}");
            let room = NODES * DEVICES - running;
            assert!(
                *bound > 0 || *of > room,
                "seed {seed}: gang {gang} of {of} waits beside {room} free: {gangs:?}"
            );
        }
        (bound, given_back) = (bound + world.bound, given_back + world.given_back);
    }
    assert!(bound > 2_000, "the schedules bind too little to prove anything: {bound}");
    assert!(given_back > 50, "nothing was left on claims to be given back: {given_back}");
}
