//! `muster topology show`: the tree of domains over the cluster's nodes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fs_err as fs;
use muster_scheduler_controller::picture;
use muster_scheduler_topology::Topology;
use muster_scheduler_topology::draw::{self, Occupancy};
use muster_scheduler_topology::import::slurm;

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
        after_help = "Examples:\n  muster topology show\n  muster topology show --all --svg cluster.svg\n  muster topology show --topology-conf /etc/slurm/topology.conf\n\nWhat counts for the scheduler, the first that there is: the topology.conf that it was given; labels muster.dev/spine, block and rack; a Topology of Kueue or\nKAI; Volcano's HyperNodes; labels of topograph, AWS, Google and Oracle. How the GPUs of a node see each other is drawn where it is known, the first that there is:\nthe node's annotation muster.dev/gpu-topology, which holds what `nvidia-smi topo -m` prints; its ResourceSlices; its NodeResourceTopology."
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

/// Reads a `topology.conf`.
pub(crate) fn read_slurm(path: &Path) -> Result<Topology, Error> {
    let tree = slurm::topology(&fs::read_to_string(path)?);
    tree.map_err(|error| Error::from_source(&path.display().to_string(), &error))
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let Command::Show { all, svg, topology_conf, cluster } = arguments.command;
    let client = cluster.connect().await?.client;
    let mut planner = picture::read(&client).await.map_err(|error| {
        Error::from_source("cannot read the cluster", &error).with_hint(
            "it takes the right to list nodes, pods, queues and gangreservations of all namespaces",
        )
    })?;
    if let Some(path) = topology_conf {
        planner.tree_given(read_slurm(&path)?);
    }
    if let Some(fault) = planner.places_fault() {
        output::note(&format!("{fault}; so it is the nodes' labels that count"));
    }
    for fault in planner.inside_faults() {
        output::note(&format!("{fault}; so it counts as nodes of its GPU model are"));
    }
    let map = planner.map();
    let insides = (0..map.nodes().len()).map(|position| map.inside(position).and_then(draw::inside));
    let occupancy = Occupancy::new(planner.gpus()).with_insides(insides.collect());
    if let Some(file) = svg {
        fs::write(&file, draw::svg(map.topology(), &occupancy))?;
        output::note(&format!("wrote {}", file.display()));
    }
    output::print(&draw::text(map.topology(), &occupancy, all))
}
