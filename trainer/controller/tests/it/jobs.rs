//! Jobs from their creation to their end.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use muster_trainer_api::annotation;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};

const PODS: [&str; 4] = ["digits-master-0", "digits-worker-0", "digits-worker-1", "digits-worker-2"];

fn manifest() -> Value {
    let template =
        json!({"spec": {"containers": [{"name": "pytorch", "image": "host", "command": ["true"]}]}});
    json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "digits"},
        "spec": {"pytorchReplicaSpecs": {
            "Master": {"replicas": 1, "template": template},
            "Worker": {"replicas": 3, "template": template},
        }},
    })
}

async fn run_all(cluster: &Cluster) {
    for pod in PODS {
        cluster.set_phase(pod, "Running", None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_to_its_end() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    cluster.create_job(manifest()).await;
    cluster.fresh_pods(&PODS, &[]).await;
    let services = Api::<Service>::namespaced(cluster.client.clone(), "default");
    let names = until("four services", async || {
        let list =
            services.list(&ListParams::default().labels("training.kubeflow.org/job-name=digits")).await;
        let names: Vec<_> = list.unwrap().items.iter().map(ResourceExt::name_any).collect();
        (names.len() == 4).then_some(names)
    })
    .await;
    assert_eq!(names, PODS);
    run_all(&cluster).await;
    cluster.job_in_state("digits", "Running").await;
    let active = until("all pods are counted", async || {
        let status = cluster.jobs().get("digits").await.unwrap().status?;
        (status.replica_statuses["Worker"].active == 3).then_some(status.replica_statuses["Master"].active)
    })
    .await;
    assert_eq!(active, 1);
    cluster.set_phase("digits-master-0", "Succeeded", Some(0)).await;
    let job = cluster.job_in_state("digits", "Succeeded").await;
    assert!(job.status.unwrap().completion_time.is_some());
    let events = Api::<Event>::namespaced(cluster.client.clone(), "default");
    until("the end is told", async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let reasons: Vec<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
        let told = |reason| reasons.contains(&reason);
        (told("SuccessfulCreatePod") && told("SuccessfulCreateService") && told("PyTorchJobSucceeded"))
            .then_some(())
    })
    .await;
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_pod_restarts_the_gang_once_even_if_the_controller_is_stopped() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    cluster.create_job(manifest()).await;
    let first = cluster.fresh_pods(&PODS, &[]).await;
    run_all(&cluster).await;
    cluster.job_in_state("digits", "Running").await;
    controller.stop().await;
    cluster.set_phase("digits-worker-1", "Failed", Some(1)).await;
    cluster.set_phase("digits-worker-2", "Failed", Some(1)).await;
    let controller = cluster.controller();
    let second = cluster.fresh_pods(&PODS, &first).await;
    controller.stop().await;
    let controller = cluster.controller();
    run_all(&cluster).await;
    let job = cluster.job_in_state("digits", "Running").await;
    assert_eq!(job.annotations()[annotation::RESTART_COUNT], "1");
    assert_eq!(job.annotations()[annotation::GANG_GENERATION], "1");
    assert_eq!(cluster.fresh_pods(&PODS, &first).await, second, "nothing is created twice");
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_from_outside_is_a_free_restart() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    let mut job = manifest();
    job["spec"]["runPolicy"] = json!({"backoffLimit": 0});
    cluster.create_job(job).await;
    let first = cluster.fresh_pods(&PODS, &[]).await;
    run_all(&cluster).await;
    until("all pods are counted", async || {
        let status = cluster.jobs().get("digits").await.unwrap().status?;
        (status.replica_statuses.get("Worker")?.active == 3).then_some(())
    })
    .await;
    cluster.pods().delete("digits-worker-0", &DeleteParams::default()).await.unwrap();
    cluster.fresh_pods(&PODS, &first).await;
    let job = cluster.jobs().get("digits").await.unwrap();
    assert_eq!(job.annotations()[annotation::INFRASTRUCTURE_RESTART_COUNT], "1");
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_suspended_and_resumed() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    let mut job = manifest();
    job["spec"]["runPolicy"] = json!({"suspend": true});
    cluster.create_job(job).await;
    cluster.job_in_state("digits", "Suspended").await;
    assert!(cluster.pod_list().await.is_empty());
    for (suspend, pods) in [(false, &PODS[..]), (true, &[]), (false, &PODS[..])] {
        let patch = Patch::Merge(json!({"spec": {"runPolicy": {"suspend": suspend}}}));
        cluster.jobs().patch("digits", &PatchParams::default(), &patch).await.unwrap();
        cluster.fresh_pods(pods, &[]).await;
    }
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_job_fails_with_the_field() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    let mut job = manifest();
    job["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = json!(2);
    cluster.create_job(job).await;
    let job = cluster.job_in_state("digits", "Failed").await;
    let condition = job.status.unwrap().conditions.pop().unwrap();
    assert_eq!(condition.reason.as_deref(), Some("PyTorchJobFailedValidation"));
    assert_eq!(
        condition.message.as_deref(),
        Some("the job is not valid: spec.pytorchReplicaSpecs[Master].replicas: must be 1, not 2")
    );
    assert!(cluster.pod_list().await.is_empty());
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_a_job_cannot_change() {
    let cluster = Cluster::start().await;
    cluster.create_job(manifest()).await;
    let patch = Patch::Merge(json!({"spec": {"runPolicy": {"managedBy": "kueue.x-k8s.io/multikueue"}}}));
    let refused = cluster.jobs().patch("digits", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(refused.to_string().contains("spec.runPolicy.managedBy is immutable"), "{refused}");
    cluster.stop().await;
}
