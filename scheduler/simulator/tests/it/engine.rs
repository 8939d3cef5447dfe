//! What happens when, checked by hand.

use muster_scheduler_core::GpuDemand;
use muster_scheduler_queue::time::Time;
use muster_scheduler_simulator::engine::{Options, simulate};
use muster_scheduler_simulator::failures::Failures;
use muster_scheduler_simulator::generate::gangs::{self, GangMix, LeafSpine, like_openb};
use muster_scheduler_simulator::generate::pod;
use muster_scheduler_simulator::report::Report;
use muster_scheduler_simulator::scheduler::NAMES;
use muster_scheduler_simulator::workload::Workload;

use crate::{job, workload};

fn run(workload: &Workload, policy: &str) -> Report {
    simulate(workload, policy, Options::default()).unwrap()
}

/// The wait of the only job of a class, in seconds.
fn wait(report: &Report, class: &str) -> i64 {
    report.class(class).unwrap().waits.max / 1000
}

/// 4 GPUs: a leaves one free, b needs all, c is short enough to go before b, d is not.
fn backfill() -> Workload {
    let jobs =
        vec![job("a", 0, 10, 1, 3), job("b", 1, 10, 1, 4), job("c", 2, 5, 1, 1), job("d", 3, 20, 1, 1)];
    workload(&[4], jobs)
}

#[test]
fn nobody_goes_before_the_first_in_line() {
    let report = run(&backfill(), "fifo");
    assert_eq!(["a", "b", "c", "d"].map(|class| wait(&report, class)), [0, 9, 18, 17]);
    assert_eq!((report.makespan, report.ended), (40_000, 4));
}

#[test]
fn whoever_fits_goes_first_and_delays_the_large_job() {
    for policy in ["best-effort-fifo", "best-fit", "volcano-tier", "kueue-tas", "fgd", "random"] {
        let report = run(&backfill(), policy);
        // c runs from 2 to 7, d from 7 to 27, then b.
        assert_eq!(["b", "c", "d"].map(|class| wait(&report, class)), [26, 0, 4], "{policy}");
        assert_eq!(report.makespan, 37_000, "{policy}");
    }
}

#[test]
fn short_jobs_go_before_the_large_one_without_delaying_it() {
    for policy in ["easy", "conservative"] {
        let report = run(&backfill(), policy);
        assert_eq!(["b", "c", "d"].map(|class| wait(&report, class)), [9, 0, 17], "{policy}");
    }
}

#[test]
fn use_is_counted_until_the_last_submission() {
    let report = run(&workload(&[2, 2], vec![job("a", 0, 4, 1, 2), job("b", 8, 4, 2, 2)]), "fifo");
    // Half the GPUs for half of the eight seconds; b is counted when it comes no more.
    assert!((report.utilisation - 0.25).abs() < 1e-9, "{}", report.utilisation);
    assert_eq!(report.makespan, 12_000);
}

#[test]
fn gangs_start_whole_or_not_at_all() {
    // Two gangs of three pods on four GPUs: never two and one.
    let report = run(&workload(&[2, 2], vec![job("a", 0, 10, 3, 1), job("b", 0, 10, 3, 1)]), "best-fit");
    assert_eq!((wait(&report, "a"), wait(&report, "b"), report.partial_gangs), (0, 10, 0));
}

#[test]
fn shares_of_one_gpu_are_given_to_several() {
    let shared = |name| {
        let mut shared = job(name, 0, 10, 1, 0);
        shared.roles[0].pod = pod(1000, 0, GpuDemand::Share(400));
        shared
    };
    let three = workload(&[1], vec![shared("a"), shared("b"), shared("c")]);
    for policy in ["muster", "best-fit", "fgd"] {
        let report = run(&three, policy);
        assert_eq!(["a", "b", "c"].map(|class| wait(&report, class)), [0, 0, 10], "{policy}");
        assert_eq!(report.partial_gangs, 0, "{policy}");
    }
}

#[test]
fn jobs_outlive_their_nodes() {
    let mut jobs: Vec<_> = (0..40).map(|index| job("a", index * 3_600, 8 * 3_600, 2, 4)).collect();
    jobs.iter_mut().step_by(2).for_each(|job| job.checkpoint_every = Some(600_000));
    let workload = workload(&[8; 6], jobs);
    let failures = Some(Failures { mean_hours: 30.0, shape: 0.9, repair_hours: 1.0 });
    for policy in ["muster", "easy", "kueue-tas"] {
        let options = Options { failures, ..Options::default() };
        let report = simulate(&workload, policy, options).unwrap();
        assert_eq!((report.ended, report.partial_gangs), (40, 0), "{policy}");
        assert!(report.stopped > 0, "{policy}");
        assert_eq!(same(&report), same(&simulate(&workload, policy, options).unwrap()), "{policy}");
    }
}

/// All but how long decisions took.
fn same(report: &Report) -> Report {
    Report { deciding: std::time::Duration::ZERO, ..report.clone() }
}

fn gangs(jobs: usize) -> Workload {
    let cluster =
        LeafSpine { nodes_per_leaf: 4, leaves_per_spine: 3, ..LeafSpine::default() }.over(like_openb(48));
    let mix = GangMix { jobs, ..GangMix::default() };
    gangs::workload(cluster, &mix, 11)
}

#[test]
fn every_policy_ends_all_that_fits_and_starts_no_partial_gang() {
    let workload = gangs(120);
    let gpus = i64::from(workload.cluster.gpus()) * 1000;
    assert!(workload.jobs.iter().any(|job| job.pods() > 8 && job.gpus() <= gpus));
    for policy in NAMES {
        let report = run(&workload, policy);
        assert_eq!(report.partial_gangs, 0, "{policy}");
        if !policy.contains("fifo") || policy == "best-effort-fifo" {
            assert!(report.ended >= 100, "{policy}: {}", report.ended);
        }
        assert_eq!(same(&report), same(&run(&workload, policy)), "{policy}: the same again");
    }
}

#[test]
fn an_unknown_policy_or_queue_is_named() {
    let mut workload = backfill();
    let error = simulate(&workload, "fastest", Options::default()).unwrap_err().to_string();
    assert!(error.starts_with("policy \"fastest\" is unknown; known are fifo"), "{error}");
    workload.jobs[1].queue = "elsewhere".to_owned();
    let error = simulate(&workload, "easy", Options::default()).unwrap_err().to_string();
    assert_eq!(error, "job b: queue \"elsewhere\" does not exist");
    workload.jobs.clear();
    let report = run(&workload, "easy");
    assert_eq!((report.jobs, report.makespan, report.waits.max), (0, 0, Time(0).0));
}
