//! The API under load, over TLS: eight clients that create objects of 1 KB, a watch beside them, and a list of
//! all that they made.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::{AsyncBufReadExt, TryStreamExt};
use http::{Method, Request};
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::area::Settings;
use crate::cluster::{self, NAMESPACE};
use crate::process::Up;
use crate::statistics::{milliseconds, quantile};

const CLIENTS: usize = 8;
const OBJECTS: usize = 10_000;
const DATA_BYTES: usize = 1024;
const LISTS: usize = 9;

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &[]).await?;
    let watching = watch(cluster::client(&up.kubeconfig()).await?).await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster::client(&up.kubeconfig()).await?);
    }
    // Connections are made before the clock runs.
    try_join_all(clients.iter().map(Client::apiserver_version)).await?;
    let began = Instant::now();
    let creators =
        clients.iter().enumerate().map(|(number, client)| tokio::spawn(create(client.clone(), number)));
    let mut written = HashMap::new();
    for creator in creators.collect::<Vec<_>>() {
        written.extend(creator.await??);
    }
    let creates_a_second = OBJECTS as f64 / began.elapsed().as_secs_f64();
    let seen = watching.await??;
    let mut delays = Vec::new();
    for (name, answered) in &written {
        let arrived = seen.get(name).with_context(|| format!("{name} was never seen"))?;
        // The event may be there before the answer.
        delays.push(arrived.saturating_duration_since(*answered));
    }
    let lists = lists(clients.first().context("no clients")?).await?;
    up.stop().await?;
    Ok(vec![
        creates_a_second,
        milliseconds(quantile(&delays, 0.99).context("no events")?),
        milliseconds(quantile(&lists, 0.5).context("no lists")?),
    ])
}

fn path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

/// Creates a client's share of the objects, one after the other; when each was answered.
async fn create(client: Client, number: usize) -> Result<Vec<(String, Instant)>> {
    let data = "x".repeat(DATA_BYTES);
    let mut answered = Vec::with_capacity(OBJECTS / CLIENTS);
    for index in 0..OBJECTS / CLIENTS {
        let name = format!("object-{number}-{index}");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"data": data},
        });
        let request =
            Request::builder().method(Method::POST).uri(path()).header("content-type", "application/json");
        client.request_text(request.body(serde_json::to_vec(&object)?)?).await?;
        answered.push((name, Instant::now()));
    }
    Ok(answered)
}

/// What the watch must read of an event.
#[derive(Deserialize)]
struct Event {
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// Opens a watch; the task ends when all objects have been seen, with the time of each.
async fn watch(client: Client) -> Result<JoinHandle<Result<HashMap<String, Instant>>>> {
    let request = Request::get(format!("{}?watch=true", path())).body(Vec::new())?;
    let mut lines = client.request_stream(request).await.context("opening the watch")?.lines();
    Ok(tokio::spawn(async move {
        let mut seen = HashMap::with_capacity(OBJECTS);
        while seen.len() < OBJECTS {
            let line = lines.try_next().await?.context("the watch ended")?;
            let arrived = Instant::now();
            let name = serde_json::from_str::<Event>(&line)?.object.metadata.name;
            // A namespace has objects of its own.
            if name.starts_with("object-") {
                seen.insert(name, arrived);
            }
        }
        Ok(seen)
    }))
}

/// How long it takes until the whole list has arrived.
async fn lists(client: &Client) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..LISTS {
        let began = Instant::now();
        let text = client.request_text(Request::get(path()).body(Vec::new())?).await?;
        times.push(began.elapsed());
        ensure!(text.len() > OBJECTS * DATA_BYTES, "the list is short: {} bytes", text.len());
    }
    Ok(times)
}
