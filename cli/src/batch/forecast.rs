//! What the scheduler's own planner says of batch jobs that wait for a place.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use muster_batch_core::state::{Row, State};
use muster_scheduler_controller::picture;
use muster_scheduler_controller::planner::GangReport;

use crate::connect::Connection;

/// Forecasts by the names of pods.
#[derive(Debug, Default)]
pub(crate) struct Forecasts(HashMap<String, Forecast>);

/// What is expected of a job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Forecast {
    reason: &'static str,
    /// The same in a sentence.
    detail: Option<String>,
    /// When it starts, if that is known.
    start: Option<Timestamp>,
}

impl Forecast {
    /// Slurm's words: the first in line waits for resources, the others for those before them.
    fn of(report: &GangReport, now: Timestamp) -> Self {
        let reason = match report.place_in_line {
            _ if report.starts_now => "None",
            Some(1) | None => "Resources",
            Some(_) => "Priority",
        };
        let start = if report.starts_now { Some(now) } else { report.expected_start.map(|start| start.at) };
        Self { reason, detail: report.reason.clone(), start }
    }
}

impl Forecasts {
    /// Asks a planner that knows the cluster as it is now. Who may not read the whole cluster gets none, nor does anybody
    /// of pods that another scheduler places.
    pub(crate) async fn read(connection: &Connection, rows: &[Row], now: Timestamp) -> Self {
        let pods: Vec<&String> = rows.iter().filter_map(|row| row.unplaced.as_ref()).collect();
        if pods.is_empty() {
            return Self::default();
        }
        let Ok(mut planner) = picture::read(&connection.client).await else { return Self::default() };
        let gangs: HashMap<String, String> = pods
            .into_iter()
            .filter_map(|pod| Some((pod.clone(), planner.gang_name(&connection.namespace, pod)?)))
            .collect();
        planner.catch_up(now);
        let wanted: BTreeSet<(String, String)> =
            gangs.values().map(|gang| (connection.namespace.clone(), gang.clone())).collect();
        let reports: HashMap<String, Forecast> = planner
            .prospects(&wanted, now)
            .into_iter()
            .map(|prospect| (prospect.report.gang.clone(), Forecast::of(&prospect.report, now)))
            .collect();
        Self(gangs.into_iter().filter_map(|(pod, gang)| Some((pod, reports.get(&gang)?.clone()))).collect())
    }

    fn of(&self, row: &Row) -> Option<&Forecast> {
        self.0.get(row.unplaced.as_ref()?).filter(|_| row.state == State::Pending)
    }

    /// Tells a row the reason in more detail than its pods do.
    pub(crate) fn refine(&self, row: &mut Row) {
        if let Some(forecast) = self.of(row) {
            row.reason = Some(forecast.reason.to_owned());
        }
    }

    /// When a job that waits is expected to start.
    pub(crate) fn start(&self, row: &Row) -> Option<Timestamp> {
        self.of(row)?.start
    }

    /// Why it waits, in a sentence.
    pub(crate) fn detail(&self, row: &Row) -> Option<&str> {
        self.of(row)?.detail.as_deref()
    }
}
