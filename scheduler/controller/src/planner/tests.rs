use super::*;
use crate::objects::{ForeignGroup, GroupKind};
use jiff::SignedDuration;
use muster_scheduler_api::{GangReservationSpec, GangReservationStatus, ReservationPhase, ReservedMember};
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
            Decision::Explain { .. } | Decision::Evict { .. } => None,
        })
        .collect()
}

fn decide(planner: &mut Planner) -> Vec<Decision> {
    planner.decide(Timestamp::MAX).now
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
    planner.pod_gone(&first);
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn a_failed_binding_gives_its_place_back() {
    let mut planner = planner(1);
    planner.pod_seen(&pod("a", 0, 1, None));
    assert_eq!(bound(&decide(&mut planner)), [1]);
    planner.binding_failed(&PodKey::new("a", "a-0"));
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
    };
    let mut reservation = GangReservation::new(
        "g",
        GangReservationSpec { gang: "g".into(), epoch: 1, members: vec![member(0), member(1)] },
    );
    reservation.metadata.namespace = Some("a".into());
    reservation.status = Some(GangReservationStatus { phase: Some(ReservationPhase::Bound) });
    let binding = planner.restore(&reservation).unwrap();
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
    planner.pod_gone(&old);
    planner.pod_seen(&new);
    planner.pod_gone(&old);
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

fn queue(name: &str, gpus: u32, borrowing: Option<u32>) -> muster_scheduler_api::Queue {
    serde_json::from_value(json!({
        "apiVersion": "muster.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name},
        "spec": {"parent": null, "quotas": [{"resource": "nvidia.com/gpu", "nominal": gpus.to_string(),
            "borrowingLimit": borrowing.map(|limit| limit.to_string())}]},
    }))
    .unwrap()
}

fn in_queue(mut pod: core::Pod, queue: &str) -> core::Pod {
    pod.metadata.labels.get_or_insert_default().insert("muster.dev/queue".into(), queue.into());
    pod
}

fn told(decisions: &[Decision]) -> Vec<String> {
    let messages = decisions.iter().filter_map(|decision| match decision {
        Decision::Explain { message, .. } => Some(message.clone()),
        _ => None,
    });
    let mut messages: Vec<String> = messages.collect();
    messages.dedup();
    messages
}

fn at(planner: &mut Planner, second: i64) -> Vec<Decision> {
    planner.decide(Timestamp::from_second(second).unwrap()).now
}

#[test]
fn a_queue_without_quota_left_holds_its_gangs_back_by_name() {
    let mut planner = planner(8);
    planner.queue_seen(&queue("small", 2, Some(0)));
    for gang in ["a", "b"] {
        for index in 0..2 {
            planner.pod_seen(&in_queue(pod(gang, index, 2, None), "small"));
        }
    }
    let decisions = decide(&mut planner);
    assert_eq!(bound(&decisions), [2]);
    let message = told(&decisions).remove(0);
    assert!(
        message.starts_with(
            "queue small has too little quota for nvidia.com/gpu: needs 2, 0 of its own free, 0 to borrow"
        ),
        "{message}"
    );
}

#[test]
fn a_gang_of_a_queue_that_does_not_exist_waits_for_it() {
    let mut planner = planner(8);
    planner.pod_seen(&in_queue(pod("a", 0, 1, None), "later"));
    let message = told(&decide(&mut planner)).remove(0);
    assert!(message.contains("queue later does not exist"), "{message}");
    planner.queue_seen(&queue("later", 4, None));
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn an_elastic_gang_starts_with_fewer_and_the_others_join_it() {
    let mut planner = planner(3);
    let other = pod("other", 0, 1, Some("n0"));
    planner.pod_seen(&other);
    for index in 0..4 {
        planner.pod_seen(&pod("g", index, 2, None));
    }
    assert_eq!(bound(&decide(&mut planner)), [2]);
    planner.pod_gone(&other);
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn a_gang_of_higher_priority_evicts_a_whole_gang_and_takes_its_place() {
    let mut planner = planner(4);
    for index in 0..4 {
        planner.pod_seen(&pod("low", index, 4, None));
    }
    assert_eq!(bound(&at(&mut planner, 1000)), [4]);
    let running = |index| pod("low", index, 4, Some("n0"));
    (0..4).for_each(|index| planner.pod_seen(&running(index)));
    for index in 0..2 {
        let mut high = pod("high", index, 2, None);
        high.spec.as_mut().unwrap().priority = Some(1000);
        planner.pod_seen(&high);
    }
    let decisions = at(&mut planner, 1100);
    let evicted: Vec<usize> = decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Evict { pods, .. } => Some(pods.len()),
            _ => None,
        })
        .collect();
    assert_eq!(
        (evicted, bound(&decisions)),
        (vec![4], vec![]),
        "whole, and nothing starts before it is gone"
    );
    // Successors of the first do not take the room back while the others end.
    for index in 0..4 {
        let mut leaving = running(index);
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        planner.pod_seen(&leaving);
    }
    planner.pod_gone(&running(0));
    let mut successor = pod("low", 0, 4, None);
    successor.metadata.uid = Some("later".into());
    planner.pod_seen(&successor);
    assert_eq!(bound(&at(&mut planner, 1100)), [0usize; 0]);
    (0..4).for_each(|index| planner.pod_gone(&running(index)));
    assert_eq!(bound(&at(&mut planner, 1101)), [2]);
}

#[test]
fn a_gang_that_leaves_is_not_filled_up_by_its_successors_one_by_one() {
    let mut planner = planner(4);
    for index in 0..2 {
        planner.pod_seen(&pod("g", index, 2, Some("n0")));
    }
    decide(&mut planner);
    let mut leaving = pod("g", 1, 2, Some("n0"));
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    planner.pod_seen(&leaving);
    planner.pod_gone(&pod("g", 0, 2, Some("n0")));
    let mut successor = pod("g", 0, 2, None);
    successor.metadata.uid = Some("later".into());
    planner.pod_seen(&successor);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
}

#[test]
fn a_wish_that_cannot_be_read_holds_the_gang_and_is_told() {
    let mut planner = planner(4);
    let mut first = pod("g", 0, 2, None);
    let wishes = first.metadata.annotations.as_mut().unwrap();
    wishes.insert("muster.dev/gang-min-available".into(), "two".into());
    planner.pod_seen(&first);
    let sentence =
        "held back: pod g-0: muster.dev/gang-min-available is `two`; it must be a whole number above 0";
    assert_eq!(told(&decide(&mut planner)), [sentence]);
    planner.pod_seen(&pod("g", 1, 2, None));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    planner.pod_seen(&pod("g", 0, 2, None));
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

fn of_pod_group(index: u32) -> core::Pod {
    let mut pod = pod("g", index, 1, None);
    pod.metadata.annotations = None;
    pod.metadata.labels = Some([("scheduling.x-k8s.io/pod-group".to_owned(), "g".to_owned())].into());
    pod
}

fn pod_group(min_member: u32) -> GroupEvent {
    let object = json!({"metadata": {"name": "g", "namespace": "a"}, "spec": {"minMember": min_member}});
    let object = serde_json::from_value(object).unwrap();
    GroupEvent::Seen(Box::new(ForeignGroup::read(GroupKind::Coscheduling, &object)))
}

#[test]
fn a_gang_that_another_object_describes_waits_for_it() {
    let mut planner = planner(4);
    planner.pod_seen(&of_pod_group(0));
    assert_eq!(planner.group_kinds_to_watch(), [GroupKind::Coscheduling].into());
    assert_eq!(planner.group_kinds_to_watch(), [].into(), "told once");
    assert_eq!(planner.decide(Timestamp::UNIX_EPOCH).now, [], "the object may be on its way");
    let waits = |planner: &mut Planner, because: &str| {
        let sentence = format!("held back: PodGroup.scheduling.x-k8s.io a/g {because}");
        assert_eq!(told(&decide(planner)), [sentence]);
    };
    waits(&mut planner, "has not been read yet");
    planner.group_changed(GroupEvent::Kind(GroupKind::Coscheduling, Availability::Absent));
    waits(&mut planner, "cannot exist: the kind is not installed in this cluster");
    planner.group_changed(GroupEvent::Kind(GroupKind::Coscheduling, Availability::Read));
    waits(&mut planner, "does not exist; create it, or name another");
    planner.group_changed(pod_group(2));
    assert_eq!(
        told(&decide(&mut planner)),
        ["1 of the 2 pods that must start together exist; it starts when the others are created"]
    );
    planner.pod_seen(&of_pod_group(1));
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn a_changed_group_changes_what_its_gang_needs() {
    let mut planner = planner(4);
    planner.pod_seen(&of_pod_group(0));
    planner.group_changed(pod_group(3));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    planner.group_changed(pod_group(1));
    assert_eq!(bound(&decide(&mut planner)), [1]);
}
