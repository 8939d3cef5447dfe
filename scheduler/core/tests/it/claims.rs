//! Which devices claims get: compared with trying everything, and as gangs see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_scheduler_core::claims::{
    Alternative, Amount, ClaimDemand, ClaimRequest, ClaimedDevice, Constraint, Consumption, DeviceId,
    DeviceNumber, DeviceSet, Inventory, MemberClaim, Reach,
};
use muster_scheduler_core::{
    Assignment, ClaimGrant, ClaimKey, Gang, Ledger, Member, Node, Placement, PodKey, Resources, Waiting,
};
use proptest::prelude::*;

fn id(pool: &str, device: usize) -> DeviceId {
    DeviceId { driver: "gpu.example.com".into(), pool: pool.into(), device: format!("gpu-{device}") }
}

fn node(name: &str) -> Node {
    let allocatable = Resources::new().with("pods", 110_000).with("cpu", 64_000);
    Node { name: name.into(), schedulable: true, allocatable, ..Node::default() }
}

fn on(node: &str, device: usize, consumes: Vec<Consumption>) -> ClaimedDevice {
    ClaimedDevice { id: id(node, device), reach: Reach::Node(node.into()), consumes }
}

/// Nodes `n0`, `n1` ... with so many devices each.
fn cluster(devices: &[usize]) -> Ledger {
    let mut ledger = Ledger::default();
    let mut inventory = Inventory::default();
    for (index, count) in devices.iter().enumerate() {
        let name = format!("n{index}");
        ledger.set_node(node(&name));
        inventory.devices.extend((0..*count).map(|device| on(&name, device, Vec::new())));
    }
    ledger.set_inventory(inventory);
    ledger
}

fn request(name: &str, devices: impl IntoIterator<Item = DeviceNumber>, count: u32) -> ClaimRequest {
    ClaimRequest { alternatives: vec![alternative(name, devices, Amount::Exactly(count))] }
}

fn alternative(name: &str, devices: impl IntoIterator<Item = DeviceNumber>, amount: Amount) -> Alternative {
    Alternative {
        name: name.into(),
        devices: devices.into_iter().collect(),
        barred: DeviceSet::default(),
        amount,
        admin: false,
    }
}

fn numbers(count: u32) -> impl Iterator<Item = DeviceNumber> {
    (0..count).map(DeviceNumber)
}

fn member(index: usize, claims: &[(&str, &Arc<ClaimDemand>)]) -> Member {
    let claims = claims.iter().map(|(name, demand)| MemberClaim {
        name: (*name).to_owned(),
        demand: Arc::clone(demand),
        anywhere: false,
    });
    Member {
        name: format!("p-{index}"),
        uid: format!("u-{index}"),
        requests: Resources::new().with("pods", 1000).with("cpu", 1000),
        claims: claims.collect(),
        rank: index as u32,
        ..Member::default()
    }
}

/// A gang whose members each bring a claim of their own that asks for the same.
fn gang(members: usize, demand: &Arc<ClaimDemand>) -> Gang {
    let names: Vec<String> = (0..members).map(|index| format!("c-{index}")).collect();
    let waiting = names.iter().enumerate().map(|(index, name)| member(index, &[(name, demand)]));
    Gang {
        namespace: "team".into(),
        name: "g".into(),
        min_available: members,
        waiting: waiting.collect(),
        ..Gang::default()
    }
}

fn devices_of(placement: &Placement) -> Vec<(String, Vec<DeviceNumber>)> {
    let of = |place: &Assignment| {
        let devices = place.claims.iter().flat_map(|claim| &claim.devices);
        (place.node.clone(), devices.map(|device| device.granted.device).collect())
    };
    placement.0.iter().map(|(_, place)| of(place)).collect()
}

#[test]
fn a_gang_gets_devices_for_all_of_its_pods_and_no_device_twice() {
    let mut ledger = cluster(&[2, 4]);
    let demand = Arc::new(ClaimDemand::new(vec![request("gpu", numbers(6), 1)], Vec::new()));
    let placement = ledger.place(&gang(6, &demand)).unwrap();
    ledger.take(&placement).unwrap();
    let places = devices_of(&placement);
    let different: BTreeSet<DeviceNumber> = places.iter().flat_map(|(_, devices)| devices.clone()).collect();
    assert_eq!(different.len(), 6);
    assert_eq!(places.iter().filter(|(node, _)| node == "n0").count(), 2);
    let mut late = gang(2, &demand);
    late.waiting[0].name = "late-0".into();
    late.waiting[1].name = "late-1".into();
    let why = ledger.place(&late).unwrap_err();
    assert_eq!(
        why.to_string(),
        "0 of 2 pods fit now: 6 devices are what request gpu of claim c-0 asks for, and 6 of them are taken; it \
         starts when enough of them are free on one node for each pod"
    );
    for (pod, _) in &placement.0 {
        ledger.release(pod);
    }
    assert!(ledger.place(&late).is_err(), "the claims may have got their devices");
    (0..2).for_each(|index| ledger.unplan(&ClaimKey::new("team", format!("c-{index}"))));
    assert!(ledger.place(&late).is_ok());
}

#[test]
fn what_a_claim_says_that_it_has_stays_taken_without_its_pod() {
    let mut ledger = cluster(&[1]);
    let demand = Arc::new(ClaimDemand::new(vec![request("gpu", numbers(1), 1)], Vec::new()));
    let gang = gang(1, &demand);
    let placement = ledger.place(&gang).unwrap();
    ledger.take(&placement).unwrap();
    let claim = ClaimKey::new("team", "c-0");
    ledger.record_claim(&claim, Some(vec![DeviceNumber(0)]));
    ledger.release(&PodKey::new("team", "p-0"));
    ledger.unplan(&claim);
    assert!(matches!(ledger.place(&gang), Err(Waiting::ForDevices { matching: 1, taken: 1, .. })));
    // The node and the devices may be described anew meanwhile.
    ledger.set_node(Node { labels: BTreeMap::from([("new".into(), "label".into())]), ..node("n0") });
    assert!(ledger.place(&gang).is_err());
    ledger.set_inventory(Inventory { devices: vec![on("n0", 0, Vec::new())], ..Inventory::default() });
    assert!(ledger.place(&gang).is_err());
    ledger.record_claim(&claim, None);
    assert_eq!(ledger.place(&gang).unwrap(), placement);
}

#[test]
fn a_place_whose_device_is_gone_is_not_taken() {
    let mut ledger = cluster(&[1]);
    let demand = Arc::new(ClaimDemand::new(vec![request("gpu", numbers(1), 1)], Vec::new()));
    let placement = ledger.place(&gang(1, &demand)).unwrap();
    ledger.set_inventory(Inventory::default());
    let why = ledger.take(&placement).unwrap_err().to_string();
    assert_eq!(why, "device gpu.example.com/n0/gpu-0 of node n0 is taken or gone");
}

#[test]
fn pods_that_share_a_claim_run_on_one_node() {
    let mut ledger = cluster(&[1, 2]);
    let one = Arc::new(ClaimDemand::new(vec![request("gpu", numbers(3), 1)], Vec::new()));
    let mut gang = gang(3, &one);
    gang.waiting = vec![
        member(0, &[("shared", &one)]),
        member(1, &[("own", &one)]),
        member(2, &[("shared", &one), ("more", &one)]),
    ];
    let placement = ledger.place(&gang).unwrap();
    ledger.take(&placement).unwrap();
    let nodes: Vec<&str> = placement.0.iter().map(|(_, place)| place.node.as_str()).collect();
    assert_eq!(nodes, ["n1", "n0", "n1"]);
    let claims: Vec<Vec<&str>> = placement
        .0
        .iter()
        .map(|(_, place)| place.claims.iter().map(|claim: &ClaimGrant| claim.claim.as_str()).collect())
        .collect();
    assert_eq!(claims, [vec!["shared", "more"], vec!["own"], vec![]]);
}

#[test]
fn a_device_that_all_nodes_reach_is_given_once() {
    let mut ledger = cluster(&[0, 0]);
    let device = ClaimedDevice { id: id("net", 0), reach: Reach::Everywhere, consumes: Vec::new() };
    ledger.set_inventory(Inventory { devices: vec![device], ..Inventory::default() });
    let demand = Arc::new(ClaimDemand::new(vec![request("nic", numbers(1), 1)], Vec::new()));
    assert!(ledger.place(&gang(2, &demand)).is_err());
    let placement = ledger.place(&gang(1, &demand)).unwrap();
    ledger.take(&placement).unwrap();
    assert!(ledger.place(&gang(1, &demand)).is_err(), "on the other node neither");
}

#[test]
fn parts_of_one_device_are_given_until_what_they_share_is_used_up() {
    // One GPU of 7 slices: whole (7), two halves (4 and 3), and seven small ones (1 each).
    let mut ledger = Ledger::default();
    ledger.set_node(node("n0"));
    let amounts = [7, 4, 3, 1, 1, 1, 1, 1, 1, 1];
    let devices = amounts
        .iter()
        .enumerate()
        .map(|(index, amount)| on("n0", index, vec![Consumption { counter: 0, amount: *amount }]));
    ledger.set_inventory(Inventory { devices: devices.collect(), counters: vec![7], ..Inventory::default() });
    let whole = Arc::new(ClaimDemand::new(vec![request("whole", [DeviceNumber(0)], 1)], Vec::new()));
    let half = Arc::new(ClaimDemand::new(vec![request("half", [DeviceNumber(1)], 1)], Vec::new()));
    let small = Arc::new(ClaimDemand::new(vec![request("small", (3..10).map(DeviceNumber), 1)], Vec::new()));
    assert!(ledger.place(&gang(7, &small)).is_ok());
    assert!(ledger.place(&gang(8, &small)).is_err());
    let placement = ledger.place(&gang(1, &half)).unwrap();
    ledger.take(&placement).unwrap();
    assert!(ledger.place(&gang(1, &whole)).is_err());
    let mut rest = gang(3, &small);
    rest.waiting.iter_mut().for_each(|member| member.name.insert(0, 'x'));
    rest.waiting.iter_mut().for_each(|member| member.claims[0].name.insert(0, 'x'));
    assert!(ledger.place(&gang(4, &small)).is_err());
    ledger.take(&ledger.clone().place(&rest).unwrap()).unwrap();
    assert!(ledger.place(&gang(1, &small)).is_err());
}

#[test]
fn all_devices_are_all_or_none_and_at_least_one() {
    let mut ledger = cluster(&[3, 0]);
    let all = |barred: DeviceSet| {
        let mut all = alternative("all", numbers(3), Amount::All);
        all.barred = barred;
        Arc::new(ClaimDemand::new(vec![ClaimRequest { alternatives: vec![all] }], Vec::new()))
    };
    let everything = all(DeviceSet::default());
    assert!(
        ledger.place(&gang(1, &all([DeviceNumber(7)].into_iter().collect()))).is_ok(),
        "not of this node"
    );
    let placement = ledger.place(&gang(1, &everything)).unwrap();
    assert_eq!(devices_of(&placement), [("n0".to_owned(), numbers(3).collect())]);
    let other = ClaimKey::new("team", "other");
    ledger.record_claim(&other, Some(vec![DeviceNumber(1)]));
    assert!(ledger.place(&gang(1, &everything)).is_err());
    ledger.record_claim(&other, None);
    let device = |device| on("n0", device, Vec::new());
    let incomplete = Inventory {
        devices: (0..3).map(device).collect(),
        incomplete: vec![Reach::Node("n0".into())],
        ..Inventory::default()
    };
    ledger.set_inventory(incomplete);
    assert!(ledger.place(&gang(1, &everything)).is_err(), "there may be more of them");
}

#[test]
fn who_looks_after_devices_takes_none_and_the_first_alternative_that_is_there_counts() {
    let mut ledger = cluster(&[2]);
    ledger.record_claim(&ClaimKey::new("team", "other"), Some(vec![DeviceNumber(0)]));
    let mut look = alternative("look", numbers(2), Amount::All);
    look.admin = true;
    let admin = Arc::new(ClaimDemand::new(vec![ClaimRequest { alternatives: vec![look] }], Vec::new()));
    let placement = ledger.place(&gang(3, &admin)).unwrap();
    ledger.take(&placement).unwrap();
    let first = alternative("any/big", [DeviceNumber(0)], Amount::Exactly(1));
    let second = alternative("any/small", [DeviceNumber(1)], Amount::Exactly(1));
    let either = vec![ClaimRequest { alternatives: vec![first, second] }];
    let placement = ledger.place(&gang(1, &Arc::new(ClaimDemand::new(either, Vec::new())))).unwrap();
    let granted = &placement.0[0].1.claims[0].devices[0].granted;
    assert_eq!((&*granted.request, granted.device, granted.admin), ("any/small", DeviceNumber(1), false));
}

/// One case: devices with the value of an attribute, requests of a claim with what they may have, whether all of its
/// devices must have one value, and how many pods bring such a claim.
#[derive(Debug, Clone)]
struct Case {
    values: Vec<Option<u32>>,
    taken: BTreeSet<u32>,
    requests: Vec<(BTreeSet<u32>, u32)>,
    matched: bool,
    pods: usize,
}

fn case() -> impl Strategy<Value = Case> {
    (1..6_u32).prop_flat_map(|devices| {
        let set = || proptest::collection::btree_set(0..devices, 0..=devices as usize);
        let value = proptest::option::weighted(0.9, 0..2_u32);
        (
            proptest::collection::vec(value, devices as usize),
            proptest::collection::btree_set(0..devices, 0..2),
            proptest::collection::vec((set(), 1..3_u32), 1..3),
            any::<bool>(),
            1..4_usize,
        )
            .prop_map(|(values, taken, requests, matched, pods)| Case {
                values,
                taken,
                requests,
                matched,
                pods,
            })
    })
}

/// Whether there are devices for all, by trying everything: each needed device one after the other.
fn exists(case: &Case, needs: &[(usize, &BTreeSet<u32>)], used: &mut Vec<(usize, u32)>) -> bool {
    let Some((pod, devices)) = needs.get(used.len()) else { return true };
    for device in *devices {
        let free = !case.taken.contains(device) && used.iter().all(|(_, other)| other != device);
        let value = case.values[*device as usize];
        let of_pod = used.iter().filter(|(other, _)| other == pod);
        let alike = of_pod.clone().all(|(_, other)| case.values[*other as usize] == value);
        if free && (!case.matched || value.is_some() && alike) {
            used.push((*pod, *device));
            if exists(case, needs, used) {
                return true;
            }
            used.pop();
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn devices_are_found_exactly_when_there_are_some(case in case()) {
        let mut ledger = cluster(&[case.values.len()]);
        let taken = case.taken.iter().copied().map(DeviceNumber).collect();
        ledger.record_claim(&ClaimKey::new("team", "other"), Some(taken));
        let requests = case.requests.iter().enumerate().map(|(index, (devices, count))| {
            request(&format!("r{index}"), devices.iter().copied().map(DeviceNumber), *count)
        });
        let values = case.values.iter().enumerate();
        let values = values.filter_map(|(device, value)| Some((DeviceNumber(device as u32), (*value)?)));
        let constraint = Constraint { requests: Vec::new(), values: values.collect() };
        let constraints = if case.matched { vec![constraint] } else { Vec::new() };
        let demand = Arc::new(ClaimDemand::new(requests.collect(), constraints));
        let needs: Vec<(usize, &BTreeSet<u32>)> = (0..case.pods)
            .flat_map(|pod| {
                let each = move |(devices, count)| std::iter::repeat_n((pod, devices), count as usize);
                case.requests.iter().map(|(devices, count)| (devices, *count)).flat_map(each)
            })
            .collect();
        let found = ledger.place(&gang(case.pods, &demand));
        prop_assert_eq!(found.is_ok(), exists(&case, &needs, &mut Vec::new()));
        if let Ok(placement) = found {
            let mut used = BTreeSet::new();
            for (_, devices) in devices_of(&placement) {
                for device in devices {
                    prop_assert!(!case.taken.contains(&device.0) && used.insert(device));
                }
            }
            prop_assert!(ledger.take(&placement).is_ok());
        }
    }
}
