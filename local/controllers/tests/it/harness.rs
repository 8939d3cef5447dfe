//! A cluster of a test: API server, controllers and a stand-in for the kubelet, gone with it.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use muster_apiserver::Options as ServerOptions;
use muster_local_controllers::Options;
use muster_machinery::CancellationToken;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Longest that anything in a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running cluster.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
    folder: TempDir,
}

impl Cluster {
    /// Starts a server and the controllers.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other options of the controllers.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut options = ServerOptions::new(folder.path().join("server"));
        options.in_memory = true;
        let server = options.build().await.expect("server");
        let client = server.handle().client();
        let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let token = shutdown.clone();
        tasks.spawn(async move { server.run(token).await.expect("served") });
        let mut options = Options::new(client.clone(), folder.path().join("volumes"));
        change(&mut options);
        let token = shutdown.clone();
        tasks.spawn(async move { options.build().run(token).await.expect("controlled") });
        Self { client, shutdown, tasks, folder }
    }

    /// Starts the stand-in for the kubelet: pods run at once; those with the annotation `test/exit` end with that
    /// code, and deleted ones go.
    pub(crate) fn start_kubelet(&mut self) {
        self.tasks.spawn(kubelet(self.client.clone(), self.shutdown.clone()));
    }

    pub(crate) fn volumes_dir(&self) -> PathBuf {
        self.folder.path().join("volumes")
    }

    /// Creates an object from JSON.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi_scope::Namespaced>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(object).expect("object");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("created")
    }

    /// The API of a kind in the namespace `default`.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi_scope::Namespaced>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits until the objects of a kind are as wanted, and returns them.
    pub(crate) async fn until<K>(&self, api: Api<K>, what: &str, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (reader, writer) = kube::runtime::reflector::store::<K>();
        let changes = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
        let mut changes = std::pin::pin!(changes);
        let watch = async {
            let mut listed = false;
            while let Some(event) = changes.next().await {
                listed |= matches!(event, Ok(watcher::Event::InitDone));
                let mut state: Vec<K> = reader.state().iter().map(|object| (**object).clone()).collect();
                state.sort_by_key(ResourceExt::name_any);
                if listed && wanted(&state) {
                    return state;
                }
            }
            panic!("the watch ended");
        };
        let reached = tokio::time::timeout(DEADLINE, watch).await;
        reached.unwrap_or_else(|_| panic!("not in time: {what}; there is {:#?}", reader.state()))
    }

    /// Ends everything and waits for it.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = async {
            while let Some(task) = self.tasks.join_next().await {
                task.expect("ended well");
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.expect("ended in time");
    }
}

/// Scopes of kinds, as k8s-openapi and kube name them.
pub(crate) mod k8s_openapi_scope {
    pub(crate) use k8s_openapi::NamespaceResourceScope as Namespaced;
}

async fn kubelet(client: Client, shutdown: CancellationToken) {
    let all: Api<Pod> = Api::all(client.clone());
    let pods = watcher(all, watcher::Config::default()).default_backoff().applied_objects();
    let mut pods = std::pin::pin!(pods.take_until(shutdown.cancelled_owned()));
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().expect("namespace"));
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() {
            if pod.finalizers().is_empty() {
                let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                let _ = api.delete(&pod.name_any(), &now).await;
            }
        } else if phase == "Running" {
            let Some(code) = pod.annotations().get("test/exit") else { continue };
            let code: i32 = code.parse().expect("code");
            set(&api, &pod.name_any(), ended(code)).await;
        } else if phase.is_empty() || phase == "Pending" {
            set(&api, &pod.name_any(), running()).await;
        }
    }
}

fn running() -> Value {
    json!({
        "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }],
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    })
}

fn ended(code: i32) -> Value {
    let time = "2026-01-01T00:00:00Z";
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": time }],
        "containerStatuses": [{
            "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": code, "finishedAt": time, "startedAt": time } },
        }],
    })
}

/// Changes the status of a pod.
pub(crate) async fn set(pods: &Api<Pod>, name: &str, status: Value) {
    let patch = Patch::Merge(json!({ "status": status }));
    let _ = pods.patch_status(name, &PatchParams::default(), &patch).await;
}
