use k8s_openapi::api::batch::v1::JobCondition;
use serde_json::{Value, json};

use super::*;
use crate::job::pod::{INDEX, TRACKING};

fn job(spec: Value, status: Value) -> Job {
    let mut whole = json!({ "template": {}, "backoffLimit": 1 });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(
        json!({ "metadata": { "name": "j", "uid": "u" }, "spec": whole, "status": status }),
    )
    .unwrap()
}

fn pod(name: &str, phase: &str, index: Option<i32>, tracked: bool) -> Arc<Pod> {
    let annotations = index.map_or(json!({}), |index| json!({ INDEX: index.to_string() }));
    let finalizers = if tracked { json!([TRACKING]) } else { json!([]) };
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name, "annotations": annotations, "finalizers": finalizers },
            "status": { "phase": phase },
        }))
        .unwrap(),
    )
}

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

fn types(status: &JobStatus) -> Vec<&str> {
    status.conditions.iter().flatten().map(|condition: &JobCondition| condition.type_.as_str()).collect()
}

#[test]
fn a_new_job_starts_as_many_pods_as_it_may() {
    let plan = plan(&job(json!({ "completions": 5, "parallelism": 2 }), json!({})), &[], now());
    assert_eq!(plan.create, [None, None]);
    assert_eq!((plan.status.active, plan.status.ready), (Some(2), Some(0)));
    assert_eq!(plan.status.start_time, Some(Time(now())));
}

#[test]
fn an_ended_pod_is_counted_in_two_steps_and_only_once() {
    let spec = json!({ "completions": 2, "parallelism": 1 });
    let first = plan(&job(spec.clone(), json!({})), &[pod("a", "Succeeded", None, true)], now());
    let uncounted = first.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!(uncounted.succeeded, Some(vec!["a".to_owned()]));
    assert_eq!((first.status.succeeded, first.counted.len(), first.create.len()), (None, 1, 1));
    let status = json!(first.status);
    let again = plan(&job(spec.clone(), status.clone()), &[pod("a", "Succeeded", None, true)], now());
    assert_eq!(again.status.uncounted_terminated_pods, Some(uncounted));
    let second = plan(&job(spec.clone(), status), &[pod("a", "Succeeded", None, false)], now());
    assert_eq!(second.status.succeeded, Some(1));
    let last = plan(&job(spec, json!(second.status)), &[pod("a", "Succeeded", None, false)], now());
    assert_eq!(last.status.succeeded, Some(1));
}

#[test]
fn an_indexed_job_completes_every_index_once() {
    let spec = json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" });
    let pods = [pod("a", "Succeeded", Some(0), true), pod("b", "Running", Some(1), true)];
    let plan_ = plan(&job(spec.clone(), json!({})), &pods, now());
    assert_eq!(plan_.create, [Some(2)]);
    assert_eq!(plan_.status.completed_indexes.as_deref(), Some("0"));
    let status = json!({ "completedIndexes": "0,1", "succeeded": 2 });
    let done = plan(&job(spec.clone(), status), &[pod("c", "Succeeded", Some(2), true)], now());
    assert_eq!(types(&done.status), ["SuccessCriteriaMet"], "the last pod is not freed yet");
    let done = plan(&job(spec, json!(done.status)), &[pod("c", "Succeeded", Some(2), false)], now());
    assert_eq!(types(&done.status), ["SuccessCriteriaMet", "Complete"]);
    assert_eq!(done.status.completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(done.happenings, [Happening::Completed]);
}

#[test]
fn two_pods_of_one_index_are_one_too_many() {
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" });
    let pods = [pod("a", "Running", Some(0), true), pod("b", "Running", Some(0), true)];
    let plan = plan(&job(spec, json!({})), &pods, now());
    assert_eq!(plan.remove.iter().map(|removal| removal.pod.name_any()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(plan.create, [Some(1)]);
}

#[test]
fn too_many_failures_end_the_job_and_its_pods() {
    let spec = json!({ "completions": 3, "parallelism": 3 });
    let pods =
        [pod("a", "Failed", None, true), pod("b", "Failed", None, true), pod("c", "Running", None, true)];
    let plan_ = plan(&job(spec.clone(), json!({})), &pods, now());
    assert_eq!(types(&plan_.status), ["FailureTarget"]);
    assert_eq!(plan_.remove.len(), 1);
    assert!(plan_.remove[0].counts && plan_.create.is_empty());
    let pods = [pod("a", "Failed", None, false), pod("b", "Failed", None, false)];
    let last = plan(&job(spec, json!(plan_.status)), &pods, now());
    assert_eq!(types(&last.status), ["FailureTarget", "Failed"]);
    assert_eq!((last.status.failed, last.status.completion_time), (Some(2), None));
    let message = "Job has reached the specified backoff limit";
    assert_eq!(last.happenings, [Happening::Failed("BackoffLimitExceeded".into(), message.into())]);
}

#[test]
fn a_suspended_job_loses_its_pods_without_counting_them() {
    let status = json!({ "startTime": "1970-01-01T00:00:00Z" });
    let spec = json!({ "completions": 1, "parallelism": 1, "suspend": true });
    let plan_ = plan(&job(spec, status), &[pod("a", "Running", None, true)], now());
    assert_eq!(types(&plan_.status), ["Suspended"]);
    assert!(!plan_.remove[0].counts);
    assert_eq!(plan_.status.start_time, None);
    let resumed = plan(&job(json!({ "completions": 1 }), json!(plan_.status)), &[], now());
    assert_eq!(resumed.status.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("JobResumed"));
    assert_eq!((resumed.status.start_time, resumed.create.len()), (Some(Time(now())), 1));
}

#[test]
fn a_deadline_is_waited_for_and_then_kept() {
    let spec = json!({ "completions": 1, "activeDeadlineSeconds": 60 });
    let early = json!({ "startTime": "1970-01-01T00:16:00Z" });
    assert_eq!(plan(&job(spec.clone(), early), &[], now()).again, Some(Duration::from_secs(20)));
    let late = json!({ "startTime": "1970-01-01T00:15:00Z" });
    let plan = plan(&job(spec, late), &[], now());
    let condition = &plan.status.conditions.as_ref().unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_finished_job_goes_when_its_time_is_over() {
    let status = json!({ "conditions": [{
        "type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:16:00Z",
    }]});
    let spec = |ttl: i32| json!({ "ttlSecondsAfterFinished": ttl });
    let waits = plan(&job(spec(60), status.clone()), &[], now());
    assert_eq!((waits.delete_job, waits.again), (false, Some(Duration::from_secs(20))));
    assert!(plan(&job(spec(30), status), &[], now()).delete_job);
}

fn per_index(name: &str, index: i32, phase: &str, failures: i32) -> Arc<Pod> {
    let mut pod = (*pod(name, phase, Some(index), true)).clone();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(crate::job::per_index::FAILURES.to_owned(), failures.to_string());
    Arc::new(pod)
}

#[test]
fn every_index_has_failures_of_its_own() {
    let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed",
                       "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1 });
    let pods =
        [per_index("a", 0, "Failed", 0), per_index("b", 1, "Failed", 1), per_index("c", 2, "Succeeded", 0)];
    let first = plan(&job(spec.clone(), json!({})), &pods, now());
    assert_eq!(first.status.failed_indexes.as_deref(), Some("1"));
    assert_eq!((first.create, first.failures.get(&0)), (vec![Some(0)], Some(&1)));
    assert!(types(&first.status).is_empty(), "index 0 may fail once more");
    let pods = [per_index("d", 0, "Failed", 1)];
    let last = plan(&job(spec, json!(first.status)), &pods, now());
    assert_eq!(last.status.failed_indexes.as_deref(), Some("0,1"));
    assert_eq!(last.status.conditions.as_ref().unwrap()[0].reason.as_deref(), Some("FailedIndexes"));
    assert!(last.create.is_empty());
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({ "completions": 5, "parallelism": 5, "completionMode": "Indexed", "maxFailedIndexes": 1,
                       "backoffLimit": i32::MAX, "backoffLimitPerIndex": 0 });
    let pods =
        [per_index("a", 0, "Failed", 0), per_index("b", 1, "Failed", 0), per_index("c", 2, "Running", 0)];
    let plan = plan(&job(spec, json!({})), &pods, now());
    let reason = plan.status.conditions.as_ref().unwrap()[0].reason.clone();
    assert_eq!(reason.as_deref(), Some("MaxFailedIndexesExceeded"));
    assert_eq!(plan.remove.len(), 1);
}

#[test]
fn a_rule_can_fail_an_index_at_once() {
    let rule = json!({ "action": "FailIndex", "onPodConditions": [{ "type": "Ready", "status": "False" }] });
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": i32::MAX,
                       "backoffLimitPerIndex": 5, "podFailurePolicy": { "rules": [rule] } });
    let mut failed = (*per_index("a", 0, "Failed", 0)).clone();
    let ready = json!([{ "type": "Ready", "status": "False" }]);
    failed.status.get_or_insert_default().conditions = serde_json::from_value(ready).unwrap();
    let plan = plan(&job(spec, json!({})), &[Arc::new(failed)], now());
    assert_eq!(plan.status.failed_indexes.as_deref(), Some("0"));
    assert_eq!(plan.create, [Some(1)]);
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let policy = json!({ "rules": [{ "succeededIndexes": "0" }] });
    let spec =
        json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed", "successPolicy": policy });
    let pods = [pod("a", "Succeeded", Some(0), true), pod("b", "Running", Some(1), true)];
    let plan = plan(&job(spec, json!({})), &pods, now());
    let condition = &plan.status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("SuccessCriteriaMet", Some("SuccessPolicy"))
    );
    assert_eq!((plan.remove.len(), plan.create.len()), (1, 0));
}
