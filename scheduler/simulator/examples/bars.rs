//! Prints the bars: `bars b1 FOLDER TRACES POLICIES SEEDS`, `bars b2 FOLDER SEED JOBS`, `bars b3 FILE POLICY`,
//! `bars simulate TRACE POLICIES FOLDER`, `bars optimum`,
//! `bars b4 FILE|- ESTIMATE [LOAD [POLICY]]`, `bars b8 SCENARIOS SEED`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
use std::path::Path;

use muster_scheduler_simulator::bars::{BACKFILL_POLICIES, Openb, b1, b2, b3, b4, gang_workload};
use muster_scheduler_simulator::catalogue;
use muster_scheduler_simulator::engine::{Options, simulate};
use muster_scheduler_simulator::generate::gangs::GangMix;
use muster_scheduler_simulator::generate::{gavel, mixed};
use muster_scheduler_simulator::oracle::b8;
use muster_scheduler_simulator::report::table;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args[0].as_str() {
        "b1" => {
            let openb = Openb::read(Path::new(&args[1])).unwrap();
            let traces: Vec<&str> = args[2].split(',').filter(|t| !t.is_empty()).collect();
            let policies: Vec<&str> = args[3].split(',').collect();
            let rows = b1(&openb, &traces, &policies, args[4].parse().unwrap());
            for policy in policies {
                let of: Vec<_> = rows.iter().filter(|row| row.policy == policy).collect();
                for r in &of {
                    let micros = r.decision.as_secs_f64() * 1e6;
                    println!(
                        "{policy:14} {:12} made={:5} {:.2} {:.2}±{:.2} pub {:?} bound {:.2} {micros:.1}us",
                        r.trace, r.made, r.at_100, r.at_130, r.deviation, r.published, r.bound
                    );
                }
                println!("{policy} mean {:.2}", of.iter().map(|r| r.at_130).sum::<f64>() / of.len() as f64);
            }
        }
        "b2" => {
            let openb = Openb::read(Path::new(&args[1])).ok();
            let mix = GangMix { jobs: args[3].parse().unwrap(), ..GangMix::default() };
            let trace = openb.as_ref().and_then(|openb| openb.trace("default"));
            let figures = b2(&gang_workload(trace, &mix, args[2].parse().unwrap()), 1).unwrap();
            println!("{}", table(&figures.reports));
            for r in &figures.reports {
                println!("{} decisions {} in {:?} {:?}", r.policy, r.decisions, r.deciding, r.gangs);
            }
            println!("alone {:?}", figures.alone);
            println!(
                "partial {} best {} all-reduce ×{:.3} crossings ×{:.3} utilisation {:+.2}",
                figures.partial_gangs,
                figures.best,
                figures.all_reduce_ratio,
                figures.crossings_ratio,
                figures.utilisation_gain
            );
        }
        "simulate" => {
            let workload = catalogue::load(&args[1], 1, Some(1.0)).unwrap();
            let run = |policy: &str| simulate(&workload, policy, Options::default()).unwrap();
            let reports: Vec<_> = args[2].split(',').map(run).collect();
            println!("{}{:?}", table(&reports), catalogue::write(&reports, Path::new(&args[3])).unwrap());
        }
        "optimum" => {
            for row in muster_scheduler_simulator::bars::gang_optimum(300, 1).unwrap() {
                println!("{row:?}");
            }
        }
        "b8" => {
            let figures = b8(args[1].parse().unwrap(), args[2].parse().unwrap()).unwrap();
            figures.false_statements.iter().for_each(|statement| println!("{statement}"));
            println!("{} jobs, {} counterfactuals", figures.jobs, figures.counterfactuals);
        }
        "b3" => {
            let figures = b3(&args[1], &std::fs::read_to_string(&args[1]).unwrap(), &args[2]).unwrap();
            println!("{}", table(std::slice::from_ref(&figures.report)));
            println!(
                "makespan {:.2} s, bound {:.2} s, {:.0} workloads/s, {} decisions",
                figures.makespan, figures.bound, figures.workloads_per_second, figures.report.decisions
            );
        }
        _ => {
            let small = if args[1] == "-" {
                mixed::small_jobs(2000, 3)
            } else {
                gavel::jobs(&std::fs::read_to_string(&args[1]).unwrap(), None).unwrap()
            };
            let load = args.get(3).map_or(mixed::HugeGangs::default().load, |load| load.parse().unwrap());
            let mix = mixed::HugeGangs { load, ..mixed::HugeGangs::default() };
            let workload = mixed::workload("mixed", small, &mix, 7);
            if let Some(policy) = args.get(4) {
                let mut workload = workload;
                let factor: Option<f64> = args[2].parse().ok();
                for job in &mut workload.jobs {
                    job.limit = factor.map(|factor| (job.runtime as f64 * factor) as i64);
                }
                let report =
                    simulate(&workload, policy, Options { network: false, ..Options::default() }).unwrap();
                println!(
                    "{}{} decisions in {:?}",
                    table(std::slice::from_ref(&report)),
                    report.decisions,
                    report.deciding
                );
                return;
            }
            let figures = b4(&workload, args[2].parse().ok(), &BACKFILL_POLICIES).unwrap();
            println!("{}", table(&figures.reports));
            for r in &figures.reports {
                println!("{} decisions {} in {:?}", r.policy, r.decisions, r.deciding);
            }
            println!(
                "huge ×{:.3} small ×{:.3} (no schedule below ×{:.3}) utilisation {:+.2}",
                figures.huge_wait_ratio,
                figures.small_wait_ratio,
                figures.least_small_wait_ratio,
                figures.utilisation_gain
            );
        }
    }
}
