//! Planning on 5,000 nodes.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Assignment, Gang, Ledger, Member, Node, PodKey, Resources};
use muster_scheduler_extender::figures::{Form, filter_latency};

use crate::statistics::milliseconds;

const NODES: usize = 5000;
const GPUS: u32 = 8;

fn node(index: usize) -> Node {
    let name = format!("node-{index:05}");
    let label = |key: &str, value: String| (key.to_owned(), value);
    Node {
        labels: [
            label("kubernetes.io/hostname", name.clone()),
            label("muster.dev/rack", format!("rack-{}", index / 32)),
            label("topology.kubernetes.io/zone", format!("zone-{}", index / 1024)),
        ]
        .into(),
        name,
        schedulable: true,
        allocatable: Resources::new()
            .with(GPU_RESOURCE, i64::from(GPUS) * 1000)
            .with("cpu", 128_000)
            .with("memory", 1 << 50)
            .with("pods", 110_000),
        gpu_slots: GPUS,
        ..Node::default()
    }
}

fn cluster() -> Ledger {
    let mut ledger = Ledger::default();
    (0..NODES).for_each(|index| ledger.set_node(node(index)));
    ledger
}

fn gang(name: &str, members: u32, gpus: u32) -> Gang {
    let requests =
        Resources::new().with(GPU_RESOURCE, i64::from(gpus) * 1000).with("cpu", 500).with("pods", 1000);
    let member = |rank| Member {
        name: format!("{name}-{rank}"),
        uid: format!("{name}-{rank}"),
        requests: requests.clone(),
        gpus,
        rank,
        ..Member::default()
    };
    Gang {
        namespace: "bars".into(),
        name: name.into(),
        min_available: members as usize,
        waiting: (0..members).map(member).collect(),
        ..Gang::default()
    }
}

fn place_and_take(ledger: &mut Ledger, gang: &Gang) -> Result<()> {
    let placement = ledger.place(gang).map_err(|reason| anyhow!("{}: {reason}", gang.name))?;
    ensure!(placement.0.len() == gang.waiting.len(), "{} is not whole", gang.name);
    Ok(ledger.take(&placement)?)
}

/// Milliseconds a 3-pod gang of 3,000, and of the last 1,000; seconds for one of 10,000 pods, and from nothing
/// with 140,000 pods to the first decision; milliseconds from a changed node to the next decision.
pub(super) fn measure() -> Result<Vec<f64>> {
    let mut ledger = cluster();
    place_and_take(&mut ledger, &gang("first", 3, 4))?;
    let mut thousands = Vec::new();
    for thousand in 0..3 {
        let began = Instant::now();
        for index in 0..1000 {
            place_and_take(&mut ledger, &gang(&format!("g{thousand}-{index}"), 3, 4))?;
        }
        thousands.push(began.elapsed() / 1000);
    }
    let mean = thousands.iter().sum::<Duration>() / 3;

    let mut ledger = cluster();
    let huge = gang("huge", 10_000, 4);
    let began = Instant::now();
    place_and_take(&mut ledger, &huge)?;
    let whole = began.elapsed();

    let began = Instant::now();
    let mut ledger = cluster();
    for pod in 0..140_000 {
        let assignment = Assignment {
            uid: format!("uid-{pod}"),
            node: format!("node-{:05}", pod % NODES),
            resources: Resources::new().with("cpu", 100).with("pods", 1000),
            ..Assignment::default()
        };
        ledger.record(PodKey::new("bars", format!("pod-{pod}")), assignment);
    }
    place_and_take(&mut ledger, &gang("next", 3, 4))?;
    let cold = began.elapsed();

    let mut cordoned = node(77);
    cordoned.schedulable = false;
    let began = Instant::now();
    ledger.set_node(cordoned);
    place_and_take(&mut ledger, &gang("last", 3, 4))?;
    let changed = began.elapsed();
    Ok(vec![
        milliseconds(mean),
        milliseconds(thousands[2]),
        whole.as_secs_f64(),
        cold.as_secs_f64(),
        milliseconds(changed),
    ])
}

/// The 99th percentile of filter calls with 5,000 names, and with 5,000 whole nodes.
pub(super) fn filter() -> Result<Vec<f64>> {
    let p99 = |calls, form| -> Result<f64> { Ok(milliseconds(filter_latency(NODES, calls, form)?.p99)) };
    Ok(vec![p99(2000, Form::Names)?, p99(300, Form::WholeNodes)?])
}
