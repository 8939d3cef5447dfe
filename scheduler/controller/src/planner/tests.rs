pub(super) mod claims;
mod ended;
mod gates;
mod groups;
mod nearness;
mod queues;
mod restore;
mod shapes;

use super::*;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1 as core;
use kube::ResourceExt;
use muster_scheduler_api::{
    GangReservation, GangReservationSpec, GangReservationStatus, ReservationPhase, ReservedMember,
};
use muster_scheduler_core::PodKey;
use serde_json::json;

pub(super) fn node(name: &str, gpus: u32) -> core::Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"nvidia.com/gpu": gpus.to_string(), "cpu": "8", "pods": "110"},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

pub(super) fn pod(gang: &str, index: u32, of: u32, node: Option<&str>) -> core::Pod {
    serde_json::from_value(json!({
        "metadata": {"name": format!("{gang}-{index}"), "namespace": "a", "uid": format!("{gang}-{index}-uid"),
            "annotations": {"muster.dev/gang": gang, "muster.dev/gang-min-available": of.to_string(), "muster.dev/rank": index.to_string()}},
        "spec": {"schedulerName": "muster", "nodeName": node,
            "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        "status": {"phase": "Pending"},
    }))
    .unwrap()
}

fn planner(gpus: u32) -> Planner {
    let mut planner = Planner::new(["muster".to_owned()]);
    planner.node_seen(&node("n0", gpus));
    planner
}

fn bound(decisions: &[Decision]) -> Vec<usize> {
    decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Bind(binding) => Some(binding.placement.0.len()),
            Decision::Explain { .. }
            | Decision::Evict { .. }
            | Decision::Discard { .. }
            | Decision::GiveBack { .. } => None,
        })
        .collect()
}

/// What is decided, and then told. Plans are taken away at once.
fn decide_at(planner: &mut Planner, now: Timestamp) -> Vec<Decision> {
    let mut decisions = planner.decide(now).now;
    decisions.retain(|decision| match decision {
        Decision::Discard { namespace, gang, .. } => {
            planner.discarded(namespace, gang);
            false
        }
        _ => true,
    });
    if let Some(question) = planner.question(now) {
        decisions.extend(planner.answered(question.answer(|| true), now));
    }
    decisions
}

pub(super) fn decide(planner: &mut Planner) -> Vec<Decision> {
    decide_at(planner, Timestamp::MAX)
}

/// The binding of a gang ends; all pods but these have their places.
fn carried_out(planner: &mut Planner, gang: &str, refused: &[u32]) {
    let names = refused
        .iter()
        .map(|index| (PodKey::new("a", format!("{gang}-{index}")), format!("{gang}-{index}-uid")));
    planner.carried_out(&Outcome {
        namespace: "a".into(),
        gang: gang.into(),
        written: Some(Written { epoch: 1, resource_version: "7".into() }),
        why: (!refused.is_empty()).then(|| "pods \"g-0\" is forbidden".to_owned()),
        refused: names.collect(),
        claims: BTreeMap::new(),
    });
}

fn gone(planner: &mut Planner, pod: &core::Pod) {
    planner.pod_gone(&PodKey::new("a", pod.name_any()), pod.metadata.uid.as_deref().unwrap());
}

#[test]
fn a_gang_is_bound_once_its_last_pod_is_there() {
    let mut planner = planner(4);
    for index in 0..3 {
        planner.pod_seen(&pod("g", index, 4, None));
        assert_eq!(bound(&planner.decide(Timestamp::UNIX_EPOCH).now), [0usize; 0]);
    }
    planner.pod_seen(&pod("g", 3, 4, None));
    assert_eq!(bound(&decide(&mut planner)), [4]);
    assert_eq!(decide(&mut planner), [], "nothing is decided twice");
}

#[test]
fn a_pod_is_told_once_why_it_waits_and_starts_when_room_is_made() {
    let mut planner = planner(2);
    let first = pod("a", 0, 1, Some("n0"));
    planner.pod_seen(&first);
    for index in 0..2 {
        planner.pod_seen(&pod("b", index, 2, None));
    }
    assert_eq!(decide(&mut planner).len(), 2);
    assert_eq!(decide(&mut planner), []);
    gone(&mut planner, &first);
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn a_failed_binding_gives_its_place_back() {
    let mut planner = planner(1);
    planner.pod_seen(&pod("a", 0, 1, None));
    assert_eq!(bound(&decide(&mut planner)), [1]);
    carried_out(&mut planner, "a", &[0]);
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn a_restart_finishes_the_plan_that_was_written() {
    // The phase may still be that of the plan before.
    let mut planner = planner(4);
    planner.pod_seen(&pod("g", 0, 2, Some("n0")));
    planner.pod_seen(&pod("g", 1, 2, None));
    let member = |index: u32| ReservedMember {
        pod: format!("g-{index}"),
        uid: format!("g-{index}-uid"),
        node: "n0".into(),
        gpu_indices: vec![index + 2],
        claims: Vec::new(),
    };
    let mut reservation = GangReservation::new(
        "g",
        GangReservationSpec { gang: "g".into(), epoch: 1, members: vec![member(0), member(1)] },
    );
    reservation.metadata.namespace = Some("a".into());
    reservation.status = Some(GangReservationStatus { phase: Some(ReservationPhase::Bound) });
    let binding = planner.restore([&reservation]).remove(0);
    assert_eq!(binding.placement.0.len(), 1, "only the pod that is not bound yet");
    assert_eq!(binding.placement.0[0].1.gpu_indices, [3]);
    assert_eq!(decide(&mut planner), []);
}

#[test]
fn a_deleted_pods_successor_of_the_same_name_is_another_pod() {
    let mut planner = planner(1);
    let old = pod("a", 0, 1, Some("n0"));
    planner.pod_seen(&old);
    let mut new = pod("a", 0, 1, None);
    new.metadata.uid = Some("later".into());
    gone(&mut planner, &old);
    planner.pod_seen(&new);
    gone(&mut planner, &old);
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn an_incomplete_gang_is_told_so_only_after_a_while() {
    let mut planner = planner(4);
    planner.pod_seen(&pod("g", 0, 2, None));
    let early = planner.decide(Timestamp::UNIX_EPOCH);
    assert_eq!((early.now.len(), early.again_in), (0, Some(SignedDuration::from_secs(3))));
    let late = planner.decide(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(3));
    assert_eq!((late.now.len(), late.again_in), (1, None));
}

pub(super) fn queue(name: &str, gpus: u32, borrowing: Option<u32>) -> muster_scheduler_api::Queue {
    serde_json::from_value(json!({
        "apiVersion": "muster.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name},
        "spec": {"parent": null, "quotas": [{"resource": "nvidia.com/gpu", "nominal": gpus.to_string(),
            "borrowingLimit": borrowing.map(|limit| limit.to_string())}]},
    }))
    .unwrap()
}

pub(super) fn in_queue(mut pod: core::Pod, queue: &str) -> core::Pod {
    pod.metadata.labels.get_or_insert_default().insert("muster.dev/queue".into(), queue.into());
    pod
}

pub(super) fn told(decisions: &[Decision]) -> Vec<String> {
    let messages = decisions.iter().filter_map(|decision| match decision {
        Decision::Explain { message, .. } => Some(message.clone()),
        _ => None,
    });
    let mut messages: Vec<String> = messages.collect();
    messages.dedup();
    messages
}

fn at(planner: &mut Planner, second: i64) -> Vec<Decision> {
    decide_at(planner, Timestamp::from_second(second).unwrap())
}

fn binding(decisions: &[Decision]) -> Binding {
    let mut bindings = decisions.iter().filter_map(|decision| match decision {
        Decision::Bind(binding) => Some(binding.clone()),
        _ => None,
    });
    bindings.next().unwrap()
}

fn successor(gang: &str, index: u32, of: u32) -> core::Pod {
    let mut pod = pod(gang, index, of, None);
    pod.metadata.uid = Some(format!("{gang}-{index}-later"));
    pod
}

#[test]
fn the_next_plan_of_a_gang_replaces_the_one_that_was_written() {
    let mut planner = planner(2);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, None)));
    assert_eq!(binding(&decide(&mut planner)).replaces, None);
    carried_out(&mut planner, "g", &[1]);
    let second = binding(&decide(&mut planner));
    assert_eq!(second.replaces, Some(Written { epoch: 1, resource_version: "7".into() }));
    assert_eq!((second.settled.len(), second.placement.0.len()), (1, 1), "the plan is of the whole gang");
}

#[test]
fn places_are_kept_until_it_is_certain_that_nobody_has_them() {
    let mut planner = planner(2);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, None)));
    decide(&mut planner);
    (0..2).for_each(|index| planner.pod_seen(&created(pod("other", index, 2, None), 100)));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "the binding is still under way");
    // An older picture of the pods changes nothing.
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, None)));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    carried_out(&mut planner, "g", &[0, 1]);
    assert_eq!(bound(&decide(&mut planner)), [2], "now somebody has them");
}

#[test]
fn the_plan_of_a_gang_that_is_gone_is_taken_away_once() {
    let mut planner = planner(2);
    let pods = [0, 1].map(|index| pod("g", index, 2, None));
    for pod in &pods {
        planner.pod_seen(pod);
    }
    decide(&mut planner);
    for pod in &pods {
        gone(&mut planner, pod);
    }
    assert_eq!(planner.decide(Timestamp::MAX).now, [], "not while it is being carried out");
    carried_out(&mut planner, "g", &[0, 1]);
    let written = Written { epoch: 1, resource_version: "7".into() };
    let discard = Decision::Discard { namespace: "a".into(), gang: "g".into(), written };
    assert_eq!(planner.decide(Timestamp::MAX).now, [discard]);
    (0..2).for_each(|index| planner.pod_seen(&successor("g", index, 2)));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "its next plan is not taken away instead");
    planner.discarded("a", "g");
    assert_eq!(binding(&decide(&mut planner)).replaces, None);
}

/// A gang runs on all GPUs of the node and is evicted for another.
fn evicted(planner: &mut Planner) {
    (0..2).for_each(|index| planner.pod_seen(&created(pod("low", index, 2, None), 1000)));
    assert_eq!(bound(&at(planner, 2000)), [2]);
    carried_out(planner, "low", &[]);
    (0..2).for_each(|index| planner.pod_seen(&created(pod("low", index, 2, Some("n0")), 1000)));
    for index in 0..2 {
        let mut high = created(pod("high", index, 2, None), 2000);
        high.spec.as_mut().unwrap().priority = Some(1000);
        planner.pod_seen(&high);
    }
    assert!(at(planner, 2100).iter().any(|decision| matches!(decision, Decision::Evict { .. })));
    (0..2).for_each(|index| gone(planner, &pod("low", index, 2, None)));
    assert_eq!(bound(&at(planner, 2101)), [2]);
    carried_out(planner, "high", &[]);
}

fn created(mut pod: core::Pod, second: i64) -> core::Pod {
    let time = Timestamp::from_second(second).unwrap();
    pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
    pod
}

#[test]
fn an_evicted_gang_keeps_its_place_over_several_successors_until_it_runs() {
    let mut planner = planner(2);
    evicted(&mut planner);
    // It comes back, one by one, goes again, and comes back; another came before that.
    for (round, second) in [(1, 3000), (2, 3200)] {
        for index in 0..2 {
            let mut pod = created(pod("low", index, 2, None), second);
            pod.metadata.uid = Some(format!("round-{round}-{index}"));
            planner.pod_seen(&pod);
            assert_eq!(bound(&at(&mut planner, second)), [0usize; 0]);
            if round == 1 {
                gone(&mut planner, &pod);
            }
        }
        (0..2).for_each(|index| planner.pod_seen(&created(pod("other", index, 2, None), 2500)));
    }
    (0..2).for_each(|index| gone(&mut planner, &pod("high", index, 2, None)));
    let first = binding(&at(&mut planner, 3300));
    assert_eq!((first.gang.as_str(), first.placement.0.len()), ("low", 2));
}

#[test]
fn pods_that_join_stay_within_the_quota_of_their_queue() {
    let mut planner = planner(4);
    planner.queue_seen(&queue("small", 2, Some(0)));
    let member = |index| in_queue(pod("g", index, 2, None), "small");
    (0..2).for_each(|index| planner.pod_seen(&member(index)));
    assert_eq!(bound(&decide(&mut planner)), [2]);
    carried_out(&mut planner, "g", &[]);
    planner.pod_seen(&member(2));
    let decisions = decide(&mut planner);
    assert_eq!(bound(&decisions), [0usize; 0]);
    assert!(told(&decisions)[0].contains("too little quota"), "{decisions:?}");
    planner.queue_seen(&queue("small", 3, Some(0)));
    assert_eq!(bound(&decide(&mut planner)), [1]);
    carried_out(&mut planner, "g", &[]);
    planner.pod_seen(&in_queue(pod("more", 0, 1, None), "small"));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "what has joined counts");
}

#[test]
fn a_lost_node_is_replaced_by_the_gangs_spare_before_others_get_it() {
    let mut planner = planner(1);
    (1..3).for_each(|index| planner.node_seen(&node(&format!("n{index}"), 1)));
    let member = |index, node: Option<&str>| {
        let mut pod = pod("g", index, 2, node);
        let wishes = pod.metadata.annotations.as_mut().unwrap();
        wishes.insert("muster.dev/gang-spares".into(), "1".into());
        pod
    };
    (0..2).for_each(|index| planner.pod_seen(&member(index, None)));
    let first = binding(&decide(&mut planner));
    assert_eq!(first.placement.0.len(), 2, "nothing is bound to the spare place");
    let spare = first.settled.iter().find(|member| member.pod == "g/spare-0").unwrap().node.clone();
    carried_out(&mut planner, "g", &[]);
    for (index, (_, place)) in (0..).zip(&first.placement.0) {
        planner.pod_seen(&member(index, Some(&place.node)));
    }
    planner.pod_seen(&created(pod("other", 0, 1, None), -1000));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "the spare place is held");
    planner.node_gone(&first.placement.0[1].1.node);
    gone(&mut planner, &member(1, None));
    let mut replacement = member(1, None);
    replacement.metadata.uid = Some("later".into());
    planner.pod_seen(&replacement);
    let repaired = binding(&decide(&mut planner));
    assert_eq!((repaired.gang.as_str(), &repaired.placement.0[0].1.node), ("g", &spare));
}

#[test]
fn a_gang_that_ends_by_a_lost_node_returns_to_its_place_in_line() {
    let mut planner = planner(2);
    (0..2).for_each(|index| planner.pod_seen(&created(pod("g", index, 2, None), 1000)));
    at(&mut planner, 1100);
    carried_out(&mut planner, "g", &[]);
    (0..2).for_each(|index| planner.pod_seen(&created(pod("g", index, 2, Some("n0")), 1000)));
    at(&mut planner, 1101);
    (0..2).for_each(|index| planner.pod_seen(&created(pod("other", index, 2, None), 1200)));
    planner.node_gone("n0");
    at(&mut planner, 1300);
    (0..2).for_each(|index| gone(&mut planner, &pod("g", index, 2, None)));
    at(&mut planner, 1301);
    (0..2).for_each(|index| planner.pod_seen(&created(successor("g", index, 2), 1400)));
    at(&mut planner, 1400);
    planner.node_seen(&node("n1", 2));
    assert_eq!(binding(&at(&mut planner, 1500)).gang, "g");
}

#[test]
fn new_numbers_are_told_once_a_minute_and_new_reasons_at_once() {
    let mut planner = planner(4);
    let others = [0, 1, 2].map(|index| pod("other", index, 1, Some("n0")));
    for pod in &others {
        planner.pod_seen(pod);
    }
    (0..4).for_each(|index| planner.pod_seen(&pod("g", index, 4, None)));
    let news = |decisions: &[Decision]| -> Vec<bool> {
        let mut news: Vec<bool> = decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Explain { news, .. } => Some(*news),
                _ => None,
            })
            .collect();
        news.dedup();
        news
    };
    assert_eq!(news(&at(&mut planner, 1000)), [true]);
    gone(&mut planner, &others[0]);
    assert_eq!(news(&at(&mut planner, 1010)), [false; 0], "other numbers, too soon");
    assert_eq!(news(&at(&mut planner, 1070)), [false], "other numbers, without an event");
    let mut cordoned = node("n0", 4);
    cordoned.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
    planner.node_seen(&cordoned);
    assert_eq!(news(&at(&mut planner, 1080)), [true], "another reason");
}

#[test]
fn what_was_told_before_a_restart_is_not_told_again() {
    let mut planner = planner(1);
    let waiting = [0, 1].map(|index| pod("g", index, 2, None));
    for pod in &waiting {
        planner.pod_seen(pod);
    }
    let message = told(&at(&mut planner, 1000)).remove(0);
    let mut later = super::tests::planner(1);
    for mut pod in waiting {
        let condition = json!([{"type": "PodScheduled", "status": "False", "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        pod.status.as_mut().unwrap().conditions = serde_json::from_value(condition).unwrap();
        later.pod_seen(&pod);
    }
    assert_eq!(at(&mut later, 2000), []);
}

#[test]
fn a_queue_that_makes_no_sense_does_not_hold_up_the_others() {
    let mut planner = planner(8);
    planner.queue_seen(&queue("good", 2, None));
    assert_eq!(decide(&mut planner), []);
    let mut lost = queue("lost", 2, None);
    lost.spec.parent = Some("nowhere".into());
    planner.queue_seen(&lost);
    planner.queue_seen(&queue("better", 2, None));
    planner.pod_seen(&in_queue(pod("a", 0, 1, None), "better"));
    planner.pod_seen(&in_queue(pod("b", 0, 1, None), "lost"));
    let decisions = decide(&mut planner);
    assert_eq!(bound(&decisions), [1]);
    let message = told(&decisions).remove(0);
    assert!(
        message.contains("queue lost is not in force: queue lost: parent nowhere does not exist"),
        "{message}"
    );
    // A queue that made sense once stays as it was.
    let mut bad = queue("better", 2, None);
    bad.spec.weight = Some(-1.0);
    planner.queue_seen(&bad);
    planner.pod_seen(&in_queue(pod("c", 0, 1, None), "better"));
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn fields_that_no_plan_looks_at_are_told_with_the_binding() {
    let mut planner = planner(1);
    let mut pod = pod("g", 0, 1, None);
    let far = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname"}]}});
    pod.spec.as_mut().unwrap().affinity = serde_json::from_value(far).unwrap();
    planner.pod_seen(&pod);
    let binding = binding(&decide(&mut planner));
    assert_eq!(binding.unheeded.values().flatten().collect::<Vec<_>>(), [&"podAntiAffinity"]);
}

#[test]
fn a_lost_pods_successor_needs_no_quota_beside_that_of_the_lost() {
    let mut planner = planner(4);
    planner.queue_seen(&queue("small", 2, Some(0)));
    let member = |index, node| in_queue(pod("g", index, 2, node), "small");
    (0..2).for_each(|index| planner.pod_seen(&member(index, None)));
    assert_eq!(bound(&decide(&mut planner)), [2]);
    carried_out(&mut planner, "g", &[]);
    (0..2).for_each(|index| planner.pod_seen(&member(index, Some("n0"))));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    gone(&mut planner, &member(1, None));
    planner.pod_seen(&in_queue(successor("g", 1, 2), "small"));
    planner.pod_seen(&created(in_queue(pod("other", 0, 1, None), "small"), -1000));
    assert_eq!(binding(&decide(&mut planner)).gang, "g");
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "the quota is used again");
}

#[test]
fn a_pod_that_somebody_placed_takes_its_gang_past_nobody() {
    let mut planner = planner(4);
    let running = pod("runs", 0, 1, Some("n0"));
    planner.pod_seen(&running);
    planner.pod_seen(&created(pod("waits", 0, 3, None), 1000));
    planner.pod_seen(&created(pod("placed", 0, 3, Some("n0")), 2000));
    (1..3).for_each(|index| planner.pod_seen(&created(pod("placed", index, 3, None), 2000)));
    (1..3).for_each(|index| planner.pod_seen(&created(pod("waits", index, 3, None), 1000)));
    planner.node_seen(&node("n1", 1));
    assert_eq!(binding(&at(&mut planner, 3000)).gang, "waits");
}

#[test]
fn a_node_that_comes_in_the_place_of_a_lost_one_is_not_taken_for_it() {
    let mut planner = planner(2);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, Some("n0"))));
    decide(&mut planner);
    planner.node_gone("n0");
    planner.node_seen(&node("n1", 2));
    decide(&mut planner);
    let held: usize = planner.line.running().map(|running| running.hold.slots.0.len()).sum();
    assert_eq!(held, 0, "what it had is gone, though its pods linger");
    planner.pod_seen(&pod("other", 0, 2, None));
    planner.pod_seen(&pod("other", 1, 2, None));
    assert_eq!(binding(&decide(&mut planner)).gang, "other");
}

#[test]
fn a_gang_that_could_not_be_evicted_runs_on_and_others_are_told_so() {
    let mut planner = planner(2);
    (0..2).for_each(|index| planner.pod_seen(&created(pod("low", index, 2, Some("n0")), 1000)));
    at(&mut planner, 1000);
    for index in 0..2 {
        let mut high = created(pod("high", index, 2, None), 2000);
        high.spec.as_mut().unwrap().priority = Some(1000);
        planner.pod_seen(&high);
    }
    let evictions = |decisions: Vec<Decision>| -> Vec<Vec<(PodKey, String)>> {
        let evictions = decisions.into_iter().filter_map(|decision| match decision {
            Decision::Evict { pods, .. } => Some(pods),
            _ => None,
        });
        evictions.collect()
    };
    let stage = |planner: &Planner| planner.gangs.values().map(|state| state.stage).collect::<Vec<_>>();
    let mut second = 2100;
    for _ in 0..3 {
        let evicted = evictions(at(&mut planner, second)).remove(0);
        assert!(stage(&planner).contains(&Stage::Evicting));
        assert_eq!(evictions(at(&mut planner, second + 50)).len(), 0, "it is under way");
        planner.not_evicted(&evicted[..1]);
        second += 100;
    }
    assert_eq!(evictions(at(&mut planner, second)).len(), 0, "it is not tried for ever");
    assert!(stage(&planner).contains(&Stage::Running));
    (0..2).for_each(|index| gone(&mut planner, &pod("low", index, 2, None)));
    assert_eq!(binding(&at(&mut planner, second + 1)).gang, "high");
}

#[test]
fn what_is_refused_again_and_again_is_tried_later_and_later_and_told() {
    let mut planner = planner(1);
    planner.pod_seen(&created(pod("g", 0, 1, None), 1000));
    assert_eq!(bound(&at(&mut planner, 2000)), [1]);
    carried_out(&mut planner, "g", &[0]);
    assert_eq!(bound(&at(&mut planner, 2001)), [1], "once may be chance");
    carried_out(&mut planner, "g", &[0]);
    let decisions = at(&mut planner, 2002);
    assert_eq!(bound(&decisions), [0usize; 0]);
    assert!(told(&decisions)[0].ends_with("pods \"g-0\" is forbidden"), "{decisions:?}");
    let again = planner.decide(Timestamp::from_second(2002).unwrap()).again_in;
    assert_eq!(again, Some(SignedDuration::from_secs(1)));
    // Others go first meanwhile.
    let other = created(pod("other", 0, 1, None), 1500);
    planner.pod_seen(&other);
    assert_eq!(binding(&at(&mut planner, 2002)).gang, "other");
    carried_out(&mut planner, "other", &[]);
    gone(&mut planner, &other);
    let mut second = 2003;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(bound(&at(&mut planner, second)), [1], "after {pause} s");
        carried_out(&mut planner, "g", &[0]);
        second += 1;
        at(&mut planner, second);
        let pause = (pause * 2).min(60);
        assert_eq!(bound(&at(&mut planner, second + pause - 1)), [0usize; 0]);
        second += pause;
    }
    assert_eq!(bound(&at(&mut planner, second)), [1]);
    carried_out(&mut planner, "g", &[]);
    assert!(planner.refusals.is_empty());
}

#[test]
fn pods_that_cannot_join_are_looked_at_again_when_room_is_gained_or_after_a_while() {
    let mut planner = planner(3);
    let other = pod("other", 0, 1, Some("n0"));
    planner.pod_seen(&other);
    (0..2).for_each(|index| planner.pod_seen(&pod("g", index, 2, Some("n0"))));
    planner.pod_seen(&pod("g", 2, 2, None));
    let looked = |planner: &Planner| planner.put_off.values().map(|at| at.as_second()).collect::<Vec<_>>();
    at(&mut planner, 1000);
    assert_eq!(looked(&planner), [1000]);
    at(&mut planner, 1004);
    assert_eq!(looked(&planner), [1000], "nothing has changed");
    at(&mut planner, 1005);
    assert_eq!(looked(&planner), [1005]);
    gone(&mut planner, &other);
    assert_eq!(bound(&at(&mut planner, 1006)), [1]);
}
