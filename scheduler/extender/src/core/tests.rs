//! The state machine step by step.

use std::sync::Arc;

use muster_scheduler_core::{Gang, Ledger, Member, Node, PodKey, Resources};
use muster_scheduler_topology::import::TopologySources;

use super::*;
use crate::wire::{BindRequest, Offered, PodIdentity};

struct Bench {
    core: ExtenderCore<Ledger>,
    now: Time,
    writes: Vec<WriteReservation>,
    binds: Vec<BindPod>,
    looks: Vec<BindPod>,
}

fn node(name: &str, rack: &str, schedulable: bool) -> Node {
    Node {
        name: name.to_owned(),
        labels: [("muster.dev/rack".to_owned(), rack.to_owned())].into_iter().collect(),
        schedulable,
        allocatable: Resources::new().with("nvidia.com/gpu", 2_000).with("pods", 110_000),
        gpu_slots: 2,
        ..Node::default()
    }
}

fn pod(rank: u32, uid: &str) -> PodSeen {
    let member = Member {
        name: format!("g-{rank}"),
        uid: uid.to_owned(),
        requests: Resources::new().with("nvidia.com/gpu", 2_000).with("pods", 1_000),
        gpus: 2,
        rank,
        ..Member::default()
    };
    let gang = Gang { namespace: "d".to_owned(), name: "g".to_owned(), min_available: 2, ..Gang::default() };
    PodSeen {
        key: PodKey::new("d", &member.name),
        member,
        gang: Some(Arc::new(gang)),
        owner: None,
        priority: 0,
        created: Time(0),
        planned: true,
        own: false,
        held: None,
        state: PodState::Waiting,
    }
}

const NODES: [(&str, &str); 4] = [("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b")];

impl Bench {
    /// Four nodes in two racks, a gang of two, synced and settled.
    fn new() -> Self {
        let core = ExtenderCore::new(Ledger::default(), Timing::default());
        let mut bench = Self { core, now: Time(0), writes: Vec::new(), binds: Vec::new(), looks: Vec::new() };
        for (name, rack) in NODES {
            bench.core.node_seen(Time(0), node(name, rack, true));
        }
        bench.see(pod(0, "u0"));
        bench.see(pod(1, "u1"));
        bench.core.synced(Time(0));
        bench.pass(3_000);
        bench
    }

    fn see(&mut self, pod: PodSeen) {
        self.core.pod_seen(self.now, pod);
        self.work();
    }

    /// Plans at once, and keeps what else is to be done.
    fn work(&mut self) {
        for effect in self.core.effects() {
            match effect {
                Effect::Plan(job) => self.core.planned(self.now, job.run()),
                Effect::Write(write) => self.writes.push(write),
                Effect::Bind(bind) => self.binds.push(bind),
                Effect::Look(bind) => self.looks.push(bind),
                Effect::MarkBound { .. } | Effect::Remove { .. } => {}
            }
        }
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now = self.now.plus(milliseconds);
        self.core.tick(self.now);
        self.work();
    }

    fn filter(&mut self, rank: u32, uid: &str) -> Verdict {
        let name = format!("g-{rank}");
        let identity = PodIdentity { namespace: "d".into(), name: name.as_str().into(), uid: uid.into() };
        let offered = Offered::Names(NODES.iter().map(|(name, _)| (*name).into()).collect());
        for _ in 0..4 {
            if let FilterStep::Answer(verdict) = self.core.filter(&identity, &offered) {
                return verdict;
            }
            self.work();
        }
        panic!("no answer")
    }

    fn node(&mut self, rank: u32, uid: &str) -> String {
        match self.filter(rank, uid) {
            Verdict::Node(node) => node,
            other => panic!("{other:?}"),
        }
    }

    fn bind(&mut self, rank: u32, uid: &str, node: &str, attempt: Option<u64>) -> BindStep {
        let name = format!("g-{rank}");
        let pod = PodIdentity { namespace: "d".into(), name: name.as_str().into(), uid: uid.into() };
        let step = self.core.bind(self.now, &BindRequest { pod, node: node.into() }, attempt);
        self.work();
        step
    }

    fn write_lands(&mut self) -> WriteReservation {
        let write = self.writes.remove(0);
        self.core.written(self.now, &write, WriteOutcome::Written(format!("v{}", write.epoch)));
        self.work();
        write
    }

    fn bind_lands(&mut self, outcome: BindOutcome) -> BindPod {
        let bind = self.binds.remove(0);
        self.core.bound(self.now, &bind, outcome);
        self.work();
        bind
    }

    /// Reserves the gang and binds its first pod; the nodes of both.
    fn started(&mut self) -> (String, String) {
        let (first, second) = (self.node(0, "u0"), self.node(1, "u1"));
        self.bind(0, "u0", &first, None);
        self.write_lands();
        self.bind_lands(BindOutcome::Bound);
        (first, second)
    }
}

#[test]
fn the_first_binding_waits_for_the_reservation() {
    let mut bench = Bench::new();
    let node = bench.node(0, "u0");
    let BindStep::Wait(attempt) = bench.bind(0, "u0", &node, None) else { panic!("answered") };
    assert!(bench.binds.is_empty());
    let write = bench.write_lands();
    assert_eq!((write.epoch, write.members.len(), write.replaces), (1, 2, None));
    bench.bind_lands(BindOutcome::Bound);
    assert_eq!(bench.bind(0, "u0", &node, Some(attempt)), BindStep::Answer(Ok(())));
}

#[test]
fn a_reservation_that_cannot_be_written_binds_nothing_and_is_tried_again() {
    let mut bench = Bench::new();
    let node = bench.node(0, "u0");
    let BindStep::Wait(attempt) = bench.bind(0, "u0", &node, None) else { panic!("answered") };
    let write = bench.writes.remove(0);
    bench.core.written(bench.now, &write, WriteOutcome::Unknown("timeout".to_owned()));
    let BindStep::Answer(Err(error)) = bench.bind(0, "u0", &node, Some(attempt)) else { panic!("bound") };
    assert!(error.contains("cannot write the reservation of gang d/g: timeout"), "{error}");
    // It had landed after all: the next try finds its own words.
    bench.bind(0, "u0", &node, None);
    let again = bench.writes.remove(0);
    assert_eq!(again, write);
    let current = SeenReservation {
        gang: write.gang.clone(),
        epoch: write.epoch,
        members: write.members.clone(),
        resource_version: "v9".to_owned(),
    };
    bench.core.written(bench.now, &again, WriteOutcome::Conflict(Some(current)));
    bench.work();
    assert_eq!(bench.binds.len(), 1);
}

#[test]
fn a_recreated_pod_takes_the_place_of_its_rank() {
    let mut bench = Bench::new();
    let (_, second) = bench.started();
    bench.core.pod_gone(bench.now, &PodKey::new("d", "g-1"), "u1");
    let mut successor = pod(1, "u9");
    successor.key.name = "g-1b".to_owned();
    successor.member.name = "g-1b".to_owned();
    bench.see(successor);
    let identity = PodIdentity { namespace: "d".into(), name: "g-1b".into(), uid: "u9".into() };
    let offered = Offered::Names(NODES.iter().map(|(name, _)| (*name).into()).collect());
    let step = bench.core.filter(&identity, &offered);
    assert_eq!(step, FilterStep::Answer(Verdict::Node(second.clone())));
    bench.core.bind(bench.now, &BindRequest { pod: identity, node: second.into() }, None);
    bench.work();
    let write = bench.write_lands();
    assert_eq!(write.epoch, 2);
    assert!(write.members.iter().any(|place| place.uid == "u9"));
    assert_eq!(bench.binds.len(), 1);
}

#[test]
fn a_lost_place_is_made_good_in_the_same_rack() {
    let mut bench = Bench::new();
    let (first, second) = bench.started();
    assert!(first.starts_with('a') && second.starts_with('a'), "{first} {second}");
    bench.core.node_seen(bench.now, node(&second, "a", false));
    bench.work();
    assert!(bench.write_lands().members.iter().all(|place| place.uid == "u0"), "the lost place is given up");
    let repaired = bench.node(1, "u1");
    assert!(repaired.starts_with('a') && repaired != second && repaired != first, "{repaired}");
    bench.bind(1, "u1", &repaired, None);
    assert_eq!(bench.write_lands().epoch, 3);
    assert_eq!(bench.bind_lands(BindOutcome::Bound).node, repaired);
}

#[test]
fn a_gang_that_is_not_whole_any_more_is_not_started() {
    let mut bench = Bench::new();
    let (first, second) = (bench.node(0, "u0"), bench.node(1, "u1"));
    let BindStep::Wait(attempt) = bench.bind(0, "u0", &first, None) else { panic!("answered") };
    bench.core.node_seen(bench.now, node(&second, "a", false));
    bench.work();
    bench.write_lands();
    bench.write_lands();
    assert!(bench.binds.is_empty());
    let BindStep::Answer(Err(error)) = bench.bind(0, "u0", &first, Some(attempt)) else { panic!("bound") };
    assert!(error.contains("too few of its pods still have a place"), "{error}");
}

#[test]
fn a_reservation_without_progress_is_released_whole_and_its_room_only_once_that_is_written() {
    let mut bench = Bench::new();
    let first = bench.node(0, "u0");
    bench.bind(0, "u0", &first, None);
    bench.write_lands();
    bench.bind_lands(BindOutcome::Failed("no".to_owned()));
    bench.pass(59_000);
    assert!(bench.writes.is_empty());
    bench.pass(2_000);
    let held = bench.core.plans().free()[first.as_str()].gpu_slots.len();
    assert_eq!(held, 0, "a restart would take the places again");
    let write = bench.write_lands();
    assert_eq!((write.epoch, write.members.len()), (2, 0));
    assert!(bench.core.plans().free().values().all(|free| free.gpu_slots.len() == 2));
    // With a bound pod nothing is released by time.
    let mut bench = Bench::new();
    bench.started();
    bench.pass(600_000);
    assert!(bench.writes.is_empty());
    assert!(bench.core.holds("u1").is_some());
}

#[test]
fn a_pod_bound_elsewhere_gives_its_place_back() {
    let mut bench = Bench::new();
    let first = bench.node(0, "u0");
    let BindStep::Wait(attempt) = bench.bind(0, "u0", &first, None) else { panic!("answered") };
    bench.write_lands();
    bench.bind_lands(BindOutcome::AlreadyBound("b0".to_owned()));
    let BindStep::Answer(Err(error)) = bench.bind(0, "u0", &first, Some(attempt)) else { panic!("bound") };
    assert!(error.contains("already bound to node b0"), "{error}");
    assert_eq!(bench.core.holds("u0"), Some("b0"));
    assert_eq!(bench.bind(0, "u0", "b0", None), BindStep::Answer(Ok(())));
}

#[test]
fn a_lost_outcome_is_asked_for_but_never_binds_a_gang_that_lost_a_place() {
    let mut bench = Bench::new();
    let (first, second) = (bench.node(0, "u0"), bench.node(1, "u1"));
    bench.bind(0, "u0", &first, None);
    bench.write_lands();
    bench.bind_lands(BindOutcome::Unknown("timeout".to_owned()));
    // The same node, whatever happens; asked again it is sent again.
    assert_eq!(bench.filter(0, "u0"), Verdict::Node(first.clone()));
    assert!(matches!(bench.bind(0, "u0", &second, None), BindStep::Answer(Err(_))));
    bench.core.node_seen(bench.now, node(&second, "a", false));
    bench.work();
    bench.pass(10_000);
    assert!(bench.binds.is_empty());
    let look = bench.looks.remove(0);
    bench.core.bound(bench.now, &look, BindOutcome::NotBound);
    assert!(bench.core.holds("u0").is_some());
}

#[test]
fn another_writer_is_overruled_before_anything_is_bound() {
    let mut bench = Bench::new();
    let first = bench.node(0, "u0");
    bench.bind(0, "u0", &first, None);
    let write = bench.writes.remove(0);
    let other = SeenReservation {
        gang: write.gang.clone(),
        epoch: 7,
        members: Vec::new(),
        resource_version: "v7".to_owned(),
    };
    bench.core.written(bench.now, &write, WriteOutcome::Conflict(Some(other)));
    bench.work();
    assert!(bench.binds.is_empty());
    let write = bench.write_lands();
    assert_eq!((write.epoch, write.replaces.as_deref()), (8, Some("v7")));
    assert_eq!(bench.binds.len(), 1);
}

#[test]
fn a_gang_stays_within_what_was_described_last() {
    let switches = "SwitchName=s0 Nodes=a0,b0\nSwitchName=s1 Nodes=a1\nSwitchName=s2 Nodes=a2";
    let tree = muster_scheduler_topology::import::slurm::topology(switches).unwrap();
    let mut bench = Bench::new();
    bench.core.places_described(TopologySources { tree: Some(tree), ..TopologySources::default() });
    for (rank, uid) in [(0, "u0"), (1, "u1")] {
        let mut near = pod(rank, uid);
        let mut gang = near.gang.as_deref().cloned().unwrap();
        gang.closeness.required = Some("tier-0".to_owned());
        near.gang = Some(Arc::new(gang));
        bench.see(near);
    }
    let mut nodes = [bench.node(0, "u0"), bench.node(1, "u1")];
    nodes.sort();
    assert_eq!(nodes, ["a0", "b0"], "the racks of their labels do not count any more");
}

#[test]
fn who_is_done_is_not_missed_when_another_comes_back() {
    let mut bench = Bench::new();
    let owned = |rank, uid, state| {
        let owner = Some("job".to_owned());
        PodSeen { owner, state, ..pod(rank, uid) }
    };
    let on = |node: &str, uid: &str| {
        PodState::Bound(muster_scheduler_core::Assignment {
            uid: uid.to_owned(),
            node: node.to_owned(),
            resources: Resources::new().with("nvidia.com/gpu", 2_000).with("pods", 1_000),
            gpu_indices: vec![0, 1],
            gpu_share: 0,
            claims: Vec::new(),
        })
    };
    bench.see(owned(0, "u0", on("a0", "u0")));
    bench.see(owned(1, "u1", on("a1", "u1")));
    let key = GangKey::new("d", "g");
    bench.see(owned(0, "u0", PodState::Ended { succeeded_by_another: false }));
    bench.core.pod_gone(bench.now, &PodKey::new("d", "g-1"), "u1");
    bench.see(owned(1, "u1-later", PodState::Waiting));
    assert_eq!(bench.core.incomplete(&key).map(|refusal| refusal.reason), None);
    bench.core.pod_gone(bench.now, &PodKey::new("d", "g-0"), "u0");
    let missing = bench.core.incomplete(&key).map(|refusal| refusal.reason);
    assert_eq!(missing.as_deref(), Some("1/2 members created"), "it may be restarted as a whole");
}
