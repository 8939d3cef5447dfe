//! The controller against an API server in the same process.

#![expect(clippy::expect_used, reason = "helpers of tests")]

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt as _};
use muster_batch_controller::Options;
use muster_batch_core::names;
use muster_machinery::CancellationToken;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Longest that anything in a test may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// An API server, with or without the controller.
struct Cluster {
    client: Client,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
    _folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut options = muster_apiserver::Options::new(folder.path());
        options.in_memory = true;
        let server = options.build().await.expect("server");
        let client = server.handle().client();
        let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let token = shutdown.clone();
        tasks.spawn(async move { server.run(token).await.expect("served") });
        Self { client, shutdown, tasks, _folder: folder }
    }

    fn control(&mut self) {
        let service = Options::default().build(self.client.clone());
        self.tasks.spawn(service.run(self.shutdown.clone()));
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, id: u64, annotations: Value) {
        let job = json!({
            "metadata": { "name": names::job_name(id), "labels": { names::ID: id.to_string() },
                          "annotations": annotations },
            "spec": { "suspend": true, "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
        });
        let job = serde_json::from_value(job).expect("job");
        self.jobs().create(&PostParams::default(), &job).await.expect("created");
    }

    async fn ends(&self, id: u64, condition: &str) {
        let time = "2026-01-01T00:00:00Z";
        let conditions = json!([{ "type": condition, "status": "True", "lastTransitionTime": time }]);
        let patch = Patch::Merge(json!({ "status": { "conditions": conditions, "startTime": time } }));
        self.jobs().patch_status(&names::job_name(id), &PatchParams::default(), &patch).await.expect("ended");
    }

    async fn until(&self, id: u64, what: &str, reached: impl Fn(&Job) -> bool) -> Job {
        let condition = |job: Option<&Job>| job.is_some_and(&reached);
        let name = names::job_name(id);
        let waited = tokio::time::timeout(DEADLINE, await_condition(self.jobs(), &name, condition));
        let found = waited.await.unwrap_or_else(|_| panic!("not in time: {what}"));
        found.expect("watched").expect("a job")
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(DEADLINE, ended).await.expect("ended in time");
    }
}

fn runs(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(false)
}

#[tokio::test]
async fn jobs_start_when_those_before_them_have_ended() {
    let mut cluster = Cluster::start().await;
    cluster.create(1, json!({})).await;
    cluster.create(2, json!({ names::DEPENDENCY: "afterok:1" })).await;
    cluster.create(3, json!({ names::DEPENDENCY: "afterok:1", names::HOLD: "user" })).await;
    cluster.create(4, json!({ names::DEPENDENCY: "afternotok:1" })).await;
    cluster.control();
    cluster.ends(1, "Complete").await;
    let started = cluster.until(2, "started", runs).await;
    assert!(!started.annotations().contains_key(names::DEPENDENCY));
    let held = cluster.until(3, "free", |job| !job.annotations().contains_key(names::DEPENDENCY)).await;
    assert!(!runs(&held), "a person holds it");
    let told = |job: &Job| {
        job.annotations().get(names::REASON).is_some_and(|text| text == "DependencyNeverSatisfied")
    };
    assert!(!runs(&cluster.until(4, "told", told).await));
    cluster.stop().await;
}

#[tokio::test]
async fn what_happened_while_nobody_looked_counts() {
    let mut cluster = Cluster::start().await;
    cluster.create(1, json!({})).await;
    cluster.ends(1, "Failed").await;
    cluster.create(2, json!({ names::DEPENDENCY: "afterany:1" })).await;
    cluster.create(3, json!({ names::REQUEUE: "true" })).await;
    cluster.control();
    cluster.until(2, "started", runs).await;
    let again = cluster.until(3, "started again", runs).await;
    assert!(!again.annotations().contains_key(names::REQUEUE));
    cluster.stop().await;
}

#[tokio::test]
async fn what_came_counts_after_the_job_that_brought_it_is_gone() {
    let mut cluster = Cluster::start().await;
    for id in [1, 2] {
        cluster.create(id, json!({})).await;
    }
    cluster.create(3, json!({ names::DEPENDENCY: "afterok:1:2" })).await;
    cluster.create(4, json!({ names::DEPENDENCY: "afternotok:1?afterok:2" })).await;
    cluster.control();
    cluster.ends(1, "Complete").await;
    let left = |job: &Job| job.annotations().get(names::DEPENDENCY).is_some_and(|text| text == "afterok:2");
    cluster.until(3, "one is done", left).await;
    cluster.until(4, "one cannot come any more", left).await;
    cluster.jobs().delete(&names::job_name(1), &DeleteParams::default()).await.expect("deleted");
    cluster.ends(2, "Complete").await;
    cluster.until(3, "started", runs).await;
    cluster.until(4, "started", runs).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_that_can_never_start_is_cancelled_where_that_was_wanted() {
    let mut cluster = Cluster::start().await;
    cluster.create(1, json!({})).await;
    let annotations = json!({ names::DEPENDENCY: "afterok:1", names::KILL_ON_INVALID_DEPENDENCY: "yes" });
    cluster.create(2, annotations).await;
    cluster.control();
    cluster.ends(1, "Failed").await;
    let cancelled = cluster.until(2, "cancelled", runs).await;
    assert_eq!(cancelled.annotations()[names::CANCELLED], "dependency");
    assert_eq!(cancelled.spec.and_then(|spec| spec.active_deadline_seconds), Some(0));
    cluster.stop().await;
}
