//! The main job and the embedded cluster below it: one module an experiment.

mod api;
mod build;
mod gang;
mod job;
mod pods;
mod up;

use std::time::Duration;

use crate::area::{Measurement, Settings};
use crate::figure::{Bar, Limit};

const fn bar(name: &'static str, unit: &'static str, limit: Limit) -> Bar {
    Bar { area: "main", name, unit, limit }
}

const fn always(_: &Settings) -> bool {
    true
}

/// All of them, the quick ones first.
pub(crate) const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        bars: &[bar("up-ready", "s", Limit::AtMost(0.5)), bar("idle-memory", "MB", Limit::AtMost(80.0))],
        deadline: Duration::from_mins(2),
        run: |settings| Box::pin(up::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("job-time", "s", Limit::AtMost(60.0)), bar("job-accuracy", "", Limit::AtLeast(0.95))],
        deadline: Duration::from_mins(4),
        run: |settings| Box::pin(job::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("gang-running-p50", "ms", Limit::AtMost(300.0))],
        deadline: Duration::from_mins(5),
        run: |settings| Box::pin(gang::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("pods-succeeded", "/s", Limit::AtLeast(100.0))],
        deadline: Duration::from_mins(3),
        run: |settings| Box::pin(pods::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[
            bar("api-creates", "/s", Limit::AtLeast(3000.0)),
            bar("api-watch-p99", "ms", Limit::AtMost(10.0)),
            bar("api-list-10000", "ms", Limit::AtMost(100.0)),
        ],
        deadline: Duration::from_mins(3),
        run: |settings| Box::pin(api::measure(settings)),
        is_wanted: always,
    },
    Measurement {
        bars: &[bar("release-build", "s", Limit::None)],
        deadline: Duration::from_hours(1),
        run: |settings| Box::pin(build::measure(settings)),
        is_wanted: |settings| settings.with_build,
    },
];
