//! Laws of the policies, on random loads.

use std::collections::BTreeMap;

use muster_scheduler_core::Space;
use muster_scheduler_queue::job::{Job, JobId};
use muster_scheduler_queue::planner::{Plan, Planner};
use muster_scheduler_queue::policy::{Policy, Preemption};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::QueueTree;
use proptest::prelude::*;

use crate::cluster::{cluster, cohort, form, job};
use crate::drive::{Arrival, Drive, Outcome};

/// (pods, GPUs a pod, run time, pause before it, queue, priority)
type Load = Vec<(u32, u32, i64, i64, usize, i64)>;

fn load(most: usize) -> impl Strategy<Value = Load> {
    let one = (1..6u32, prop::sample::select(vec![1u32, 2, 4, 8]), 1..80i64, 0..30i64, 0..2usize, 0..3i64);
    prop::collection::vec(one, 1..most)
}

const NODES: usize = 6;

fn arrivals(
    space: &mut Space,
    tree: &QueueTree,
    load: &Load,
    limit: impl Fn(i64) -> Option<i64>,
) -> Vec<Arrival> {
    let leaves: Vec<_> = tree.queues().filter(|queue| tree.children(*queue).is_empty()).collect();
    let mut at = 0;
    let jobs = load.iter().enumerate().map(|(id, (pods, gpus, runs, pause, queue, priority))| {
        at += pause;
        let form = form(space, tree, *pods, *gpus);
        let queue = leaves[queue % leaves.len()];
        let job = Job { limit: limit(*runs), priority: *priority, ..job(id as u64, at, queue, form) };
        Arrival { job, runs: *runs }
    });
    jobs.collect()
}

fn drive(
    policy: Policy,
    tree: &QueueTree,
    load: &Load,
    limit: impl Fn(i64) -> Option<i64>,
    watch: impl FnMut(&Planner, &Space, Time, &Plan),
) -> Outcome {
    let mut space = cluster(NODES, 8, 3);
    let arrivals = arrivals(&mut space, tree, load, limit);
    Drive::new(Planner::new(policy, tree.clone()), space).run(arrivals, watch)
}

fn named(name: &str) -> Policy {
    Policy::named(name).unwrap()
}

/// No node has more taken than it has, no queue uses more than it may.
fn sound(planner: &Planner, space: &Space, plan: &Plan) {
    let mut space = space.clone();
    for start in &plan.start {
        for slot in &start.hold.slots.0 {
            let shape = &start.hold.form.demand.groups[slot.group].shape;
            assert!(shape.times_in(space.room(slot.node)) > 0, "{} has no room", start.job);
            let free = space.room(slot.node).devices.left();
            assert!(
                slot.devices.iter().all(|device| free[usize::from(*device)] == 1000),
                "a device is taken twice"
            );
            space.take(slot.node, shape, &slot.devices);
        }
        assert_eq!(start.hold.slots.0.len(), start.hold.form.pods() as usize, "not the whole gang");
    }
    let mut tree = planner.tree().clone();
    for start in &plan.start {
        assert!(tree.admits(start.hold.queue, &start.hold.form.charge), "over quota");
        tree.add(start.hold.queue, &start.hold.form.charge);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_starts_and_nothing_is_given_twice(load in load(40), policy in prop::sample::select(
        muster_scheduler_queue::policy::NAMES.to_vec()), factor in prop::sample::select(vec![0, 1, 2, 10])) {
        let tree = cohort(&["a", "b"], 24);
        let limit = |runs: i64| (factor > 0).then_some(runs * factor);
        let outcome = drive(named(policy), &tree, &load, limit, |planner, space, _, plan| sound(planner, space, plan));
        prop_assert_eq!(outcome.ended.len(), load.len());
    }

    #[test]
    fn the_same_input_gives_the_same_plan(load in load(30)) {
        let tree = cohort(&["a", "b"], 24);
        let record = || {
            let mut plans = Vec::new();
            drive(named("muster"), &tree, &load, Some, |_, _, now, plan| plans.push((now, plan.clone())));
            plans
        };
        prop_assert_eq!(record(), record());
    }

    /// With exact run times, a promise is never broken: not of the first in line (EASY), not of anybody
    /// (conservative).
    #[test]
    fn promises_are_kept_when_estimates_are_exact(load in load(40), policy in prop::sample::select(
        vec!["easy", "conservative"]), quota in any::<bool>()) {
        let tree = if quota { cohort(&["a", "b"], 24) } else { QueueTree::unlimited("all") };
        let policy = Policy { by_priority: false, ..named(policy) };
        let mut promised: BTreeMap<JobId, Time> = BTreeMap::new();
        let outcome = drive(policy, &tree, &load, Some, |_, _, _, plan| {
            for promise in &plan.reserve {
                let first = *promised.entry(promise.job).or_insert(promise.from);
                assert!(promise.from <= first, "{} slipped from {first} to {}", promise.job, promise.from);
                promised.insert(promise.job, promise.from);
            }
        });
        for (job, at) in promised {
            prop_assert!(outcome.started[&job] <= at, "{} was promised {} and got {}", job, at, outcome.started[&job]);
        }
    }

    /// Whoever is evicted is evicted for a job that then starts, and sparing any of them would prevent it.
    #[test]
    fn nobody_is_evicted_in_vain(load in load(30)) {
        let tree = cohort(&["a", "b"], 24);
        let rules = Preemption { min_runtime: 0, not_within: 0, ..Preemption::default() };
        let policy = Policy { preemption: Some(rules), ..named("muster") };
        drive(policy, &tree, &load, Some, |planner, space, now, plan| {
            let started_without = |victims: &[JobId]| -> Vec<JobId> {
                let (mut after, mut space) = (planner.clone(), space.clone());
                after.commit(plan, &mut space, now).unwrap();
                for victim in victims {
                    let hold = planner.running().find(|one| one.job.id == *victim).unwrap().hold.clone();
                    space.give_back_slots(&hold.form.demand, &hold.slots);
                    after.evicted(*victim, now).unwrap();
                }
                after.cycle(now, &space).start.iter().map(|start| start.job).collect()
            };
            // The victims of a plan go together, and what they leave is dealt out in the order of the line: not every
            // job starts where its own victims were.
            let all: Vec<JobId> = plan.preempt.iter().flat_map(|one| one.victims.clone()).collect();
            let started = started_without(&all);
            for (index, preempt) in plan.preempt.iter().enumerate() {
                assert!(started.contains(&preempt.job), "{} does not start", preempt.job);
                // Evictions are planned one after the other: each may build on those before.
                let before = plan.preempt[..index].iter().flat_map(|one| one.victims.clone());
                let before: Vec<JobId> = before.collect();
                for spared in &preempt.victims {
                    let fewer = preempt.victims.iter().copied().filter(|one| one != spared);
                    let fewer: Vec<JobId> = before.iter().copied().chain(fewer).collect();
                    assert!(!started_without(&fewer).contains(&preempt.job), "{spared} need not have gone");
                }
                let priority = planner.waiting(preempt.job).unwrap().priority;
                for victim in planner.running().filter(|one| preempt.victims.contains(&one.job.id)) {
                    let queue = planner.waiting(preempt.job).unwrap().queue;
                    assert!(victim.job.queue != queue || victim.job.priority < priority);
                }
            }
        });
    }

    /// Nobody who could start without delaying a promise is left waiting.
    #[test]
    fn no_room_stays_idle_that_somebody_may_use(load in load(30), policy in prop::sample::select(
        vec!["best-effort-fifo", "easy", "conservative", "muster"])) {
        let tree = cohort(&["a", "b"], 24);
        drive(named(policy), &tree, &load, Some, |planner, space, now, plan| {
            let mut after = planner.clone();
            let mut space = space.clone();
            after.commit(plan, &mut space, now).unwrap();
            let again = after.cycle(now, &space);
            assert!(again.start.is_empty(), "{:?} could have started before", again.start[0].job);
        });
    }
}

/// A gang that needs the whole cluster, in a stream of small jobs that never lets it be empty.
#[test]
fn nobody_starves_behind_an_endless_stream() {
    for (policy, factor) in [("easy", 1), ("conservative", 1), ("muster", 1), ("muster", 10), ("muster", 0)] {
        let mut load: Load = (0..1600).map(|_| (1, 4, 50, 5, 0, 0)).collect();
        load[20] = (6, 8, 100, 5, 0, 0);
        let limit = |runs: i64| (factor > 0).then_some(runs * factor);
        let outcome = drive(named(policy), &QueueTree::unlimited("all"), &load, limit, |_, _, _, _| {});
        let waited = outcome.started[&JobId(20)].0 - 105;
        // Under muster its turn comes after 15 times its run time, and half as much is slack.
        let most = if policy == "muster" { 3000 } else { 600 };
        assert!(waited < most, "{policy} x{factor}: the huge gang waited {waited}");
    }
}
