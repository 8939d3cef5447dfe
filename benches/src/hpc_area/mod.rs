//! Batch runs and what people do around them: one module an experiment.

mod array;
mod mpi;
mod streams;
mod thousand;

use std::time::Duration;

use crate::area::{Measurement, Settings};
use crate::figure::{Bar, Limit};

const fn bar(name: &'static str, unit: &'static str, limit: Limit) -> Bar {
    Bar { area: "hpc", name, unit, limit }
}

const fn always(_: &Settings) -> bool {
    true
}

/// All of them, the quick ones first.
pub(crate) const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        bars: &[
            bar("exec-round-trip-p50", "ms", Limit::AtMost(10.0)),
            bar("log-line-p99", "ms", Limit::AtMost(50.0)),
        ],
        deadline: Duration::from_mins(2),
        run: |settings| Box::pin(streams::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("array-of-100", "s", Limit::AtMost(3.0))],
        deadline: Duration::from_mins(3),
        run: |settings| Box::pin(array::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("mpirun-hostname-sshd", "s", Limit::AtMost(2.0)),
            bar("mpirun-hostname-agent", "s", Limit::AtMost(1.0)),
        ],
        deadline: Duration::from_mins(10),
        run: |settings| Box::pin(mpi::hostname(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("mpirun-all-reduce-share", "", Limit::AtLeast(0.95))],
        deadline: Duration::from_mins(10),
        run: |settings| Box::pin(mpi::all_reduce(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("job-controller-time", "ms", Limit::AtMost(5.0)),
            bar("control-plane-memory", "MB", Limit::AtMost(150.0)),
        ],
        deadline: Duration::from_mins(5),
        run: |settings| Box::pin(thousand::measure(settings)),
        is_wanted: always,
    },
];
