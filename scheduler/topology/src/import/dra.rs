//! `ResourceSlice` of dynamic resource allocation: GPUs and network cards with their PCIe root and NUMA node.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field::{Field, FieldError};
use crate::interior::{Accelerator, LinkKind, MAX_GPUS, Nic, NodeInterior};
use crate::tree::natural_order;

const PCIE_ROOT: &str = "resource.kubernetes.io/pcieRoot";
const NUMA_NODE: &str = "resource.kubernetes.io/numaNode";

/// Where a device sits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    name: String,
    root: Option<String>,
    numa: Option<u16>,
    product: Option<String>,
}

/// Per node its GPUs and other devices on PCIe.
#[derive(Debug, Default)]
struct Node {
    gpus: Vec<Device>,
    nics: Vec<Device>,
}

/// The interiors of the nodes that publish whole GPUs in these slices, by node name.
///
/// GPUs are numbered in the order of their devices' names. Devices at one PCIe root see each other through its host
/// bridge, others of one NUMA node across host bridges, all else across sockets; products with NVLink see each other
/// by NVLink. Devices of other drivers that name a PCIe root count as network cards.
pub fn interiors(slices: &[Value]) -> Result<BTreeMap<String, NodeInterior>, FieldError> {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    for (index, slice) in slices.iter().enumerate() {
        let within =
            |fault: FieldError| FieldError::new(format!("slice {index}: {}", fault.field), fault.problem);
        read(&Field::root(slice), &mut nodes).map_err(within)?;
    }
    let mut interiors = BTreeMap::new();
    for (name, mut node) in nodes {
        node.gpus.sort_by(|a, b| natural_order(&a.name, &b.name));
        node.gpus.dedup_by(|a, b| a.name == b.name);
        if node.gpus.is_empty() {
            continue;
        }
        if node.gpus.len() > MAX_GPUS {
            return Err(FieldError::new(name, format!("publishes more than {MAX_GPUS} GPUs")));
        }
        let interior = interior(&node).map_err(|fault| FieldError::new(&name, fault.to_string()))?;
        interiors.insert(name, interior);
    }
    Ok(interiors)
}

fn read(slice: &Field<'_>, nodes: &mut BTreeMap<String, Node>) -> Result<(), FieldError> {
    let spec = slice.get("spec");
    if !spec.get("nodeName").exists() {
        // Devices that are not of one node say nothing of a node's inside.
        return Ok(());
    }
    let node = spec.get("nodeName").text()?;
    let driver = spec.get("driver").text()?;
    for device in spec.get("devices").list()? {
        let name = device.get("name").text()?.to_owned();
        // Until v1beta1 attributes were one level deeper.
        let old = device.get("basic").get("attributes");
        let attributes = if old.exists() { old } else { device.get("attributes") };
        let mut read = Device { name, root: None, numa: None, product: None };
        let mut kind = None;
        for (key, value) in attributes.entries()? {
            match key.rsplit('/').next().unwrap_or(key) {
                "type" => kind = Some(value.get("string").text()?),
                "productName" => read.product = Some(value.get("string").text()?.to_owned()),
                "pcieRoot" if key == PCIE_ROOT => read.root = Some(value.get("string").text()?.to_owned()),
                "numaNode" | "numa" if key == NUMA_NODE || !key.starts_with("resource.") => {
                    read.numa = numa(&value)?;
                }
                _ => {}
            }
        }
        let node = nodes.entry(node.to_owned()).or_default();
        if driver.starts_with("gpu.") {
            if kind.is_none_or(|kind| kind == "gpu") {
                node.gpus.push(read);
            }
        } else if read.root.is_some() {
            node.nics.push(read);
        }
    }
    Ok(())
}

/// A number, or the first of a list of numbers.
fn numa(value: &Field<'_>) -> Result<Option<u16>, FieldError> {
    let number = if value.get("ints").exists() {
        value.get("ints").list()?.into_iter().next()
    } else {
        Some(value.get("int"))
    };
    let Some(number) = number else { return Ok(None) };
    let whole = number.number()?;
    u16::try_from(whole).map(Some).map_err(|_| number.error("is no NUMA node"))
}

fn interior(node: &Node) -> Result<NodeInterior, crate::interior::InteriorError> {
    let product = node.gpus.iter().find_map(|gpu| gpu.product.as_deref()).unwrap_or_default();
    let accelerator = Accelerator::of_product(product);
    let path = |a: &Device, b: &Device| {
        if a.root.is_some() && a.root == b.root {
            LinkKind::Phb
        } else if a.numa.is_some() && a.numa == b.numa {
            LinkKind::Node
        } else {
            LinkKind::Sys
        }
    };
    let gpu_path =
        |a, b| if accelerator.nvlinks > 0 { LinkKind::NvLink(accelerator.nvlinks) } else { path(a, b) };
    let links = node.gpus.iter().flat_map(|a| node.gpus.iter().map(move |b| gpu_path(a, b))).collect();
    let nic = |nic: &Device| Nic {
        name: nic.name.clone(),
        paths: node.gpus.iter().map(|gpu| path(gpu, nic)).collect(),
    };
    let numa = node.gpus.iter().map(|gpu| gpu.numa).collect();
    NodeInterior::new(accelerator, links, numa, node.nics.iter().map(nic).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::field::arbitrary;
    use super::*;

    fn gpu(index: u32, product: &str) -> Value {
        json!({"name": format!("gpu-{index}"), "attributes": {
            "type": {"string": "gpu"},
            "productName": {"string": product},
            PCIE_ROOT: {"string": format!("pci0000:{}", index / 2)},
            NUMA_NODE: {"ints": [index / 4]},
        }})
    }

    fn slice(driver: &str, devices: Vec<Value>) -> Value {
        json!({"kind": "ResourceSlice", "spec": {"driver": driver, "nodeName": "n1", "devices": devices}})
    }

    fn example() -> Vec<Value> {
        let mig = json!({"name": "gpu-0-mig-1", "attributes": {"type": {"string": "mig"}}});
        let old = json!({"name": "gpu-10", "basic": {"attributes": {
            "type": {"string": "gpu"}, "numaNode": {"int": 1}, PCIE_ROOT: {"string": "pci0000:5"},
        }}});
        let nic = json!({"name": "net-0", "attributes": {PCIE_ROOT: {"string": "pci0000:1"}}});
        vec![
            slice("gpu.nvidia.com", vec![old, gpu(2, "NVIDIA L40S"), gpu(3, "NVIDIA L40S"), mig]),
            slice("gpu.nvidia.com", vec![gpu(0, "NVIDIA L40S"), gpu(1, "NVIDIA L40S")]),
            slice("dra.net", vec![nic]),
        ]
    }

    #[test]
    fn roots_and_numa_nodes_become_paths() {
        let interiors = interiors(&example()).unwrap();
        let interior = &interiors["n1"];
        assert_eq!(interior.gpu_count(), 5);
        assert_eq!(interior.link(0, 1), Some(LinkKind::Phb));
        assert_eq!(interior.link(1, 2), Some(LinkKind::Node));
        assert_eq!(interior.link(0, 4), Some(LinkKind::Sys));
        assert_eq!(interior.numa(4), Some(1));
        assert_eq!(interior.nics()[0].paths[2], LinkKind::Phb);
    }

    #[test]
    fn products_with_nvlink_see_each_other_by_it() {
        let slice =
            slice("gpu.nvidia.com", vec![gpu(0, "NVIDIA H100 80GB HBM3"), gpu(7, "NVIDIA H100 80GB HBM3")]);
        assert_eq!(interiors(&[slice]).unwrap()["n1"].link(0, 1), Some(LinkKind::NvLink(18)));
    }

    #[test]
    fn faults_name_slice_and_field() {
        let mut objects = example();
        objects[1]["spec"]["devices"][0]["attributes"][PCIE_ROOT] = json!({"int": 4});
        assert_eq!(
            interiors(&objects).unwrap_err().to_string(),
            "slice 1: spec.devices[0].attributes[\"resource.kubernetes.io/pcieRoot\"].string: must be set"
        );
    }

    proptest! {
        #[test]
        fn damaged_slices_are_answered(
            which in 0_usize..3,
            steps in prop::collection::vec(0_usize..20, 1..8),
            with in arbitrary::value(&["name", "attributes", "string", "int", "ints", "spec", "devices", "driver"]),
        ) {
            let mut objects = example();
            objects[which] = arbitrary::damaged(objects[which].clone(), &steps, with);
            let _ = interiors(&objects);
        }
    }
}
