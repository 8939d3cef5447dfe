//! The trainer: all-reduce beside what others offer on the same machine, and beside what the network gives; steps of a
//! training on either tensor library, and beside PyTorch. One module an experiment.

mod all_reduce;
mod gpt_step;
mod install;
mod line_rate;
mod peer;
mod recovery;
mod torch_backend;

use std::time::Duration;

use crate::area::{Measurement, Settings};
use crate::figure::{Bar, Limit};

const fn bar(name: &'static str, unit: &'static str, limit: Limit) -> Bar {
    Bar { area: "trainer", name, unit, limit }
}

const fn times(name: &'static str, least: f64) -> Bar {
    bar(name, "x", Limit::AtLeast(least))
}

const fn always(_: &Settings) -> bool {
    true
}

/// All of them. Ratios are those of the worst size in their range.
pub(crate) const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        bars: &[
            times("registered-ompi-n2", 5.0),
            times("registered-gloo-n2", 12.0),
            times("registered-gloo-256mib-n2", 9.0),
            times("staged-ompi-n2", 1.0),
            times("staged-ompi-1mib-n2", 1.15),
            times("staged-ompi-64mib-n2", 2.0),
            times("staged-gloo-n2", 3.0),
            bar("bound-share-n2", "", Limit::AtLeast(0.8)),
            bar("latency-1kib-n2", "us", Limit::AtMost(1.0)),
        ],
        deadline: Duration::from_mins(40),
        run: |settings| Box::pin(all_reduce::between_two(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            times("registered-ompi-n4", 5.0),
            times("registered-gloo-n4", 12.0),
            times("registered-gloo-256mib-n4", 9.0),
            times("staged-ompi-n4", 1.0),
            times("staged-ompi-16kib-n4", 1.6),
            times("staged-gloo-n4", 3.0),
            bar("bound-share-n4", "", Limit::AtLeast(0.8)),
        ],
        deadline: Duration::from_hours(1),
        run: |settings| Box::pin(all_reduce::between_four(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("tcp-line-rate", "", Limit::AtLeast(0.9))],
        deadline: Duration::from_mins(10),
        run: |settings| Box::pin(line_rate::share(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[times("torch-all-reduce-gloo", 3.0)],
        deadline: Duration::from_mins(40),
        run: |settings| Box::pin(torch_backend::beside_gloo(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("torch-loss-difference", "", Limit::AtMost(1e-3)),
            bar("torch-collectives-hold", "", Limit::AtLeast(1.0)),
        ],
        deadline: Duration::from_mins(30),
        run: |settings| Box::pin(torch_backend::results(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("gpt-step-against-tch", "x", Limit::AtMost(2.0))],
        deadline: Duration::from_mins(40),
        run: |settings| Box::pin(gpt_step::of_libraries(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("ddp-step-against-torch", "x", Limit::AtMost(1.0 / 1.3)),
            bar("ddp-exposed-communication", "", Limit::AtMost(0.05)),
        ],
        deadline: Duration::from_mins(40),
        run: |settings| Box::pin(gpt_step::beside_torch(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("lost-rank-known", "ms", Limit::AtMost(100.0)),
            bar("lost-rank-continue", "s", Limit::AtMost(2.0)),
            bar("lost-rank-wait", "s", Limit::AtMost(5.0)),
            bar("lost-rank-steps", "", Limit::AtMost(1.0)),
            bar("lost-rank-equal-models", "", Limit::AtLeast(1.0)),
            bar("lost-rank-loss", "x", Limit::AtMost(1.1)),
        ],
        deadline: Duration::from_mins(30),
        run: |settings| Box::pin(recovery::random_kills(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("kill-loop-goodput", "", Limit::AtLeast(0.8)),
            bar("kill-loop-descriptors", "%", Limit::AtMost(0.0)),
            bar("kill-loop-memory", "%", Limit::AtMost(10.0)),
        ],
        deadline: Duration::from_mins(20),
        run: |settings| Box::pin(recovery::kill_loop(settings)),
        is_wanted: always,
    },
];
