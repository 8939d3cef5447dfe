//! Prints what the store does in a second: `cargo run --release -p muster-store --example store_throughput`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant};

use muster_store::{Durability, Handle, ObjectKey, Options, Query, SqliteLog, Start, Store, Watch};
use serde_json::{Value, json};

const TASKS: usize = 8;
const OBJECTS: usize = 10_000;
const PADDING_BYTES: usize = 900;

fn object(name: &str) -> Value {
    let sent = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "throughput"}},
        "data": {"padding": "x".repeat(PADDING_BYTES), "sent": sent},
    })
}

fn resident_megabytes() -> Result<f64, Box<dyn Error>> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

async fn create_all(store: &Handle) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (task..OBJECTS).step_by(TASKS) {
                    let name = format!("object-{number:05}");
                    let key = ObjectKey::new("core/configmaps", "default", name.as_str());
                    store.create(key, object(&name)).await?;
                }
                Ok::<_, muster_store::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(started.elapsed())
}

/// From before the object is built until the watcher has it: the commit is included.
async fn latencies(mut watch: Watch) -> Result<Vec<Duration>, muster_store::Error> {
    let mut latencies = Vec::with_capacity(OBJECTS);
    while latencies.len() < OBJECTS {
        let event = watch.next().await?;
        let sent = event.entry.object()["data"]["sent"].as_u64().unwrap_or_default();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        latencies.push(now.saturating_sub(Duration::from_nanos(sent)));
    }
    latencies.sort_unstable();
    Ok(latencies)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for durability in [Durability::Process, Durability::Power] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("api.db");
        let store = Store::open(Options::default(), Box::new(SqliteLog::open(&path, durability)?))?;
        println!("{durability:?}: {:.1} MB resident when empty", resident_megabytes()?);
        let watch = store.watch("core/configmaps", Some("default"), Start::Now)?;
        let watcher = tokio::spawn(latencies(watch));
        let elapsed = create_all(&store).await?;
        println!("  creates by {TASKS} tasks: {:.0}/s", OBJECTS as f64 / elapsed.as_secs_f64());
        let latencies = tokio::time::timeout(Duration::from_secs(10), watcher).await???;
        println!(
            "  create to watcher: p50 {:?}, p99 {:?}",
            latencies[OBJECTS / 2],
            latencies[OBJECTS * 99 / 100]
        );

        let started = Instant::now();
        let listing = store.list(&Query::new("core/configmaps"));
        let mut body = Vec::new();
        for entry in &listing.entries {
            body.extend_from_slice(&entry.json());
        }
        println!("  list of {}: {:?}, {} KB", listing.entries.len(), started.elapsed(), body.len() / 1024);
        let started = Instant::now();
        let past = store.list_at(&Query::new("core/configmaps"), listing.revision - 5_000)?;
        println!("  list at 5000 revisions ago: {:?}, {} objects", started.elapsed(), past.entries.len());
        drop((listing, past, body));
        println!("  {:.1} MB resident with the objects", resident_megabytes()?);
        store.close().await?;
        drop(store);
        let started = Instant::now();
        let store = Store::open(Options::default(), Box::new(SqliteLog::open(&path, durability)?))?;
        println!("  opened again in {:?} at revision {}", started.elapsed(), store.current_revision());
    }
    Ok(())
}
