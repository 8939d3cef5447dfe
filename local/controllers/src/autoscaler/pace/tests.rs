use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(100_000).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn behavior(written: Value) -> Behavior {
    let spec =
        json!({ "maxReplicas": 1, "scaleTargetRef": { "kind": "D", "name": "d" }, "behavior": written });
    Behavior::of(&serde_json::from_value(json!({ "spec": spec })).unwrap())
}

fn paced(
    current: i32,
    desired: i32,
    behavior: &Behavior,
    memory: &Memory,
) -> (i32, &'static str, &'static str) {
    let wish = Wish { current, desired, fewest: 1, most: 100, behavior, memory, now: now() };
    let paced = pace(&wish);
    (paced.replicas, paced.stabilized.words().0, paced.limit.words().0)
}

#[test]
fn without_rules_pods_double_at_most_and_go_once_none_was_wanted_for_five_minutes() {
    let (rules, mut memory) = (behavior(Value::Null), Memory::default());
    let calm = "ReadyForNewScale";
    assert_eq!(paced(1, 50, &rules, &memory), (4, calm, "ScaleUpLimit"));
    assert_eq!(paced(3, 50, &rules, &memory), (6, calm, "ScaleUpLimit"));
    assert_eq!(paced(60, 500, &rules, &memory), (100, calm, "TooManyReplicas"));
    assert_eq!(paced(5, 0, &rules, &memory), (1, calm, "TooFewReplicas"));
    memory.recommend(4, ago(301));
    memory.recommend(3, ago(299));
    assert_eq!(paced(5, 2, &rules, &memory), (3, "ScaleDownStabilized", "DesiredWithinRange"));
    // An old wish for more is no reason for more.
    assert_eq!(paced(2, 1, &rules, &memory), (2, "ScaleDownStabilized", "DesiredWithinRange"));
}

#[test]
fn policies_count_what_changed_in_their_period() {
    let rules = behavior(json!({
        "scaleUp": { "policies": [
            { "type": "Pods", "value": 2, "periodSeconds": 60 },
            { "type": "Percent", "value": 50, "periodSeconds": 60 },
        ]},
        "scaleDown": { "stabilizationWindowSeconds": 0, "policies": [
            { "type": "Percent", "value": 25, "periodSeconds": 60 },
        ]},
    }));
    let mut memory = Memory::default();
    assert_eq!(paced(2, 50, &rules, &memory).0, 4, "two pods are more than half of two");
    assert_eq!(paced(9, 50, &rules, &memory).0, 14, "half of nine, rounded up, is more than two pods");
    assert_eq!(paced(9, 1, &rules, &memory), (6, "ReadyForNewScale", "ScaleDownLimit"));
    memory.scale(2, ago(61));
    assert_eq!(paced(4, 50, &rules, &memory).0, 6);
    memory.scale(2, ago(59));
    assert_eq!(paced(4, 50, &rules, &memory), (4, "ReadyForNewScale", "ScaleUpLimit"), "two came already");
    assert_eq!(paced(4, 1, &rules, &memory).0, 1, "two of four came within the minute: 3/4 of two stay");
    memory.scale(-3, ago(1));
    assert_eq!(paced(4, 1, &rules, &memory).0, 3, "one went within the minute: 3/4 of five");
}

#[test]
fn the_least_change_or_none_can_be_chosen() {
    let rules = |select: &str| {
        let policies = json!([
            { "type": "Pods", "value": 1, "periodSeconds": 15 },
            { "type": "Pods", "value": 5, "periodSeconds": 15 },
        ]);
        let one = json!({ "selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": policies });
        behavior(json!({ "scaleUp": one, "scaleDown": one }))
    };
    let memory = Memory::default();
    let both = |select: &str| {
        let rules = rules(select);
        (paced(10, 50, &rules, &memory).0, paced(10, 1, &rules, &memory).0)
    };
    assert_eq!((both("Max"), both("Min"), both("Disabled")), ((15, 5), (11, 9), (10, 10)));
}

#[test]
fn a_window_for_more_takes_the_least_that_was_wanted_in_it() {
    let rules = behavior(json!({ "scaleUp": { "stabilizationWindowSeconds": 30 } }));
    let mut memory = Memory::default();
    memory.recommend(3, ago(29));
    memory.recommend(2, ago(31));
    assert_eq!(paced(2, 5, &rules, &memory), (3, "ScaleUpStabilized", "DesiredWithinRange"));
    assert_eq!(paced(2, 3, &rules, &memory), (3, "ReadyForNewScale", "DesiredWithinRange"));
}

fn rules() -> impl Strategy<Value = Value> {
    let policy = (any::<bool>(), 1..200_i32, 1..120_i32).prop_map(|(percent, value, period)| {
        json!({ "type": if percent { "Percent" } else { "Pods" }, "value": value, "periodSeconds": period })
    });
    let select = prop_oneof![Just("Max"), Just("Min"), Just("Disabled")];
    let one = (0..400_i32, select, proptest::collection::vec(policy, 1..4)).prop_map(|(window, select, policies)| {
        json!({ "stabilizationWindowSeconds": window, "selectPolicy": select, "policies": policies })
    });
    prop_oneof![
        1 => Just(Value::Null),
        4 => (one.clone(), one).prop_map(|(up, down)| json!({ "scaleUp": up, "scaleDown": down })),
    ]
}

proptest! {
    /// Whatever the rules and the past: the bounds hold, the number goes towards what is asked for and never past it,
    /// what is not done has a reason, and whoever asks for more never gets less.
    #[test]
    fn numbers_go_where_they_are_asked_to_and_stay_within_the_bounds(
        written in rules(),
        bounds in (1..20_i32, 0..80_i32),
        current in 0..100_i32,
        desired in 0..1000_i32,
        past in proptest::collection::vec((0..600_i64, 0..100_i32, -20..20_i32), 0..20),
    ) {
        let behavior = behavior(written.clone());
        let (fewest, most) = (bounds.0, bounds.0 + bounds.1);
        let current = current.clamp(fewest, most);
        let mut memory = Memory::default();
        for (seconds, recommended, change) in past {
            memory.recommend(recommended, ago(seconds));
            memory.scale(change, ago(seconds));
        }
        let wish = Wish { current, desired, fewest, most, behavior: &behavior, memory: &memory, now: now() };
        let done = pace(&wish);
        prop_assert!((fewest..=most).contains(&done.replicas));
        let (low, high) = (current.min(desired.max(fewest)), current.max(desired.min(most)));
        prop_assert!((low..=high).contains(&done.replicas), "{done:?}");
        let is_as_asked = done.replicas == desired;
        let has_reason = done.stabilized != Stabilized::No || done.limit != Limit::None;
        prop_assert!(is_as_asked || has_reason, "{done:?}");
        let more = pace(&Wish { desired: desired + 1, ..wish });
        prop_assert!(more.replicas >= done.replicas, "{done:?} {more:?}");
        for (key, direction) in [("scaleUp", 1), ("scaleDown", -1)] {
            if written[key]["selectPolicy"] == "Disabled" {
                prop_assert!((done.replicas - current) * direction <= 0);
            }
        }
    }

    /// The same wish again and again is reached, unless a direction is closed.
    #[test]
    fn a_constant_wish_is_reached(
        written in rules(),
        start in 1..60_i32,
        desired in 1..60_i32,
    ) {
        let behavior = behavior(written.clone());
        let closed = ["scaleUp", "scaleDown"].iter().any(|key| written[key]["selectPolicy"] == "Disabled");
        let (mut memory, mut current, mut time) = (Memory::default(), start, now());
        for _ in 0..2000 {
            if closed || current == desired {
                break;
            }
            let wish = Wish { current, desired, fewest: 1, most: 60, behavior: &behavior, memory: &memory, now: time };
            let next = pace(&wish).replicas;
            memory.recommend(desired, time);
            memory.scale(next - current, time);
            memory.forget(time, SignedDuration::from_secs(400), SignedDuration::from_secs(120));
            current = next;
            time += SignedDuration::from_secs(15);
        }
        if !closed {
            prop_assert_eq!(current, desired);
        }
    }
}
