//! Backfill against its baselines on a load like those of GPU clusters: many small jobs with run times over
//! several orders of magnitude, and a few gangs that need a large part of the cluster.

use std::time::Instant;

use muster_scheduler_queue::job::Job;
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::tree::QueueTree;

use crate::cluster::{cluster, form, job};
use crate::drive::{Arrival, Drive};

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

struct Mix {
    nodes: usize,
    jobs: usize,
    load: f64,
    seed: u64,
}

/// (pods, GPUs a pod, run time in ms, arrival in ms)
fn draw(mix: &Mix) -> Vec<(u32, u32, i64, i64)> {
    let mut numbers = Numbers(mix.seed);
    let mut jobs = Vec::new();
    let mut work = 0.0;
    for index in 0..mix.jobs {
        let huge = index % 20 == 10;
        let (pods, gpus) = if huge {
            ((mix.nodes as f64 * (0.25 + 0.5 * numbers.next())) as u32, 8)
        } else {
            match numbers.next() {
                part if part < 0.6 => (1, 1),
                part if part < 0.7 => (1, 2),
                part if part < 0.82 => (1, 4),
                part if part < 0.95 => (1, 8),
                _ => (2, 8),
            }
        };
        let median = if huge { 1800.0 } else { 900.0 };
        let runs = (median * (1.5 * numbers.normal()).exp()).clamp(10.0, 200_000.0) * 1000.0;
        let runs = if huge { runs.min(7_200_000.0) } else { runs };
        work += f64::from(pods * gpus) * runs;
        jobs.push((pods, gpus, runs as i64, numbers.next()));
    }
    let span = work / (mix.nodes as f64 * 8.0) / mix.load;
    jobs.into_iter().map(|(pods, gpus, runs, at)| (pods, gpus, runs, (at * span) as i64)).collect()
}

#[derive(Debug, Clone, Copy)]
struct Figures {
    huge_max: f64,
    huge_mean: f64,
    small_mean: f64,
    /// Part of the GPUs in use until the last arrival.
    busy: f64,
    cycle_ms: f64,
}

fn measure(mix: &Mix, policy: Policy, factor: i64) -> Figures {
    let mut space = cluster(mix.nodes, 8, 8);
    let tree = QueueTree::unlimited("all");
    let queue = tree.queue("all").unwrap();
    let drawn = draw(mix);
    let mut arrivals = Vec::new();
    for (id, (pods, gpus, runs, at)) in drawn.iter().enumerate() {
        let mut job = job(id as u64, *at, queue, form(&mut space, &tree, *pods, *gpus));
        job = Job { limit: (factor > 0).then_some(runs * factor), ..job };
        job.name = format!("family-{}-{id}", pods * gpus);
        arrivals.push(Arrival { job, runs: *runs });
    }
    let until = drawn.iter().map(|job| job.3).max().unwrap();
    let began = Instant::now();
    let outcome = Drive::new(Planner::new(policy, tree), space).run(arrivals, |_, _, _, _| {});
    let took = began.elapsed().as_secs_f64() * 1000.0;
    assert_eq!(outcome.ended.len(), mix.jobs);
    let waits = |huge: bool| -> Vec<f64> {
        let of = drawn.iter().enumerate().filter(|(_, job)| (job.0 > 2) == huge);
        of.map(|(id, job)| {
            let id = muster_scheduler_queue::job::JobId(id as u64);
            (outcome.started[&id].0 - job.3) as f64 / 60_000.0
        })
        .collect()
    };
    let mean = |waits: &[f64]| waits.iter().sum::<f64>() / waits.len().max(1) as f64;
    let busy: f64 = drawn
        .iter()
        .enumerate()
        .map(|(id, (pods, gpus, runs, _))| {
            let start = outcome.started[&muster_scheduler_queue::job::JobId(id as u64)].0;
            let end = (start + runs).min(until);
            f64::from(pods * gpus) * (end - start).max(0) as f64
        })
        .sum();
    Figures {
        huge_max: waits(true).into_iter().fold(0.0, f64::max),
        huge_mean: mean(&waits(true)),
        small_mean: mean(&waits(false)),
        busy: busy / (mix.nodes as f64 * 8.0 * until as f64),
        cycle_ms: took / outcome.cycles as f64,
    }
}

fn mean(figures: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    figures.iter().map(figure).sum::<f64>() / figures.len() as f64
}

#[expect(clippy::print_stderr, reason = "the figures are worth reading")]
fn row(name: &str, figures: &[Figures]) {
    eprintln!(
        "{name:<24} huge gangs wait {:6.1} min at most, {:6.1} in the mean; small jobs {:6.2}; {:.2} % busy; {:.2} ms a cycle",
        mean(figures, |one| one.huge_max),
        mean(figures, |one| one.huge_mean),
        mean(figures, |one| one.small_mean),
        100.0 * mean(figures, |one| one.busy),
        mean(figures, |one| one.cycle_ms),
    );
}

/// Seeds that played no part in choosing the weights of the policy. The goals are narrower than what is asserted:
/// small jobs within 1.1 of best-effort-fifo, nothing less busy, and huge gangs before strict-fifo also without
/// estimates. They are met on some seeds and missed on others, so these bounds only catch a policy gone wrong.
#[test]
fn backfill_serves_both_the_huge_and_the_small() {
    for (load, factors) in [(0.7, vec![1, 0]), (0.9, vec![1, 10, 0])] {
        let run = |policy: &str, factor: i64| {
            let policy = Policy::named(policy).unwrap();
            let one = |seed| measure(&Mix { nodes: 32, jobs: 1000, load, seed }, policy, factor);
            (300..312).map(one).collect::<Vec<Figures>>()
        };
        let strict = run("strict-fifo", 1);
        let best_effort = run("best-effort-fifo", 1);
        row(&format!("load {load} strict-fifo"), &strict);
        row(&format!("load {load} best-effort-fifo"), &best_effort);
        for factor in factors {
            let muster = run("muster", factor);
            row(&format!("load {load} muster x{factor}"), &muster);
            let at_most = mean(&strict, |one| one.huge_max) * if factor == 0 { 1.25 } else { 1.0 };
            assert!(
                mean(&muster, |one| one.huge_max) <= at_most,
                "huge gangs wait longer than under strict-fifo"
            );
            let small = 1.6 * mean(&best_effort, |one| one.small_mean);
            assert!(mean(&muster, |one| one.small_mean) <= small, "small jobs pay for the huge ones");
            let busy = mean(&strict, |one| one.busy).max(mean(&best_effort, |one| one.busy));
            assert!(mean(&muster, |one| one.busy) >= busy - 0.01, "GPUs stay idle");
        }
    }
}
