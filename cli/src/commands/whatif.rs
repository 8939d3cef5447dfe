//! `muster whatif`: what would become of a job, or of those that wait, if something were different.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::Api;
use muster_scheduler_api::SCHEDULER_NAME;
use muster_scheduler_controller::picture;
use muster_scheduler_controller::planner::{GroupEvent, Planner, Prospect};
use serde_json::json;

use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::kinds::Kinds;
use crate::output::{self, DocumentFormat};
use crate::{gang_text, hypothetical, manifest};

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
    let mut planner = picture::read(&connection.client).await.map_err(|error| {
        Error::from_source("cannot read the cluster", &error).with_hint(
            "what-if takes the right to list nodes, pods, queues and gangreservations of all namespaces",
        )
    })?;
    if let (Some(count), Some(like)) = (arguments.add_nodes, &arguments.like) {
        add_nodes(connection, &mut planner, count, like).await?;
    }
    let kinds = Kinds::discover(&connection.client).await?;
    let (mut gangs, mut groups) = (BTreeSet::new(), Vec::new());
    for document in &documents {
        groups.extend(hypothetical::group(connection, document)?);
        let pods = hypothetical::pods(connection, &kinds, document, &arguments.gang_scheduler_name).await?;
        for pod in pods {
            let name = pod.name_any();
            let namespace = pod.namespace().unwrap_or_default();
            if planner.knows(&namespace, &name) {
                return Err(Error::new(format!(
                    "{}: pod {name} exists already",
                    document.place_of("metadata.name")
                ))
                .with_hint(
                    "`muster explain` says why it waits; what-if is for jobs that have not been submitted",
                ));
            }
            picture::suppose(&connection.client, &mut planner, pod).await.map_err(|error| {
                Error::from_source(&format!("cannot read the claim templates of pod {name}"), &error)
            })?;
            gangs.extend(planner.gang_name(&namespace, &name).map(|gang| (namespace, gang)));
        }
    }
    picture::read_groups(&connection.client, &mut planner).await;
    picture::read_devices(&connection.client, &mut planner).await;
    for group in groups {
        planner.group_changed(GroupEvent::Seen(Box::new(group)));
    }
    if !documents.is_empty() && gangs.is_empty() {
        return Err(Error::new("nothing in the manifest has pods that Muster would place")
            .with_hint("its pods need `schedulerName: muster` on a cluster with another scheduler"));
    }
    let now = Timestamp::now();
    planner.catch_up(now);
    if documents.is_empty() {
        gangs = planner.gangs().map(|(namespace, gang)| (namespace.to_owned(), gang.to_owned())).collect();
    }
    let prospects = planner.prospects(&gangs, now);
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

/// More nodes like one that exists.
async fn add_nodes(
    connection: &Connection,
    planner: &mut Planner,
    count: u16,
    like: &str,
) -> Result<(), Error> {
    let nodes = Api::<Node>::all(connection.client.clone());
    let model = nodes.get_opt(like).await?;
    let model = model.ok_or_else(|| {
        Error::new(format!("there is no node {like}")).with_hint("`muster get nodes` lists them")
    })?;
    for index in 0..count {
        let mut node = model.clone();
        let name = format!("{like}-like-{index}");
        let labels: &mut BTreeMap<String, String> = node.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
        node.metadata.name = Some(name);
        planner.node_seen(&node);
    }
    Ok(())
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
