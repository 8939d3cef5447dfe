//! 500 gangs of 20 pods through the API server: how many pods are bound a second.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::area::Settings;
use crate::cluster::{self, NAMESPACE};
use crate::process::Up;

const GANGS: usize = 500;
const MEMBERS: usize = 20;
const NODES: usize = 100;
/// Requests that are under way at once.
const CONCURRENT: usize = 32;

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    // Nodes that nobody plays: pods are bound, and nothing is started.
    let up = Up::start(settings, &["--only", "apiserver,scheduler"]).await?;
    let client = cluster::client(&up.kubeconfig()).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    for index in 0..NODES {
        add_node(&nodes, index).await?;
    }
    let mut events = cluster::watch_pods(&client).await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let creating = async {
        let pods = (0..GANGS).flat_map(|gang| (0..MEMBERS).map(move |member| pod(gang, member)));
        let creates = stream::iter(pods)
            .map(|pod| async { anyhow::Ok(api.create(&PostParams::default(), &pod?).await?) })
            .buffer_unordered(CONCURRENT);
        creates.try_for_each(|_| async { Ok(()) }).await.context("creating the pods")
    };
    let binding = async {
        let mut bound: BTreeMap<String, Instant> = BTreeMap::new();
        while bound.len() < GANGS * MEMBERS {
            let (_, pod) = events.try_next().await?.context("the watch ended")?;
            if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
                bound.entry(pod.name_any()).or_insert_with(Instant::now);
            }
        }
        let (first, last) = (bound.values().min().copied(), bound.values().max().copied());
        Ok(last.zip(first).map_or(0.0, |(last, first)| last.duration_since(first).as_secs_f64()))
    };
    let ((), span) = tokio::try_join!(creating, binding)?;
    up.stop().await?;
    Ok(vec![(GANGS * MEMBERS) as f64 / span])
}

async fn add_node(api: &Api<Node>, index: usize) -> Result<()> {
    let name = format!("hollow-{index}");
    let labels = json!({"kubernetes.io/hostname": name, "muster.dev/rack": format!("rack-{}", index / 10)});
    let node = json!({"metadata": {"name": name, "labels": labels}});
    api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    let amounts = json!({"cpu": "256", "memory": "1Ti", "pods": "250"});
    let status = json!({"status": {"capacity": amounts, "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True"}]}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

fn pod(gang: usize, member: usize) -> Result<Pod> {
    let pod = json!({
        "metadata": {"name": format!("gang-{gang}-{member}"), "annotations": {
            "muster.dev/gang": format!("gang-{gang}"),
            "muster.dev/gang-min-available": MEMBERS.to_string(),
            "muster.dev/rank": member.to_string(),
        }},
        "spec": {"schedulerName": "muster", "containers": [
            {"name": "c", "image": "busybox", "resources": {"requests": {"cpu": "100m"}}},
        ]},
    });
    Ok(serde_json::from_value(pod)?)
}
