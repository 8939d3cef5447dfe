//! Gangs that say how their ranks are grouped, what they sum up, and how long their steps take.

use super::*;

/// A node with fast links inside.
fn linked(name: &str, gpus: u32) -> core::Node {
    let mut node = node(name, gpus);
    node.metadata
        .labels
        .get_or_insert_default()
        .insert("nvidia.com/gpu.product".into(), "NVIDIA-H100-80GB-HBM3".into());
    node
}

fn with(mut pod: core::Pod, annotation: &str, value: &str) -> core::Pod {
    pod.metadata.annotations.get_or_insert_default().insert(annotation.into(), value.into());
    pod
}

fn shaped(index: u32, of: u32, shape: &str) -> core::Pod {
    with(pod("g", index, of, None), "muster.dev/group-shape", shape)
}

/// The node of each pod that was bound, by name.
fn nodes(decisions: &[Decision]) -> BTreeMap<String, String> {
    let mut nodes = BTreeMap::new();
    for decision in decisions {
        if let Decision::Bind(binding) = decision {
            let places = binding.placement.0.iter();
            nodes.extend(places.map(|(pod, place)| (pod.name.clone(), place.node.clone())));
        }
    }
    nodes
}

#[test]
fn pods_of_a_tensor_group_share_a_node() {
    let mut planner = Planner::new(["muster".to_owned()]);
    for (name, gpus) in [("n0", 3), ("n1", 3), ("n2", 4)] {
        planner.node_seen(&linked(name, gpus));
    }
    for index in (0..8).rev() {
        planner.pod_seen(&shaped(index, 8, "tp=2,dp=4"));
    }
    let nodes = nodes(&decide(&mut planner));
    assert_eq!(nodes.len(), 8);
    for first in [0, 2, 4, 6] {
        let on = |index: u32| &nodes[&format!("g-{index}")];
        assert_eq!(on(first), on(first + 1), "{nodes:?}");
    }
}

#[test]
fn a_shape_for_other_pods_holds_the_gang_and_names_both_numbers() {
    let mut planner = planner(4);
    for index in 0..2 {
        planner.pod_seen(&shaped(index, 2, "tensor=8"));
    }
    let sentence = "held back: its group shape tensor=8,pipeline=1,data=1 is 8 ranks, but its 2 pods have 2 GPUs, of \
                    which each is one; it starts when the shape or the pods are changed";
    assert_eq!(told(&decide(&mut planner)), [sentence]);
    for index in 0..2 {
        planner.pod_seen(&shaped(index, 2, "eight"));
    }
    let sentence = "held back: pod g-0: muster.dev/group-shape is `eight`; it must be ranks of each kind of group, \
                    such as tensor=8,pipeline=2,data=4 (or tp, pp, dp; 1 where left out, never 0)";
    assert_eq!(told(&decide(&mut planner)), [sentence]);
    for index in 0..2 {
        planner.pod_seen(&shaped(index, 2, "tensor=2"));
    }
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn an_elastic_gang_starts_with_whole_copies() {
    let mut planner = planner(7);
    for index in 0..7 {
        planner.pod_seen(&shaped(index, 2, "tensor=2,data=4"));
    }
    assert_eq!(bound(&decide(&mut planner)), [6], "three copies of the four, and no half one");
}

#[test]
fn gpus_are_chosen_by_the_links_that_are_written_on_the_node() {
    let mut node = node("n0", 4);
    let table = "\tGPU0\tGPU1\tGPU2\tGPU3\nGPU0\tX\tSYS\tPIX\tSYS\nGPU1\tSYS\tX\tSYS\tPIX\nGPU2\tPIX\tSYS\tX\tSYS\n\
                 GPU3\tSYS\tPIX\tSYS\tX\n";
    node.metadata.annotations = Some([("muster.dev/gpu-topology".to_owned(), table.to_owned())].into());
    let mut planner = Planner::new(["muster".to_owned()]);
    planner.node_seen(&node);
    assert_eq!(planner.inside_faults(), [""; 0]);
    for index in 0..2 {
        planner.pod_seen(&pod("pair", index, 2, None));
    }
    let decisions = decide(&mut planner);
    let Decision::Bind(binding) = &decisions[0] else { panic!("{decisions:?}") };
    let gpus: Vec<&[u32]> =
        binding.placement.0.iter().map(|(_, place)| place.gpu_indices.as_slice()).collect();
    assert_eq!(gpus, [[0], [2]]);
    let annotations = node.metadata.annotations.get_or_insert_default();
    annotations.insert("muster.dev/gpu-topology".into(), "GPU 0: NVIDIA".into());
    planner.node_seen(&node);
    let fault = "node \"n0\": muster.dev/gpu-topology: there is no line with the columns GPU0, GPU1, ...: is this the \
                 output of `nvidia-smi topo -m`?";
    assert_eq!(planner.inside_faults(), [fault]);
}

#[test]
fn steps_that_a_gang_measures_are_told_once_beside_what_was_predicted() {
    let mut planner = Planner::new(["muster".to_owned()]);
    planner.node_seen(&linked("n0", 1));
    planner.node_seen(&linked("n1", 1));
    let pods = || (0..2).map(|index| with(pod("g", index, 2, None), "muster.dev/all-reduce-bytes", "13Gi"));
    pods().for_each(|pod| planner.pod_seen(&pod));
    let decisions = decide(&mut planner);
    let Decision::Bind(binding) = &decisions[0] else { panic!("{decisions:?}") };
    let predicted = binding.predicted.unwrap();
    let placed = nodes(&decisions);
    let runs = |mut pod: core::Pod| {
        pod.spec.as_mut().unwrap().node_name = Some(placed[&pod.name_any()].clone());
        pod
    };
    pods().for_each(|pod| planner.pod_seen(&runs(pod)));
    assert_eq!(planner.decide(Timestamp::UNIX_EPOCH).steps, []);
    for (pod, seconds) in pods().zip(["1.5", "2"]) {
        planner.pod_seen(&runs(with(pod, "muster.dev/step-seconds", seconds)));
    }
    let step = Step { queue: "default".to_owned(), observed: 2.0, predicted: Some(predicted) };
    assert_eq!(planner.decide(Timestamp::UNIX_EPOCH).steps, [step]);
    assert_eq!(planner.decide(Timestamp::UNIX_EPOCH).steps, [], "nothing new");
    let figures = planner.figures().queues["default"];
    assert_eq!((figures.predicted, figures.observed), (predicted, 2.0));
    let mut less = Planner::new(["muster".to_owned()]);
    less.node_seen(&linked("n0", 1));
    less.node_seen(&linked("n1", 1));
    (0..2).for_each(|index| {
        less.pod_seen(&with(pod("g", index, 2, None), "muster.dev/all-reduce-bytes", "1Gi"));
    });
    let decisions = decide(&mut less);
    let Decision::Bind(binding) = &decisions[0] else { panic!("{decisions:?}") };
    assert!(binding.predicted.unwrap() < predicted / 5.0);
}

#[test]
fn gangs_that_run_keep_others_off_their_uplinks() {
    use muster_scheduler_topology::{Level, NodeEntry, SharedNames, Topology, UplinkRule};
    let names: Vec<[String; 2]> =
        (0..8).map(|index| [format!("n{index}"), format!("r{}", index / 2)]).collect();
    let entry =
        |[node, rack]: &'static [String; 2]| NodeEntry { gpus: 4, ..NodeEntry::new(node, &[Some(rack)]) };
    let names: &'static [[String; 2]] = names.leak();
    let entries: Vec<NodeEntry<'_>> = names.iter().map(entry).collect();
    let rack = Level::new("rack", &[]).with_uplink(UplinkRule::oversubscribed(8.0));
    let tree =
        Topology::build(Level::between_cluster_and_host([rack]), &entries, SharedNames::Distinct).unwrap();
    let mut planner = Planner::new(["muster".to_owned()]);
    for [name, _] in names {
        planner.node_seen(&linked(name, 1));
    }
    planner.tree_given(tree);
    // Two of each rack's GPUs are left for the second gang whatever the first gets.
    let gang = |name: &str, planner: &mut Planner| {
        for index in 0..3 {
            let pod = with(pod(name, index, 3, None), "muster.dev/all-reduce-bytes", "100Gi");
            planner.pod_seen(&pod);
        }
        let racks: BTreeSet<String> = nodes(&decide(planner))
            .values()
            .map(|node| names.iter().find(|[name, _]| name == node).unwrap()[1].clone())
            .collect();
        racks
    };
    let first = gang("first", &mut planner);
    let second = gang("second", &mut planner);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(first.is_disjoint(&second), "{first:?} and {second:?}");
}
