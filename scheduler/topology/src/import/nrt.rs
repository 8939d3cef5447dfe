//! `NodeResourceTopology` of Node Feature Discovery: which NUMA zone has how many GPUs.

use serde_json::Value;

use super::field::{Field, FieldError};
use crate::interior::{Accelerator, LinkKind, MAX_GPUS, NodeInterior};

/// A node's name and the NUMA node of each of its GPUs, which are numbered zone by zone.
///
/// `resource` is the extended resource to look for, as a rule `nvidia.com/gpu`.
pub fn zones(object: &Value, resource: &str) -> Result<(String, Vec<Option<u16>>), FieldError> {
    let root = Field::root(object);
    let name = root.get("metadata").get("name").text()?.to_owned();
    let mut numa: Vec<Option<u16>> = Vec::new();
    for (index, zone) in root.get("zones").list()?.iter().enumerate() {
        if zone.get("type").exists() && zone.get("type").text()? != "Node" {
            continue;
        }
        let zone_name = zone.get("name").text()?;
        let number =
            zone_name.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(index as u16);
        for entry in zone.get("resources").list()? {
            if entry.get("name").text()? != resource {
                continue;
            }
            let capacity = entry.get("capacity");
            let gpus = capacity.number()?;
            if gpus > (MAX_GPUS - numa.len()) as u64 {
                return Err(capacity.error(format!("makes more than {MAX_GPUS} GPUs in one node")));
            }
            numa.extend((0..gpus).map(|_| Some(number)));
        }
    }
    Ok((name, numa))
}

/// The inside of a node whose GPUs are in these NUMA nodes. Within one, GPUs without NVLink see each other across host
/// bridges ([`LinkKind::Node`]), from one to another across sockets; with NVLink all see each other by it.
pub fn of_zones(numa: &[Option<u16>], accelerator: Accelerator) -> NodeInterior {
    let numa = &numa[..numa.len().min(MAX_GPUS)];
    let path = |a: usize, b: usize| match accelerator.nvlinks {
        0 if numa[a] == numa[b] => LinkKind::Node,
        0 => LinkKind::Sys,
        links => LinkKind::NvLink(links),
    };
    NodeInterior::symmetric(accelerator, numa.to_vec(), path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::field::arbitrary;
    use super::*;

    const GPU: &str = "nvidia.com/gpu";

    fn example() -> Value {
        let zone = |name: &str, gpus: Value| {
            json!({"name": name, "type": "Node", "resources": [
                {"name": "cpu", "capacity": "48", "allocatable": "46", "available": "46"},
                {"name": GPU, "capacity": gpus},
            ]})
        };
        json!({
            "apiVersion": "topology.node.k8s.io/v1alpha2", "kind": "NodeResourceTopology",
            "metadata": {"name": "n1"},
            "zones": [zone("node-0", json!("2")), zone("node-1", json!(1)), {"name": "core", "type": "Core"}],
        })
    }

    #[test]
    fn zones_become_numa_nodes() {
        let (name, numa) = zones(&example(), GPU).unwrap();
        let interior = of_zones(&numa, Accelerator::H100_PCIE);
        assert_eq!((name.as_str(), interior.gpu_count()), ("n1", 3));
        assert_eq!(interior.link(0, 1), Some(LinkKind::Node));
        assert_eq!(interior.link(1, 2), Some(LinkKind::Sys));
        assert_eq!(interior.numa(2), Some(1));
    }

    #[test]
    fn faults_name_the_field() {
        let mut object = example();
        object["zones"][1]["resources"][1]["capacity"] = json!("many");
        let fault = |object: &Value| zones(object, GPU).unwrap_err().to_string();
        assert_eq!(fault(&object), "zones[1].resources[1].capacity: must be a whole number of at least 0");
        object["zones"][1]["resources"][1]["capacity"] = json!(63);
        assert_eq!(fault(&object), "zones[1].resources[1].capacity: makes more than 64 GPUs in one node");
        assert_eq!(fault(&json!({})), "metadata.name: must be set");
    }

    proptest! {
        #[test]
        fn damaged_objects_are_answered(
            steps in prop::collection::vec(0_usize..20, 1..8),
            with in arbitrary::value(&["name", "type", "resources", "capacity", "zones"]),
        ) {
            let _ = zones(&arbitrary::damaged(example(), &steps, with), GPU);
        }
    }
}
