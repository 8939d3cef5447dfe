use super::*;
use crate::interior::Accelerator;
use crate::link::UplinkRule;
use crate::tree::{Level, NodeEntry, SharedNames};

fn example() -> (Topology, Occupancy) {
    let names: Vec<[String; 2]> =
        (0..9).map(|node| [format!("n{node}"), format!("r{}", u32::from(node > 5))]).collect();
    let entries: Vec<NodeEntry<'_>> = names
        .iter()
        .map(|[node, rack]| NodeEntry { gpus: 8, ..NodeEntry::new(node, &[Some(rack)]) })
        .collect();
    let rack = Level::new("rack", &[]).with_uplink(UplinkRule::oversubscribed(2.0));
    let topology =
        Topology::build(Level::between_cluster_and_host([rack]), &entries, SharedNames::Distinct).unwrap();
    let free = [8, 8, 8, 8, 8, 8, 0, 3, 8].map(|free| (free, 8)).to_vec();
    (topology, Occupancy::new(free))
}

#[test]
fn text_folds_hosts_that_look_alike() {
    let (topology, occupancy) = example();
    insta::assert_snapshot!(text(&topology, &occupancy, false), @r"
    cluster                9 nodes  59/72 GPUs free
    ├─ rack r0             6 nodes  48/48 GPUs free  ↑ 1.2 TB/s 2:1
    │  └─ 6 hosts n0 … n5  each 8/8 GPUs free  ↑ 400 GB/s
    └─ rack r1             3 nodes  11/24 GPUs free  ↑ 600 GB/s 2:1
       ├─ host n6          0/8 GPUs free  ↑ 400 GB/s
       ├─ host n7          3/8 GPUs free  ↑ 400 GB/s
       └─ host n8          8/8 GPUs free  ↑ 400 GB/s
    ");
    assert_eq!(text(&topology, &occupancy, true).lines().count(), 12);
    let empty = Topology::build(Level::between_cluster_and_host([]), &[], SharedNames::Distinct).unwrap();
    assert_eq!(text(&empty, &Occupancy::default(), false), "cluster  0 nodes\n");
}

#[test]
fn text_shows_the_inside_of_hosts_where_it_is_known() {
    let (topology, occupancy) = example();
    let zones = |zones: &[u16], accelerator| {
        let numa: Vec<Option<u16>> = zones.iter().copied().map(Some).collect();
        inside(&crate::import::nrt::of_zones(&numa, accelerator))
    };
    let known = [
        None,
        zones(&[0; 8], Accelerator::H100),
        zones(&[0, 0, 0, 0, 1, 1, 1, 1], Accelerator::PCIE),
        zones(&[0, 1, 0, 2], Accelerator::PCIE),
        zones(&[0], Accelerator::PCIE),
    ];
    let occupancy = occupancy.with_insides(known.into());
    let drawing = text(&topology, &occupancy, false);
    let hosts: Vec<&str> = drawing.lines().skip(2).take(5).collect();
    insta::assert_snapshot!(hosts.join("\n"), @r"
    │  ├─ host n0  8/8 GPUs free  ↑ 400 GB/s
    │  ├─ host n1  8/8 GPUs free  ↑ 400 GB/s  ⇄ NV18 370.8 GB/s
    │  ├─ host n2  8/8 GPUs free  ↑ 400 GB/s  ⇄ 0-3 4-7 NODE 17.6 GB/s, else SYS
    │  ├─ host n3  8/8 GPUs free  ↑ 400 GB/s  ⇄ 0,2 1 3 NODE 17.6 GB/s, else SYS
    │  ├─ host n4  8/8 GPUs free  ↑ 400 GB/s
    ");
}

#[test]
fn svg_has_a_box_for_every_domain_that_can_be_seen() {
    let (topology, occupancy) = example();
    let drawing = svg(&topology, &occupancy);
    assert_eq!(drawing.matches("<rect").count(), topology.domain_count());
    assert!(drawing.contains("rack r1: 11 of 24 GPUs free, uplink 600 GB/s"), "{drawing}");
    let names: Vec<String> = (0..5000).map(|node| format!("<{node}>")).collect();
    let nodes: Vec<NodeEntry<'_>> = names.iter().map(|name| NodeEntry::new(name, &[])).collect();
    let large = Topology::build(Level::between_cluster_and_host([]), &nodes, SharedNames::Distinct).unwrap();
    let drawing = svg(&large, &Occupancy::default());
    assert!(drawing.matches("<rect").count() < 1100, "compact");
    assert!(!drawing.contains("<4999>"));
}
