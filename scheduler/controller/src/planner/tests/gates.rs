//! Gates: who is let go, whose word is believed, and who is given up.

use super::*;

/// A pod of another scheduler behind the gate of gangs.
fn gated(gang: &str, index: u32, min: u32) -> core::Pod {
    let mut pod = pod(gang, index, min, None);
    let spec = pod.spec.as_mut().unwrap();
    spec.scheduler_name = Some("default-scheduler".into());
    spec.scheduling_gates = serde_json::from_value(json!([{"name": "muster.dev/gang"}])).unwrap();
    pod
}

/// The same after its gate was opened towards a node.
fn let_go(mut pod: core::Pod, node: &str, slot: u32) -> core::Pod {
    let only = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    let spec = pod.spec.as_mut().unwrap();
    spec.scheduling_gates = None;
    spec.affinity = serde_json::from_value(only).unwrap();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert("muster.dev/placed-on".into(), node.into());
    annotations.insert("muster.dev/gpu-indices".into(), slot.to_string());
    pod
}

fn openings(decisions: &[Decision]) -> Vec<Opening> {
    let bindings = decisions.iter().filter_map(|decision| match decision {
        Decision::Bind(binding) => Some(binding.gates.values().copied()),
        _ => None,
    });
    bindings.flatten().collect()
}

#[test]
fn gates_open_for_the_whole_gang_of_another_scheduler() {
    let mut planner = planner(2);
    planner.pod_seen(&gated("g", 0, 2));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    let mut elsewhere = gated("g", 1, 2);
    let gates = json!([{"name": "kueue.x-k8s.io/admission"}, {"name": "muster.dev/gang"}]);
    elsewhere.spec.as_mut().unwrap().scheduling_gates = serde_json::from_value(gates).unwrap();
    planner.pod_seen(&elsewhere);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "Kueue has not admitted it");
    planner.pod_seen(&gated("g", 1, 2));
    assert_eq!(openings(&decide(&mut planner)), [Opening::Only, Opening::Only]);
    for index in 0..2 {
        planner.pod_seen(&let_go(gated("g", index, 2), "n0", index));
    }
    planner.pod_seen(&pod("later", 0, 1, None));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "the room is taken though nothing is bound");
}

#[test]
fn a_gated_pod_of_ours_is_let_go_and_bound() {
    let mut planner = planner(1);
    let mut ours = gated("g", 0, 1);
    ours.spec.as_mut().unwrap().scheduler_name = Some("muster".into());
    planner.pod_seen(&ours);
    assert_eq!(openings(&decide(&mut planner)), [Opening::ThenBind]);
}

#[test]
fn a_restart_finds_the_places_of_pods_that_were_let_go() {
    let mut planner = planner(2);
    planner.pod_seen(&let_go(gated("g", 0, 2), "n0", 0));
    planner.pod_seen(&gated("g", 1, 2));
    let member = |index: u32| ReservedMember {
        pod: format!("g-{index}"),
        uid: format!("g-{index}-uid"),
        node: "n0".into(),
        gpu_indices: vec![index],
        claims: Vec::new(),
    };
    let spec = GangReservationSpec { gang: "g".into(), epoch: 1, members: vec![member(0), member(1)] };
    let mut reservation = GangReservation::new("g", spec);
    reservation.metadata.namespace = Some("a".into());
    let binding = planner.restore([&reservation]).remove(0);
    let opened: Vec<&str> = binding.gates.keys().map(|pod| pod.name.as_str()).collect();
    assert_eq!((opened, &binding.placement.0[0].1.gpu_indices), (vec!["g-1"], &vec![1]));
    planner.pod_seen(&pod("later", 0, 1, None));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
}

#[test]
fn a_pod_whose_only_node_is_lost_is_given_up_after_a_while() {
    let (mut planner, _) = steered(true);
    assert_eq!(given_up(&at(&mut planner, 1000)), 0);
    planner.node_gone("n0");
    assert_eq!(given_up(&at(&mut planner, 1001)), 0);
    assert_eq!(given_up(&at(&mut planner, 1060)), 0);
    assert_eq!(given_up(&at(&mut planner, 1061)), 1);
    assert_eq!(given_up(&at(&mut planner, 1062)), 0);
}

/// A pod of another scheduler that was let go to the only node, with one GPU.
fn steered(owned: bool) -> (Planner, core::Pod) {
    let mut planner = planner(1);
    let mut pod = gated("g", 0, 1);
    if owned {
        let owner =
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}]);
        pod.metadata.owner_references = serde_json::from_value(owner).unwrap();
    }
    planner.pod_seen(&pod);
    assert_eq!(openings(&at(&mut planner, 900)), [Opening::Only]);
    let pod = let_go(pod, "n0", 0);
    planner.pod_seen(&pod);
    carried_out(&mut planner, "g", &[]);
    (planner, pod)
}

fn given_up(decisions: &[Decision]) -> usize {
    let in_vain = |decision: &&Decision| {
        matches!(decision, Decision::Evict { why: Eviction::SteeredInVain, foreign: true, .. })
    };
    decisions.iter().filter(in_vain).count()
}

fn unschedulable(mut pod: core::Pod) -> core::Pod {
    let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
    pod.status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
    pod
}

#[test]
fn a_pod_that_its_own_scheduler_refuses_is_given_up_after_a_while() {
    let (mut planner, pod) = steered(true);
    assert_eq!(given_up(&at(&mut planner, 2000)), 0, "its scheduler may be slow");
    planner.pod_seen(&unschedulable(pod.clone()));
    assert_eq!(given_up(&at(&mut planner, 2001)), 0);
    planner.pod_seen(&pod);
    assert_eq!(given_up(&at(&mut planner, 2061)), 0, "it has changed its mind");
    planner.pod_seen(&unschedulable(pod));
    assert_eq!(given_up(&at(&mut planner, 2062)), 0);
    assert_eq!(given_up(&at(&mut planner, 2122)), 1);
}

#[test]
fn a_refused_pod_without_an_owner_keeps_no_room() {
    let (mut planner, pod) = steered(false);
    planner.pod_seen(&super::pod("other", 0, 1, None));
    planner.pod_seen(&unschedulable(pod.clone()));
    assert_eq!(bound(&at(&mut planner, 2000)), [0usize; 0]);
    assert_eq!(given_up(&at(&mut planner, 2060)), 0, "nobody would create another");
    planner.pod_seen(&unschedulable(pod));
    assert_eq!(bound(&at(&mut planner, 2061)), [1]);
}

#[test]
fn a_pod_that_somebody_else_lets_go_is_no_member_any_more() {
    let mut planner = planner(4);
    (0..2).for_each(|index| planner.pod_seen(&gated("g", index, 2)));
    let mut opened = gated("g", 0, 2);
    opened.spec.as_mut().unwrap().scheduling_gates = None;
    planner.pod_seen(&opened);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "one of two");
    planner.pod_seen(&gated("g", 2, 2));
    assert_eq!(bound(&decide(&mut planner)), [2]);
    // The same while its opening is under way.
    opened.metadata.name = Some("g-2".into());
    opened.metadata.uid = Some("g-2-uid".into());
    planner.pod_seen(&opened);
    carried_out(&mut planner, "g", &[2]);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    // A successor that nobody lets in yet is none, either.
    let mut later = gated("h", 0, 2);
    (0..2).for_each(|index| planner.pod_seen(&gated("h", index, 2)));
    let gates = json!([{"name": "kueue.x-k8s.io/admission"}, {"name": "muster.dev/gang"}]);
    later.spec.as_mut().unwrap().scheduling_gates = serde_json::from_value(gates).unwrap();
    later.metadata.uid = Some("later".into());
    planner.pod_seen(&later);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
}

#[test]
fn nobody_takes_room_by_saying_that_he_was_let_go() {
    let mut planner = planner(2);
    let mut squatter = let_go(pod("squatter", 0, 1, None), "n0", 0);
    squatter.spec.as_mut().unwrap().scheduler_name = Some("nobody".into());
    planner.pod_seen(&squatter);
    (0..2).for_each(|index| planner.pod_seen(&gated("g", index, 2)));
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn a_slot_that_somebody_else_claims_stays_its_owners() {
    let mut planner = planner(3);
    let claims_slot_0 = |gang: &str, claimed: &str| {
        let mut pod = pod(gang, 0, 1, Some("n0"));
        let annotations = pod.metadata.annotations.as_mut().unwrap();
        annotations.insert("muster.dev/gpu-indices".into(), claimed.into());
        pod
    };
    planner.pod_seen(&claims_slot_0("owner", "0"));
    // Later words about the own slots are not heard.
    planner.pod_seen(&claims_slot_0("owner", "2"));
    let liar = claims_slot_0("liar", "0");
    planner.pod_seen(&liar);
    gone(&mut planner, &liar);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, None)));
    let given: Vec<u32> = binding(&decide(&mut planner))
        .placement
        .0
        .iter()
        .flat_map(|(_, place)| place.gpu_indices.clone())
        .collect();
    assert_eq!(given, [1, 2]);
}

#[test]
fn a_lone_pod_that_was_let_go_is_found_after_a_restart() {
    let mut lone = gated("g", 0, 1);
    lone.metadata.annotations = None;
    let mut before = planner(1);
    before.pod_seen(&lone);
    assert!(binding(&decide(&mut before)).durable);
}

#[test]
fn a_gated_pod_with_fields_that_no_plan_looks_at_is_not_let_go() {
    let mut planner = planner(1);
    let mut pod = gated("g", 0, 1);
    let far = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname"}]}});
    pod.spec.as_mut().unwrap().affinity = serde_json::from_value(far).unwrap();
    planner.pod_seen(&pod);
    let sentence = "held back: pod g-0: Muster does not look at podAntiAffinity, which may forbid the node that it is \
                    let go to; remove it, or the gate";
    assert_eq!(told(&decide(&mut planner)), [sentence]);
}
