//! `muster top`: what nodes and pods use now, GPU slots included.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::Error;
use crate::output::{self, Table};

/// Shows what nodes or pods use now
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Nodes or pods
    #[arg(value_enum, default_value_t = What::Nodes)]
    what: What,
    #[command(flatten)]
    cluster: ClusterArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Nodes,
    Pods,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = &arguments.cluster.connect().await?;
    let table = match arguments.what {
        What::Nodes => nodes(connection).await?,
        What::Pods => pods(connection).await?,
    };
    output::print(&table.render(true))
}

async fn nodes(connection: &Connection) -> Result<Table, Error> {
    let nodes = api::get(&connection.client, "/api/v1/nodes").await?;
    let pods = api::get(&connection.client, "/api/v1/pods").await?;
    let usage = usage(api::find(&connection.client, "/apis/metrics.k8s.io/v1beta1/nodes").await?.as_ref());
    let mut gpus: BTreeMap<String, i64> = BTreeMap::new();
    for pod in items(&pods).iter().filter(|pod| !finished(pod)) {
        *gpus.entry(text(&pod["spec"]["nodeName"])).or_default() += gpus_of(pod);
    }
    let mut table = Table::new(["NODE", "CPU", "MEMORY", "GPUS USED", "GPUS"]);
    for node in items(&nodes) {
        let name = text(&node["metadata"]["name"]);
        let (cpu, memory) = usage.get(&name).cloned().unwrap_or_default();
        let used = gpus.get(&name).copied().unwrap_or(0).to_string();
        let total = node["status"]["allocatable"]["nvidia.com/gpu"].as_str().unwrap_or("0").to_owned();
        table.row([name, cpu, memory, used, total]);
    }
    Ok(table)
}

async fn pods(connection: &Connection) -> Result<Table, Error> {
    let base = format!("namespaces/{}/pods", connection.namespace);
    let pods = api::get(&connection.client, &format!("/api/v1/{base}")).await?;
    let usage =
        usage(api::find(&connection.client, &format!("/apis/metrics.k8s.io/v1beta1/{base}")).await?.as_ref());
    let mut table = Table::new(["POD", "NODE", "CPU", "MEMORY", "GPUS"]);
    for pod in items(&pods).iter().filter(|pod| !finished(pod)) {
        let name = text(&pod["metadata"]["name"]);
        let (cpu, memory) = usage.get(&name).cloned().unwrap_or_default();
        table.row([name, text(&pod["spec"]["nodeName"]), cpu, memory, gpus_of(pod).to_string()]);
    }
    Ok(table)
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn gpus_of(pod: &Value) -> i64 {
    let containers = pod["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let limit =
        |container: &Value| container["resources"]["limits"]["nvidia.com/gpu"].as_str()?.parse::<i64>().ok();
    containers.iter().filter_map(limit).sum()
}

/// CPU and memory by name, from a metrics list; a pod's containers are joined with `+` when there are several.
fn usage(list: Option<&Value>) -> BTreeMap<String, (String, String)> {
    let mut usage = BTreeMap::new();
    for item in list.map_or(&[][..], items) {
        let own = std::slice::from_ref(item);
        let parts = item["containers"].as_array().map_or(own, Vec::as_slice);
        let joined = |field: &str| {
            parts
                .iter()
                .map(|part| text(&part["usage"][field]))
                .filter(|amount| !amount.is_empty())
                .collect::<Vec<_>>()
                .join("+")
        };
        usage.insert(text(&item["metadata"]["name"]), (joined("cpu"), joined("memory")));
    }
    usage
}
