//! 500 pods that end at once, created in one go: how many succeed a second.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::area::Settings;
use crate::cluster::{self, NAMESPACE};
use crate::process::Up;

const PODS: usize = 500;
/// Creates that are under way at once.
const CREATES: usize = 32;

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &[]).await?;
    let client = cluster::client(&up.kubeconfig()).await?;
    let mut events = cluster::watch_pods(&client).await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Vec<Pod> = (0..PODS).map(pod).collect::<Result<_>>()?;
    let began = Instant::now();
    let creating = async {
        let parameters = PostParams::default();
        let creates = stream::iter(&pods).map(|pod| api.create(&parameters, pod)).buffer_unordered(CREATES);
        creates.try_for_each(|_| async { Ok(()) }).await.context("creating the pods")
    };
    let ending = async {
        let mut succeeded = BTreeSet::new();
        while succeeded.len() < PODS {
            let (_, pod) = events.try_next().await?.context("the watch ended")?;
            match cluster::phase(&pod) {
                "Succeeded" => drop(succeeded.insert(pod.name_any())),
                "Failed" => bail!("{} failed", pod.name_any()),
                _ => {}
            }
        }
        Ok(began.elapsed())
    };
    let ((), took) = tokio::try_join!(creating, ending)?;
    up.stop().await?;
    Ok(vec![PODS as f64 / took.as_secs_f64()])
}

fn pod(index: usize) -> Result<Pod> {
    let pod = json!({
        "metadata": {"name": format!("true-{index}")},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "true", "image": "busybox", "command": ["/bin/true"]}],
        },
    });
    Ok(serde_json::from_value(pod)?)
}
