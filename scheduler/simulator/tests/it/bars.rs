//! The bars in small, and on the real traces where they are at hand.

use std::path::PathBuf;

use muster_scheduler_simulator::bars::{
    BACKFILL_POLICIES, Openb, b1, b2, b3, b4, gang_optimum, gang_workload,
};
use muster_scheduler_simulator::generate::gangs::GangMix;
use muster_scheduler_simulator::generate::mixed;
use muster_scheduler_simulator::report::Report;

/// The folder of traces, unless it is not at hand.
fn traces() -> Option<PathBuf> {
    let shared =
        std::env::var_os("MUSTER_SHARED").map(|shared| PathBuf::from(shared).join("upstream/traces"));
    if shared.is_none() {
        eprintln!("skipped: MUSTER_SHARED is not set, so the published traces are not at hand");
    }
    shared
}

#[test]
fn the_fill_value_beats_what_was_published() {
    let Some(folder) = traces() else { return };
    let openb = Openb::read(&folder).unwrap();
    for row in b1(&openb, &["default", "gpushare100", "gpuspec25"], &["muster"], 1) {
        assert!(!row.made && row.at_130 > row.published.unwrap() + 0.1, "{row:?}");
        assert!(row.at_130 < row.bound && row.bound <= 100.0, "{row:?}");
    }
    for row in b1(&openb, &["default"], &["random", "dot-product", "best-fit"], 1) {
        assert!((row.at_130 - row.published.unwrap()).abs() < 0.8, "{row:?}");
    }
}

#[test]
fn kueues_generators_end_soon_after_the_last_arrival() {
    let Some(folder) = traces() else { return };
    for (name, bar) in [("baseline", 80.0), ("tas", 85.0)] {
        let yaml = fs_err::read_to_string(folder.join(format!("kueue/{name}-generator.yaml"))).unwrap();
        let figures = b3(name, &yaml, "muster").unwrap();
        assert_eq!((figures.report.ended, figures.report.jobs), (15_000, 15_000));
        assert!(
            figures.bound > 60.0 && figures.makespan >= figures.bound && figures.makespan < bar,
            "{}",
            figures.makespan
        );
    }
}

#[test]
fn gangs_are_compared_with_every_baseline() {
    let mix = GangMix { jobs: 60, ..GangMix::default() };
    let figures = b2(&gang_workload(None, &mix, 1), 1).unwrap();
    assert_eq!((figures.reports.len(), figures.partial_gangs), (6, 0));
    assert!(figures.reports.iter().all(|report| report.ended == 60 && report.gangs.gangs > 10));
    assert!(figures.all_reduce_ratio > 0.5);
}

#[test]
fn no_placement_is_better_than_the_optimum() {
    let rows = gang_optimum(40, 1).unwrap();
    assert_eq!(rows, gang_optimum(40, 1).unwrap());
    for row in rows {
        assert!(
            row.gangs >= 20 && row.mean_ratio >= 1.0 - 1e-9 && row.worst_ratio >= row.mean_ratio,
            "{row:?}"
        );
    }
}

#[test]
fn backfill_is_compared_with_both_fifos() {
    let workload = mixed::workload("mixed", mixed::small_jobs(150, 3), &mixed::HugeGangs::default(), 7);
    let figures = b4(&workload, Some(2.0), &BACKFILL_POLICIES).unwrap();
    assert_eq!(figures.reports.len(), 6);
    assert!(
        figures.reports.iter().all(|report| report.ended == workload.jobs.len() && report.partial_gangs == 0)
    );
    let easy = figures.reports.iter().find(|report| report.policy == "easy").unwrap();
    let mean = |report: &Report| report.class("small").unwrap().waits.mean;
    let least = figures.least_small_wait_ratio * mean(&figures.reports[2]).max(1.0);
    assert!(least <= mean(easy), "nobody is below what can be: {least}");
    assert!(figures.huge_wait_ratio.is_finite() && figures.small_wait_ratio.is_finite());
}
