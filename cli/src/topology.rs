//! The nodes of an embedded cluster: `--nodes` and `--gpus-per-node`, or a topology file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use muster_node::NodeDescription;
use muster_scheduler_topology::import::labels;
use serde::Deserialize;

use crate::error::Error;

/// Most nodes that one machine plays.
const MOST_NODES: u32 = 1000;

/// Which nodes to play.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TopologyArguments {
    /// How many nodes this machine plays
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_NODES)), conflicts_with = "topology")]
    nodes: u32,
    /// GPU slots of each node; real GPUs are not needed
    #[arg(long, default_value_t = 4, value_name = "GPUS", conflicts_with = "topology")]
    gpus_per_node: u32,
    /// Nodes with names, labels and sizes of their own, from a YAML file
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nodes: Vec<FileNode>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    gpus: u32,
    cpus: Option<String>,
    memory: Option<String>,
}

impl TopologyArguments {
    /// The nodes that they describe.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeDescription>, Error> {
        if let Some(path) = &self.topology {
            let text = fs::read_to_string(path)
                .map_err(|error| Error::from_source("cannot read the topology", &error))?;
            return parse(path, &text);
        }
        Ok((0..self.nodes)
            .map(|index| {
                with_place(NodeDescription {
                    gpus: self.gpus_per_node,
                    ..NodeDescription::new(format!("node-{index}"))
                })
            })
            .collect())
    }
}

/// Everything on one machine is in one rack and zone unless the file says otherwise.
fn with_place(mut node: NodeDescription) -> NodeDescription {
    for (label, value) in [(labels::RACK, "rack-0"), (labels::ZONE, "local")] {
        node.labels.entry(label.to_owned()).or_insert_with(|| value.to_owned());
    }
    node
}

fn parse(path: &Path, text: &str) -> Result<Vec<NodeDescription>, Error> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        Error::new(format!("{}:{line}: {}", path.display(), error.without_snippet()))
            .with_hint("a topology is `nodes: [{name: a, gpus: 4, labels: {muster.dev/rack: r0}}]`")
    })?;
    let mut names = std::collections::BTreeSet::new();
    if let Some(twice) = file.nodes.iter().find(|node| !names.insert(&node.name)) {
        return Err(Error::new(format!("{}: two nodes are called {}", path.display(), twice.name)));
    }
    if file.nodes.is_empty() {
        return Err(Error::new(format!("{}: no nodes", path.display())));
    }
    let described = |node: FileNode| NodeDescription {
        name: node.name,
        labels: node.labels,
        gpus: node.gpus,
        cpus: node.cpus,
        memory: node.memory,
    };
    Ok(file.nodes.into_iter().map(described).map(with_place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_names_labels_and_sizes() {
        let text = "nodes:\n- {name: a, gpus: 8, labels: {muster.dev/rack: r1}}\n- {name: b, cpus: '4'}\n";
        let nodes = parse(Path::new("t.yaml"), text).unwrap();
        assert_eq!((nodes[0].gpus, nodes[0].labels["muster.dev/rack"].as_str()), (8, "r1"));
        assert_eq!(
            (nodes[1].cpus.as_deref(), nodes[1].labels["muster.dev/rack"].as_str()),
            (Some("4"), "rack-0")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = parse(Path::new("t.yaml"), "nodes:\n- name: a\n  gpu: 8\n").unwrap_err().to_string();
        assert!(unknown.starts_with("t.yaml:3"), "{unknown}");
        let twice = parse(Path::new("t.yaml"), "nodes: [{name: a}, {name: a}]").unwrap_err().to_string();
        assert_eq!(twice, "t.yaml: two nodes are called a");
    }
}
