//! `muster topology show`: the tree of domains over the cluster's nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use fs_err as fs;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use muster_scheduler_controller::places;
use muster_scheduler_topology::draw::{self, Occupancy};
use muster_scheduler_topology::import::{Source, SourceNode, slurm};

use crate::connect::ClusterArguments;
use crate::error::Error;
use crate::output;

/// Shows where nodes and GPUs are
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draws the tree of domains with free GPUs and bandwidths, as the scheduler sees it
    #[command(
        after_help = "Examples:\n  muster topology show\n  muster topology show --all --svg cluster.svg\n  muster topology show --topology-conf /etc/slurm/topology.conf\n\nWhat counts, the first that there is: a topology.conf; labels muster.dev/spine, block and rack; a Topology of Kueue or\nKAI; Volcano's HyperNodes; labels of topograph, AWS, Google and Oracle."
    )]
    Show {
        /// One line for every host, also for those that look alike
        #[arg(long)]
        all: bool,
        /// A file for a drawing
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
        /// Slurm's description of switches or blocks, to see what it makes of the nodes
        #[arg(long, value_name = "FILE")]
        topology_conf: Option<PathBuf>,
        #[command(flatten)]
        cluster: ClusterArguments,
    },
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let Command::Show { all, svg, topology_conf, cluster } = arguments.command;
    let client = cluster.connect().await?.client;
    let failed = |error: kube::Error| Error::from_source("cannot read the cluster", &error);
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.map_err(failed)?;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.map_err(failed)?;
    let mut sources = places::read(&client).await.map_err(failed)?;
    if let Some(path) = topology_conf {
        let tree = slurm::topology(&fs::read_to_string(&path)?);
        sources.tree = Some(tree.map_err(|error| Error::from_source(&path.display().to_string(), &error))?);
    }
    let names: Vec<String> = nodes.iter().map(ResourceExt::name_any).collect();
    let described: Vec<SourceNode<'_>> = names
        .iter()
        .zip(&nodes)
        .map(|(name, node)| SourceNode { name, labels: node.labels(), gpus: allocatable(node) })
        .collect();
    let source = Source::choose(&sources, &described);
    let topology = source
        .and_then(|source| source.topology(&described))
        .map_err(|error| Error::from_source("the nodes do not form a topology", &error))?;
    let mut used: BTreeMap<&str, u32> = BTreeMap::new();
    for pod in &pods {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            *used.entry(node).or_default() += gpus_of(pod);
        }
    }
    let mut gpus = vec![(0, 0); topology.node_count()];
    for (index, node) in nodes.iter().enumerate() {
        let all = allocatable(node);
        let taken = used.get(names[index].as_str()).copied().unwrap_or(0);
        gpus[topology.position_of(index).index()] = (all.saturating_sub(taken), all);
    }
    let occupancy = Occupancy::new(gpus);
    if let Some(file) = svg {
        fs::write(&file, draw::svg(&topology, &occupancy))?;
        output::note(&format!("wrote {}", file.display()));
    }
    output::print(&draw::text(&topology, &occupancy, all))
}

fn allocatable(node: &Node) -> u32 {
    let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    amounts.and_then(|amounts| amounts.get("nvidia.com/gpu")?.0.parse().ok()).unwrap_or(0)
}

/// Whole GPUs of a pod that has not ended.
fn gpus_of(pod: &Pod) -> u32 {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return 0;
    }
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let limit = |container: &k8s_openapi::api::core::v1::Container| {
        container.resources.as_ref()?.limits.as_ref()?.get("nvidia.com/gpu")?.0.parse::<u32>().ok()
    };
    containers.filter_map(limit).sum()
}
