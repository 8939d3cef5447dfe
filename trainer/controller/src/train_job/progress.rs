//! How far a training says that it has come.
//!
//! The pod whose index is 0 carries an annotation (`muster.dev/trainer-status`, JSON with the fields of
//! `status.trainerStatus`), which [`status_server`](super::status_server) writes for it, or whoever else may patch the pod;
//! the job's status repeats it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use muster_trainer_api::train_job::TrainerStatus;
use muster_trainer_api::train_job::names::annotation::TRAINER_STATUS;

/// Longest annotation that is read, in bytes.
pub(super) const LONGEST: usize = 64 << 10;
/// Most metrics, and the longest name or value of one, as the definition allows.
const MOST_METRICS: usize = 256;
const LONGEST_TEXT: usize = 64;

/// What the latest of a job's first pods says.
pub(super) fn of_job(pods: &[Pod], now: &Time) -> Option<TrainerStatus> {
    let said = pods.iter().filter_map(|pod| {
        let said = read(pod.annotations().get(TRAINER_STATUS)?, now)?;
        Some((pod.creation_timestamp(), said))
    });
    said.max_by_key(|(created, _)| created.as_ref().map(|time| time.0)).map(|(_, said)| said)
}

/// The field that the definition does not allow, and why.
pub(super) fn problem(status: &TrainerStatus) -> Option<String> {
    let fits = |text: &str| !text.is_empty() && text.chars().count() <= LONGEST_TEXT;
    let odd = status.metrics.iter().position(|metric| !fits(&metric.name) || !fits(&metric.value));
    if status.progress_percentage.is_some_and(|percentage| !(0..=100).contains(&percentage)) {
        return Some("progressPercentage must be from 0 to 100".to_owned());
    }
    if status.estimated_remaining_seconds.is_some_and(|seconds| seconds < 0) {
        return Some("estimatedRemainingSeconds must not be negative".to_owned());
    }
    if status.metrics.len() > MOST_METRICS {
        return Some(format!("metrics must be at most {MOST_METRICS}"));
    }
    odd.map(|index| {
        format!("metrics[{index}] must have a name and a value of 1 to {LONGEST_TEXT} characters")
    })
}

/// What the definition does not allow is left out, so that a careless program cannot break the job's status.
fn read(text: &str, now: &Time) -> Option<TrainerStatus> {
    let mut status: TrainerStatus =
        serde_json::from_str(Some(text).filter(|text| text.len() <= LONGEST)?).ok()?;
    status.progress_percentage = status.progress_percentage.map(|percentage| percentage.clamp(0, 100));
    status.estimated_remaining_seconds = status.estimated_remaining_seconds.filter(|seconds| *seconds >= 0);
    let fits = |text: &str| !text.is_empty() && text.chars().count() <= LONGEST_TEXT;
    status.metrics.retain(|metric| fits(&metric.name) && fits(&metric.value));
    status.metrics.truncate(MOST_METRICS);
    status.last_updated_time.get_or_insert_with(|| now.clone());
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_definition_is_left_out() {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let text = r#"{"progressPercentage": 140, "estimatedRemainingSeconds": -1,
            "metrics": [{"name": "loss", "value": "0.5"}, {"name": "", "value": "1"}]}"#;
        let status = read(text, &now).unwrap();
        assert_eq!((status.progress_percentage, status.estimated_remaining_seconds), (Some(100), None));
        assert_eq!(status.metrics.len(), 1);
        assert_eq!(status.last_updated_time, Some(now.clone()));
        let wrong: TrainerStatus = serde_json::from_str(text).unwrap();
        assert_eq!(problem(&wrong).as_deref(), Some("progressPercentage must be from 0 to 100"));
        let odd = TrainerStatus { progress_percentage: None, estimated_remaining_seconds: None, ..wrong };
        assert!(problem(&odd).unwrap().starts_with("metrics[1] must have a name"));
        assert_eq!(problem(&status), None);
        assert_eq!(read("half way", &now), None);
        assert_eq!(read(&" ".repeat(LONGEST + 1), &now), None);
    }
}
