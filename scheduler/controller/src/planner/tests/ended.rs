//! Gangs of which members have ended well.

use super::*;

/// A member from a controller of this uid.
fn member(index: u32, uid: &str, owner: &str, of: u32) -> core::Pod {
    let mut pod = pod("g", index, of, None);
    pod.metadata.uid = Some(uid.to_owned());
    let owner =
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner, "controller": true}]);
    pod.metadata.owner_references = serde_json::from_value(owner).unwrap();
    pod
}

fn on(mut pod: core::Pod, node: &str, phase: &str) -> core::Pod {
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    pod.status.as_mut().unwrap().phase = Some(phase.to_owned());
    pod
}

/// A gang of three runs.
fn three_run(planner: &mut Planner) -> Vec<core::Pod> {
    let pods: Vec<core::Pod> = (0..3).map(|index| member(index, &format!("u{index}"), "j1", 3)).collect();
    for pod in &pods {
        planner.pod_seen(pod);
    }
    assert_eq!(bound(&decide(planner)), [3]);
    carried_out(planner, "g", &[]);
    for pod in &pods {
        planner.pod_seen(&on(pod.clone(), "n0", "Running"));
    }
    pods
}

/// A gang of three runs, one of it ends well, and one is lost: its successor is there.
fn one_done_and_one_lost(planner: &mut Planner) {
    let pods = three_run(planner);
    planner.pod_seen(&on(pods[0].clone(), "n0", "Succeeded"));
    gone(planner, &pods[1]);
    assert_eq!(bound(&decide(planner)), [0usize; 0]);
    planner.pod_seen(&member(1, "u1-later", "j1", 3));
}

#[test]
fn who_is_done_is_not_missed_when_another_comes_back() {
    let mut planner = planner(3);
    one_done_and_one_lost(&mut planner);
    assert_eq!(bound(&decide(&mut planner)), [1]);
}

#[test]
fn who_is_done_is_known_after_a_restart() {
    let mut before = planner(3);
    one_done_and_one_lost(&mut before);
    let mut after = planner(3);
    after.pod_seen(&on(member(0, "u0", "j1", 3), "n0", "Succeeded"));
    after.pod_seen(&member(1, "u1-later", "j1", 3));
    after.pod_seen(&on(member(2, "u2", "j1", 3), "n0", "Running"));
    assert_eq!(bound(&decide(&mut after)), [1]);
}

#[test]
fn who_is_done_gives_its_quota_back() {
    let mut planner = planner(3);
    let pods = three_run(&mut planner);
    let used = |planner: &mut Planner| {
        decide(planner);
        let gang = GangKey { namespace: "a".into(), name: "g".into() };
        planner.gangs[&gang].charge.clone()
    };
    let all = used(&mut planner);
    planner.pod_seen(&on(pods[0].clone(), "n0", "Succeeded"));
    let fewer = used(&mut planner);
    assert_ne!(all, fewer);
}

#[test]
fn a_later_run_of_the_same_name_needs_all_of_its_own() {
    let mut planner = planner(4);
    for index in 0..2 {
        planner.pod_seen(&on(member(index, &format!("u{index}"), "j1", 2), "n0", "Succeeded"));
    }
    let mut later = member(7, "u7", "j2", 2);
    planner.pod_seen(&later);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
    later.metadata.name = Some("g-8".to_owned());
    later.metadata.uid = Some("u8".to_owned());
    planner.pod_seen(&later);
    assert_eq!(bound(&decide(&mut planner)), [2]);
}

#[test]
fn who_is_done_is_missed_again_when_it_is_deleted() {
    let mut planner = planner(3);
    one_done_and_one_lost(&mut planner);
    gone(&mut planner, &member(0, "u0", "j1", 3));
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "it may be restarted as a whole");
}
