//! What the planner says of waiting jobs, checked by a simulator that shares nothing with it: it counts free
//! GPUs node by node and quota queue by queue, and tries all placements.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_core::Space;
use muster_scheduler_queue::explain::{Explanation, Reason, WhatIf};
use muster_scheduler_queue::job::{Job, JobId};
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{QueueId, QueueSpec, QueueTree, Quota};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::cluster::{cluster, demand, form, gpu, job};

const PER_RACK: usize = 2;
const GPUS: u32 = 8;

#[derive(Debug, Clone)]
struct Asked {
    pods: u32,
    gpus: u32,
    runs: i64,
    pause: i64,
    queue: usize,
    in_rack: bool,
}

#[derive(Debug, Clone)]
struct Scenario {
    nodes: usize,
    /// (nominal, borrowing limit, lent at the most) in GPUs.
    queues: Vec<(i64, Option<i64>, Option<i64>)>,
    jobs: Vec<Asked>,
    policy: &'static str,
    /// Whole nodes only, so that nothing depends on which node is chosen.
    whole: bool,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let gpus = prop::sample::select(vec![2u32, 4, 8]);
    let asked = (1..6u32, gpus, 1..60i64, 0..12i64, 0..3usize, any::<bool>()).prop_map(
        |(pods, gpus, runs, pause, queue, in_rack)| Asked { pods, gpus, runs, pause, queue, in_rack },
    );
    let quota = (1..5i64, prop::option::of(0..4i64), prop::option::of(0..2i64)).prop_map(
        |(nominal, borrows, lends)| (nominal * 8, borrows.map(|part| part * 8), lends.map(|part| part * 8)),
    );
    let policy = prop::sample::select(vec!["strict-fifo", "best-effort-fifo", "easy", "muster"]);
    let parts = (
        2..6usize,
        prop::collection::vec(quota, 1..4),
        prop::collection::vec(asked, 2..12),
        policy,
        any::<bool>(),
    );
    parts.prop_map(|(nodes, queues, mut jobs, policy, whole)| {
        if whole {
            for asked in &mut jobs {
                (asked.gpus, asked.in_rack) = (8, false);
            }
        }
        Scenario { nodes, queues, jobs, policy, whole }
    })
}

/// A cluster by counts.
#[derive(Debug, Clone)]
struct Naive {
    free: Vec<u32>,
    used: Vec<i64>,
    queues: Vec<(i64, Option<i64>, Option<i64>)>,
}

impl Naive {
    fn quota_allows(&self, queue: usize, gpus: i64) -> bool {
        let mut used = self.used.clone();
        used[queue] += gpus;
        let (nominal, borrows, _) = self.queues[queue];
        let lent: i64 =
            self.queues.iter().map(|(nominal, _, lends)| lends.unwrap_or(*nominal).min(*nominal)).sum();
        let beyond = |(used, (nominal, _, lends)): (&i64, &(i64, Option<i64>, Option<i64>))| {
            (used - (nominal - lends.unwrap_or(*nominal).min(*nominal))).max(0)
        };
        let taken: i64 = used.iter().zip(&self.queues).map(beyond).sum();
        taken <= lent && borrows.is_none_or(|limit| used[queue] <= nominal + limit)
    }

    fn fits(&self, gpus: u32) -> u32 {
        self.free.iter().map(|free| free / gpus).sum()
    }

    fn has_room(&self, pods: u32, gpus: u32, in_rack: bool) -> bool {
        let racks = self.free.chunks(PER_RACK).map(|rack| rack.iter().map(|free| free / gpus).sum::<u32>());
        if in_rack { racks.max().unwrap_or(0) >= pods } else { self.fits(gpus) >= pods }
    }

    /// Every way to put the pods on the nodes.
    fn placements(&self, pods: u32, gpus: u32, in_rack: bool) -> Vec<Vec<u32>> {
        let mut found = Vec::new();
        let racks: Vec<(usize, usize)> = if in_rack {
            (0..self.free.len())
                .step_by(PER_RACK)
                .map(|from| (from, (from + PER_RACK).min(self.free.len())))
                .collect()
        } else {
            vec![(0, self.free.len())]
        };
        for (from, to) in racks {
            self.place(pods, gpus, from, to, &mut vec![0; self.free.len()], &mut found);
        }
        found
    }

    fn place(
        &self,
        pods: u32,
        gpus: u32,
        node: usize,
        to: usize,
        at: &mut Vec<u32>,
        found: &mut Vec<Vec<u32>>,
    ) {
        if pods == 0 {
            found.push(at.clone());
            return;
        }
        if node == to {
            return;
        }
        for here in 0..=pods.min(self.free[node] / gpus) {
            at[node] = here * gpus;
            self.place(pods - here, gpus, node + 1, to, at, found);
        }
        at[node] = 0;
    }
}

/// The world at the moment when the questions are asked.
struct World {
    scenario: Scenario,
    planner: Planner,
    space: Space,
    tree: QueueTree,
    leaves: Vec<QueueId>,
    now: i64,
    naive: Naive,
    /// Job by number: its nodes' GPUs and its end.
    running: BTreeMap<u64, (Vec<u32>, i64)>,
    waiting: Vec<u64>,
}

fn world(scenario: &Scenario) -> World {
    let mut space = cluster(scenario.nodes, GPUS, PER_RACK);
    let mut specs = vec![QueueSpec::new("cohort")];
    for (index, (nominal, borrows, lends)) in scenario.queues.iter().enumerate() {
        let quota = Quota {
            nominal: nominal * 1000,
            borrowing_limit: borrows.map(|limit| limit * 1000),
            lending_limit: lends.map(|limit| limit.min(*nominal) * 1000),
        };
        specs.push(QueueSpec::new(format!("q{index}")).below("cohort").with_quota(gpu(), quota));
    }
    let tree = QueueTree::build(specs).unwrap();
    let leaves: Vec<QueueId> = tree.queues().skip(1).collect();
    let policy = Policy { preemption: None, ..Policy::named(scenario.policy).unwrap() };
    let mut planner = Planner::new(policy, tree.clone());
    let level = space.map().level_named("rack").unwrap();
    let mut jobs = Vec::new();
    let mut at = 0;
    for (id, asked) in scenario.jobs.iter().enumerate() {
        at += asked.pause;
        let mut form = form(&mut space, &tree, asked.pods, asked.gpus);
        form.demand = demand(&mut space, asked.pods, asked.gpus, if asked.in_rack { level } else { 0 });
        let queue = leaves[asked.queue % leaves.len()];
        jobs.push(Job { limit: Some(asked.runs), ..job(id as u64, at, queue, form) });
    }
    let mut running: BTreeMap<u64, (Vec<u32>, i64)> = BTreeMap::new();
    let mut waiting = Vec::new();
    let mut now = 0;
    let decide = |planner: &mut Planner,
                  space: &mut Space,
                  running: &mut BTreeMap<_, _>,
                  waiting: &mut Vec<u64>,
                  now| {
        let plan = planner.cycle(Time(now), space);
        planner.commit(&plan, space, Time(now)).unwrap();
        for start in &plan.start {
            let mut nodes = vec![0; scenario.nodes];
            for slot in &start.hold.slots.0 {
                nodes[slot.node.index()] += slot.devices.len() as u32;
            }
            let asked = &scenario.jobs[start.job.0 as usize];
            running.insert(start.job.0, (nodes, now + asked.runs));
            waiting.retain(|id| *id != start.job.0);
        }
    };
    let mut jobs = jobs.into_iter().peekable();
    while let Some(arrives) = jobs.peek().map(|job| job.submitted.0) {
        let ends = running.values().map(|(_, ends)| *ends).min().unwrap_or(i64::MAX);
        now = ends.min(arrives);
        let ended: Vec<u64> =
            running.iter().filter(|(_, (_, ends))| *ends <= now).map(|(id, _)| *id).collect();
        for id in ended {
            let hold = Arc::clone(&planner.running().find(|job| job.job.id == JobId(id)).unwrap().hold);
            space.give_back_slots(&hold.form.demand, &hold.slots);
            planner.ended(JobId(id), Time(now)).unwrap();
            running.remove(&id);
        }
        while let Some(job) = jobs.next_if(|job| job.submitted.0 <= now) {
            waiting.push(job.id.0);
            planner.submit(job).unwrap();
        }
        decide(&mut planner, &mut space, &mut running, &mut waiting, now);
    }
    let mut naive = Naive {
        free: vec![GPUS; scenario.nodes],
        used: vec![0; scenario.queues.len()],
        queues: scenario.queues.clone(),
    };
    for (id, (nodes, _)) in &running {
        let asked = &scenario.jobs[*id as usize];
        nodes.iter().enumerate().for_each(|(node, gpus)| naive.free[node] -= gpus);
        naive.used[asked.queue % scenario.queues.len()] += i64::from(asked.pods * asked.gpus);
    }
    World { scenario: scenario.clone(), planner, space, tree, leaves, now, naive, running, waiting }
}

impl World {
    fn asked(&self, id: u64) -> (&Asked, usize, i64) {
        let asked = &self.scenario.jobs[id as usize];
        (asked, asked.queue % self.scenario.queues.len(), i64::from(asked.pods * asked.gpus))
    }

    /// The cluster when all that runs and ends by then has ended.
    fn after(&self, at: i64) -> Naive {
        let mut naive = self.naive.clone();
        for (id, (nodes, ends)) in &self.running {
            if *ends <= at {
                let (_, queue, gpus) = self.asked(*id);
                nodes.iter().enumerate().for_each(|(node, gpus)| naive.free[node] += gpus);
                naive.used[queue] -= gpus;
            }
        }
        naive
    }

    /// Whether a job of these pods can start now in some place such that every promise can still be kept when it
    /// is due, each on its own.
    fn can_start(&self, id: u64, pods: u32, queue: usize, in_rack: bool) -> bool {
        let (asked, _, _) = self.asked(id);
        let all = i64::from(pods * asked.gpus);
        if !self.naive.quota_allows(queue, all) {
            return false;
        }
        let promises: Vec<(u64, i64)> = self
            .planner
            .promises()
            .filter(|one| one.job != JobId(id))
            .map(|one| (one.job.0, one.latest.0))
            .collect();
        self.naive.placements(pods, asked.gpus, in_rack).iter().any(|nodes| {
            promises.iter().all(|(other, from)| {
                let mut then = self.after(*from);
                if self.now + asked.runs > *from {
                    nodes.iter().enumerate().for_each(|(node, gpus)| then.free[node] -= gpus);
                    then.used[queue] += all;
                }
                let (promised, queue, gpus) = self.asked(*other);
                then.quota_allows(queue, gpus)
                    && then.has_room(promised.pods, promised.gpus, promised.in_rack)
            })
        })
    }

    fn check_reason(&self, id: u64, explained: &Explanation) {
        let (asked, queue, gpus) = self.asked(id);
        let naive = &self.naive;
        let within_quota = naive.quota_allows(queue, gpus);
        let empty =
            Naive { free: vec![GPUS; naive.free.len()], used: vec![0; naive.used.len()], ..naive.clone() };
        match &explained.reason {
            Reason::Quota(shortage) => {
                assert!(!within_quota && empty.quota_allows(queue, gpus));
                let left = (shortage.free + shortage.borrowable) / 1000;
                assert!(left <= 0 || naive.quota_allows(queue, left), "{left} are said to be left");
                assert!(!naive.quota_allows(queue, left + 1), "more than {left} are left");
            }
            Reason::NeverQuota(_) => assert!(!empty.quota_allows(queue, gpus)),
            Reason::NeverFits => {
                assert!(within_quota && !empty.has_room(asked.pods, asked.gpus, asked.in_rack));
            }
            Reason::Room { needed, fits, .. } => {
                assert_eq!((*needed, *fits), (asked.pods, naive.fits(asked.gpus)));
                assert!(within_quota && fits < needed);
            }
            Reason::Scattered => {
                assert!(within_quota && naive.fits(asked.gpus) >= asked.pods);
                assert!(!naive.has_room(asked.pods, asked.gpus, asked.in_rack));
            }
            Reason::Promised { to, from } => {
                assert!(within_quota && naive.has_room(asked.pods, asked.gpus, asked.in_rack));
                assert!(self.now + asked.runs > from.0, "it would be done in time");
                assert!(self.planner.promises().any(|one| one.job == *to && one.latest == *from));
            }
            Reason::Behind(_) => {
                assert_eq!(self.scenario.policy, "strict-fifo");
                assert!(within_quota && naive.has_room(asked.pods, asked.gpus, asked.in_rack));
            }
            other => panic!("{other:?} is not the case"),
        }
    }

    fn check_what_if(&self, id: u64, explained: &Explanation) -> usize {
        let (asked, queue, _) = self.asked(id);
        let promised = self.planner.promises().any(|one| one.job != JobId(id));
        for what_if in &explained.what_if {
            match what_if {
                WhatIf::Pods { pods, instead_of } => {
                    assert_eq!(*instead_of, asked.pods);
                    assert!(self.can_start(id, *pods, queue, asked.in_rack), "not with {pods} pods");
                    if !promised && self.scenario.policy != "strict-fifo" && pods + 1 < asked.pods {
                        assert!(
                            !self.can_start(id, pods + 1, queue, asked.in_rack),
                            "more than {pods} would do"
                        );
                    }
                }
                WhatIf::Level { level, .. } => {
                    assert!(asked.in_rack && *level == 0);
                    assert!(self.can_start(id, asked.pods, queue, false), "not over racks either");
                }
                WhatIf::Queue(other) => {
                    let other = self.leaves.iter().position(|leaf| leaf == other).unwrap();
                    assert!(self.can_start(id, asked.pods, other, asked.in_rack), "not in queue {other}");
                }
                WhatIf::Ends { job, at } => {
                    let started = explained.expected.unwrap();
                    assert_eq!(started.at, *at);
                    let ends = self.running.get(&job.0).map(|(_, ends)| *ends);
                    assert!(ends.is_none_or(|ends| ends == at.0), "{job} ends at {ends:?}");
                }
                WhatIf::AnyArrangement => panic!("nothing is arranged"),
            }
        }
        explained.what_if.len()
    }

    /// When each waiting job starts under first come, first served with whole nodes, by counting.
    fn naive_starts(&self) -> BTreeMap<u64, i64> {
        let mut naive = self.naive.clone();
        let mut running: Vec<(i64, u64)> = self.running.iter().map(|(id, (_, ends))| (*ends, *id)).collect();
        let mut free = naive.free.iter().filter(|free| **free == GPUS).count() as u32;
        let mut waiting = self.waiting.clone();
        let mut starts = BTreeMap::new();
        let mut now = self.now;
        loop {
            let mut blocked = Vec::new();
            waiting.retain(|id| {
                let (asked, queue, gpus) = self.asked(*id);
                let stopped = self.scenario.policy == "strict-fifo" && blocked.contains(&queue);
                if stopped || asked.pods > free || !naive.quota_allows(queue, gpus) {
                    blocked.push(queue);
                    return true;
                }
                free -= asked.pods;
                naive.used[queue] += gpus;
                running.push((now + asked.runs, *id));
                starts.insert(*id, now);
                false
            });
            let Some(next) = running.iter().map(|(ends, _)| *ends).min() else { return starts };
            now = next;
            running.retain(|(ends, id)| {
                if *ends <= now {
                    let (asked, queue, gpus) = self.asked(*id);
                    free += asked.pods;
                    naive.used[queue] -= gpus;
                }
                *ends > now
            });
        }
    }

    /// When each waiting job truly starts, were the planner asked at every event and jobs ran `factor` tenths of
    /// their limit.
    fn true_starts(&self, tenths: impl Fn(u64) -> i64) -> BTreeMap<u64, i64> {
        let (mut planner, mut space) = (self.planner.clone(), self.space.clone());
        let length = |id: u64| (self.scenario.jobs[id as usize].runs * tenths(id) / 10).max(1);
        let mut ends: BTreeMap<u64, i64> = self
            .running
            .iter()
            .map(|(id, (_, ends))| {
                (*id, (ends - self.scenario.jobs[*id as usize].runs + length(*id)).max(self.now + 1))
            })
            .collect();
        let mut starts = BTreeMap::new();
        let mut now = self.now;
        loop {
            let plan = planner.cycle(Time(now), &space);
            planner.commit(&plan, &mut space, Time(now)).unwrap();
            for start in &plan.start {
                starts.insert(start.job.0, now);
                ends.insert(start.job.0, now + length(start.job.0));
            }
            let Some(next) = ends.values().min().copied() else { return starts };
            now = next;
            let ended: Vec<u64> = ends.iter().filter(|(_, ends)| **ends <= now).map(|(id, _)| *id).collect();
            for id in ended {
                let hold = Arc::clone(&planner.running().find(|job| job.job.id == JobId(id)).unwrap().hold);
                space.give_back_slots(&hold.form.demand, &hold.slots);
                planner.ended(JobId(id), Time(now)).unwrap();
                ends.remove(&id);
            }
        }
    }
}

#[test]
fn reasons_times_and_counterfactuals_are_true() {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 1500, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let counts = std::cell::RefCell::new((0usize, 0usize, 0usize, Vec::<i64>::new()));
    let result = runner.run(&scenario(), |scenario| {
        let world = world(&scenario);
        assert_eq!(world.tree.queues().count(), scenario.queues.len() + 1);
        let naive = (scenario.whole && scenario.policy.ends_with("fifo")).then(|| world.naive_starts());
        let exact = world.true_starts(|_| 10);
        let early = world.true_starts(|id| 5 + (id as i64 * 7) % 6);
        let mut outlook = world.planner.outlook(Time(world.now), &world.space);
        for id in &world.waiting {
            let explained = outlook.explain(JobId(*id)).unwrap();
            world.check_reason(*id, &explained);
            let checked = world.check_what_if(*id, &explained);
            let expected = explained.expected.map(|expected| expected.at.0);
            assert_eq!(expected, exact.get(id).copied(), "job {id} under {}", scenario.policy);
            if let Some(naive) = &naive {
                assert_eq!(expected, naive.get(id).copied(), "job {id} by counting");
            }
            let mut counts = counts.borrow_mut();
            counts.0 += 1;
            counts.1 += checked;
            counts.2 += usize::from(naive.is_some());
            if let (Some(expected), Some(came)) = (expected, early.get(id)) {
                counts.3.push(came - expected);
            }
        }
        Ok(())
    });
    let (jobs, what_ifs, counted, mut errors) = counts.into_inner();
    result.unwrap();
    errors.sort_unstable();
    let at = |part: usize| errors[(errors.len() - 1) * part / 100];
    eprintln!(
        "{jobs} waiting jobs, {what_ifs} counterfactuals true, {counted} times confirmed by counting; with jobs that \
         run 50 to 100 % of their limits the start is off by {} / {} / {} / {} / {} ms at p1/p10/p50/p90/p99",
        at(1),
        at(10),
        at(50),
        at(90),
        at(99)
    );
    assert!(jobs > 1000 && what_ifs > 1000 && counted > 200);
}
