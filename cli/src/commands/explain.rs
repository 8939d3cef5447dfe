//! `muster explain`: why a job waits, when it is expected to start, and what would let it start.

use clap::Args;
use jiff::Timestamp;
use muster_scheduler_api::annotations;
use muster_scheduler_controller::picture;
use muster_scheduler_controller::planner::{GangReport, Phase};
use serde_json::Value;

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::gang_text;
use crate::kinds::Kinds;
use crate::output::{self, DocumentFormat};

/// Says why a job waits, when it is expected to start, and what would let it start now
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster explain job/digits\n  muster explain pod/web\n  muster explain job/digits -o json\n\nEvery alternative it names was planned with on a copy of the cluster as it is now."
)]
pub(crate) struct Arguments {
    /// job/NAME, pod/NAME or KIND/NAME
    target: String,
    /// For programs, instead of text
    #[arg(short, long, value_enum)]
    output: Option<DocumentFormat>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let (kind, name) = arguments.target.split_once('/').unwrap_or(("job", &arguments.target));
    let path = format!("/api/v1/namespaces/{}/pods", connection.namespace);
    let list = api::get(&connection.client, &path).await?;
    let pods: Vec<&Value> =
        list["items"].as_array().into_iter().flatten().filter(|pod| belongs(pod, kind, name)).collect();
    let report = report(connection, &pods).await;
    if let Some(format) = arguments.output {
        let report = report.ok_or_else(|| {
            Error::new(format!("{} is nothing that Muster's scheduler places", arguments.target))
                .with_hint("without -o it is told what else is known of it")
        })?;
        return output::print(&output::document(&serde_json::to_value(report)?, format.into())?);
    }
    let text = match (pods.as_slice(), report) {
        ([], _) => without_pods(connection, kind, name).await?,
        (_, Some(report)) if report.phase == Phase::Waiting => waiting(name, &report),
        (pods, _) => sentence(name, pods),
    };
    output::print(&format!("{}\n", text.trim_end()))
}

/// What the scheduler's own planner says of the gang of these pods. Who may not read the whole cluster is told no
/// more than what the scheduler wrote on the pods.
async fn report(connection: &Connection, pods: &[&Value]) -> Option<GangReport> {
    let mut planner = picture::read(&connection.client).await.ok()?;
    let gang = pods
        .iter()
        .find_map(|pod| planner.gang_name(&connection.namespace, pod["metadata"]["name"].as_str()?))?;
    let now = Timestamp::now();
    planner.catch_up(now);
    planner.report(&connection.namespace, &gang, now)
}

fn waiting(name: &str, report: &GangReport) -> String {
    let Some(reason) = &report.reason else {
        return format!(
            "{name} waits for the scheduler to look at it: there is room for its {} pods",
            report.pods
        );
    };
    format!("{name} waits: {reason}\n{}", gang_text::outlook(report))
}

fn belongs(pod: &Value, kind: &str, name: &str) -> bool {
    let metadata = &pod["metadata"];
    if matches!(kind, "pod" | "pods" | "po") {
        return metadata["name"] == name;
    }
    let owned = metadata["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["name"] == name));
    owned
        || metadata["annotations"][annotations::GANG] == name
        || metadata["labels"][muster_trainer_api::label::JOB_NAME] == name
}

/// A job without pods: its last condition says why.
async fn without_pods(connection: &Connection, kind: &str, name: &str) -> Result<String, Error> {
    let kinds = Kinds::discover(&connection.client).await?;
    let candidates = if kind == "job" { kinds.training() } else { kinds.named(kind)? };
    for kind in candidates {
        let path = kind.path(Some(&connection.namespace), Some(name));
        let Some(object) = api::find(&connection.client, &path).await? else { continue };
        let last = object["status"]["conditions"]
            .as_array()
            .and_then(|list| list.last())
            .cloned()
            .unwrap_or_default();
        return Ok(match last["type"].as_str() {
            Some(state) => {
                format!("{name} has no pods: {state}: {}", last["message"].as_str().unwrap_or_default())
            }
            None => format!(
                "{name} has no pods yet and no controller has looked at it; is the trainer controller running?"
            ),
        });
    }
    Err(Error::new(format!("there is no job {name} in namespace {}", connection.namespace)))
}

fn sentence(name: &str, pods: &[&Value]) -> String {
    let waiting: Vec<&&Value> =
        pods.iter().filter(|pod| pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty)).collect();
    if let Some(pod) = waiting.first() {
        let condition = pod["status"]["conditions"]
            .as_array()
            .and_then(|list| list.iter().find(|condition| condition["type"] == "PodScheduled"));
        let message = condition.and_then(|condition| condition["message"].as_str());
        return match message {
            Some(message) => format!("{name} waits: {message}"),
            None => {
                format!("{name} waits: no scheduler has looked at its {} unplaced pods yet", waiting.len())
            }
        };
    }
    if let Some((pod, reason)) = pods.iter().find_map(|pod| held_up(pod).map(|reason| (pod, reason))) {
        return format!(
            "{name} is placed, but pod {} does not start: {reason}",
            pod["metadata"]["name"].as_str().unwrap_or_default()
        );
    }
    let mut nodes: Vec<&str> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let phases = |wanted: &str| pods.iter().filter(|pod| pod["status"]["phase"] == wanted).count();
    format!(
        "{name} does not wait: {} pods placed on {} ({} running, {} succeeded, {} failed)",
        pods.len(),
        nodes.join(", "),
        phases("Running"),
        phases("Succeeded"),
        phases("Failed")
    )
}

/// Why a placed pod's container does not start.
fn held_up(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    let lists = ["initContainerStatuses", "containerStatuses"];
    let mut containers = lists.iter().flat_map(|list| status[*list].as_array().into_iter().flatten());
    containers.find_map(|container| {
        let waiting = &container["state"]["waiting"];
        let reason = waiting["reason"].as_str()?;
        let benign = matches!(reason, "ContainerCreating" | "PodInitializing");
        (!benign).then(|| format!("{reason}: {}", waiting["message"].as_str().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unplaced_gang_is_explained_by_the_schedulers_message() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "needs 4 GPUs, 2 are free"}]}});
        assert_eq!(sentence("a", &[&pod]), "a waits: needs 4 GPUs, 2 are free");
    }

    #[test]
    fn a_placed_pod_that_cannot_start_is_named() {
        let pod = json!({"metadata": {"name": "a-0"}, "spec": {"nodeName": "n"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ErrImageNeverPull", "message": "map it"}}}]}});
        assert_eq!(
            sentence("a", &[&pod]),
            "a is placed, but pod a-0 does not start: ErrImageNeverPull: map it"
        );
    }
}
