//! The binder against the API server in process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod claims;
mod dashboard;
mod extender;
mod faults;
mod gates;
mod gates_killed;
mod groups;
mod places;
mod recorded;
mod statuses;

use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use muster_machinery::CancellationToken;
use muster_scheduler_api::{GangReservation, ReservationPhase};
use muster_scheduler_controller::Options;
use serde_json::json;
use tokio::task::JoinHandle;

/// Longest that anything here may take.
const DEADLINE: Duration = Duration::from_secs(30);

struct Cluster {
    client: kube::Client,
    kubeconfig: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(nodes: &[(&str, u32)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = muster_apiserver::Options::new(folder.path());
        options.in_memory = true;
        let service = options.build().await.unwrap();
        let client = service.handle().client();
        let kubeconfig = service.handle().kubeconfig_path().to_owned();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let server = tokio::spawn(async move { service.run(token).await.unwrap() });
        for crd in muster_scheduler_api::crds() {
            Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
        }
        for (name, gpus) in nodes {
            add_node(&client, name, *gpus).await;
        }
        Self { client, kubeconfig, stop, server, _folder: folder }
    }

    fn scheduler(&self) -> (CancellationToken, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let service = Options::only_scheduler(self.client.clone()).build();
        let token = stop.clone();
        (stop, tokio::spawn(async move { service.run(token).await }))
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
    }
}

async fn add_node(client: &kube::Client, name: &str, gpus: u32) {
    let api: Api<Node> = Api::all(client.clone());
    let labels = json!({"kubernetes.io/hostname": name});
    let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
    api.create(&PostParams::default(), &node).await.unwrap();
    let amounts = json!({"nvidia.com/gpu": gpus.to_string(), "cpu": "8", "memory": "16Gi", "pods": "110"});
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True"}]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

async fn create_gang(pods: &Api<Pod>, gang: &str, members: u32) -> Vec<Pod> {
    let mut created = Vec::new();
    for index in 0..members {
        let pod = json!({
            "metadata": {"name": format!("{gang}-{index}"), "annotations": {
                "muster.dev/gang": gang, "muster.dev/gang-min-available": members.to_string(),
                "muster.dev/rank": index.to_string()}},
            "spec": {"schedulerName": "muster", "containers": [
                {"name": "c", "image": "host", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        });
        created
            .push(pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap());
    }
    created
}

/// Waits until a pod satisfies the condition.
async fn until(pods: &Api<Pod>, name: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
    let events = watcher(pods.clone(), watcher::Config::default().fields(&format!("metadata.name={name}")));
    let found = async {
        let mut seen = std::pin::pin!(events.applied_objects());
        while let Some(pod) = seen.try_next().await.unwrap() {
            if wanted(&pod) {
                return pod;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("{name} did not get there"))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn waits_because(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    scheduled.message.as_deref()
}

#[tokio::test]
async fn a_gang_is_bound_whole_with_its_plan_and_slots_in_rank_order() {
    let cluster = Cluster::start(&[("node-0", 2), ("node-1", 4)]).await;
    let (stop, scheduler) = cluster.scheduler();
    let pods = cluster.pods();
    create_gang(&pods, "g", 4).await;
    for index in 0..4 {
        let pod = until(&pods, &format!("g-{index}"), |pod| node_of(pod).is_some()).await;
        assert_eq!(node_of(&pod), Some("node-1"));
        let slot = &pod.metadata.annotations.unwrap()["muster.dev/gpu-indices"];
        assert_eq!(*slot, index.to_string());
    }
    let plans: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    let bound = async {
        let events = watcher(plans, watcher::Config::default());
        let mut seen = std::pin::pin!(events.applied_objects().try_filter(|plan| {
            let done = plan.status.as_ref().and_then(|status| status.phase) == Some(ReservationPhase::Bound);
            std::future::ready(done)
        }));
        seen.next().await.unwrap().unwrap()
    };
    let plan = tokio::time::timeout(DEADLINE, bound).await.unwrap();
    assert_eq!((plan.spec.members.len(), plan.spec.epoch), (4, 1));
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_gang_without_room_says_why_and_starts_when_room_is_made() {
    let cluster = Cluster::start(&[("node-0", 4)]).await;
    let (stop, scheduler) = cluster.scheduler();
    let pods = cluster.pods();
    create_gang(&pods, "first", 3).await;
    until(&pods, "first-2", |pod| node_of(pod).is_some()).await;
    create_gang(&pods, "second", 2).await;
    let waiting = until(&pods, "second-0", |pod| waits_because(pod).is_some()).await;
    assert_eq!(
        waits_because(&waiting),
        Some(
            "1 of 2 pods fit now: they need nvidia.com/gpu 2 together and 1 is free; it starts when 1 more nvidia.com/gpu is released"
        )
    );
    assert_eq!(node_of(&until(&pods, "second-1", |pod| waits_because(pod).is_some()).await), None);
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("first-0", &now).await.unwrap();
    for name in ["second-0", "second-1"] {
        until(&pods, name, |pod| node_of(pod).is_some()).await;
    }
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_plan_that_a_crash_cut_short_is_finished_as_written() {
    let cluster = Cluster::start(&[("node-0", 4), ("node-1", 4)]).await;
    let pods = cluster.pods();
    let gang = create_gang(&pods, "g", 2).await;
    // What a scheduler leaves behind that dies between the plan and the first binding.
    let member = |index: usize| json!({"pod": format!("g-{index}"), "uid": gang[index].metadata.uid, "node": "node-1", "gpuIndices": [index + 2]});
    let plan = json!({"metadata": {"name": "g"}, "spec": {"gang": "g", "epoch": 7, "members": [member(0), member(1)]}});
    let plan: GangReservation = serde_json::from_value(plan).unwrap();
    let plans: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    plans.create(&PostParams::default(), &plan).await.unwrap();
    let (stop, scheduler) = cluster.scheduler();
    for (index, slot) in ["2", "3"].into_iter().enumerate() {
        let pod = until(&pods, &format!("g-{index}"), |pod| node_of(pod).is_some()).await;
        assert_eq!(
            (node_of(&pod), pod.metadata.annotations.as_ref().unwrap()["muster.dev/gpu-indices"].as_str()),
            (Some("node-1"), slot)
        );
    }
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}
