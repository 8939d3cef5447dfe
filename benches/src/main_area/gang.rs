//! A gang of four pods: from the apply of its job until all of them run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::area::Settings;
use crate::cluster::{self, Change, NAMESPACE};
use crate::process::Up;
use crate::statistics::{milliseconds, quantile};

const ROUNDS: usize = 50;
const PODS: usize = 4;
const ROUND_DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &["--nodes", "2", "--gpus-per-node", "4"]).await?;
    let client = cluster::client(&up.kubeconfig()).await?;
    let kind = GroupVersionKind::gvk("kubeflow.org", "v1", "PyTorchJob");
    let jobs: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        NAMESPACE,
        &ApiResource::from_gvk_with_plural(&kind, "pytorchjobs"),
    );
    let mut pods = cluster::watch_pods(&client).await?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("gang-{round}");
        let one = timeout(ROUND_DEADLINE, one_round(&jobs, &mut pods, &name)).await;
        times.push(one.with_context(|| format!("round {round} did not end"))??);
    }
    up.stop().await?;
    Ok(vec![milliseconds(quantile(&times, 0.5).context("no rounds")?)])
}

async fn one_round(
    jobs: &Api<DynamicObject>,
    pods: &mut (impl Stream<Item = Result<(Change, Pod)>> + Unpin),
    name: &str,
) -> Result<Duration> {
    let parameters = PatchParams::apply("muster-bars");
    let job = job(name);
    let began = Instant::now();
    jobs.patch(name, &parameters, &Patch::Apply(&job)).await.context("applying the job")?;
    let mut running = BTreeSet::new();
    while running.len() < PODS {
        let (change, pod) = pods.try_next().await?.context("the watch ended")?;
        if change == Change::Seen && cluster::phase(&pod) == "Running" && pod.name_any().starts_with(name) {
            running.insert(pod.name_any());
        }
    }
    let took = began.elapsed();
    jobs.delete(name, &DeleteParams::background()).await.context("deleting the job")?;
    while !running.is_empty() {
        let (change, pod) = pods.try_next().await?.context("the watch ended")?;
        if change == Change::Gone {
            running.remove(&pod.name_any());
        }
    }
    Ok(took)
}

fn job(name: &str) -> Value {
    let replicas = |count: usize| {
        json!({"replicas": count, "restartPolicy": "Never", "template": {"spec": {
            // Without a grace period a pod is forgotten before its node has given up its GPU.
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "pytorch",
                "image": "busybox",
                "command": ["sleep", "3600"],
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            }],
        }}})
    };
    json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"pytorchReplicaSpecs": {"Master": replicas(1), "Worker": replicas(PODS - 1)}},
    })
}
