//! What was written down of the inside of nodes, and what it makes of each node's GPUs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{dra, nrt};
use crate::interior::{Accelerator, NodeInterior};

/// What an object says of the inside of one node.
#[derive(Debug, Clone, PartialEq)]
pub enum Inside {
    /// The NUMA node of each GPU; which links there are follows from the model.
    Zones(Vec<Option<u16>>),
    /// All links.
    Links(Box<NodeInterior>),
}

impl Inside {
    /// The interior with GPUs of this model, where the object names none itself.
    pub fn interior(&self, accelerator: Accelerator) -> NodeInterior {
        match self {
            Self::Zones(numa) => nrt::of_zones(numa, accelerator),
            Self::Links(interior) => NodeInterior::clone(interior),
        }
    }
}

/// What objects say of the inside of nodes: `ResourceSlice` before `NodeResourceTopology`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Insides {
    by_node: BTreeMap<String, Inside>,
    faults: Vec<String>,
}

impl Insides {
    /// Reads `NodeResourceTopology` and `ResourceSlice` objects. What cannot be read says nothing of its node, and is
    /// told. Nodes without GPUs of this extended resource, as a rule `nvidia.com/gpu`, are left out.
    pub fn read(resource: &str, node_resource_topologies: &[Value], resource_slices: &[Value]) -> Self {
        let mut insides = Self::default();
        for object in node_resource_topologies {
            match nrt::zones(object, resource) {
                Ok((_, numa)) if numa.is_empty() => {}
                Ok((node, numa)) => {
                    insides.by_node.insert(node, Inside::Zones(numa));
                }
                Err(fault) => {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    insides.faults.push(format!("NodeResourceTopology {name:?}: {fault}"));
                }
            }
        }
        let mut slices: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for slice in resource_slices {
            if let Some(node) = slice["spec"]["nodeName"].as_str() {
                slices.entry(node).or_default().push(slice.clone());
            }
        }
        for (node, slices) in slices {
            match dra::interiors(&slices) {
                Ok(read) => {
                    let links =
                        read.into_iter().map(|(node, interior)| (node, Inside::Links(Box::new(interior))));
                    insides.by_node.extend(links);
                }
                Err(fault) => insides.faults.push(format!("ResourceSlices of node {node:?}: {fault}")),
            }
        }
        insides
    }

    /// What is known of a node.
    pub fn of(&self, node: &str) -> Option<&Inside> {
        self.by_node.get(node)
    }

    /// What could not be read, a sentence each.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::interior::LinkKind;

    #[test]
    fn slices_count_before_zones_and_faults_name_their_object() {
        let zones = |name: &str, gpus: Value| {
            json!({"metadata": {"name": name}, "zones": [{"name": "node-0", "type": "Node", "resources": [
                {"name": "nvidia.com/gpu", "capacity": gpus}]}]})
        };
        let slice = |node: &str, name: Value| {
            json!({"spec": {"driver": "gpu.nvidia.com", "nodeName": node, "devices": [
                {"name": name, "attributes": {"productName": {"string": "NVIDIA H100 80GB HBM3"}}},
                {"name": "gpu-1", "attributes": {}}]}})
        };
        let insides = Insides::read(
            "nvidia.com/gpu",
            &[
                zones("a", json!("2")),
                zones("b", json!("2")),
                zones("none", json!(0)),
                zones("odd", json!("x")),
            ],
            &[slice("b", json!("gpu-0")), slice("c", json!(7))],
        );
        assert_eq!(insides.of("a"), Some(&Inside::Zones(vec![Some(0), Some(0)])));
        let link = |node| insides.of(node).unwrap().interior(Accelerator::PCIE).link(0, 1);
        assert_eq!((link("a"), link("b")), (Some(LinkKind::Node), Some(LinkKind::NvLink(18))));
        assert_eq!((insides.of("none"), insides.of("c")), (None, None));
        assert_eq!(
            insides.faults(),
            [
                "NodeResourceTopology \"odd\": zones[0].resources[0].capacity: must be a whole number of at least 0",
                "ResourceSlices of node \"c\": slice 0: spec.devices[0].name: must be a text that is not empty",
            ]
        );
    }
}
