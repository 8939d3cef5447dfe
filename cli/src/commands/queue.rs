//! `muster queue`: batch jobs, as `squeue` shows them.

use std::collections::HashMap;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use muster_batch_core::names;
use muster_batch_core::state::{Row, State, rows};

use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::output::{self, Table};

/// Shows the batch jobs that run and wait
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster queue\n  muster queue --all             # those that ended, too\n  muster queue --user eve --states PD\n\nStates: PD waits, R runs, CG is about to end, CD ended well, F failed, TO had no time left, CA was cancelled."
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
    /// No headings
    #[arg(long)]
    noheader: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = arguments.cluster.connect().await?;
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let numbered = ListParams::default().labels(names::ID);
    let (jobs, pods) = tokio::try_join!(jobs.list(&numbered), pods.list(&numbered))?;
    let mut by_job: HashMap<&str, Vec<&Pod>> = HashMap::new();
    for pod in &pods.items {
        if let Some(job) = pod.owner_references().iter().find(|owner| owner.controller == Some(true)) {
            by_job.entry(job.uid.as_str()).or_default().push(pod);
        }
    }
    let own = |job: &Job| by_job.get(job.metadata.uid.as_deref().unwrap_or_default()).cloned();
    let all = jobs.items.iter().flat_map(|job| rows(job, &own(job).unwrap_or_default()));
    let mut shown: Vec<Row> = all.filter(|row| arguments.wants(row)).collect();
    // Those that wait first, as in Slurm's list; among them in the order of their numbers.
    shown.sort_by_key(|row| (row.state != State::Pending, row.state.is_over(), row.id));
    output::print(&table(&shown, Timestamp::now()).render(!arguments.noheader))
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
            && (self.jobs.is_empty() || self.jobs.contains(&row.id))
            && self.user.as_ref().is_none_or(|user| *user == row.user)
            && self.partition.as_ref().is_none_or(|queue| *queue == row.queue)
    }
}

fn table(rows: &[Row], now: Timestamp) -> Table {
    let mut table =
        Table::new(["JOBID", "PARTITION", "NAME", "USER", "ST", "TIME", "NODES", "NODELIST(REASON)"]);
    for row in rows {
        let since = |started: Timestamp| row.ended.unwrap_or(now).duration_since(started).as_secs();
        table.row([
            row.label(),
            row.queue.clone(),
            row.name.clone(),
            row.user.clone(),
            row.state.code().to_owned(),
            clock(row.started.map_or(0, since).max(0)),
            "1".to_owned(),
            row.place.clone(),
        ]);
    }
    table
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
