//! How long to wait before a failed pod is replaced. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LONGEST: SignedDuration = SignedDuration::from_mins(10);

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = statuses
        .filter_map(|status| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0));
    ends.max()
        .or_else(|| crate::pods::condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0))
}

/// What is left of the pause after the last failures in a row: 10 s after the first, doubled by each further one.
pub(crate) fn remaining<'a>(pods: impl Iterator<Item = &'a Pod>, now: Timestamp) -> Option<SignedDuration> {
    let (mut failures, mut last_success) = (Vec::new(), None);
    for pod in pods {
        match crate::pods::phase(pod) {
            "Failed" => failures.extend(ended_at(pod)),
            "Succeeded" => last_success = last_success.max(ended_at(pod)),
            _ => {}
        }
    }
    failures.retain(|failure| last_success.is_none_or(|success| *failure > success));
    let last = failures.iter().max()?;
    let doublings = (failures.len() - 1).min(10) as u32;
    let pause = (FIRST * (1_i32 << doublings)).min(LONGEST);
    let left = pause - now.duration_since(*last);
    (left > SignedDuration::ZERO).then_some(left)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, second: i64) -> Pod {
        let time = Timestamp::from_second(second).unwrap().to_string();
        serde_json::from_value(json!({ "status": {
            "phase": phase, "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": time }],
        }}))
        .unwrap()
    }

    fn left(pods: &[Pod], now: i64) -> Option<i64> {
        remaining(pods.iter(), Timestamp::from_second(now).unwrap()).map(|left| left.as_secs())
    }

    #[test]
    fn the_pause_doubles_and_ends_with_a_success() {
        assert_eq!(left(&[], 100), None);
        assert_eq!(left(&[pod("Failed", 100)], 104), Some(6));
        assert_eq!(left(&[pod("Failed", 100)], 110), None);
        assert_eq!(left(&[pod("Failed", 90), pod("Failed", 100)], 104), Some(16));
        assert_eq!(left(&[pod("Failed", 90), pod("Succeeded", 95), pod("Failed", 100)], 104), Some(6));
        assert_eq!(left(&[pod("Failed", 90), pod("Succeeded", 105)], 104), None);
        let many: Vec<Pod> = (0..50).map(|second| pod("Failed", second)).collect();
        assert_eq!(left(&many, 49), Some(600));
    }
}
