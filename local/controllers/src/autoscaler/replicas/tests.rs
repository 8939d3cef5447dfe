use std::collections::BTreeSet;

use proptest::prelude::{prop_assert, prop_assert_eq, prop_assume, proptest};

use super::*;

fn behavior() -> Behavior {
    let written =
        serde_json::json!({ "spec": { "maxReplicas": 1, "scaleTargetRef": { "kind": "D", "name": "d" } } });
    Behavior::of(&serde_json::from_value(written).unwrap())
}

fn named<T: Copy>(prefix: &str, values: &[T]) -> BTreeMap<String, T> {
    values.iter().enumerate().map(|(index, value)| (format!("{prefix}{index}"), *value)).collect()
}

fn group(ready: &[i64], unready: usize, missing: usize) -> Group {
    let names = |prefix: &str, count: usize| {
        (0..count).map(|index| format!("{prefix}{index}")).collect::<BTreeSet<_>>()
    };
    Group {
        ready: named("ready", ready),
        unready: names("unready", unready),
        missing: names("missing", missing),
    }
}

/// Half of a request of one unit.
fn half(group: &Group) -> Goal {
    let names = group.ready.keys().chain(&group.unready).chain(&group.missing);
    Goal::Utilization { percent: 50, requests: names.map(|name| (name.clone(), 1000)).collect() }
}

fn wanted(current: i32, group: &Group) -> i32 {
    propose(current, group, &half(group), &behavior()).unwrap().replicas
}

#[test]
fn pods_follow_their_use() {
    for (used, pods) in [
        (&[500, 500][..], 2),
        (&[540, 550], 2),
        (&[560, 560], 3),
        (&[1000, 1000], 4),
        (&[450, 460], 2),
        (&[200, 200], 1),
        (&[0, 0], 0),
        (&[100, 900, 2000], 6),
    ] {
        assert_eq!(wanted(used.len() as i32, &group(used, 0, 0)), pods, "{used:?}");
    }
    let two = group(&[300, 100], 0, 0);
    let proposal = propose(2, &two, &half(&two), &behavior()).unwrap();
    assert_eq!((proposal.utilization, proposal.average_milli), (Some(20), 200));
    let proposal = propose(2, &two, &Goal::Average { milli: 50 }, &behavior()).unwrap();
    assert_eq!((proposal.replicas, proposal.utilization, proposal.average_milli), (8, None, 200));
}

#[test]
fn pods_of_which_little_is_known_speak_against_a_change() {
    assert_eq!(wanted(3, &group(&[1000], 2, 0)), 3, "those that start may suffice");
    assert_eq!(wanted(2, &group(&[2000], 1, 0)), 4);
    assert_eq!(
        wanted(3, &group(&[100], 2, 0)),
        1,
        "those that start do nothing yet, and need not stay for it"
    );
    assert_eq!(wanted(2, &group(&[100], 0, 1)), 2, "the other may be busy");
    assert_eq!(wanted(4, &group(&[100, 100, 100], 0, 1)), 3);
    assert_eq!(wanted(2, &group(&[2000], 0, 1)), 4, "the other counts as idle");
    assert_eq!(wanted(2, &group(&[500], 0, 1)), 2);
    let average = |used: &[i64], missing| {
        let group = group(used, 0, missing);
        propose(used.len() as i32 + missing as i32, &group, &Goal::Average { milli: 100 }, &behavior())
            .unwrap()
            .replicas
    };
    assert_eq!((average(&[100], 1), average(&[10], 1), average(&[400], 1)), (2, 2, 4));
}

#[test]
fn nothing_is_said_without_a_pod_that_works_or_a_request() {
    let none = group(&[], 2, 1);
    let error = propose(3, &none, &half(&none), &behavior()).unwrap_err();
    assert_eq!(error.to_string(), "did not receive metrics for targeted pods (pods might be unready)");
    let one = group(&[1], 0, 0);
    let nothing = Goal::Utilization { percent: 50, requests: BTreeMap::from([("ready0".to_owned(), 0)]) };
    assert_eq!(propose(1, &one, &nothing, &behavior()), Err(CalculationError::NoRequests));
}

proptest! {
    /// More use never asks for fewer pods, and less never for more; what is not known never turns the direction.
    #[test]
    fn use_and_pods_go_the_same_way(
        used in proptest::collection::vec(0..3000_i64, 1..20),
        more in 0..20_usize,
        unready in 0..5_usize,
        missing in 0..5_usize,
        average in proptest::bool::ANY,
    ) {
        let known = group(&used, 0, 0);
        let blurred = group(&used, unready, missing);
        let current = (used.len() + unready + missing) as i32;
        let ask = |current: i32, group: &Group| {
            let goal = if average { Goal::Average { milli: 500 } } else { half(group) };
            propose(current, group, &goal, &behavior()).unwrap().replicas
        };
        let clear = ask(used.len() as i32, &known);
        prop_assert!(clear >= 0);
        let mut busier = known.clone();
        if let Some(used) = busier.ready.values_mut().nth(more % used.len()) {
            *used += 700;
        }
        prop_assert!(ask(used.len() as i32, &busier) >= clear);
        // A pod that was not measured never makes the others fewer or more than they would be were it idle or busy.
        let mean = used.iter().sum::<i64>() as f64 / used.len() as f64 / 500.0;
        let doubtful = ask(current, &blurred);
        if mean < 0.99 {
            prop_assert!(doubtful <= current);
        }
        if mean > 1.01 {
            prop_assert!(doubtful >= current || unready + missing == 0);
        }
    }

    /// Once there are as many pods as were asked for, and the load spreads over them, nothing more is asked.
    #[test]
    fn a_constant_load_comes_to_rest(load in 100..20_000_i64, start in 1..20_usize) {
        let spread = |pods: usize| group(&vec![load / pods as i64; pods], 0, 0);
        let mut pods = start;
        for _ in 0..10 {
            pods = wanted(pods as i32, &spread(pods)).max(1) as usize;
        }
        prop_assume!(load / pods as i64 > 0);
        prop_assert_eq!(wanted(pods as i32, &spread(pods)).max(1) as usize, pods);
    }
}
