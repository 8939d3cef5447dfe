//! Gangs divided in several dimensions: where their groups are, and which pod gets which place.

use std::collections::BTreeSet;

use muster_scheduler_core::{Gang, GpuDemand, Ledger, Placement, Resources, Waiting};
use muster_scheduler_topology::{Dimension, GroupShape};
use proptest::prelude::*;

use crate::sentences::{gang, linked};

fn shaped(members: u32, gpus: u32, shape: &str) -> Gang {
    Gang { shape: Some(shape.parse().unwrap()), ..gang("g", members, gpus) }
}

/// Nodes of 4 GPUs, three to a rack, with so many free.
fn with_free(free: &[u32]) -> Ledger {
    let mut ledger = Ledger::default();
    for (index, free) in free.iter().enumerate() {
        ledger.set_node(linked(&format!("n{index}"), &format!("r{}", index / 3), 4));
        if *free < 4 {
            let mut pod = gang(&format!("other-{index}"), 1, 4 - free);
            pod.waiting[0].node_selector = [("kubernetes.io/hostname".into(), format!("n{index}"))].into();
            let taken = ledger.place(&pod).unwrap();
            ledger.take(&taken).unwrap();
        }
    }
    ledger
}

/// The node of each pod, by rank.
fn nodes(placement: &Placement) -> Vec<&str> {
    placement.0.iter().map(|(_, place)| place.node.as_str()).collect()
}

/// The nodes of each group of pods.
fn groups<'a>(nodes: &[&'a str], shape: &str, dimension: Dimension) -> Vec<BTreeSet<&'a str>> {
    let shape: GroupShape = shape.parse().unwrap();
    shape.groups(dimension).map(|group| group.map(|rank| nodes[rank]).collect()).collect()
}

#[test]
fn tensor_groups_are_whole_on_nodes_where_that_is_possible() {
    let mut ledger = with_free(&[3, 3, 4]);
    let gang = shaped(8, 1, "tensor=2,data=4");
    let placement = ledger.place(&gang).unwrap();
    let tensor = groups(&nodes(&placement), "tensor=2,data=4", Dimension::Tensor);
    assert!(tensor.iter().all(|nodes| nodes.len() == 1), "{placement:?}");
    let plain = ledger.place(&Gang { shape: None, ..gang }).unwrap();
    let torn = groups(&nodes(&plain), "tensor=2,data=4", Dimension::Tensor);
    assert!(torn.iter().any(|nodes| nodes.len() == 2), "without the shape nobody would care");
}

#[test]
fn what_does_not_fit_on_a_node_stays_in_the_smallest_domain() {
    let mut ledger = with_free(&[3, 3, 3, 3, 3, 3]);
    let placement = ledger.place(&shaped(16, 1, "tp=8,dp=2")).unwrap();
    let racks =
        |nodes: &BTreeSet<&str>| -> BTreeSet<bool> { nodes.iter().map(|node| *node < "n3").collect() };
    let tensor = groups(&nodes(&placement), "tp=8,dp=2", Dimension::Tensor);
    assert!(tensor.iter().all(|nodes| racks(nodes).len() == 1), "{tensor:?}");
}

#[test]
fn a_tensor_group_spans_pods_or_a_pod_holds_several() {
    let placement = with_free(&[4, 4, 4]).place(&shaped(6, 2, "tensor=4,data=3")).unwrap();
    let pairs = groups(&nodes(&placement), "tensor=2,data=3", Dimension::Tensor);
    assert!(pairs.iter().all(|nodes| nodes.len() == 1), "{pairs:?}");
    let placement = with_free(&[4, 4, 4]).place(&shaped(3, 4, "tensor=2,data=6")).unwrap();
    assert_eq!(nodes(&placement), ["n0", "n1", "n2"]);
}

#[test]
fn stages_are_farthest_apart_and_copies_near() {
    let mut ledger = with_free(&[4; 6]);
    let shape = "tensor=4,pipeline=2,data=3";
    let placement = ledger.place(&shaped(6, 4, shape)).unwrap();
    // One pod is a tensor group; ranks count copies first.
    assert_eq!(nodes(&placement), ["n0", "n1", "n2", "n3", "n4", "n5"]);
    let shape = "tensor=4,pipeline=3,data=2";
    let placement = ledger.place(&shaped(6, 4, shape)).unwrap();
    let copies = groups(&nodes(&placement), "pipeline=3,data=2", Dimension::Data);
    let torn = copies.iter().filter(|nodes| nodes.contains("n2") && nodes.contains("n3")).count();
    assert!(torn <= 1, "{copies:?}");
}

#[test]
fn a_pod_of_another_role_has_its_rank_and_breaks_no_group() {
    let mut gang = shaped(8, 1, "tensor=4,data=2");
    // The first asks for more processor than the others have beside it on most nodes.
    gang.waiting[0].requests = gang.waiting[0].requests.without("cpu").with("cpu", 7000);
    let mut ledger = with_free(&[4, 4, 4]);
    let placement = ledger.place(&gang).unwrap();
    assert_eq!(placement.0[0].0.name, "g-0");
    let tensor = groups(&nodes(&placement), "tensor=4,data=2", Dimension::Tensor);
    assert!(tensor.iter().all(|nodes| nodes.len() == 1), "{tensor:?}");
}

#[test]
fn pods_without_gpus_are_no_ranks_beside_others() {
    let mut gang = shaped(5, 1, "tensor=2,data=2");
    let launcher = &mut gang.waiting[0];
    launcher.requests = Resources::new().with("cpu", 100).with("pods", 1000);
    launcher.gpus = 0;
    assert_eq!(launcher.gpu_demand(), GpuDemand::None);
    let placement = with_free(&[2, 2, 4]).place(&gang).unwrap();
    assert_eq!((placement.0.len(), placement.0[0].0.name.as_str()), (5, "g-0"));
    let tensor = groups(&nodes(&placement)[1..], "tensor=2,data=2", Dimension::Tensor);
    assert!(tensor.iter().all(|nodes| nodes.len() == 1), "{tensor:?}");
}

#[test]
fn a_shape_for_another_number_of_ranks_is_told() {
    let mut ledger = with_free(&[4; 6]);
    let said = |gang: &Gang, ledger: &mut Ledger| ledger.place(gang).unwrap_err().to_string();
    assert_eq!(
        said(&shaped(4, 2, "tensor=8,data=2"), &mut ledger),
        "its group shape tensor=8,pipeline=1,data=2 is 16 ranks, but its 4 pods have 8 GPUs, of which each is one; it \
         starts when the shape or the pods are changed"
    );
    assert_eq!(
        said(&shaped(4, 0, "pp=3"), &mut ledger),
        "its group shape tensor=1,pipeline=3,data=1 is 3 ranks, but its 4 pods have no GPUs, so that each pod is one; it \
         starts when the shape or the pods are changed"
    );
    let elastic = Gang { min_available: 1, ..shaped(6, 1, "tensor=4,data=2") };
    let Placement(places) = ledger.place(&elastic).unwrap();
    assert_eq!(places.len(), 4, "one whole copy of the two");
    let without_copies = Gang { min_available: 1, ..shaped(6, 1, "tensor=8") };
    assert!(matches!(ledger.place(&without_copies), Err(Waiting::Shape { gpus: Some(6), .. })));
    let mut joins = shaped(1, 1, "tensor=4,data=2");
    joins.placed_on = vec!["n0".into()];
    assert!(ledger.place(&joins).is_ok(), "who joins takes what is free near the others");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_rank_has_a_place_of_its_own(
        free in prop::collection::vec(0_u32..5, 9),
        (tensor, pipeline, data) in (1_u32..5, 1_u32..3, 1_u32..4),
        gpus in 1_u32..3,
    ) {
        prop_assume!((tensor * pipeline * data).is_multiple_of(gpus));
        let gang = shaped(tensor * pipeline * data / gpus, gpus, &format!("tp={tensor},pp={pipeline},dp={data}"));
        let mut ledger = with_free(&free);
        let placement = ledger.place(&gang);
        let plain = ledger.place(&Gang { shape: None, ..gang.clone() });
        prop_assert_eq!(placement.is_ok(), plain.is_ok(), "groups never keep a gang from starting");
        if let Ok(placement) = placement {
            let names: Vec<&str> = placement.0.iter().map(|(pod, _)| pod.name.as_str()).collect();
            let members: Vec<&str> = gang.waiting.iter().map(|member| member.name.as_str()).collect();
            prop_assert_eq!(names, members);
            let slots: BTreeSet<(&str, u32)> = placement.0.iter()
                .flat_map(|(_, place)| place.gpu_indices.iter().map(|slot| (place.node.as_str(), *slot)))
                .collect();
            prop_assert_eq!(slots.len() as u32, tensor * pipeline * data);
            prop_assert!(ledger.take(&placement).is_ok());
        }
    }
}
