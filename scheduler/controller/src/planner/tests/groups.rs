//! Wishes that cannot be read, and gangs that objects of other systems describe.

use super::*;
use crate::objects::{ForeignGroup, GroupKind};

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
    planner.pod_seen(&of_pod_group(0));
    assert_eq!(told(&decide(&mut planner)), [""; 0], "what was read stays read");
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
