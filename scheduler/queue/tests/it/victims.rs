//! The choice of victims against the best there is, found by trying all sets of them.

use muster_scheduler_queue::job::Job;
use muster_scheduler_queue::planner::Planner;
use muster_scheduler_queue::policy::{Policy, Preemption};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::QueueTree;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::cluster::{cluster, form, job};

const NODES: usize = 4;

/// The least loss of a set of jobs whose eviction leaves room for the pods. Jobs are (GPUs by node, loss).
fn best(jobs: &[([u32; NODES], i64)], pods: u32, gpus: u32) -> Option<i64> {
    let sets = (0..1u32 << jobs.len()).filter_map(|set| {
        let mut free = [8u32; NODES];
        let mut loss = 0;
        for (index, (taken, lost)) in jobs.iter().enumerate() {
            if set >> index & 1 == 1 {
                loss += lost;
            } else {
                free.iter_mut().zip(taken).for_each(|(free, taken)| *free -= taken);
            }
        }
        let fit: u32 = free.iter().map(|free| free / gpus).sum();
        (fit >= pods).then_some(loss)
    });
    sets.min()
}

#[test]
fn hardly_more_is_lost_than_must_be() {
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let sizes = prop::sample::select(vec![1u32, 2, 4, 8]);
    let running = prop::collection::vec((1..3u32, sizes.clone(), 1..40i64), 3..12);
    let ratios = std::cell::RefCell::new(Vec::<f64>::new());
    let result = runner.run(&(running, 1..4u32, sizes), |(running, pods, gpus)| {
        let mut space = cluster(NODES, 8, 2);
        let tree = QueueTree::unlimited("all");
        let queue = tree.queue("all").unwrap();
        let rules = Preemption { min_runtime: 0, not_within: 0, ..Preemption::default() };
        // Whoever waits for nearer places evicts nobody.
        let policy = Policy { preemption: Some(rules), nearness: None, ..Policy::named("muster").unwrap() };
        let mut planner = Planner::new(policy, tree.clone());
        let mut now = 0;
        for (id, (pods, gpus, pause)) in running.iter().enumerate() {
            let form = form(&mut space, &tree, *pods, *gpus);
            planner.submit(Job { limit: Some(1_000_000), ..job(id as u64, now, queue, form) }).unwrap();
            let plan = planner.cycle(Time(now), &space);
            planner.commit(&plan, &mut space, Time(now)).unwrap();
            now += pause;
        }
        let form = form(&mut space, &tree, pods, gpus);
        planner.submit(Job { limit: Some(1000), priority: 1, ..job(99, now, queue, form) }).unwrap();
        let plan = planner.cycle(Time(now), &space);
        if !plan.start.is_empty() {
            return Ok(());
        }
        let jobs: Vec<([u32; NODES], i64)> = planner
            .running()
            .map(|running| {
                let mut taken = [0; NODES];
                for slot in &running.hold.slots.0 {
                    taken[slot.node.index()] += slot.devices.len() as u32;
                }
                (taken, running.loss(Time(now)))
            })
            .collect();
        let least = best(&jobs, pods, gpus);
        prop_assert_eq!(least.is_some(), !plan.preempt.is_empty(), "somebody could be evicted for it");
        if let (Some(least), Some(chosen)) = (least, plan.preempt.first()) {
            prop_assert!(chosen.loss >= least);
            ratios.borrow_mut().push(chosen.loss as f64 / least.max(1) as f64);
        }
        Ok(())
    });
    result.unwrap();
    let mut ratios = ratios.into_inner();
    ratios.sort_by(f64::total_cmp);
    let best = ratios.iter().filter(|ratio| **ratio < 1.000_001).count();
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    eprintln!(
        "{} evictions: {best} the best there is, {:.3} of its loss in the mean, {:.3} at p95, {:.3} at the most",
        ratios.len(),
        mean,
        ratios[ratios.len() * 95 / 100],
        ratios[ratios.len() - 1]
    );
    assert!(ratios.len() > 100 && mean < 1.1);
}
