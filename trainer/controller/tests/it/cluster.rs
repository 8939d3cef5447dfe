//! An API server with the training kinds, and a controller that can be stopped and started.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use muster_machinery::CancellationToken;
use muster_trainer_api::schema::Parts;
use muster_trainer_api::{PyTorchJob, crds, jobset, train_job};
use muster_trainer_controller::Options;
use muster_trainer_core::mpi::{self, AgentSource};
use muster_trainer_core::{KINDS, Kind};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

pub(crate) struct RunningController {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningController {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Waits until the answer is there.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = muster_apiserver::Options::new(folder.path());
        options.in_memory = true;
        let service = options.build().await.unwrap();
        let client = service.handle().client();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let server = tokio::spawn(async move { service.run(stop).await.unwrap() });
        let cluster = Self { client, shutdown, server, _folder: folder };
        let definitions = Api::<CustomResourceDefinition>::all(cluster.client.clone());
        let parts = Parts::load().unwrap();
        let all = crds(&parts).chain(train_job::crds(&parts)).chain([jobset::crd(&parts)]);
        for definition in all {
            definitions.create(&PostParams::default(), &definition.unwrap()).await.unwrap();
        }
        for training in KINDS {
            let jobs = cluster.jobs_of(training.kind);
            until("the kind is served", async || jobs.list(&ListParams::default()).await.ok()).await;
        }
        cluster
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap();
    }

    pub(crate) fn controller(&self) -> RunningController {
        let mpi = mpi::Options { agent: Some(AgentSource::OnPath) };
        let options = Options { gang_scheduler_name: "muster".to_owned(), mpi, ..Options::default() };
        let service = options.build(self.client.clone());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        RunningController { shutdown, task: tokio::spawn(async move { service.run(stop).await }) }
    }

    pub(crate) fn jobs(&self) -> Api<PyTorchJob> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) fn jobs_of(&self, kind: &Kind) -> Api<DynamicObject> {
        let names = GroupVersionKind::gvk("kubeflow.org", "v1", kind.name);
        let resource = ApiResource::from_gvk_with_plural(&names, kind.plural);
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn create_job(&self, manifest: Value) {
        let job: PyTorchJob = serde_json::from_value(manifest).unwrap();
        self.jobs().create(&PostParams::default(), &job).await.unwrap();
    }

    pub(crate) async fn pod_list(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until exactly these pods are there and none of them is of these uids.
    pub(crate) async fn fresh_pods(&self, names: &[&str], old: &[String]) -> Vec<String> {
        until(&format!("fresh pods {names:?}"), async || {
            let pods = self.pod_list().await;
            let found: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
            let uids: Vec<_> = pods.iter().filter_map(ResourceExt::uid).collect();
            (found == names && uids.iter().all(|uid| !old.contains(uid))).then_some(uids)
        })
        .await
    }

    /// Says that a pod of a PyTorchJob is in this phase.
    pub(crate) async fn set_phase(&self, pod: &str, phase: &str, exit_code: Option<i32>) {
        self.set_phase_of("pytorch", pod, phase, exit_code).await;
    }

    /// Says that a pod with this container is in this phase.
    pub(crate) async fn set_phase_of(&self, container: &str, pod: &str, phase: &str, exit_code: Option<i32>) {
        let mut status = json!({"phase": phase});
        if let Some(exit_code) = exit_code {
            status["containerStatuses"] = json!([{
                "name": container, "image": "host", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": exit_code}},
            }]);
        }
        let patch = Patch::Merge(json!({"status": status}));
        self.pods().patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until the job's latest condition is this one; the job as it then is.
    pub(crate) async fn job_in_state(&self, name: &str, state: &str) -> PyTorchJob {
        until(&format!("{name} is {state}"), async || {
            let job = self.jobs().get(name).await.unwrap();
            let status = job.status.clone().unwrap_or_default();
            let latest = status.conditions.last()?;
            (latest.type_.as_str() == state && latest.status == "True").then_some(job)
        })
        .await
    }
}
