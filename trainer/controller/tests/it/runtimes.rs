//! Jobs on runtimes, with the controllers of training jobs and of JobSets; the tests play the Job controller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use muster_machinery::CancellationToken;
use muster_trainer_api::jobset::{JobSet, JobSetSpec};
use muster_trainer_api::schema::Parts;
use muster_trainer_api::train_job::{TrainJob, TrainingRuntime, names};
use muster_trainer_controller::{jobset, train_job};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, until};

struct Controllers {
    shutdown: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Controllers {
    fn start(cluster: &Cluster) -> Self {
        Self::start_with(&cluster.client)
    }

    fn start_with(client: &Client) -> Self {
        let shutdown = CancellationToken::new();
        let jobs =
            train_job::Options { gang_scheduler_name: "muster".to_owned(), ..train_job::Options::default() };
        let sets = jobset::Options { gang_scheduler_name: "muster".to_owned(), ..jobset::Options::default() };
        let jobs = jobs.build(client.clone());
        let sets = sets.build(client.clone());
        let (stop_jobs, stop_sets) = (shutdown.clone(), shutdown.clone());
        let tasks = [
            tokio::spawn(async move { jobs.run(stop_jobs).await }),
            tokio::spawn(async move { sets.run(stop_sets).await }),
        ];
        Self { shutdown, tasks }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn api<K>(cluster: &Cluster) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(cluster.client.clone(), "default")
}

async fn create_runtime(cluster: &Cluster, jobset: Value) {
    let mut runtime = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": "torch", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {"mlPolicy": {"numNodes": 2, "torch": {}}, "template": {"spec": {"replicatedJobs": [{
            "name": "node",
            "template": {
                "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                "spec": {"template": {"spec": {"containers": [{"name": "node", "image": "host"}]}}},
            },
        }]}}},
    });
    for (key, value) in jobset.as_object().unwrap() {
        runtime["spec"]["template"]["spec"][key] = value.clone();
    }
    let runtime: TrainingRuntime = serde_json::from_value(runtime).unwrap();
    api(cluster).create(&PostParams::default(), &runtime).await.unwrap();
}

async fn create_job(cluster: &Cluster, spec: Value) {
    let mut job = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "train"},
        "spec": {"runtimeRef": {"name": "torch", "kind": "TrainingRuntime"}},
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    let job: TrainJob = serde_json::from_value(job).unwrap();
    api(cluster).create(&PostParams::default(), &job).await.unwrap();
}

/// The job `train-node-0` once it is there and is none of these.
async fn fresh_job(cluster: &Cluster, old: &[String]) -> Job {
    until("a fresh job", async || {
        let job = api::<Job>(cluster).get_opt("train-node-0").await.unwrap()?;
        (!old.contains(&job.uid().unwrap())).then_some(job)
    })
    .await
}

async fn end(cluster: &Cluster, type_: &str) {
    let now = "2026-11-20T10:00:00Z";
    let before = if type_ == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    let condition = |type_: &str| {
        json!({"type": type_, "status": "True", "reason": "Test", "message": "by the test",
        "lastTransitionTime": now, "lastProbeTime": now})
    };
    let mut status = json!({"conditions": [condition(before), condition(type_)], "startTime": now});
    if type_ == "Complete" {
        status["completionTime"] = json!(now);
        status["succeeded"] = json!(2);
        status["completedIndexes"] = json!("0,1");
    }
    let patch = Patch::Merge(json!({"status": status}));
    api::<Job>(cluster).patch_status("train-node-0", &PatchParams::default(), &patch).await.unwrap();
}

/// The tests play the garbage collector too: a job goes in the foreground.
async fn collect_failed_job(cluster: &Cluster) {
    let jobs = api::<Job>(cluster);
    until("the failed job is to go", async || {
        let job = jobs.get_opt("train-node-0").await.unwrap()?;
        job.metadata.deletion_timestamp.as_ref()?;
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        jobs.patch("train-node-0", &PatchParams::default(), &patch).await.ok().map(drop)
    })
    .await;
}

async fn reason(cluster: &Cluster, type_: &str) -> String {
    until(type_, async || {
        let status = api::<TrainJob>(cluster).get("train").await.unwrap().status?;
        let condition = status.condition(type_).filter(|condition| condition.status == "True")?;
        Some(condition.reason.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_a_runtime_runs_to_its_end_and_its_runtime_stays_so_long() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_job(&cluster, json!({})).await;
    create_runtime(&cluster, json!({})).await;
    let job = fresh_job(&cluster, &[]).await;
    let spec = job.spec.unwrap();
    assert_eq!((spec.completions, spec.parallelism, spec.suspend), (Some(2), Some(2), Some(false)));
    assert_eq!(job.metadata.labels.unwrap()["jobset.sigs.k8s.io/jobset-name"], "train");
    until("the headless service", async || api::<Service>(&cluster).get_opt("train").await.unwrap()).await;
    let sets = api::<JobSet>(&cluster);
    let owners = sets.get("train").await.unwrap().metadata.owner_references.unwrap();
    assert_eq!((owners[0].kind.as_str(), owners[0].controller), ("TrainJob", Some(true)));

    let runtimes = api::<TrainingRuntime>(&cluster);
    until("the runtime is held", async || {
        let runtime = runtimes.get("torch").await.unwrap();
        runtime.finalizers().iter().any(|finalizer| finalizer == names::RESOURCE_IN_USE).then_some(())
    })
    .await;
    runtimes.delete("torch", &DeleteParams::default()).await.unwrap();
    end(&cluster, "Complete").await;
    assert_eq!(reason(&cluster, "Complete").await, "AllJobsCompleted");
    assert!(runtimes.get("torch").await.unwrap().metadata.deletion_timestamp.is_some());
    api::<TrainJob>(&cluster).delete("train", &DeleteParams::default()).await.unwrap();
    until("the runtime is gone", async || runtimes.get_opt("torch").await.unwrap().is_none().then_some(()))
        .await;
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_restarts_the_set_once_even_if_the_controllers_are_stopped() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({"failurePolicy": {"maxRestarts": 1}})).await;
    create_job(&cluster, json!({})).await;
    let first = fresh_job(&cluster, &[]).await.uid().unwrap();
    controllers.stop().await;
    end(&cluster, "Failed").await;
    let controllers = Controllers::start(&cluster);
    let jobs = api::<Job>(&cluster);
    collect_failed_job(&cluster).await;
    let second = fresh_job(&cluster, std::slice::from_ref(&first)).await;
    assert_eq!(second.labels()["jobset.sigs.k8s.io/restart-attempt"], "1");
    controllers.stop().await;
    let controllers = Controllers::start(&cluster);
    end(&cluster, "Failed").await;
    assert_eq!(reason(&cluster, "Failed").await, "ReachedMaxRestarts");
    let set = api::<JobSet>(&cluster).get("train").await.unwrap();
    assert_eq!(set.status.unwrap().restarts, 1);
    assert_eq!(jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_suspended_and_resumed_and_its_set_with_it() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({"suspend": true})).await;
    assert_eq!(reason(&cluster, "Suspended").await, "Suspended");
    assert_eq!(fresh_job(&cluster, &[]).await.spec.unwrap().suspend, Some(true));
    for suspend in [false, true, false] {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        api::<TrainJob>(&cluster).patch("train", &PatchParams::default(), &patch).await.unwrap();
        until("the job follows", async || {
            let job = api::<Job>(&cluster).get("train-node-0").await.unwrap();
            (job.spec.unwrap().suspend == Some(suspend)).then_some(())
        })
        .await;
    }
    let status = api::<TrainJob>(&cluster).get("train").await.unwrap().status.unwrap();
    assert_eq!(status.condition("Suspended").unwrap().reason, "Resumed");
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_suspended_and_resumed_after_its_runtime_was_edited() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({})).await;
    fresh_job(&cluster, &[]).await;
    let replicas = |spec: &JobSetSpec| spec.replicated_jobs[0].template.spec.clone().unwrap();
    let runtimes = api::<TrainingRuntime>(&cluster);
    until("the runtime is edited", async || {
        let mut runtime = runtimes.get("torch").await.unwrap();
        let group = &mut runtime.spec.template.spec.replicated_jobs[0];
        let pod = group.template.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers[0].image = Some("newer".to_owned());
        pod.node_selector = Some([("zone".to_owned(), "b".to_owned())].into());
        // The controller may be writing its finalizer.
        runtimes.replace("torch", &PostParams::default(), &runtime).await.ok()
    })
    .await;
    for suspend in [true, false] {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        api::<TrainJob>(&cluster).patch("train", &PatchParams::default(), &patch).await.unwrap();
        let set = until("the set follows", async || {
            let set = api::<JobSet>(&cluster).get("train").await.unwrap();
            let pod = replicas(&set.spec).template.spec.unwrap();
            (set.spec.suspend == Some(suspend) && pod.node_selector.is_some()).then_some(set)
        })
        .await;
        let pod = replicas(&set.spec).template.spec.unwrap();
        assert_eq!(pod.containers[0].image.as_deref(), Some("host"));
    }
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_restarts_outlives_the_set_and_the_controllers() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({"failurePolicy": {"maxRestarts": 1}})).await;
    create_job(&cluster, json!({})).await;
    let first = fresh_job(&cluster, &[]).await.uid().unwrap();
    end(&cluster, "Failed").await;
    collect_failed_job(&cluster).await;
    let second = fresh_job(&cluster, std::slice::from_ref(&first)).await.uid().unwrap();
    until("the restart is remembered", async || {
        let job = api::<TrainJob>(&cluster).get("train").await.unwrap();
        (job.annotations().get(names::annotation::RESTART_COUNT)? == "1").then_some(())
    })
    .await;
    controllers.stop().await;
    let sets = api::<JobSet>(&cluster);
    sets.delete("train", &DeleteParams::background()).await.unwrap();
    api::<Job>(&cluster).delete("train-node-0", &DeleteParams::background()).await.unwrap();
    let controllers = Controllers::start(&cluster);
    fresh_job(&cluster, &[first, second]).await;
    let policy = sets.get("train").await.unwrap().spec.failure_policy.unwrap();
    assert_eq!(policy.max_restarts, Some(0));
    end(&cluster, "Failed").await;
    assert_eq!(reason(&cluster, "Failed").await, "ReachedMaxRestarts");
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_another_is_told_and_the_set_runs_without() {
    let cluster = Cluster::start().await;
    let services = api::<Service>(&cluster);
    let foreign = json!({"metadata": {"name": "train"}, "spec": {"ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({})).await;
    fresh_job(&cluster, &[]).await;
    let note = note(&cluster, "HeadlessServiceCreationFailed").await;
    assert_eq!(note, "Service train exists and belongs to another; delete it or rename what needs the name");
    services.delete("train", &DeleteParams::default()).await.unwrap();
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"test": "look"}}}));
    api::<JobSet>(&cluster).patch("train", &PatchParams::default(), &touch).await.unwrap();
    until("the set's own service", async || {
        let service = services.get_opt("train").await.unwrap()?;
        service.labels().contains_key("jobset.sigs.k8s.io/jobset-name").then_some(())
    })
    .await;
    controllers.stop().await;
    cluster.stop().await;
}

/// Complaint 8: where the scheduler of a gang is missing, half of it must not run as if nothing were wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_gang_whose_scheduler_is_not_installed_is_told_and_makes_nothing() {
    let cluster = Cluster::start().await;
    create_runtime(&cluster, json!({})).await;
    let policy = Patch::Merge(json!({"spec": {"podGroupPolicy": {"coscheduling": {}}}}));
    api::<TrainingRuntime>(&cluster).patch("torch", &PatchParams::default(), &policy).await.unwrap();
    create_job(&cluster, json!({})).await;
    let controllers = Controllers::start(&cluster);
    let note = note(&cluster, "TrainJobResourcesCreationFailed").await;
    let expected = "the cluster does not serve PodGroup of scheduling.x-k8s.io/v1alpha1; ";
    assert!(note.starts_with(expected), "{note}");
    assert!(api::<JobSet>(&cluster).get_opt("train").await.unwrap().is_none());
    controllers.stop().await;
    cluster.stop().await;
}

/// The note of the event with this reason, once there is one.
async fn note(cluster: &Cluster, reason: &str) -> String {
    until(reason, async || {
        let events = api::<Event>(cluster).list(&ListParams::default()).await.unwrap().items;
        events.into_iter().find(|event| event.reason.as_deref() == Some(reason))?.note
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_says_that_jobset_is_not_installed_and_runs_once_it_is() {
    let cluster = Cluster::start().await;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    definitions.delete("jobsets.jobset.x-k8s.io", &DeleteParams::default()).await.unwrap();
    let sets = api::<JobSet>(&cluster);
    until("JobSets are served no more", async || sets.list(&ListParams::default()).await.err()).await;
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({})).await;
    let controllers = Controllers::start(&cluster);
    assert_eq!(reason(&cluster, "PodsWaiting").await, "JobSetNotInstalled");
    let note = note(&cluster, "JobSetNotInstalled").await;
    assert!(note.contains("does not serve JobSet of jobset.x-k8s.io/v1alpha2"), "{note}");
    let definition = muster_trainer_api::jobset::crd(&Parts::load().unwrap()).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    fresh_job(&cluster, &[]).await;
    until("nothing waits", async || {
        let status = api::<TrainJob>(&cluster).get("train").await.unwrap().status.unwrap_or_default();
        status.condition("PodsWaiting").is_none().then_some(())
    })
    .await;
    controllers.stop().await;
    cluster.stop().await;
}

/// A client of the cluster whose first changes of runtimes are refused.
fn refusing(cluster: &Cluster, count: usize) -> Client {
    let (client, left) = (cluster.client.clone(), Arc::new(AtomicUsize::new(count)));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, left) = (client.clone(), left.clone());
        async move {
            let is_change = request.method() == http::Method::PATCH
                && request.uri().path().contains("/trainingruntimes/");
            let refuses = |count: usize| count.checked_sub(1);
            if is_change && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuses).is_ok() {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
                    "reason": "InternalError", "message": "by the test"});
                let answer = Body::from(status.to_string().into_bytes());
                return Ok(http::Response::builder().status(500).body(answer).unwrap());
            }
            client.send(request).await
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_could_not_be_marked_is_marked_later() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start_with(&refusing(&cluster, 6));
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({"suspend": true})).await;
    until("the runtime is held", async || {
        let runtime = api::<TrainingRuntime>(&cluster).get("torch").await.unwrap();
        runtime.finalizers().iter().any(|finalizer| finalizer == names::RESOURCE_IN_USE).then_some(())
    })
    .await;
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_pod_says_of_its_progress_is_in_the_status() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({})).await;
    fresh_job(&cluster, &[]).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "train-node-0-0",
            "labels": {"jobset.sigs.k8s.io/jobset-name": "train", "batch.kubernetes.io/job-completion-index": "0"},
            "annotations": {"muster.dev/trainer-status": "{\"progressPercentage\": 40}"},
        },
        "spec": {"containers": [{"name": "node", "image": "host"}]},
    });
    cluster.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let said = until("the progress is repeated", async || {
        api::<TrainJob>(&cluster).get("train").await.unwrap().status?.trainer_status
    })
    .await;
    assert_eq!(said.progress_percentage, Some(40));
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_pod_waits_for_is_in_the_status_until_it_has_a_node() {
    let cluster = Cluster::start().await;
    let controllers = Controllers::start(&cluster);
    create_runtime(&cluster, json!({})).await;
    create_job(&cluster, json!({})).await;
    fresh_job(&cluster, &[]).await;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "train-node-0-0",
            "labels": {"jobset.sigs.k8s.io/jobset-name": "train", "batch.kubernetes.io/job-completion-index": "0"},
        },
        "spec": {"containers": [{"name": "node", "image": "host"}]},
    });
    cluster.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let scheduled = async |status: &str, reason: &str| {
        let condition = json!({"type": "PodScheduled", "status": status, "reason": reason,
            "message": "8 GPUs are wanted, 4 are free"});
        let patch = Patch::Merge(json!({"status": {"phase": "Pending", "conditions": [condition]}}));
        cluster.pods().patch_status("train-node-0-0", &PatchParams::default(), &patch).await.unwrap();
    };
    scheduled("False", "Unschedulable").await;
    assert_eq!(reason(&cluster, "PodsWaiting").await, "Unschedulable");
    scheduled("True", "").await;
    until("nothing waits", async || {
        let status = api::<TrainJob>(&cluster).get("train").await.unwrap().status?;
        status.condition("PodsWaiting").is_none().then_some(())
    })
    .await;
    controllers.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_a_job_and_its_runtime_cannot_change() {
    let cluster = Cluster::start().await;
    create_job(&cluster, json!({})).await;
    for (patch, field) in [
        (json!({"managedBy": "kueue.x-k8s.io/multikueue"}), "spec.managedBy"),
        (json!({"runtimeRef": {"name": "other"}}), "spec.runtimeRef"),
    ] {
        let patch = Patch::Merge(json!({"spec": patch}));
        let refused =
            api::<TrainJob>(&cluster).patch("train", &PatchParams::default(), &patch).await.unwrap_err();
        assert!(refused.to_string().contains(field), "{refused}");
    }
    cluster.stop().await;
}
