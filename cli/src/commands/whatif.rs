//! `muster whatif`: what would become of a job, or of those that wait, if something were different.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use muster_scheduler_api::SCHEDULER_NAME;
use muster_scheduler_controller::picture;
use muster_scheduler_controller::planner::Prospect;
use serde_json::json;

use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::output::{self, DocumentFormat};
use crate::supposition::Supposition;
use crate::{gang_text, manifest};

/// Says when and where a job would start, without submitting it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster whatif -f job.yaml\n  muster whatif -f job.yaml -o json\n  muster whatif --add-nodes 2 --like node-0   # who would start then\n\nNothing is created: the cluster is read, and the scheduler's own planner decides on a copy of it."
)]
pub(crate) struct Arguments {
    /// A manifest whose jobs or pods would come now; `-` reads standard input
    #[arg(short, long, value_name = "FILE", required_unless_present = "add_nodes")]
    file: Option<PathBuf>,
    /// So many more nodes
    #[arg(long, value_name = "N", requires = "like", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    add_nodes: Option<u16>,
    /// The node that those would be like
    #[arg(long, value_name = "NODE", requires = "add_nodes")]
    like: Option<String>,
    /// Who schedules gangs of training jobs
    #[arg(long, value_name = "NAME", default_value = SCHEDULER_NAME)]
    gang_scheduler_name: String,
    /// For programs, instead of text
    #[arg(short, long, value_enum)]
    output: Option<DocumentFormat>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let documents = arguments.file.as_deref().map(manifest::read).transpose()?.unwrap_or_default();
    let planner = picture::read(&connection.client).await.map_err(|error| {
        Error::from_source("cannot read the cluster", &error).with_hint(
            "what-if takes the right to list nodes, pods, queues and gangreservations of all namespaces",
        )
    })?;
    let supposition = Supposition {
        documents: &documents,
        more_nodes: arguments.add_nodes.zip(arguments.like.as_deref()),
        gang_scheduler: &arguments.gang_scheduler_name,
    };
    let prospects = Box::pin(supposition.tell(connection, planner)).await?.prospects(Timestamp::now());
    let waiting_only = documents.is_empty();
    let text = match arguments.output {
        Some(format) => output::document(&json!({ "gangs": prospects }), format.into())?,
        None => prospects
            .iter()
            .map(|prospect| if waiting_only { line(prospect) } else { paragraph(prospect) })
            .collect(),
    };
    output::print(if text.is_empty() { "nobody waits\n" } else { &text })
}

fn paragraph(prospect: &Prospect) -> String {
    let report = &prospect.report;
    let name = gang_text::name(report);
    if report.starts_now {
        let pods = report.places.iter().map(|place| place.pods.len()).sum::<usize>();
        return format!("{name} would start now, {pods} pods:\n{}", gang_text::places(report));
    }
    let reason = report.reason.as_deref().unwrap_or("the scheduler has not looked at it");
    let mut text = format!("{name} would wait: {reason}\n");
    if !prospect.evicts.is_empty() {
        text = format!("{text}  until {} have been evicted for it\n", prospect.evicts.join(", "));
    }
    text + &gang_text::outlook(report)
}

fn line(prospect: &Prospect) -> String {
    let report = &prospect.report;
    let name = gang_text::name(report);
    match &report.reason {
        None => format!("{}/{name} would start now\n", report.namespace),
        Some(reason) => format!("{}/{name} would still wait: {reason}\n", report.namespace),
    }
}
