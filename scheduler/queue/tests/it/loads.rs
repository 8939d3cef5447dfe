//! Loads of the size that clusters have.

use std::time::Instant;

use muster_scheduler_core::Space;
use muster_scheduler_queue::job::{Form, Job};
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{FlavorResource, QueueSpec, QueueTree, Quota};

use crate::cluster::{cluster, form, job};
use crate::drive::{Arrival, Drive, Outcome};

/// Kueue's performance generators: cohorts of queues that may borrow all the others' quota; per queue
/// (count, interval, run time, priority, processors).
struct Generator {
    cohorts: usize,
    queues: usize,
    classes: [(i64, i64, i64, i64, i64); 3],
}

const BASELINE: Generator = Generator {
    cohorts: 5,
    queues: 6,
    classes: [(350, 100, 200, 50, 1), (100, 500, 500, 100, 5), (50, 1200, 1000, 200, 20)],
};

const LARGE: Generator = Generator {
    cohorts: 10,
    queues: 100,
    classes: [(35, 60, 150, 50, 1), (11, 300, 350, 100, 5), (4, 700, 700, 200, 20)],
};

fn kueue(generator: &Generator) -> (QueueTree, Space, Vec<Arrival>) {
    let cpu = FlavorResource::new("", "cpu");
    let mut specs = Vec::new();
    for cohort in 0..generator.cohorts {
        specs.push(QueueSpec::new(format!("cohort-{cohort}")));
        for queue in 0..generator.queues {
            let quota = Quota { nominal: 20_000, borrowing_limit: Some(100_000), lending_limit: None };
            let spec = QueueSpec::new(format!("cq-{cohort}-{queue}")).below(format!("cohort-{cohort}"));
            specs.push(spec.with_quota(cpu.clone(), quota));
        }
    }
    let tree = QueueTree::build(specs).unwrap();
    // Quota is all that limits: one node larger than all quota together.
    let mut space = cluster(1, 0, 1);
    let shape = space.shape(&muster_scheduler_core::Member::default());
    let mut arrivals = Vec::new();
    for queue in tree.queues().filter(|queue| tree.parent(*queue).is_some()) {
        for (count, interval, runs, priority, processors) in generator.classes {
            let groups = vec![muster_scheduler_core::Group { shape: shape.clone(), count: 1 }];
            let demand = muster_scheduler_core::Demand { groups, ..muster_scheduler_core::Demand::default() };
            let form =
                Form { label: String::new(), demand, charge: tree.charge([(&cpu, processors * 1000)]) };
            for index in 0..count {
                let id = arrivals.len() as u64;
                let job = Job { priority, ..job(id, (index + 1) * interval, queue, form.clone()) };
                arrivals.push(Arrival { job, runs });
            }
        }
    }
    (tree, space, arrivals)
}

fn replay(policy: &str, generator: &Generator) -> (Outcome, f64) {
    let (tree, space, arrivals) = kueue(generator);
    let began = Instant::now();
    let outcome =
        Drive::new(Planner::new(Policy::named(policy).unwrap(), tree), space).run(arrivals, |_, _, _, _| {});
    (outcome, began.elapsed().as_secs_f64())
}

#[test]
fn kueues_baseline_is_done_soon_after_the_least_time_possible() {
    for policy in ["muster", "best-effort-fifo"] {
        let (outcome, took) = replay(policy, &BASELINE);
        eprintln!(
            "{policy}: makespan {} cycles {} evictions {} took {took:.2} s",
            outcome.last, outcome.cycles, outcome.evictions
        );
        assert_eq!(outcome.ended.len(), 15_000);
        assert!(outcome.last.0 <= 80_000, "{policy}: makespan {}", outcome.last);
    }
}

#[test]
fn a_thousand_queues_are_decided_quickly() {
    let (outcome, took) = replay("muster", &LARGE);
    eprintln!(
        "makespan {} cycles {} took {took:.2} s: {:.0} a second",
        outcome.last,
        outcome.cycles,
        50_000.0 / took
    );
    assert_eq!(outcome.ended.len(), 50_000);
}

/// Thousands of jobs run, thousands wait, every one with a run time of its own.
#[test]
fn a_cycle_over_thousands_of_jobs_takes_milliseconds() {
    let mut space = cluster(1000, 8, 16);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let mut planner = Planner::new(Policy::named("muster").unwrap(), tree.clone());
    let sizes = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (16, 8), (200, 8)];
    for id in 0..8000u64 {
        let (pods, gpus) = sizes[(id * 7919 % 29 % 7) as usize];
        let limit = 60_000 + (id as i64 * 104_729) % 86_400_000;
        let form = form(&mut space, &tree, pods, gpus);
        planner.submit(Job { limit: Some(limit), ..job(id, id as i64, queue, form) }).unwrap();
    }
    let mut now = 10 * 3_600_000;
    let began = Instant::now();
    let plan = planner.cycle(Time(now), &space);
    planner.commit(&plan, &mut space, Time(now)).unwrap();
    let first = began.elapsed().as_secs_f64() * 1000.0;
    let mut cycles = Vec::new();
    for _ in 0..100 {
        // Somebody ends a little before it was supposed to.
        let next = planner.running().min_by_key(|running| (running.ends, running.job.id)).unwrap();
        let (id, hold) = (next.job.id, next.hold.clone());
        now = (next.ends.0 - 1).max(now + 1);
        space.give_back_slots(&hold.form.demand, &hold.slots);
        planner.ended(id, Time(now)).unwrap();
        let began = Instant::now();
        let plan = planner.cycle(Time(now), &space);
        cycles.push(began.elapsed().as_secs_f64() * 1000.0);
        planner.commit(&plan, &mut space, Time(now)).unwrap();
    }
    cycles.sort_by(f64::total_cmp);
    let (running, waiting) = (planner.running().count(), planner.waiting_count());
    eprintln!(
        "{running} running, {waiting} waiting: first cycle {first:.1} ms, then {:.2} ms in the median, {:.2} at the most",
        cycles[50], cycles[99]
    );
    assert!(running > 1000 && waiting > 3000);
    assert!(cycles[50] < 50.0, "{} ms", cycles[50]);
}
