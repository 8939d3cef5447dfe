//! The fragmentation benchmark on clusters small enough to work out by hand.

use std::fmt::Write as _;

use muster_scheduler_core::GpuDemand;
use muster_scheduler_simulator::engine::{Options, simulate};
use muster_scheduler_simulator::openb::{
    self, Baseline, POLICIES, Pod, Trace, VARIANTS, Variant, arrivals, machines, pods, upper_bound, variant,
};

/// Pods by processors (thousandths), GPUs and thousandths of each, and model.
fn trace(nodes: &[(u32, u32, &str)], list: &[(u32, u32, u32, &str)]) -> Trace {
    let mut csv = "sn,cpu_milli,memory_mib,gpu,model\n".to_owned();
    for (index, (processor, gpus, model)) in nodes.iter().enumerate() {
        writeln!(csv, "n{index},{processor},100000,{gpus},{model}").unwrap();
    }
    let mut trace = machines(csv.as_bytes()).unwrap();
    let mut csv =
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n".to_owned();
    for (index, (processor, gpus, milli, spec)) in list.iter().enumerate() {
        writeln!(csv, "p{index},{processor},1,{gpus},{milli},{spec},{index},{}", index + 100).unwrap();
    }
    trace.pods = pods(csv.as_bytes(), &trace.models).unwrap();
    trace
}

fn in_order(trace: &Trace) -> Vec<&Pod> {
    trace.pods.iter().collect()
}

#[test]
fn whatever_the_policy_what_fits_is_placed() {
    // 300 + 700 and 400 + 600 thousandths on two devices, then one too many.
    let list = [(1, 1, 700, ""), (1, 1, 600, ""), (1, 1, 300, ""), (1, 1, 400, ""), (1, 1, 100, "")];
    let trace = trace(&[(64, 2, "G2")], &list);
    for policy in POLICIES {
        let run = openb::run(&trace, &in_order(&trace), Baseline::named(policy), 1);
        assert_eq!(run.pods, 5, "{policy}");
        let given = run.given_at(200.0);
        // Packing policies fill both devices; the others may leave the 400 out and take the 100.
        assert!((80.0..=100.0).contains(&given), "{policy}: {given}");
        if policy == "best-fit" || policy == "gpu-packing" {
            assert!((given - 100.0).abs() < 1e-9 && run.dropped == 1, "{policy}: {given}");
        }
    }
}

#[test]
fn a_model_binds_every_policy() {
    let trace =
        trace(&[(64, 1, "T4"), (64, 1, "G2")], &[(1, 1, 1000, "G2"), (1, 1, 1000, "G2"), (1, 1, 500, "")]);
    for policy in POLICIES {
        let run = openb::run(&trace, &in_order(&trace), Baseline::named(policy), 1);
        assert!((run.given_at(200.0) - 75.0).abs() < 1e-9 && run.dropped == 1, "{policy}");
    }
}

#[test]
fn the_bound_is_never_below_what_a_policy_reaches() {
    let list: Vec<(u32, u32, u32, &str)> = (0..60)
        .map(|index| match index % 4 {
            0 => (4000, 1, 810, ""),
            1 => (2000, 1, 470, ""),
            2 => (12_000, 1, 1000, ""),
            _ => (1000, 1, 160, ""),
        })
        .collect();
    let trace = trace(&[(96_000, 8, "G2"), (16_000, 4, "T4"), (32_000, 4, "T4")], &list);
    for seed in 0..5 {
        let coming = arrivals(&trace, 1.3, seed);
        let bound = upper_bound(&trace, &coming);
        assert!(bound <= 100.0);
        for policy in POLICIES {
            let given = openb::run(&trace, &coming, Baseline::named(policy), seed).given_at(130.0);
            assert!(given <= bound + 1e-6, "{policy} gives {given}, above {bound}");
        }
    }
    // Only 810s: at most one on each device.
    let only = self::trace(&[(96_000, 8, "G2")], &[(1000, 1, 810, ""); 20]);
    assert!((upper_bound(&only, &in_order(&only)) - 81.0).abs() < 0.5);
}

#[test]
fn variants_have_their_proportions() {
    let mut list = vec![(4000, 1, 1000, ""); 500];
    list.extend([(2000, 1, 500, ""); 300]);
    list.extend([(8000, 8, 1000, ""); 20]);
    list.extend([(8000, 0, 0, ""); 100]);
    let trace = trace(&[(96_000, 8, "G2"), (16_000, 2, "T4")], &list);
    let demand = |pods: &[Pod], counts: fn(&Pod) -> bool| -> f64 {
        pods.iter().filter(|pod| counts(pod)).map(|pod| f64::from(pod.want.gpu.thousandths())).sum()
    };
    for (name, kind) in VARIANTS {
        let pods = variant(&trace, kind, 1);
        let all = demand(&pods, |_| true);
        let share = match kind {
            Variant::Default => continue,
            Variant::ProcessorOnly(_) => {
                pods.iter().filter(|pod| pod.want.gpu == GpuDemand::None).count() as f64 / pods.len() as f64
            }
            Variant::Sharing(_) => demand(&pods, |pod| matches!(pod.want.gpu, GpuDemand::Share(_))) / all,
            Variant::SeveralGpus(_) => demand(&pods, |pod| pod.want.gpu.thousandths() > 1000) / all,
            Variant::Models(_) => {
                let bound = |pod: &&Pod| !(pod.want.classes.contains(0) && pod.want.classes.contains(1));
                pods.iter().filter(bound).count() as f64 / 820.0
            }
        };
        let expected = match kind {
            Variant::ProcessorOnly(thousandths) => f64::from(thousandths) / 1000.0,
            Variant::Sharing(per_cent) | Variant::SeveralGpus(per_cent) | Variant::Models(per_cent) => {
                f64::from(per_cent) / 100.0
            }
            Variant::Default => 0.0,
        };
        assert!((share - expected).abs() < 0.06, "{name}: {share} instead of {expected}");
        assert_eq!(pods, variant(&trace, kind, 1), "{name}");
    }
}

#[test]
fn a_trace_runs_in_its_own_time_too() {
    let trace =
        trace(&[(64, 1, "T4"), (64, 1, "G2")], &[(1, 1, 1000, "G2"), (1, 1, 1000, "G2"), (1, 1, 500, "")]);
    let workload = openb::workload("small", &trace);
    assert_eq!(workload.jobs[1].runtime, 100_000);
    for policy in ["muster", "best-fit"] {
        let report = simulate(&workload, policy, Options::default()).unwrap();
        assert_eq!((report.ended, report.class("one-gpu").unwrap().waits.max), (3, 99_000), "{policy}");
        assert_eq!(report.class("shared").unwrap().waits.max, 0, "{policy}");
    }
}
