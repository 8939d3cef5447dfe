//! What people wait for when they look into a pod: a command in it, from the connection to its exit status, and a line of
//! its log, from printing it to its arrival.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, LogParams, PostParams};
use kube::runtime::wait::{await_condition, conditions::is_pod_running};
use serde_json::{Value, json};

use crate::area::Settings;
use crate::cluster::{self, NAMESPACE};
use crate::process::Up;
use crate::statistics::{milliseconds, quantile};

const ROUNDS: usize = 100;
const LINES: usize = 200;
/// A line every 10 ms, with the time at which it was printed. The first ones come before anybody listens.
const TALK: &str = "while :; do date +%s%N; sleep 0.01; done";
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &[]).await?;
    let client = cluster::client(&up.kubeconfig()).await?;
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    for (name, command) in [("quiet", json!(["sleep", "3600"])), ("talks", json!(["sh", "-c", TALK]))] {
        pods.create(&PostParams::default(), &pod(name, &command)?).await?;
        let running = await_condition(pods.clone(), name, is_pod_running());
        tokio::time::timeout(DEADLINE, running).await.context("the pod does not run")??;
    }
    let mut round_trips = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let parameters = AttachParams::default().stdout(false).stderr(false);
        let mut running = pods.exec("quiet", ["true"], &AttachParams { stdout: true, ..parameters }).await?;
        let status = running.take_status().context("no status")?.await.context("no exit status")?;
        round_trips.push(began.elapsed());
        ensure!(status.status.as_deref() == Some("Success"), "the command failed: {status:?}");
    }
    let follow = LogParams { follow: true, tail_lines: Some(1), ..LogParams::default() };
    let mut lines = pods.log_stream("talks", &follow).await?.lines();
    let mut delays = Vec::new();
    // The first line was there before.
    lines.try_next().await?.context("the log ended")?;
    while delays.len() < LINES {
        let line = lines.try_next().await?.context("the log ended")?;
        let printed =
            Duration::from_nanos(line.trim().parse().with_context(|| format!("{line} is no time"))?);
        delays.push(SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(printed));
    }
    up.stop().await?;
    Ok(vec![
        milliseconds(quantile(&round_trips, 0.5).context("no rounds")?),
        milliseconds(quantile(&delays, 0.99).context("no lines")?),
    ])
}

fn pod(name: &str, command: &Value) -> Result<Pod> {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "busybox", "command": command}],
        },
    });
    Ok(serde_json::from_value(pod)?)
}
