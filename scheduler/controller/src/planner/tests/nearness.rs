//! Gangs that wait for nearer places, as their pods say.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use super::{node, pod};
use crate::planner::{Alternative, Decision, Planner};

const NOW: Timestamp = Timestamp::constant(10_000, 0);

fn with(mut pod: core::Pod, annotations: &[(&str, &str)]) -> core::Pod {
    let written = pod.metadata.annotations.get_or_insert_default();
    written.extend(annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    pod.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    pod
}

/// Two racks of eight nodes with a GPU each, of which six are taken; a gang of three for an hour.
fn planner(wait: Option<&str>) -> Planner {
    let mut planner = Planner::new(["muster".to_owned()]);
    for index in 0..16 {
        let mut machine = node(&format!("n{index:02}"), 1);
        let rack = format!("rack-{}", index / 8);
        machine.metadata.labels.get_or_insert_default().insert("muster.dev/rack".to_owned(), rack);
        planner.node_seen(&machine);
        if index % 8 < 6 {
            let gang = format!("rack-{}", index / 8);
            let taken = pod(&gang, index % 8, 6, Some(&format!("n{index:02}")));
            planner.pod_seen(&with(taken, &[("muster.dev/time-limit", "90m")]));
        }
    }
    for index in 0..3 {
        let limit = ("muster.dev/time-limit", "1h");
        let wait = wait.map(|wait| ("muster.dev/wait-for-nearer", wait));
        let annotations: Vec<(&str, &str)> = [limit].into_iter().chain(wait).collect();
        planner.pod_seen(&with(pod("g", index, 3, None), &annotations));
    }
    planner
}

fn binds(planner: &mut Planner, now: Timestamp) -> bool {
    let decisions = planner.decide(now).now;
    decisions.iter().any(|decision| matches!(decision, Decision::Bind(binding) if binding.gang == "g"))
}

#[test]
fn a_gang_says_that_it_waits_for_nearer_places_and_what_would_start_it() {
    let mut planner = planner(None);
    assert!(!binds(&mut planner, NOW));
    let report = planner.report("a", "g", NOW).unwrap();
    assert_eq!(
        report.reason.as_deref(),
        Some(
            "it waits for nearer places: on those that are free it would be divided between 2 domains instead \
             of 1"
        )
    );
    assert!(report.alternatives.contains(&Alternative::AnyDistance), "{report:?}");
    let later = NOW + jiff::SignedDuration::from_mins(90);
    let expected = report.expected_start.unwrap().at;
    assert!(expected >= later, "somebody ends then: {expected}");
}

#[test]
fn its_pods_say_how_long_it_waits() {
    assert!(binds(&mut planner(Some("0s")), NOW));
    let mut planner = planner(Some("10m"));
    let decisions = planner.decide(NOW);
    assert!(decisions.now.iter().all(|decision| !matches!(decision, Decision::Bind(_))));
    assert!(!binds(&mut planner, NOW + jiff::SignedDuration::from_mins(9)));
    assert!(binds(&mut planner, NOW + jiff::SignedDuration::from_mins(10)));
}
