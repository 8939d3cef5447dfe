//! Backfill against its baselines on a load like those of GPU clusters: many small jobs with run times over
//! several orders of magnitude, and a few gangs that need a large part of the cluster.

use std::fmt::Write as _;
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

pub(crate) struct Mix {
    pub(crate) nodes: usize,
    pub(crate) jobs: usize,
    pub(crate) load: f64,
    pub(crate) seed: u64,
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
pub(crate) struct Figures {
    pub(crate) huge_max: f64,
    pub(crate) huge_mean: f64,
    pub(crate) small_mean: f64,
    /// Part of the GPUs in use until the last arrival.
    pub(crate) busy: f64,
    pub(crate) makespan: f64,
    pub(crate) evictions: usize,
    pub(crate) cycle_ms: f64,
}

pub(crate) fn measure(mix: &Mix, policy: Policy, factor: i64) -> Figures {
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
        makespan: outcome.last.0 as f64 / 3_600_000.0,
        evictions: outcome.evictions,
        cycle_ms: took / outcome.cycles as f64,
    }
}

fn table(mix: &Mix) -> String {
    let mut text = String::new();
    for factor in [1, 2, 10, 0] {
        for name in ["strict-fifo", "best-effort-fifo", "easy", "conservative", "muster"] {
            if factor != 1 && name.ends_with("fifo") {
                continue;
            }
            let f = measure(mix, Policy::named(name).unwrap(), factor);
            writeln!(
                text,
                "x{factor:<2} {name:<16} huge max {:7.1} mean {:7.1}  small mean {:7.2} min  busy {:.3}  makespan {:.1} h  evictions {}  {:.2} ms a cycle",
                f.huge_max, f.huge_mean, f.small_mean, f.busy, f.makespan, f.evictions, f.cycle_ms
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn backfill_serves_both_the_huge_and_the_small() {
    for load in [0.7, 0.9] {
        let mix = Mix { nodes: 32, jobs: 1000, load, seed: 7 };
        eprintln!("load {load}\n{}", table(&mix));
    }
}

#[test]
fn explore() {
    use muster_scheduler_queue::policy::{Blocked, Due, Weights};
    let base = Policy { preemption: None, ..Policy::named("muster").unwrap() };
    let w = |light: f64| Weights { light, ..Weights::default() };
    let r = |depth, percent, slack_percent| Policy { blocked: Blocked::Reserves { depth }, weights: w(20.0), due: (percent > 0).then_some(Due { percent, most: 4 * 3_600_000 }), slack_percent, ..base };
    let variants: Vec<(String, Policy)> = vec![
        ("1-0-0".into(), r(1, 0, 0)),
        ("1-0-25".into(), r(1, 0, 25)),
        ("1-0-50".into(), r(1, 0, 50)),
        ("1-0-100".into(), r(1, 0, 100)),
        ("1-400-0".into(), r(1, 400, 0)),
        ("1-400-25".into(), r(1, 400, 25)),
        ("1-400-50".into(), r(1, 400, 50)),
        ("1-800-25".into(), r(1, 800, 25)),
    ];
    let seeds = 7..15;
    for load in [0.7, 0.9] {
        let run = |policy: Policy, factor| -> Vec<Figures> { seeds.clone().map(|seed| measure(&Mix { nodes: 32, jobs: 1000, load, seed }, policy, factor)).collect() };
        let strict = run(Policy::named("strict-fifo").unwrap(), 1);
        let be = run(Policy::named("best-effort-fifo").unwrap(), 1);
        let show = |name: &str, factor: i64, all: &[Figures]| {
            let mean = |f: fn(&Figures) -> f64| all.iter().map(f).sum::<f64>() / all.len() as f64;
            let count = |f: &dyn Fn(usize) -> bool| (0..all.len()).filter(|i| f(*i)).count();
            let a = count(&|i| all[i].huge_max <= strict[i].huge_max);
            let b = count(&|i| all[i].small_mean <= 1.1 * be[i].small_mean);
            let c = count(&|i| all[i].busy >= be[i].busy.max(strict[i].busy) - 1e-9);
            eprintln!("load {load} x{factor:<2} {name:<12} hugemax {:7.1} ({a}) mean {:7.1} small {:6.2} ({b}) busy {:6.2} ({c}) cyc {:.2}", mean(|f| f.huge_max), mean(|f| f.huge_mean), mean(|f| f.small_mean), 100.0 * mean(|f| f.busy), mean(|f| f.cycle_ms));
        };
        show("strict", 1, &strict);
        show("be", 1, &be);
        for factor in [1, 0] {
            for (name, policy) in &variants {
                show(name, factor, &run(*policy, factor));
            }
        }
    }
}
