use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};

use crate::harness::Cluster;

fn job(name: &str, exit: &str, spec: Value) -> Value {
    let mut whole = json!({ "template": {
        "metadata": { "annotations": { "test/exit": exit } },
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] },
    }});
    whole.as_object_mut().expect("map").extend(spec.as_object().expect("map").clone());
    json!({ "metadata": { "name": name }, "spec": whole })
}

fn has(jobs: &[Job], type_: &str) -> bool {
    let conditions = jobs.iter().flat_map(|job| &job.status).flat_map(|status| &status.conditions).flatten();
    conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[tokio::test]
async fn an_indexed_job_runs_to_its_end() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let spec = json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" });
    cluster.create::<Job>(job("sweep", "0", spec)).await;
    let done = cluster.until(cluster.api::<Job>(), "complete", |jobs| has(jobs, "Complete")).await;
    let status = done[0].status.as_ref().expect("status");
    assert_eq!((status.succeeded, status.completed_indexes.as_deref()), (Some(3), Some("0-2")));
    assert_eq!((status.active, status.failed), (None, None));
    assert!(has(&done, "SuccessCriteriaMet") && status.completion_time.is_some());
    let pods = cluster.until(cluster.api::<Pod>(), "three pods", |pods| pods.len() == 3).await;
    for (index, pod) in pods.iter().enumerate() {
        assert!(pod.name_any().starts_with(&format!("sweep-{index}-")));
        let spec = pod.spec.as_ref().expect("spec");
        assert_eq!(spec.hostname.as_deref(), Some(format!("sweep-{index}").as_str()));
        assert_eq!(spec.containers[0].env.as_ref().expect("env")[0].name, "JOB_COMPLETION_INDEX");
        assert!(pod.finalizers().is_empty());
    }
    let told = |events: &[Event]| {
        let count =
            |reason: &str| events.iter().filter(|event| event.reason.as_deref() == Some(reason)).count();
        count("SuccessfulCreate") == 3 && count("Completed") == 1
    };
    cluster.until(cluster.api::<Event>(), "events", told).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_failing_job_stops_at_its_limit() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    cluster.create::<Job>(job("bad", "1", json!({ "backoffLimit": 2 }))).await;
    let failed = cluster.until(cluster.api::<Job>(), "failed", |jobs| has(jobs, "Failed")).await;
    let status = failed[0].status.as_ref().expect("status");
    assert_eq!((status.failed, status.succeeded), (Some(3), None));
    let condition = status.conditions.iter().flatten().find(|one| one.type_ == "Failed").expect("condition");
    assert_eq!(condition.reason.as_deref(), Some("BackoffLimitExceeded"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_suspended_job_loses_its_pods_and_a_deleted_one_frees_them() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let mut object = job("j", "", json!({ "parallelism": 2, "completions": 2 }));
    object["spec"]["template"]["metadata"] = json!({});
    cluster.create::<Job>(object).await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    cluster.until(pods.clone(), "two pods", |pods| pods.len() == 2).await;
    let suspend = |yes: bool| Patch::Merge(json!({ "spec": { "suspend": yes } }));
    jobs.patch("j", &PatchParams::default(), &suspend(true)).await.expect("suspended");
    cluster.until(pods.clone(), "no pods", <[Pod]>::is_empty).await;
    let state = cluster.until(jobs.clone(), "suspended", |jobs| has(jobs, "Suspended")).await;
    assert_eq!(state[0].status.as_ref().expect("status").failed, None);
    jobs.patch("j", &PatchParams::default(), &suspend(false)).await.expect("resumed");
    cluster.until(pods.clone(), "two pods again", |pods| pods.len() == 2).await;
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    jobs.delete("j", &orphan).await.expect("deleted");
    let freed = |pods: &[Pod]| {
        pods.len() == 2
            && pods.iter().all(|pod| pod.finalizers().is_empty() && pod.owner_references().is_empty())
    };
    cluster.until(pods, "free pods", freed).await;
    cluster.stop().await;
}

#[tokio::test]
async fn indexes_fail_and_succeed_for_themselves() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let spec =
        json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0 });
    cluster.create::<Job>(job("each", "3", spec)).await;
    let failed = cluster.until(cluster.api::<Job>(), "failed", |jobs| has(jobs, "Failed")).await;
    let status = failed[0].status.as_ref().expect("status");
    assert_eq!((status.failed, status.failed_indexes.as_deref()), (Some(2), Some("0,1")));
    let condition = status.conditions.iter().flatten().find(|one| one.type_ == "Failed").expect("condition");
    assert_eq!(condition.reason.as_deref(), Some("FailedIndexes"));
    let pods = cluster.until(cluster.api::<Pod>(), "two pods", |pods| pods.len() == 2).await;
    assert!(pods.iter().all(|pod| pod.annotations()["batch.kubernetes.io/job-index-failure-count"] == "0"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_takes_pods_that_nobody_controls_and_leaves_those_it_does_not_find() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let mut object = job("j", "", json!({ "parallelism": 1, "completions": 1 }));
    object["spec"]["template"]["metadata"] = json!({});
    let made = cluster.create::<Job>(object).await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    let first = cluster.until(pods.clone(), "a pod", |pods| pods.len() == 1).await.remove(0);
    let strip = json!({ "metadata": { "ownerReferences": null, "finalizers": null } });
    pods.patch(&first.name_any(), &PatchParams::default(), &Patch::Merge(strip)).await.expect("orphaned");
    let uid = made.uid().expect("uid");
    let is_taken = |pod: &Pod| {
        pod.owner_references().iter().any(|owner| owner.uid == uid) && pod.finalizers().len() == 1
    };
    let taken = |all: &[Pod]| all.iter().any(|pod| pod.name_any() == first.name_any() && is_taken(pod));
    cluster.until(pods.clone(), "the orphan taken", taken).await;
    let labels: serde_json::Map<String, Value> =
        first.labels().keys().map(|key| (key.clone(), Value::Null)).collect();
    let strip = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    pods.patch(&first.name_any(), &PatchParams::default(), &strip).await.expect("unlabelled");
    let left = |all: &[Pod]| {
        let first = all.iter().find(|pod| pod.name_any() == first.name_any());
        first.is_some_and(|pod| pod.owner_references().is_empty() && pod.finalizers().is_empty())
            && all.iter().any(|pod| pod.name_any() != first.expect("checked").name_any() && is_taken(pod))
    };
    cluster.until(pods, "a pod in its place", left).await;
    jobs.delete("j", &DeleteParams::default()).await.expect("deleted");
    cluster.stop().await;
}
