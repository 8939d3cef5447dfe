//! Pods with claims of devices, with the controller that makes claims from templates beside the binder.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use kube::ResourceExt;
use serde_json::Value;

use super::*;

/// A cluster with the controllers of local clusters.
struct Controlled {
    cluster: Cluster,
    stop: CancellationToken,
    controllers: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Controlled {
    /// Nodes with so many devices each.
    async fn start(nodes: &[(&str, usize)]) -> Self {
        let none: Vec<(&str, u32)> = nodes.iter().map(|(name, _)| (*name, 0)).collect();
        let cluster = Cluster::start(&none).await;
        let folder = tempfile::tempdir().unwrap();
        let controllers =
            muster_local_controllers::Options::new(cluster.client.clone(), folder.path()).build();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let controllers = tokio::spawn(async move { controllers.run(token).await.unwrap() });
        let class = json!({"metadata": {"name": "gpu.example.com"}, "spec": {
            "selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}});
        create::<DeviceClass>(&Api::all(cluster.client.clone()), class).await;
        for (node, count) in nodes {
            let devices: Vec<Value> =
                (0..*count).map(|index| json!({"name": format!("gpu-{index}")})).collect();
            let slice = json!({"metadata": {"name": format!("{node}-gpus")}, "spec": {
                "driver": "gpu.example.com", "nodeName": node, "devices": devices,
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}});
            create::<ResourceSlice>(&Api::all(cluster.client.clone()), slice).await;
        }
        let template = json!({"metadata": {"name": "one-gpu"}, "spec": {"spec": {"devices": {"requests": [
            {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}}}});
        let api: Api<ResourceClaimTemplate> = Api::namespaced(cluster.client.clone(), "default");
        create(&api, template).await;
        Self { cluster, stop, controllers, _folder: folder }
    }

    fn claims(&self) -> Api<ResourceClaim> {
        Api::namespaced(self.cluster.client.clone(), "default")
    }

    /// Pod, pool, device and user of all claims that have devices.
    async fn devices(&self) -> Vec<(String, String, String)> {
        let mut devices = Vec::new();
        for claim in self.claims().list(&kube::api::ListParams::default()).await.unwrap() {
            let Some(status) = claim.status else { continue };
            let results = status.allocation.and_then(|allocation| allocation.devices?.results);
            let user = status.reserved_for.iter().flatten().next().map(|user| user.name.clone());
            for result in results.into_iter().flatten() {
                devices.push((user.clone().unwrap_or_default(), result.pool, result.device));
            }
        }
        devices.sort();
        devices
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.controllers).await.unwrap().unwrap();
        self.cluster.stop().await;
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

fn pod(gang: &str, index: u32, of: u32) -> Value {
    json!({
        "metadata": {"name": format!("{gang}-{index}"), "annotations": {
            "muster.dev/gang": gang, "muster.dev/gang-min-available": of.to_string(),
            "muster.dev/rank": index.to_string()}},
        "spec": {"schedulerName": "muster",
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
            "containers": [{"name": "c", "image": "host", "resources": {"claims": [{"name": "gpu"}]}}]},
    })
}

async fn gang(pods: &Api<Pod>, name: &str, of: u32) {
    for index in 0..of {
        create(pods, pod(name, index, of)).await;
    }
}

#[tokio::test]
async fn a_gang_on_two_nodes_gets_devices_and_leaves_them_to_the_next_when_it_ends() {
    let controlled = Controlled::start(&[("node-0", 2), ("node-1", 2)]).await;
    let (stop, scheduler) = controlled.cluster.scheduler();
    let pods = controlled.cluster.pods();
    gang(&pods, "first", 4).await;
    let mut nodes = Vec::new();
    for index in 0..4 {
        let pod = until(&pods, &format!("first-{index}"), |pod| node_of(pod).is_some()).await;
        nodes.push((pod.name_any(), node_of(&pod).unwrap().to_owned()));
    }
    let devices = controlled.devices().await;
    let of_pods: Vec<(String, String)> =
        devices.iter().map(|(pod, pool, _)| (pod.clone(), pool.clone())).collect();
    assert_eq!(of_pods, nodes, "each pod has a device of its node");
    let different: std::collections::BTreeSet<(String, String)> =
        devices.into_iter().map(|(_, pool, device)| (pool, device)).collect();
    assert_eq!(different.len(), 4);
    gang(&pods, "second", 3).await;
    let waits = until(&pods, "second-0", |pod| {
        waits_because(pod).is_some_and(|why| why.contains("4 of them are taken"))
    })
    .await;
    assert!(
        waits_because(&waits).unwrap().starts_with("0 of 3 pods fit now: 4 devices are what request gpu of")
    );
    for index in 0..4 {
        let ended = json!({"status": {"phase": "Succeeded"}});
        pods.patch_status(&format!("first-{index}"), &PatchParams::default(), &Patch::Merge(&ended))
            .await
            .unwrap();
    }
    for index in 0..3 {
        until(&pods, &format!("second-{index}"), |pod| node_of(pod).is_some()).await;
    }
    stop.cancel();
    scheduler.await.unwrap();
    controlled.stop().await;
}

#[tokio::test]
async fn pods_that_share_a_claim_are_bound_to_the_node_of_its_device() {
    let controlled = Controlled::start(&[("node-0", 0), ("node-1", 1)]).await;
    let (stop, scheduler) = controlled.cluster.scheduler();
    let pods = controlled.cluster.pods();
    let claim = json!({"metadata": {"name": "shared"}, "spec": {"devices": {"requests": [
        {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}}});
    create(&controlled.claims(), claim).await;
    for index in 0..2 {
        let mut pod = pod("g", index, 2);
        pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "shared"}]);
        create(&pods, pod).await;
    }
    for index in 0..2 {
        let pod = until(&pods, &format!("g-{index}"), |pod| node_of(pod).is_some()).await;
        assert_eq!(node_of(&pod), Some("node-1"));
    }
    let claim = controlled.claims().get("shared").await.unwrap();
    assert_eq!(claim.finalizers(), ["resource.kubernetes.io/delete-protection"]);
    let users = claim.status.unwrap().reserved_for.unwrap();
    assert_eq!(users.len(), 2);
    stop.cancel();
    scheduler.await.unwrap();
    controlled.stop().await;
}

#[tokio::test]
async fn gangs_get_their_devices_once_though_answers_are_lost_and_the_binder_is_killed() {
    let controlled = Controlled::start(&[("node-0", 3), ("node-1", 3)]).await;
    let pods = controlled.cluster.pods();
    for name in ["a", "b", "c"] {
        gang(&pods, name, 2).await;
    }
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let client = super::faults::faulty(controlled.cluster.client.clone(), std::sync::Arc::clone(&count));
    let mut bound = 0;
    // Each run is dropped in the middle of what it does, the last one is not.
    for run in 0..20 {
        let service = Options::only_scheduler(client.clone()).build();
        let before = count.load(std::sync::atomic::Ordering::Relaxed);
        let running = tokio::spawn(async move { service.run(CancellationToken::new()).await });
        let enough = async {
            loop {
                let list = pods.list(&kube::api::ListParams::default()).await.unwrap();
                bound = list.iter().filter(|pod| node_of(pod).is_some()).count();
                let written = count.load(std::sync::atomic::Ordering::Relaxed) - before;
                if bound == 6 || run < 19 && written > run {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, enough).await.unwrap();
        running.abort();
        let _aborted = running.await;
        if bound == 6 {
            break;
        }
    }
    assert_eq!(bound, 6);
    let devices = controlled.devices().await;
    let different: std::collections::BTreeSet<_> =
        devices.iter().map(|(_, pool, device)| (pool, device)).collect();
    assert_eq!((devices.len(), different.len()), (6, 6), "{devices:?}");
    for (pod, pool, _) in &devices {
        assert_eq!(node_of(&pods.get(pod).await.unwrap()), Some(pool.as_str()), "{devices:?}");
    }
    controlled.stop().await;
}
