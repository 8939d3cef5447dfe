//! `muster simulate`: the scheduler's core on a trace, in virtual time.

use std::path::PathBuf;

use clap::Args;
use muster_scheduler_simulator::catalogue;
use muster_scheduler_simulator::engine::{Options, simulate};
use muster_scheduler_simulator::failures::Failures;
use muster_scheduler_simulator::report::{self, Report};
use muster_scheduler_simulator::scheduler;

use crate::error::Error;
use crate::output;

/// Plans a trace in virtual time, under one policy or several, and compares them
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster simulate --trace gangs --policy muster,kueue-tas\n  muster simulate --trace openb_pod_list_default.csv --policy fgd,muster --out /tmp/openb\n  muster simulate --trace job.trace --policy easy,conservative,muster --estimate 2 -o json\n\nA trace is `gangs` or `mixed` (made up from the seed), or a file: .trace (Gavel), .yaml (Kueue's generators), .csv\n(openb pods, with openb_node_list_gpu_node.csv beside it)."
)]
pub(crate) struct Arguments {
    /// What arrives: gangs, mixed, or a file
    #[arg(long, value_name = "TRACE")]
    trace: String,
    /// Who decides, one or several of: fifo, strict-fifo, best-effort-fifo, easy, conservative, best-fit, fgd,
    /// volcano-tier, kueue-tas, muster
    #[arg(long, value_delimiter = ',', value_name = "POLICIES", default_value = "muster")]
    policy: Vec<String>,
    /// Of whatever is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Jobs declare so many times their run time as their limit; without, they declare none
    #[arg(long, value_name = "FACTOR")]
    estimate: Option<f64>,
    /// Mean hours between the failures of one node
    #[arg(long, value_name = "HOURS")]
    failures_every: Option<f64>,
    /// A folder for tables (CSV, JSON) and plots (SVG)
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
}

/// How the reports are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Columns for people
    #[default]
    Table,
    /// One line a policy, for spreadsheets
    Csv,
    /// Everything
    Json,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    if let Some(unknown) = arguments.policy.iter().find(|policy| !scheduler::NAMES.contains(&policy.as_str()))
    {
        let known = scheduler::NAMES.join(", ");
        return Err(
            Error::new(format!("policy {unknown} is unknown")).with_hint(format!("there are {known}"))
        );
    }
    let (form, out) = (arguments.output, arguments.out.clone());
    let work = tokio::task::spawn_blocking(move || reports(&arguments));
    let reports = work.await.map_err(|error| Error::from_source("the simulation broke", &error))??;
    let text = match form {
        Form::Table => report::table(&reports),
        Form::Csv => report::summary_csv(&reports),
        Form::Json => {
            report::json(&reports).map_err(|error| Error::from_source("cannot print as JSON", &error))? + "\n"
        }
    };
    output::print(&text)?;
    if let Some(folder) = out {
        let files = catalogue::write(&reports, &folder)
            .map_err(|error| Error::from_source(&format!("cannot write to {}", folder.display()), &error))?;
        output::note(&format!("wrote {} files to {}", files.len(), folder.display()));
    }
    Ok(())
}

fn reports(arguments: &Arguments) -> Result<Vec<Report>, Error> {
    let workload = catalogue::load(&arguments.trace, arguments.seed, arguments.estimate)
        .map_err(|error| Error::from_source("cannot load the trace", &error))?;
    let failures =
        arguments.failures_every.map(|mean_hours| Failures { mean_hours, shape: 1.0, repair_hours: 4.0 });
    let options = Options { seed: arguments.seed, failures, ..Options::default() };
    let mut reports = Vec::new();
    for policy in &arguments.policy {
        output::note(&format!(
            "{policy}: {} jobs on {} nodes",
            workload.jobs.len(),
            workload.cluster.nodes.len()
        ));
        let report = simulate(&workload, policy, options);
        reports.push(report.map_err(|error| Error::from_source(&format!("policy {policy}"), &error))?);
    }
    Ok(reports)
}
