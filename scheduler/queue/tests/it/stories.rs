//! Small situations with an outcome that one can work out by hand.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_scheduler_queue::calendar::{Purpose, Window};
use muster_scheduler_queue::estimate::Basis;
use muster_scheduler_queue::explain::{Reason, Told, WhatIf};
use muster_scheduler_queue::job::{Gate, Job, JobId, Restart};
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::{Policy, Preemption};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{QueueSpec, QueueTree, Quota};

use crate::cluster::{cluster, cohort, demand, form, gpu, job};
use crate::drive::{Arrival, Drive};

fn named(name: &str) -> Policy {
    Policy::named(name).unwrap()
}

/// Two nodes of 8; the first job has one, the second needs both, the third one for a short while.
fn three(policy: &str, third_runs: i64) -> Vec<i64> {
    let mut space = cluster(2, 8, 2);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut arrivals = Vec::new();
    for (id, (pods, runs)) in [(1, 100), (2, 50), (1, third_runs)].into_iter().enumerate() {
        let form = form(&mut space, &tree, pods, 8);
        let job = Job { limit: Some(runs), ..job(id as u64, id as i64, queue, form) };
        arrivals.push(Arrival { job, runs });
    }
    let outcome = Drive::new(Planner::new(named(policy), tree), space).run(arrivals, |_, _, _, _| {});
    outcome.started.values().map(|at| at.0).collect()
}

#[test]
fn policies_differ_in_who_passes_whom() {
    assert_eq!(three("strict-fifo", 90), [0, 100, 150], "the second blocks the third");
    assert_eq!(three("fifo", 90), [0, 100, 150]);
    assert_eq!(three("best-effort-fifo", 500), [0, 502, 2], "the third starves the second");
    assert_eq!(three("easy", 90), [0, 100, 2], "the third is done in time");
    assert_eq!(three("easy", 99), [0, 100, 150], "the third would delay the second");
    assert_eq!(three("conservative", 98), [0, 100, 2]);
    assert_eq!(three("muster", 99), [0, 101, 2], "the second waits a little for the sake of the third");
}

#[test]
fn a_window_of_maintenance_is_kept_free_and_waited_for() {
    let mut space = cluster(2, 8, 2);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(named("muster"), tree.clone());
    let node = space.id("node-0000").unwrap();
    let window = Window {
        name: "disks".into(),
        begins: Time(100),
        lasts: 50,
        every: None,
        until: None,
        nodes: BTreeSet::from([node]),
        purpose: Purpose::Maintenance,
    };
    planner.calendar().add(window).unwrap();
    let both = form(&mut space, &tree, 2, 8);
    let one = form(&mut space, &tree, 1, 8);
    let jobs = [(both.clone(), 99), (both, 60), (one, 40)];
    let arrivals = jobs.into_iter().enumerate().map(|(id, (form, runs))| {
        let job = Job { limit: Some(runs), ..job(id as u64, id as i64, queue, form) };
        Arrival { job, runs }
    });
    let outcome = Drive::new(planner, space).run(arrivals.collect(), |_, _, _, _| {});
    let started: Vec<i64> = outcome.started.values().map(|at| at.0).collect();
    assert_eq!(started, [0, 150, 99], "the second waits for the end of the window, the third runs beside it");
}

#[test]
fn an_advance_reservation_is_for_those_who_name_it() {
    let mut space = cluster(1, 8, 1);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(named("muster"), tree.clone());
    let nodes = BTreeSet::from([space.id("node-0000").unwrap()]);
    let window = Window {
        name: "course".into(),
        begins: Time(10),
        lasts: 100,
        every: None,
        until: None,
        nodes,
        purpose: Purpose::Reserved("course".into()),
    };
    planner.calendar().add(window).unwrap();
    let form = form(&mut space, &tree, 1, 4);
    let other = Job { limit: Some(20), ..job(1, 0, queue, form.clone()) };
    let student = Job { limit: Some(20), reservation: Some("course".into()), ..job(2, 11, queue, form) };
    let arrivals = [other, student].map(|job| Arrival { job, runs: 20 });
    let outcome = Drive::new(planner, space).run(arrivals.to_vec(), |_, _, _, _| {});
    assert_eq!(outcome.started[&JobId(1)], Time(110), "it would have run into the window");
    assert_eq!(outcome.started[&JobId(2)], Time(11));
}

#[test]
fn nodes_for_a_reservation_are_those_that_will_be_free() {
    let mut space = cluster(3, 8, 3);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(named("easy"), tree.clone());
    for (id, limit) in [(0, 100), (1, 50), (2, 400)] {
        let whole = form(&mut space, &tree, 1, 8);
        planner.submit(Job { limit: Some(limit), ..job(id, id as i64, queue, whole) }).unwrap();
    }
    let plan = planner.cycle(Time(3), &space);
    planner.commit(&plan, &mut space, Time(3)).unwrap();
    let two = demand(&mut space, 2, 8, 0);
    let last = plan.start[2].hold.slots.0[0].node;
    let nodes = planner.nodes_for(&two, Time(200), 50, Time(3), &space).unwrap();
    assert!(nodes.len() == 2 && !nodes.contains(&last), "{nodes:?}");
    assert_eq!(planner.nodes_for(&two, Time(80), 50, Time(3), &space), None);
}

#[test]
fn what_was_lent_is_taken_back_from_whole_jobs_with_the_least_loss() {
    let mut space = cluster(4, 8, 2);
    let tree = cohort(&["a", "b"], 16);
    let (a, b) = (tree.queue("a").unwrap(), tree.queue("b").unwrap());
    let rules = Preemption { min_runtime: 0, not_within: 0, ..Preemption::default() };
    let policy = Policy { preemption: Some(rules), ..named("muster") };
    let mut planner = Planner::new(policy, tree.clone());
    // Queue a has borrowed all of b's: four jobs of a node each, the last of them started last.
    for id in 0..4 {
        let form = form(&mut space, &tree, 1, 8);
        planner.submit(Job { limit: Some(10_000), ..job(id, id as i64, a, form) }).unwrap();
        let plan = planner.cycle(Time(id as i64 * 100), &space);
        assert_eq!(plan.start.len(), 1);
        planner.commit(&plan, &mut space, Time(id as i64 * 100)).unwrap();
    }
    let form_b = form(&mut space, &tree, 2, 8);
    planner.submit(Job { limit: Some(10_000), ..job(9, 500, b, form_b) }).unwrap();
    let plan = planner.cycle(Time(500), &space);
    assert_eq!(plan.preempt.len(), 1);
    assert_eq!(plan.preempt[0].victims, [JobId(3), JobId(2)], "those that ran the shortest");
    for id in [JobId(3), JobId(2)] {
        let hold = planner.running().find(|running| running.job.id == id).unwrap().hold.clone();
        space.give_back_slots(&hold.form.demand, &hold.slots);
        planner.evicted(id, Time(510)).unwrap();
    }
    let plan = planner.cycle(Time(510), &space);
    let started: Vec<JobId> = plan.start.iter().map(|start| start.job).collect();
    assert_eq!(started, [JobId(9)], "nobody else takes what was freed for it");
    assert!(plan.preempt.is_empty());
}

#[test]
fn two_jobs_do_not_evict_each_other_in_turns() {
    let mut space = cluster(1, 8, 1);
    let tree = cohort(&["a", "b"], 4);
    let rules = Preemption { min_runtime: 0, not_within: 0, most_evictions: 100, ..Preemption::default() };
    let policy = Policy { preemption: Some(rules), ..named("muster") };
    let mut arrivals = Vec::new();
    for (id, name) in ["a", "b", "a", "b"].into_iter().enumerate() {
        let queue = tree.queue(name).unwrap();
        let form = form(&mut space, &tree, 1, 8);
        let job =
            Job { limit: Some(1000), priority: id as i64 % 2, ..job(id as u64, id as i64 * 10, queue, form) };
        arrivals.push(Arrival { job, runs: 1000 });
    }
    let outcome = Drive::new(Planner::new(policy, tree), space).run(arrivals, |_, _, _, _| {});
    assert_eq!(outcome.ended.len(), 4);
    assert!(outcome.evictions <= 4, "{} evictions", outcome.evictions);
}

#[test]
fn reasons_are_named() {
    let mut space = cluster(2, 8, 2);
    let tree = cohort(&["a", "b"], 8);
    let (a, b) = (tree.queue("a").unwrap(), tree.queue("b").unwrap());
    let mut planner = Planner::new(named("easy"), tree.clone());
    let whole = form(&mut space, &tree, 1, 8);
    let quarter = form(&mut space, &tree, 1, 4);
    let hurried = |id, queue, form, limit| Job { limit: Some(limit), ..job(id, id as i64, queue, form) };
    planner.submit(hurried(0, a, whole.clone(), 100)).unwrap();
    let plan = planner.cycle(Time(0), &space);
    planner.commit(&plan, &mut space, Time(0)).unwrap();
    let both = form(&mut space, &tree, 2, 8);
    planner.submit(hurried(1, a, both, 100)).unwrap();
    planner.submit(hurried(2, b, quarter.clone(), 200)).unwrap();
    let mut gated = hurried(3, b, whole.clone(), 1);
    gated.gate = Gate::Members { present: 1, needed: 2 };
    planner.submit(gated).unwrap();
    let huge = form(&mut space, &tree, 3, 8);
    planner.submit(hurried(4, b, huge, 1)).unwrap();
    let said = |id| {
        let explained = planner.explain(JobId(id), Time(10), &space).unwrap();
        (Told(&planner, &explained.reason).to_string(), explained)
    };
    let quota = "queue a has too little quota for nvidia.com/gpu: needs 16, 0 of its own free, 8 to borrow";
    let (sentence, first) = said(1);
    assert_eq!((sentence.as_str(), first.place), (quota, 1));
    let expected = first.expected.unwrap();
    assert_eq!((expected.at, expected.basis, expected.after), (Time(100), Basis::Declared, Some(JobId(0))));
    assert!(first.what_if.contains(&WhatIf::Ends { job: JobId(0), at: Time(100) }));
    assert!(first.what_if.contains(&WhatIf::Pods { pods: 1, instead_of: 2 }), "{:?}", first.what_if);
    let (sentence, second) = said(2);
    assert_eq!(sentence, "it would delay job-1, to which the room is promised");
    assert_eq!(second.reason, Reason::Promised { to: JobId(1), from: Time(100) });
    assert_eq!(said(3).0, "1 of 2 pods exist");
    let (sentence, never) = said(4);
    assert!(sentence.ends_with("it could never have more than 16"), "{sentence}");
    assert_eq!(never.expected, None);
}

#[test]
fn a_gang_that_only_a_wider_level_holds_is_told_so() {
    let mut space = cluster(4, 8, 2);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(named("muster"), tree.clone());
    for node in [0, 2] {
        let mut taken = form(&mut space, &tree, 1, 8);
        taken.demand.near = vec![space.id(&format!("node-000{node}")).unwrap()];
        planner.submit(Job { limit: Some(500), ..job(node, 0, queue, taken) }).unwrap();
    }
    let plan = planner.cycle(Time(0), &space);
    planner.commit(&plan, &mut space, Time(0)).unwrap();
    let mut near = form(&mut space, &tree, 2, 8);
    let level = space.map().level_named("rack").unwrap();
    near.demand = demand(&mut space, 2, 8, level);
    let movable = Job { limit: Some(100), ..job(7, 1, queue, near) };
    planner.submit(movable).unwrap();
    let explained = planner.explain(JobId(7), Time(1), &space).unwrap();
    assert_eq!(explained.reason, Reason::Scattered);
    assert!(explained.what_if.contains(&WhatIf::Level { level: 0, instead_of: level }), "{explained:?}");
}

#[test]
fn the_cheapest_moves_make_room() {
    let mut space = cluster(2, 8, 2);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(named("muster"), tree.clone());
    let restart = Restart { checkpoint_every: Some(60), movable: true, never: false };
    // A job of 4 on each node, and one of 8 that fits nowhere.
    for (id, node) in [(0, "node-0000"), (1, "node-0001")] {
        let mut half = form(&mut space, &tree, 1, 4);
        half.demand.near = vec![space.id(node).unwrap()];
        planner.submit(Job { limit: Some(500), restart, ..job(id, 0, queue, half) }).unwrap();
        let plan = planner.cycle(Time(id as i64 * 10), &space);
        planner.commit(&plan, &mut space, Time(id as i64 * 10)).unwrap();
    }
    let whole = form(&mut space, &tree, 1, 8);
    planner.submit(Job { limit: Some(100), ..job(5, 20, queue, whole) }).unwrap();
    assert!(planner.cycle(Time(65), &space).start.is_empty());
    let proposal = planner.consolidate(JobId(5), Time(65), &space, 1).unwrap();
    assert_eq!(proposal.moves.len(), 1);
    assert_eq!(proposal.moves[0].job, JobId(0), "it has just written a checkpoint");
    assert_eq!(proposal.loss, (5 + 1) * 4000);
    let mut proved = space.clone();
    let old = planner.running().find(|running| running.job.id == JobId(0)).unwrap().hold.clone();
    proved.give_back_slots(&old.form.demand, &old.slots);
    for hold in [&proposal.moves[0].hold, &proposal.hold] {
        proved.take_slots(&hold.form.demand, &hold.slots);
    }
    assert!(proved.nodes().all(|(id, _)| proved.room(id).devices.thousandths() <= 8000));
    let nodes: Vec<_> = proposal.hold.slots.0.iter().map(|slot| slot.node).collect();
    assert_eq!(nodes, old.slots.0.iter().map(|slot| slot.node).collect::<Vec<_>>());
}

#[test]
fn without_estimates_no_time_is_promised_to_people() {
    let mut space = cluster(1, 8, 1);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(named("easy"), tree.clone());
    let whole = form(&mut space, &tree, 1, 8);
    planner.submit(job(0, 0, queue, whole.clone())).unwrap();
    let plan = planner.cycle(Time(0), &space);
    planner.commit(&plan, &mut space, Time(0)).unwrap();
    planner
        .submit(Job { forms: Arc::from([whole]), ..job(1, 0, queue, plan.start[0].hold.form.clone()) })
        .unwrap();
    let plan = planner.cycle(Time(1), &space);
    assert_eq!(plan.reserve.len(), 1);
    assert_eq!(plan.reserve[0].basis, Basis::Supposed);
    let expected = planner.explain(JobId(1), Time(1), &space).unwrap().expected.unwrap();
    assert_eq!(expected.known(), None);
}

#[test]
fn what_is_hopeless_in_one_queue_is_not_in_another() {
    let mut space = cluster(2, 8, 2);
    let quota = |borrowing| Quota { nominal: 8000, borrowing_limit: borrowing, lending_limit: None };
    let below = |name: &str, borrowing| QueueSpec::new(name).below("all").with_quota(gpu(), quota(borrowing));
    let tree = QueueTree::build(vec![QueueSpec::new("all"), below("a", Some(0)), below("b", None)]).unwrap();
    let (a, b) = (tree.queue("a").unwrap(), tree.queue("b").unwrap());
    let mut planner = Planner::new(named("easy"), tree.clone());
    let (whole, both) = (form(&mut space, &tree, 1, 8), form(&mut space, &tree, 2, 8));
    planner.submit(Job { limit: Some(100), ..job(0, 0, b, whole) }).unwrap();
    let plan = planner.cycle(Time(0), &space);
    planner.commit(&plan, &mut space, Time(0)).unwrap();
    for (id, queue) in [(1, a), (2, b)] {
        planner.submit(Job { limit: Some(100), ..job(id, id as i64, queue, both.clone()) }).unwrap();
    }
    let promised: Vec<JobId> =
        planner.cycle(Time(2), &space).reserve.iter().map(|promise| promise.job).collect();
    assert_eq!(promised, [JobId(2)]);
}

#[test]
fn a_long_line_of_promises_moves_forward_in_a_few_cycles() {
    let mut space = cluster(1, 8, 1);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let whole = form(&mut space, &tree, 1, 8);
    let mut planner = Planner::new(named("conservative"), tree);
    for id in 0..=20 {
        let limit = if id == 0 { 1000 } else { 10 };
        planner.submit(Job { limit: Some(limit), ..job(id, 0, queue, whole.clone()) }).unwrap();
    }
    let plan = planner.cycle(Time(0), &space);
    planner.commit(&plan, &mut space, Time(0)).unwrap();
    let promised = |planner: &Planner| planner.promises().map(|promise| promise.from.0).collect::<Vec<_>>();
    assert_eq!(promised(&planner), (0..20).map(|place| 1000 + 10 * place).collect::<Vec<_>>());

    let hold = planner.running().next().unwrap().hold.clone();
    space.give_back_slots(&hold.form.demand, &hold.slots);
    planner.ended(JobId(0), Time(100)).unwrap();
    for now in 100..103 {
        let plan = planner.cycle(Time(now), &space);
        planner.commit(&plan, &mut space, Time(now)).unwrap();
        if now == 100 {
            assert_eq!(plan.start[0].job, JobId(1));
            assert_eq!(promised(&planner).last(), Some(&1190), "one cycle does not look at all of them");
        }
    }
    assert_eq!(promised(&planner), (0..19).map(|place| 110 + 10 * place).collect::<Vec<_>>());
}
