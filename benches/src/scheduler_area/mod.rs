//! The scheduler: what it places, how well, how quickly, and that it loses nothing. Traces are read from
//! `MUSTER_SHARED`, the folder that also feeds the tests.

mod bindings;
mod scale;
mod simulations;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::area::{Measurement, Settings};
use crate::figure::{Bar, Limit};

const fn bar(name: &'static str, unit: &'static str, limit: Limit) -> Bar {
    Bar { area: "scheduler", name, unit, limit }
}

const fn always(_: &Settings) -> bool {
    true
}

/// Work without waiting for anything, off the runtime's threads.
async fn computed<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the measurement broke")?
}

/// All of them, the quick ones first.
pub(crate) const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        bars: &[
            bar("gang-of-3-of-3000", "ms", Limit::AtMost(0.37)),
            bar("gang-of-3-last-1000", "ms", Limit::AtMost(0.37)),
            bar("gang-of-10000", "s", Limit::AtMost(1.0)),
            bar("cold-start-140000-pods", "s", Limit::AtMost(5.0)),
            bar("node-change", "ms", Limit::AtMost(20.0)),
        ],
        deadline: Duration::from_mins(5),
        run: |_| Box::pin(computed(scale::measure)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("filter-5000-names-p99", "ms", Limit::AtMost(5.0)),
            bar("filter-5000-nodes-p99", "ms", Limit::None),
        ],
        deadline: Duration::from_mins(5),
        run: |_| Box::pin(computed(scale::filter)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("kueue-baseline", "s", Limit::AtMost(80.0)),
            bar("kueue-tas", "s", Limit::AtMost(85.0)),
            bar("kueue-large-scale", "/s", Limit::AtLeast(1000.0)),
        ],
        deadline: Duration::from_mins(5),
        run: |_| Box::pin(computed(simulations::kueue)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("bound-pods", "/s", Limit::AtLeast(1000.0))],
        deadline: Duration::from_mins(5),
        run: |settings| Box::pin(bindings::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("extender-violations", "", Limit::AtMost(0.0)),
            bar("binder-violations", "", Limit::AtMost(0.0)),
        ],
        deadline: Duration::from_mins(30),
        run: |_| Box::pin(computed(simulations::schedules)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("explain-false-statements", "", Limit::AtMost(0.0)),
            bar("explain-counterfactuals", "", Limit::None),
            bar("eta-error-p1", "%", Limit::None),
            bar("eta-error-p50", "%", Limit::None),
            bar("eta-error-p99", "%", Limit::None),
        ],
        deadline: Duration::from_mins(5),
        run: |_| Box::pin(computed(simulations::explanations)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("openb-mean-of-17", "%", Limit::AtLeast(94.7)),
            bar("openb-least-margin", "%", Limit::AtLeast(-0.1)),
            bar("openb-decision", "us", Limit::AtMost(50.0)),
        ],
        deadline: Duration::from_mins(30),
        run: |_| Box::pin(computed(simulations::openb)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("gangs-partial", "", Limit::AtMost(0.0)),
            bar("gangs-all-reduce", "x", Limit::AtLeast(1.3)),
            bar("gangs-crossings", "x", Limit::AtLeast(2.0)),
            bar("gangs-utilisation-gain", "%", Limit::AtLeast(0.0)),
            bar("gangs-worst-to-optimum", "x", Limit::None),
        ],
        deadline: Duration::from_mins(15),
        run: |_| Box::pin(computed(simulations::gangs)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("backfill-huge-wait", "x", Limit::AtMost(1.0)),
            bar("backfill-small-wait", "x", Limit::AtMost(simulations::SMALL_WAIT)),
            bar("backfill-utilisation", "%", Limit::AtLeast(0.0)),
            bar("backfill-gavel-huge-wait", "x", Limit::AtMost(1.0)),
            bar("backfill-gavel-small-wait", "x", Limit::AtMost(simulations::SMALL_WAIT)),
            bar("backfill-gavel-utilisation", "%", Limit::AtLeast(0.0)),
            bar("backfill-gavel-traces", "", Limit::None),
            bar("backfill-gavel-out-of-reach", "", Limit::None),
        ],
        deadline: Duration::from_mins(30),
        run: |_| Box::pin(computed(simulations::backfill)),
        is_wanted: always,
    },
];
