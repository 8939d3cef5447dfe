//! Prints what many watchers of the same objects cost: `cargo run --release -p muster-apiserver --example watch_fanout`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::client::Body;
use muster_apiserver::Options;
use serde_json::json;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

const WATCHERS: usize = 200;
const CHANGES: usize = 200;
const PADDING_BYTES: usize = 4_000;
const PATH: &str =
    "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dbusy&timeoutSeconds=300";

const FORMS: [(&str, &str); 3] = [
    ("objects", "application/json"),
    ("metadata", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
    ("tables", "application/json;as=Table;g=meta.k8s.io;v=v1"),
];

/// Processor time of this process so far.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let line = fs_err::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = line.split_whitespace().next().ok_or("no processor time")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Reads lines until the last change has come; the bytes are counted, not understood.
async fn watch(
    client: Client,
    accept: &'static str,
    open: Arc<Barrier>,
) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let request = http::Request::get(PATH).header("accept", accept).body(Body::empty())?;
    let mut body = client.send(request).await?.into_body();
    // The object itself comes first, in a line of its own; then everybody is ready for changes.
    body.frame().await.ok_or("the watch ended")??;
    open.wait().await;
    let (mut lines, mut bytes) = (0, 0);
    while lines < CHANGES {
        let frame = body.frame().await.ok_or("the watch ended")??;
        let data = frame.into_data().map_err(|_| "trailers in a watch")?;
        lines += data.split(|byte| *byte == b'\n').count() - 1;
        bytes += data.len();
    }
    Ok(bytes)
}

// One thread, so that its processor time is all of it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    for (name, accept) in FORMS {
        let folder = std::env::temp_dir().join(format!("watch-fanout-{}", std::process::id()));
        let mut options = Options::new(&folder);
        options.in_memory = true;
        let service = options.build().await?;
        let handle = service.handle();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(service.run(shutdown.clone()));
        let maps: Api<ConfigMap> = Api::namespaced(handle.client(), "default");
        let map = json!({ "metadata": { "name": "busy" }, "data": { "padding": "x".repeat(PADDING_BYTES) } });
        maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
        let open = Arc::new(Barrier::new(WATCHERS + 1));
        let watchers: Vec<_> =
            (0..WATCHERS).map(|_| tokio::spawn(watch(handle.client(), accept, open.clone()))).collect();
        open.wait().await;
        let (before, started) = (processor_time()?, Instant::now());
        for number in 0..CHANGES {
            let patch = Patch::Merge(json!({ "data": { "number": number.to_string() } }));
            maps.patch("busy", &PatchParams::default(), &patch).await?;
        }
        let mut bytes = 0;
        for watcher in watchers {
            bytes += watcher.await?.map_err(|error| error.to_string())?;
        }
        let events = (WATCHERS * CHANGES) as f64;
        let spent = processor_time()?.saturating_sub(before).as_secs_f64();
        println!(
            "{name}: {WATCHERS} watchers, {CHANGES} changes: {:.2} s, {:.1} us of processor per event, {:.0} MB",
            started.elapsed().as_secs_f64(),
            spent * 1e6 / events,
            bytes as f64 / 1e6
        );
        shutdown.cancel();
        server.await??;
        let _ = fs_err::remove_dir_all(&folder);
    }
    Ok(())
}
