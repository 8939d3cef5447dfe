//! `NodeResourceTopology` of Node Feature Discovery: which NUMA zone has how many GPUs.

use serde_json::Value;

use super::field::{Field, FieldError};
use crate::interior::{Accelerator, LinkKind, MAX_GPUS, NodeInterior};

/// A node's name and its interior: GPUs are numbered zone by zone. Within a zone, GPUs without NVLink see each other
/// across host bridges ([`LinkKind::Node`]), from zone to zone across sockets; with NVLink all see each other by it.
///
/// `resource` is the extended resource to look for, as a rule `nvidia.com/gpu`.
pub fn interior(
    object: &Value,
    resource: &str,
    accelerator: Accelerator,
) -> Result<(String, NodeInterior), FieldError> {
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
    let path = |a: usize, b: usize| match accelerator.nvlinks {
        0 if numa[a] == numa[b] => LinkKind::Node,
        0 => LinkKind::Sys,
        links => LinkKind::NvLink(links),
    };
    let links =
        (0..numa.len()).flat_map(|a| (0..numa.len()).map(move |b| (a, b))).map(|(a, b)| path(a, b)).collect();
    let interior = NodeInterior::new(accelerator, links, numa, Vec::new());
    interior.map(|interior| (name, interior)).map_err(|fault| root.get("zones").error(fault.to_string()))
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
        let (name, interior) = interior(&example(), GPU, Accelerator::H100_PCIE).unwrap();
        assert_eq!((name.as_str(), interior.gpu_count()), ("n1", 3));
        assert_eq!(interior.link(0, 1), Some(LinkKind::Node));
        assert_eq!(interior.link(1, 2), Some(LinkKind::Sys));
        assert_eq!(interior.numa(2), Some(1));
    }

    #[test]
    fn faults_name_the_field() {
        let mut object = example();
        object["zones"][1]["resources"][1]["capacity"] = json!("many");
        let fault = |object: &Value| interior(object, GPU, Accelerator::PCIE).unwrap_err().to_string();
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
            let _ = interior(&arbitrary::damaged(example(), &steps, with), GPU, Accelerator::PCIE);
        }
    }
}
