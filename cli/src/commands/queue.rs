//! `muster queue`: batch jobs, as `squeue` shows them.

use std::collections::HashMap;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use muster_batch_core::state::{Row, State, rows};
use muster_batch_core::{Work, names};
use serde_json::{Value, json};

use crate::batch::{self, Forecasts};
use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::output::{self, DocumentFormat, Table};

/// Shows the batch jobs that run and wait
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster queue\n  muster queue --all             # those that ended, too\n  muster queue --user eve --states PD\n  muster queue --start           # when those that wait are expected to start\n  muster queue -o json\n\nStates: PD waits, R runs, CG is about to end, CD ended well, F failed, TO had no time left, CA was cancelled."
)]
pub(crate) struct Arguments {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    jobs: Vec<u64>,
    /// Those that ended, too
    #[arg(long, short)]
    all: bool,
    /// Only in these states, by their letters
    #[arg(long, short = 't', value_delimiter = ',', value_name = "STATES")]
    states: Vec<String>,
    /// Only those of this person
    #[arg(long, short, value_name = "NAME")]
    user: Option<String>,
    /// Only those of this queue
    #[arg(long, short, value_name = "QUEUE")]
    partition: Option<String>,
    /// Those that wait alone, with when they are expected to start where the scheduler knows it
    #[arg(long)]
    start: bool,
    /// For programs, instead of a table
    #[arg(long, short, value_enum)]
    output: Option<DocumentFormat>,
    /// No headings
    #[arg(long)]
    noheader: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = arguments.cluster.connect().await?;
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let numbered = ListParams::default().labels(names::ID);
    let pods = async { pods.list(&numbered).await.map_err(Error::from) };
    let (jobs, pods) = tokio::try_join!(batch::list(&connection), pods)?;
    let mut by_job: HashMap<&str, Vec<&Pod>> = HashMap::new();
    for pod in &pods.items {
        by_job.entry(pod.labels().get(names::ID).map_or("", String::as_str)).or_default().push(pod);
    }
    let own = |work: &Work| by_job.get(work.id()?.to_string().as_str()).cloned();
    let all = jobs.iter().flat_map(|work| rows(work, &own(work).unwrap_or_default()));
    let mut shown: Vec<Row> = all.filter(|row| arguments.wants(row)).collect();
    let now = Timestamp::now();
    let forecasts = Forecasts::read(&connection, &shown, now).await;
    for row in &mut shown {
        forecasts.refine(row);
    }
    // Those that wait first, as in Slurm's list; among them in the order of their numbers, or of their expected starts.
    let start = |row: &Row| forecasts.start(row).unwrap_or(Timestamp::MAX);
    shown.sort_by_key(|row| {
        let start = if arguments.start { start(row) } else { Timestamp::MAX };
        (row.state != State::Pending, row.state.is_over(), start, row.id)
    });
    if let Some(format) = arguments.output {
        return output::print(&output::document(&document(&shown, &forecasts), format.into())?);
    }
    let table = if arguments.start { starts(&shown, &forecasts) } else { table(&shown, now) };
    output::print(&table.render(!arguments.noheader))
}

impl Arguments {
    fn wants(&self, row: &Row) -> bool {
        let code = row.state.code();
        let state = match self.states.as_slice() {
            [] => self.all || !self.jobs.is_empty() || !row.state.is_over(),
            states => {
                states.iter().any(|one| one.eq_ignore_ascii_case(code) || one.eq_ignore_ascii_case("all"))
            }
        };
        state
            && (!self.start || row.state == State::Pending)
            && (self.jobs.is_empty() || self.jobs.contains(&row.id))
            && self.user.as_ref().is_none_or(|user| *user == row.user)
            && self.partition.as_ref().is_none_or(|queue| *queue == row.queue)
    }
}

fn table(rows: &[Row], now: Timestamp) -> Table {
    let lasted = |row: &Row| {
        let since = |started: Timestamp| row.ended.unwrap_or(now).duration_since(started).as_secs();
        clock(row.started.map_or(0, since).max(0))
    };
    table_with("TIME", rows, lasted)
}

fn starts(rows: &[Row], forecasts: &Forecasts) -> Table {
    // As Slurm writes times, in the zone of the reader.
    let local = |start: Timestamp| {
        start.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
    };
    table_with("START_TIME", rows, |row| forecasts.start(row).map_or_else(|| "N/A".to_owned(), local))
}

/// Slurm's columns, the times among them being these.
fn table_with(times: &str, rows: &[Row], time: impl Fn(&Row) -> String) -> Table {
    let mut table =
        Table::new(["JOBID", "PARTITION", "NAME", "USER", "ST", times, "NODES", "NODELIST(REASON)"]);
    for row in rows {
        table.row([
            row.label(),
            row.queue.clone(),
            row.name.clone(),
            row.user.clone(),
            row.state.code().to_owned(),
            time(row),
            row.node_count.to_string(),
            row.place(),
        ]);
    }
    table
}

/// The rows for programs, under the names that Slurm's own JSON has where it has them; times are RFC 3339.
fn document(rows: &[Row], forecasts: &Forecasts) -> Value {
    let job = |row: &Row| {
        json!({
            "job_id": row.id,
            "array_task_string": row.tasks,
            "partition": row.queue,
            "name": row.name,
            "user_name": row.user,
            "job_state": row.state.name(),
            "state_reason": row.reason,
            "state_description": forecasts.detail(row),
            "start_time": row.started.map(|time| time.to_string()),
            "end_time": row.ended.map(|time| time.to_string()),
            "expected_start_time": forecasts.start(row).map(|time| time.to_string()),
            "node_count": row.node_count,
            "nodes": row.nodes,
        })
    };
    json!({ "jobs": rows.iter().map(job).collect::<Vec<_>>() })
}

/// Seconds as Slurm shows them: `1-02:03:04`, `2:03:04`, `3:04`.
fn clock(seconds: i64) -> String {
    let (days, hours, minutes, rest) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{rest:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{days}-{hours:02}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_look_as_in_slurms_list() {
        for (seconds, shown) in [(0, "0:00"), (184, "3:04"), (7384, "2:03:04"), (93_784, "1-02:03:04")] {
            assert_eq!(clock(seconds), shown);
        }
    }
}
