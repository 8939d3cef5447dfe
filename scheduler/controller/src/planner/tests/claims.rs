use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use muster_scheduler_core::ClaimKey;
use serde_json::Value;

use super::*;

/// Pods that bring claims `g-0-gpu` ... of their own.
pub(in super::super) fn claiming(gang: &str, index: u32, of: u32) -> core::Pod {
    let mut pod = pod(gang, index, of, None);
    let spec = pod.spec.as_mut().unwrap();
    spec.containers[0].resources = None;
    spec.resource_claims =
        serde_json::from_value(json!([{"name": "gpu", "resourceClaimTemplateName": "t"}])).unwrap();
    pod.status.as_mut().unwrap().resource_claim_statuses = serde_json::from_value(json!([
        {"name": "gpu", "resourceClaimName": format!("{gang}-{index}-gpu")}]))
    .unwrap();
    pod
}

pub(in super::super) fn claim(gang: &str, index: u32, request: &Value) -> Box<ResourceClaim> {
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": format!("{gang}-{index}"),
        "uid": format!("{gang}-{index}-uid"), "controller": true});
    let claim = json!({
        "metadata": {"name": format!("{gang}-{index}-gpu"), "namespace": "a", "resourceVersion": "1",
            "uid": format!("{gang}-{index}-claim"), "ownerReferences": [owner]},
        "spec": {"devices": {"requests": [request]}}});
    Box::new(serde_json::from_value(claim).unwrap())
}

pub(in super::super) fn exactly(more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu.example.com"});
    if let (Some(into), Value::Object(from)) = (exactly.as_object_mut(), more) {
        into.extend(from);
    }
    json!({"name": "gpu", "exactly": exactly})
}

pub(in super::super) fn class() -> DeviceEvent {
    let class: DeviceClass =
        serde_json::from_value(json!({"metadata": {"name": "gpu.example.com"}, "spec": {
        "selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}],
        "config": [{"opaque": {"driver": "gpu.example.com", "parameters": {"sharing": "none"}}}]}}))
        .unwrap();
    DeviceEvent::Class(Box::new(class))
}

/// A slice of `count` devices on a node; the first `large` of them are large.
pub(in super::super) fn slice(
    node: &str,
    count: usize,
    large: usize,
    of: i64,
    generation: i64,
) -> DeviceEvent {
    let devices: Vec<Value> = (0..count)
        .map(|index| {
            let size = if index < large { "80Gi" } else { "40Gi" };
            json!({"name": format!("gpu-{index}"), "attributes": {"index": {"int": index}},
                "capacity": {"memory": {"value": size}}})
        })
        .collect();
    let slice: ResourceSlice = serde_json::from_value(json!({
        "metadata": {"name": format!("{node}-slice")},
        "spec": {"driver": "gpu.example.com", "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": of}}}))
    .unwrap();
    DeviceEvent::Slice(Box::new(slice))
}

pub(in super::super) fn read(planner: &mut Planner) {
    for kind in DeviceKind::ALL {
        planner.devices_changed(DeviceEvent::Kind(kind, Availability::Read));
    }
}

/// Nodes `n0` and `n1` with two devices each, one of them large.
fn with_devices() -> Planner {
    let mut planner = Planner::new(["muster".to_owned()]);
    for name in ["n0", "n1"] {
        planner.node_seen(&node(name, 0));
        planner.devices_changed(slice(name, 2, 1, 1, 1));
    }
    planner.devices_changed(class());
    read(&mut planner);
    planner
}

fn gang(planner: &mut Planner, name: &str, of: u32, request: &Value) {
    for index in 0..of {
        planner.pod_seen(&claiming(name, index, of));
        planner.devices_changed(DeviceEvent::Claim(claim(name, index, request)));
    }
}

fn binding(decisions: &[Decision]) -> &Binding {
    let bindings: Vec<&Binding> = decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Bind(binding) => Some(binding),
            _ => None,
        })
        .collect();
    assert_eq!(bindings.len(), 1, "{decisions:?}");
    bindings[0]
}

/// Why pods wait.
fn told(decisions: &[Decision]) -> &str {
    let message = decisions.iter().find_map(|decision| match decision {
        Decision::Explain { message, .. } => Some(message.as_str()),
        _ => None,
    });
    message.unwrap_or_else(|| panic!("nothing is told: {decisions:?}"))
}

/// Node, pool and device of each claim of a binding.
fn devices(binding: &Binding) -> Vec<(String, String)> {
    let uses = binding.claims.iter().flat_map(|(pod, claims)| {
        let place = binding.placement.0.iter().find(|(placed, _)| placed == pod).unwrap();
        claims.iter().map(move |claim| (place.1.node.clone(), claim))
    });
    let device = uses.map(|(node, claim)| {
        let results = claim.allocation.as_ref().unwrap().devices.as_ref().unwrap().results.as_ref().unwrap();
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].pool, node, "its device is on its node");
        (node, results[0].device.clone())
    });
    device.collect()
}

#[test]
fn a_gang_gets_a_device_for_each_pod_and_what_is_written_says_all() {
    let mut planner = with_devices();
    gang(&mut planner, "g", 4, &exactly(json!({})));
    let decisions = decide(&mut planner);
    let binding = binding(&decisions);
    let mut places = devices(binding);
    places.sort();
    let place = |node: &str, device: &str| (node.to_owned(), device.to_owned());
    assert_eq!(
        places,
        [place("n0", "gpu-0"), place("n0", "gpu-1"), place("n1", "gpu-0"), place("n1", "gpu-1")]
    );
    assert!(binding.durable);
    let first = &binding.claims[&PodKey::new("a", "g-0")][0];
    let node = &binding.placement.0[0].1.node;
    assert_eq!(
        serde_json::to_value(&first.allocation).unwrap(),
        json!({
            "devices": {
                "config": [{"source": "FromClass", "requests": ["gpu"],
                    "opaque": {"driver": "gpu.example.com", "parameters": {"sharing": "none"}}}],
                "results": [{"request": "gpu", "driver": "gpu.example.com", "pool": node, "device": "gpu-0"}]},
            "nodeSelector": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]},
        })
    );
    gang(&mut planner, "late", 1, &exactly(json!({})));
    let decisions = decide(&mut planner);
    assert!(
        told(&decisions).starts_with(
            "0 of 1 pods fit now: 4 devices are what request gpu of claim late-0-gpu asks for, and 4 of them are taken"
        ),
        "{decisions:?}"
    );
}

#[test]
fn selectors_choose_among_devices() {
    let mut planner = with_devices();
    let expression = "device.capacity['gpu.example.com'].memory.compareTo(quantity('80Gi')) >= 0";
    let large = exactly(json!({"selectors": [{"cel": {"expression": expression}}]}));
    gang(&mut planner, "g", 2, &large);
    let decisions = decide(&mut planner);
    let mut places = devices(binding(&decisions));
    places.sort();
    assert_eq!(places, [("n0".to_owned(), "gpu-0".to_owned()), ("n1".to_owned(), "gpu-0".to_owned())]);
}

#[test]
fn what_cannot_be_placed_says_why() {
    let why = |request: &Value| {
        let mut planner = with_devices();
        gang(&mut planner, "g", 1, request);
        told(&decide(&mut planner)).to_owned()
    };
    let selecting = |expression: &str| exactly(json!({"selectors": [{"cel": {"expression": expression}}]}));
    assert_eq!(
        why(&selecting("device.speed > 1")),
        "held back: pod g-0: ResourceClaim g-0-gpu: request gpu: selector `device.speed > 1` cannot be evaluated: no \
         such key: speed, for device gpu.example.com/n0/gpu-0"
    );
    assert!(why(&selecting("device.driver ==")).contains("selector `device.driver ==` does not compile: "));
    assert_eq!(
        why(&exactly(json!({"deviceClassName": "other"}))),
        "held back: pod g-0: ResourceClaim g-0-gpu: DeviceClass other does not exist; create it, or name another"
    );
    assert_eq!(
        why(&selecting("device.attributes['gpu.example.com'].index == 7")),
        "no node can ever take pod g-0: 2 of 2 nodes have no device that request gpu of claim g-0-gpu asks for; it \
         starts when such a node joins or the pod asks for less"
    );
    assert!(
        why(&exactly(json!({"allocationMode": "Some"}))).contains("allocationMode is `Some`; it must be")
    );
    assert!(
        why(&exactly(json!({"capacity": {"requests": {"memory": "1Gi"}}})))
            .contains("divide devices by capacity")
    );
    assert!(why(&json!({"name": "gpu"})).contains("neither `exactly` nor `firstAvailable`"));
}

#[test]
fn a_claim_that_is_not_there_yet_and_kinds_that_cannot_be_read_hold_the_gang() {
    let mut planner = Planner::new(["muster".to_owned()]);
    planner.node_seen(&node("n0", 0));
    assert!(!planner.begins_to_need_devices() && planner.knows_devices());
    let mut pod = claiming("g", 0, 1);
    pod.status.as_mut().unwrap().resource_claim_statuses = None;
    planner.pod_seen(&pod);
    assert!(planner.begins_to_need_devices() && !planner.begins_to_need_devices(), "told once");
    assert!(!planner.knows_devices());
    for kind in DeviceKind::ALL {
        planner.devices_changed(DeviceEvent::Kind(kind, Availability::Absent));
    }
    assert!(planner.knows_devices());
    let why = "held back: pod g-0: this cluster has no ResourceClaims: it does not serve resource.k8s.io/v1";
    assert_eq!(told(&decide(&mut planner)), why);
    read(&mut planner);
    assert_eq!(
        told(&decide(&mut planner)),
        "held back: pod g-0: its claim gpu is to be made from ResourceClaimTemplate t and is not there yet"
    );
    planner.pod_seen(&claiming("g", 0, 1));
    assert_eq!(
        told(&decide(&mut planner)),
        "held back: pod g-0: ResourceClaim g-0-gpu does not exist; create it, or name another"
    );
    planner.devices_changed(DeviceEvent::Claim(claim("other", 0, &exactly(json!({})))));
    let mut strange = claim("g", 0, &exactly(json!({})));
    strange.metadata.owner_references = None;
    planner.devices_changed(DeviceEvent::Claim(strange));
    assert!(told(&decide(&mut planner)).contains("was not made for this pod"));
}

#[test]
fn devices_of_a_pool_count_when_all_of_its_slices_are_there() {
    let mut planner = Planner::new(["muster".to_owned()]);
    planner.node_seen(&node("n0", 0));
    planner.devices_changed(class());
    planner.devices_changed(slice("n0", 2, 0, 2, 1));
    read(&mut planner);
    gang(&mut planner, "g", 1, &exactly(json!({})));
    assert!(told(&decide(&mut planner)).contains("have no devices that can be claimed"));
    planner.devices_changed(slice("n0", 2, 0, 1, 2));
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

/// The claim as it is after a binding wrote on it.
fn allocated(gang: &str, index: u32, binding: &Binding, version: &str) -> Box<ResourceClaim> {
    let pod = PodKey::new("a", format!("{gang}-{index}"));
    let mut claim = claim(gang, index, &exactly(json!({})));
    claim.metadata.resource_version = Some(version.to_owned());
    claim.status = serde_json::from_value(json!({
        "allocation": binding.claims[&pod][0].allocation,
        "reservedFor": [{"resource": "pods", "name": pod.name, "uid": format!("{gang}-{index}-uid")}]}))
    .unwrap();
    claim
}

#[test]
fn devices_are_free_when_the_claim_says_so_and_not_when_the_pod_ends() {
    let mut planner = with_devices();
    gang(&mut planner, "g", 4, &exactly(json!({})));
    let decisions = decide(&mut planner);
    let binding = binding(&decisions).clone();
    for (index, (_, place)) in (0..4).zip(&binding.placement.0) {
        let mut running = claiming("g", index, 4);
        running.spec.as_mut().unwrap().node_name = Some(place.node.clone());
        planner.pod_seen(&running);
    }
    let written = (0..4).map(|index| (ClaimKey::new("a", format!("g-{index}-gpu")), Some("2".to_owned())));
    planner.carried_out(&Outcome {
        namespace: "a".into(),
        gang: "g".into(),
        written: None,
        refused: Vec::new(),
        why: None,
        claims: written.collect(),
    });
    gang(&mut planner, "late", 1, &exactly(json!({})));
    assert_eq!(bound(&decide(&mut planner)), [0; 0], "their claims have not been seen with devices yet");
    for index in 0..4 {
        planner.devices_changed(DeviceEvent::Claim(allocated("g", index, &binding, "2")));
    }
    for index in 0..4 {
        gone(&mut planner, &claiming("g", index, 4));
    }
    assert_eq!(bound(&decide(&mut planner)), [0; 0], "the claims still have their devices");
    planner.devices_changed(DeviceEvent::ClaimGone(ClaimKey::new("a", "g-2-gpu")));
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn a_refused_binding_gives_its_devices_back() {
    let mut planner = with_devices();
    gang(&mut planner, "g", 4, &exactly(json!({})));
    assert_eq!(bound(&decide(&mut planner)), [4]);
    carried_out(&mut planner, "g", &[0, 1, 2, 3]);
    assert_eq!(bound(&decide(&mut planner)), [4]);
}

#[test]
fn a_restart_finds_the_devices_of_the_plan_that_was_written() {
    let mut planner = with_devices();
    gang(&mut planner, "g", 2, &exactly(json!({})));
    let first = binding(&decide(&mut planner)).clone();
    let members = first.placement.0.iter().map(|(pod, place)| crate::plan::reserved(pod, place));
    let spec = GangReservationSpec { gang: "g".into(), epoch: 1, members: members.collect() };
    let mut reservation = GangReservation::new("g", spec);
    reservation.metadata.namespace = Some("a".into());
    // One claim was written on before the end, and another gang came meanwhile.
    let mut planner = with_devices();
    gang(&mut planner, "g", 2, &exactly(json!({})));
    planner.devices_changed(DeviceEvent::Claim(allocated("g", 1, &first, "2")));
    gang(&mut planner, "other", 2, &exactly(json!({})));
    let again = planner.restore([&reservation]).remove(0);
    assert_eq!(again.placement.0.len(), 2);
    let allocation =
        |binding: &Binding, pod: &str| binding.claims[&PodKey::new("a", pod)][0].allocation.clone();
    assert_eq!(allocation(&again, "g-0"), allocation(&first, "g-0"));
    assert_eq!(allocation(&again, "g-1"), None, "it has its devices");
    let decisions = decide(&mut planner);
    let others = devices(binding(&decisions));
    let taken: BTreeSet<(String, String)> = devices(&first).into_iter().collect();
    assert!(others.iter().all(|device| !taken.contains(device)), "{others:?} {taken:?}");
}

#[test]
fn what_an_attempt_that_came_to_nothing_left_on_claims_is_given_back() {
    let mut planner = with_devices();
    gang(&mut planner, "g", 2, &exactly(json!({})));
    let first = binding(&decide(&mut planner)).clone();
    // The next run finds no plan.
    let mut planner = with_devices();
    gang(&mut planner, "g", 2, &exactly(json!({})));
    planner.devices_changed(DeviceEvent::Claim(allocated("g", 0, &first, "2")));
    let decisions = decide(&mut planner);
    let given_back = |decisions: &[Decision]| {
        let back = decisions.iter().filter_map(|decision| match decision {
            Decision::GiveBack { claim, resource_version, .. } => {
                Some((claim.name.clone(), resource_version.clone()))
            }
            _ => None,
        });
        back.collect::<Vec<_>>()
    };
    assert_eq!(given_back(&decisions), [("g-0-gpu".to_owned(), "2".to_owned())]);
    assert_eq!(given_back(&decide(&mut planner)), [], "it is being done");
    planner.gave_back(&ClaimKey::new("a", "g-0-gpu"));
    assert_eq!(given_back(&decide(&mut planner)).len(), 1, "it came to nothing");
    planner.devices_changed(DeviceEvent::Claim(claim("g", 0, &exactly(json!({})))));
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn pods_of_one_claim_and_claims_with_devices_go_where_the_devices_are() {
    let mut planner = with_devices();
    let mut shared = claim("shared", 0, &exactly(json!({})));
    shared.metadata.owner_references = None;
    planner.devices_changed(DeviceEvent::Claim(shared.clone()));
    for index in 0..3 {
        planner.pod_seen(&sharing("g", index, 3));
    }
    let decisions = decide(&mut planner);
    let first = binding(&decisions);
    let nodes: BTreeSet<&str> = first.placement.0.iter().map(|(_, place)| place.node.as_str()).collect();
    assert_eq!(nodes.len(), 1);
    let allocations: Vec<_> = first.claims.values().map(|claims| claims[0].allocation.clone()).collect();
    assert!(allocations[0].is_some() && allocations.iter().all(|other| *other == allocations[0]));
    planner.pod_seen(&sharing("late", 0, 1));
    let why = "ResourceClaim shared-0-gpu is getting its devices just now";
    assert!(told(&decide(&mut planner)).contains(why));
    shared.status = serde_json::from_value(json!({"allocation": allocations[0]})).unwrap();
    planner.devices_changed(DeviceEvent::Claim(shared));
    let decisions = decide(&mut planner);
    let late = binding(&decisions);
    assert!(nodes.contains(late.placement.0[0].1.node.as_str()));
    assert_eq!(late.claims[&PodKey::new("a", "late-0")][0].allocation, None);
}

/// The same pod with a claim that others may name, too.
fn sharing(gang: &str, index: u32, of: u32) -> core::Pod {
    let mut pod = claiming(gang, index, of);
    pod.spec.as_mut().unwrap().resource_claims =
        serde_json::from_value(json!([{"name": "gpu", "resourceClaimName": "shared-0-gpu"}])).unwrap();
    pod
}

#[test]
fn pods_that_share_what_all_nodes_reach_may_be_on_different_nodes() {
    let mut planner = with_devices();
    let slice: ResourceSlice = serde_json::from_value(json!({
        "metadata": {"name": "net"},
        "spec": {"driver": "net.example.com", "allNodes": true, "devices": [{"name": "net-0"}],
            "pool": {"name": "net", "generation": 1, "resourceSliceCount": 1}}}))
    .unwrap();
    planner.devices_changed(DeviceEvent::Slice(Box::new(slice)));
    let class = serde_json::from_value(json!({"metadata": {"name": "net"}, "spec": {
        "selectors": [{"cel": {"expression": "device.driver == 'net.example.com'"}}]}}));
    planner.devices_changed(DeviceEvent::Class(Box::new(class.unwrap())));
    let mut shared = claim("shared", 0, &exactly(json!({"deviceClassName": "net"})));
    shared.metadata.owner_references = None;
    planner.devices_changed(DeviceEvent::Claim(shared));
    for index in 0..2 {
        let mut pod = sharing("g", index, 2);
        let requests = json!({"limits": {"cpu": "5"}});
        pod.spec.as_mut().unwrap().containers[0].resources = serde_json::from_value(requests).unwrap();
        planner.pod_seen(&pod);
    }
    let decisions = decide(&mut planner);
    let binding = binding(&decisions);
    let nodes: BTreeSet<&str> = binding.placement.0.iter().map(|(_, place)| place.node.as_str()).collect();
    assert_eq!(nodes.len(), 2, "a node has no room for both");
    let allocations: Vec<_> =
        binding.claims.values().map(|claims| claims[0].allocation.clone().unwrap()).collect();
    assert_eq!(allocations[0], allocations[1]);
    assert_eq!(allocations[0].node_selector, None);
}

#[test]
fn a_gang_that_has_devices_gives_way_to_one_of_higher_priority() {
    let mut planner = with_devices();
    gang(&mut planner, "low", 4, &exactly(json!({})));
    let at = |planner: &mut Planner, second| decide_at(planner, Timestamp::from_second(second).unwrap());
    let first = binding(&at(&mut planner, 1000)).clone();
    for (index, (_, place)) in (0..4).zip(&first.placement.0) {
        let mut running = claiming("low", index, 4);
        running.spec.as_mut().unwrap().node_name = Some(place.node.clone());
        planner.pod_seen(&running);
        planner.devices_changed(DeviceEvent::Claim(allocated("low", index, &first, "2")));
    }
    carried_out(&mut planner, "low", &[]);
    at(&mut planner, 1001);
    for index in 0..2 {
        let mut pod = claiming("high", index, 2);
        pod.spec.as_mut().unwrap().priority = Some(1000);
        planner.pod_seen(&pod);
        planner.devices_changed(DeviceEvent::Claim(claim("high", index, &exactly(json!({})))));
    }
    let decisions = at(&mut planner, 1100);
    let evicted = decisions.iter().find_map(|decision| match decision {
        Decision::Evict { pods, .. } => Some(pods.len()),
        _ => None,
    });
    assert_eq!(evicted, Some(4), "{decisions:?}");
    for index in 0..4 {
        gone(&mut planner, &claiming("low", index, 4));
        planner.devices_changed(DeviceEvent::ClaimGone(ClaimKey::new("a", format!("low-{index}-gpu"))));
    }
    assert_eq!(bound(&at(&mut planner, 1101)), [2]);
}

#[test]
fn claims_of_pods_that_another_scheduler_binds_hold_their_gate_closed() {
    let mut planner = with_devices();
    let mut pod = claiming("g", 0, 1);
    let spec = pod.spec.as_mut().unwrap();
    spec.scheduler_name = Some("default-scheduler".into());
    spec.scheduling_gates = serde_json::from_value(json!([{"name": "muster.dev/gang"}])).unwrap();
    planner.pod_seen(&pod);
    planner.devices_changed(DeviceEvent::Claim(claim("g", 0, &exactly(json!({})))));
    assert!(
        told(&decide(&mut planner))
            .contains("Muster chooses no devices for pods that another scheduler binds")
    );
}

#[test]
fn a_device_with_a_taint_is_for_those_who_tolerate_it() {
    let request = |tolerations: Value| exactly(json!({"tolerations": tolerations}));
    let bound_with = |request: &Value| {
        let mut planner = Planner::new(["muster".to_owned()]);
        planner.node_seen(&node("n0", 0));
        planner.devices_changed(class());
        let DeviceEvent::Slice(mut slice) = slice("n0", 1, 0, 1, 1) else { panic!("a slice") };
        let taint = json!([{"key": "faulty", "value": "memory", "effect": "NoSchedule"}]);
        slice.spec.devices.as_mut().unwrap()[0].taints = serde_json::from_value(taint).unwrap();
        planner.devices_changed(DeviceEvent::Slice(slice));
        read(&mut planner);
        gang(&mut planner, "g", 1, request);
        let decisions = decide(&mut planner);
        decisions.iter().find_map(|decision| match decision {
            Decision::Bind(binding) => {
                let devices = binding.claims.values().next()?[0].allocation.as_ref()?.devices.as_ref()?;
                Some(devices.results.as_ref()?[0].tolerations.as_ref().map_or(0, Vec::len))
            }
            _ => None,
        })
    };
    assert_eq!(bound_with(&exactly(json!({}))), None);
    assert_eq!(bound_with(&request(json!([{"key": "faulty", "operator": "Exists"}]))), Some(1));
    assert_eq!(bound_with(&request(json!([{"key": "faulty", "value": "memory"}]))), Some(1));
    assert_eq!(bound_with(&request(json!([{"key": "faulty", "value": "fan"}]))), None);
}
