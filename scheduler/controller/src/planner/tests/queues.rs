//! Queues, elastic gangs, preemption.

use super::*;

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
    gone(&mut planner, &other);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0], "one plan of a gang at a time");
    carried_out(&mut planner, "g", &[]);
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
    gone(&mut planner, &running(0));
    let mut successor = pod("low", 0, 4, None);
    successor.metadata.uid = Some("later".into());
    planner.pod_seen(&successor);
    assert_eq!(bound(&at(&mut planner, 1100)), [0usize; 0]);
    (0..4).for_each(|index| gone(&mut planner, &running(index)));
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
    gone(&mut planner, &pod("g", 0, 2, Some("n0")));
    let mut successor = pod("g", 0, 2, None);
    successor.metadata.uid = Some("later".into());
    planner.pod_seen(&successor);
    assert_eq!(bound(&decide(&mut planner)), [0usize; 0]);
}

#[test]
fn quality_of_service_counts_as_hours_of_waiting_and_is_that_of_the_queue_above() {
    let quality = |name: &str, parent: Option<&str>, quality: Option<i32>| {
        let mut queue = queue(name, 8, None);
        queue.spec.parent = parent.map(str::to_owned);
        queue.spec.quotas.clear();
        queue.spec.quality = quality;
        queue
    };
    let mut planner = planner(3);
    planner.queue_seen(&quality("paid", None, Some(7)));
    planner.queue_seen(&quality("gold", Some("paid"), None));
    planner.queue_seen(&quality("free", None, None));
    let hours = |hours: i64| hours * 3600;
    planner.pod_seen(&pod("before", 0, 1, Some("n0")));
    planner.pod_seen(&pod("before", 1, 1, Some("n0")));
    planner.pod_seen(&in_queue(created(pod("early", 0, 1, None), hours(0)), "free"));
    planner.pod_seen(&in_queue(created(pod("late", 0, 1, None), hours(2)), "gold"));
    assert_eq!(
        binding(&at(&mut planner, hours(2) + 60)).gang,
        "late",
        "seven hours are more than two and what fair share counts"
    );
    gone(&mut planner, &pod("before", 1, 1, Some("n0")));
    planner.queue_seen(&quality("gold", Some("paid"), Some(1)));
    planner.pod_seen(&in_queue(created(pod("later", 0, 1, None), hours(2)), "gold"));
    assert_eq!(binding(&at(&mut planner, hours(2) + 120)).gang, "early", "its own counts before that above");
}

#[test]
fn queues_without_quota_share_the_nodes_fairly() {
    let mut planner = planner(4);
    for name in ["busy", "idle"] {
        let mut queue = queue(name, 8, None);
        queue.spec.quotas.clear();
        planner.queue_seen(&queue);
    }
    (0..3).for_each(|index| planner.pod_seen(&in_queue(pod("runs", index, 3, None), "busy")));
    assert_eq!(binding(&at(&mut planner, 0)).gang, "runs");
    planner.pod_seen(&in_queue(created(pod("first", 0, 1, None), 3000), "busy"));
    planner.pod_seen(&in_queue(created(pod("second", 0, 1, None), 6000), "idle"));
    assert_eq!(binding(&at(&mut planner, 6600)).gang, "second");
}
