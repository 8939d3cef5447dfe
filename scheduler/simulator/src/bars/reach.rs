//! What no schedule can do better, however well it knows the future: huge gangs that start in time cost small jobs waits.

use muster_scheduler_queue::time::{Milliseconds, Time};

use crate::workload::{Job, Workload};

/// A small job as it would run were it started when it comes.
struct Small {
    comes: Time,
    ends: Time,
    gpus: i64,
}

/// The least mean wait of small jobs, in milliseconds, if every huge gang starts within `longest` and nobody is
/// stopped.
///
/// A small job that has come by a moment, and would still run then had it started at once, runs at that moment
/// or starts after it. So when a gang begins, and when it ends, as many of these must wait until then as do not fit
/// beside it. The gang begins at whatever moment makes that cheapest; the dearest gang counts. Everything
/// else (other gangs, whole nodes, not knowing who comes) is left out, and parts of a job may wait: no schedule is below
/// this.
pub(super) fn least_small_wait(workload: &Workload, longest: Milliseconds) -> f64 {
    let of_class = |class: &'static str| workload.jobs.iter().filter(move |job| job.class == class);
    let mut small: Vec<Small> = of_class("small")
        .map(|job| Small { comes: job.submitted, ends: job.submitted + job.runtime, gpus: job.gpus() })
        .collect();
    small.sort_by_key(|job| job.comes);
    let mut changes: Vec<Time> = small.iter().flat_map(|job| [job.comes, job.ends]).collect();
    changes.sort_unstable();
    let all = i64::from(workload.cluster.gpus()) * 1000;
    let cost = |gang: &Job| cheapest(&small, &changes, gang, all - gang.gpus(), longest);
    of_class("huge").map(cost).fold(0.0, f64::max) / small.len().max(1) as f64
}

/// The waits together, in milliseconds, that a gang costs which leaves so much to others.
fn cheapest(small: &[Small], changes: &[Time], gang: &Job, left: i64, longest: Milliseconds) -> f64 {
    let (first, last) = (gang.submitted, gang.submitted + longest);
    let within = |from: Time, to: Time| {
        let range = changes.partition_point(|at| *at <= from)..changes.partition_point(|at| *at <= to);
        changes[range].iter().copied()
    };
    // Between changes the same jobs are in the way, and cost more the later the gang begins.
    let lasts = gang.runtime - 1;
    let begins = within(first, last).chain(within(first + lasts, last + lasts).map(|at| at - lasts));
    let mut least = f64::INFINITY;
    for at in std::iter::once(first).chain(begins) {
        let begin = waits(small, at, left);
        if begin < least {
            least = least.min(begin.max(waits(small, at + lasts, left)));
        }
        if least <= 0.0 {
            break;
        }
    }
    least
}

/// The least waits together, in milliseconds, with which those that run at a moment take no more than `left`.
fn waits(small: &[Small], at: Time, left: i64) -> f64 {
    let come = &small[..small.partition_point(|job| job.comes <= at)];
    let mut there: Vec<&Small> = come.iter().filter(|job| job.ends > at).collect();
    let mut over = there.iter().map(|job| job.gpus).sum::<i64>() - left;
    if over <= 0 {
        return 0.0;
    }
    let each = |job: &Small| at.since(job.comes) as f64 / job.gpus.max(1) as f64;
    there.sort_by(|left, right| each(left).total_cmp(&each(right)));
    let mut waits = 0.0;
    for job in there {
        let part = over.min(job.gpus);
        waits += each(job) * part as f64;
        over -= part;
        if over <= 0 {
            break;
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use muster_scheduler_core::GpuDemand;

    use super::*;
    use crate::generate::{node, pod};
    use crate::workload::{Cluster, Role};

    fn job(class: &str, comes: i64, runtime: i64, gpus: u32) -> Job {
        let roles = vec![Role { pod: pod(1000, 0, GpuDemand::Whole(gpus)), pods: 1 }];
        Job { class: class.into(), submitted: Time(comes), runtime, roles, ..Job::default() }
    }

    fn bound(jobs: Vec<Job>, longest: Milliseconds) -> f64 {
        let cluster = Cluster { nodes: vec![node("node".into(), 64_000, 0, 8)], ..Cluster::default() };
        least_small_wait(&Workload { cluster, jobs, ..Workload::default() }, longest)
    }

    #[test]
    fn a_gang_that_may_wait_costs_nothing() {
        let jobs = || vec![job("small", 0, 1000, 4), job("huge", 100, 500, 8)];
        assert!(bound(jobs(), 900) <= 0.0, "it begins when the small job has ended");
        assert!(bound(jobs(), 899) > 0.0);
    }

    #[test]
    fn the_cheapest_wait_until_the_gang_begins_and_until_it_ends() {
        // Both are there from 100 on; the later one has waited less when the gang begins.
        let jobs = vec![job("small", 0, 10_000, 4), job("small", 50, 10_000, 4), job("huge", 100, 200, 4)];
        assert!((bound(jobs, 0) - (299.0 - 50.0) / 2.0).abs() < 1e-9);
    }
}
