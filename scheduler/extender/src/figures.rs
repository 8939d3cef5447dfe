//! What the bars ask of the extender: how long calls take over a loopback socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_scheduler_core::resources::GPU_RESOURCE;
use muster_scheduler_core::{Gang, Ledger, Member, Node, PodKey, Resources};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::{CallError, Client, Filtered};
use crate::core::{
    BindOutcome, BindPod, GangKey, PodSeen, PodState, Time, Timing, WriteOutcome, WriteReservation,
};
use crate::server::{Api, Observed, Options, ServeError};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The runtime.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[from] std::io::Error),
    /// The server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A call.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// How nodes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `nodeCacheCapable: true`.
    Names,
    /// `nodeCacheCapable: false`, each node of about two kilobytes.
    WholeNodes,
}

/// How long filter calls took, from the first byte sent to the last received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterLatency {
    /// How many calls.
    pub calls: usize,
    /// How many were answered by a node.
    pub placed: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// The middle one.
    pub p50: Duration,
    /// 99 of 100 were quicker.
    pub p99: Duration,
}

/// An API server that agrees to everything.
struct Agreeable;

impl Api for Agreeable {
    fn write(&self, write: WriteReservation) -> BoxFuture<'static, WriteOutcome> {
        async move { WriteOutcome::Written(write.epoch.to_string()) }.boxed()
    }

    fn bind(&self, _: BindPod) -> BoxFuture<'static, BindOutcome> {
        async { BindOutcome::Bound }.boxed()
    }

    fn look(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome> {
        async { BindOutcome::AlreadyBound(bind.node) }.boxed()
    }

    fn mark_bound(&self, _: GangKey, _: i64) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn remove(&self, _: GangKey, _: String) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

const GANG_SIZE: usize = 3;

/// Filters and binds pods of gangs of three as kube-scheduler does, one after the other, with all of `nodes` nodes
/// of eight GPUs offered in each call; `calls` filter calls are timed.
///
/// # Errors
/// When the server or a call fails.
pub fn filter_latency(nodes: usize, calls: usize, form: Form) -> Result<FilterLatency, FigureError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(nodes, calls, form))
}

async fn measure(nodes: usize, calls: usize, form: Form) -> Result<FilterLatency, FigureError> {
    let options = Options::loopback(Ledger::default(), Arc::new(Agreeable));
    // No run before this one has requests under way.
    let timing = Timing { settle: 0, ..options.timing };
    let (service, handle) = Options { timing, ..options }.build().await?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone()));
    let names: Vec<String> = (0..nodes).map(|index| format!("node-{index:05}.cluster.internal")).collect();
    handle.observe(names.iter().enumerate().map(|(index, name)| Observed::Node(Box::new(node(index, name)))));
    let gangs = calls.div_ceil(GANG_SIZE);
    handle.observe((0..gangs * GANG_SIZE).map(|index| Observed::Pod(Box::new(pod(index)))));
    handle.observe([Observed::Synced]);
    let offered = offered(&names, form);
    let mut client = Client::connect(handle.address()).await?;
    let mut times = Vec::with_capacity(calls);
    let (mut placed, mut request_bytes) = (0, 0);
    for index in 0..calls {
        let (name, uid) = (format!("pod-{index}"), format!("uid-{index}"));
        let body = format!(
            r#"{{"Pod":{{"metadata":{{"name":"{name}","namespace":"bench","uid":"{uid}"}},"spec":{{"containers":[]}},"status":{{}}}},{offered}}}"#
        );
        let body = Bytes::from(body);
        request_bytes = body.len();
        let start = Instant::now();
        let answer = client.call("filter", body).await?;
        times.push(start.elapsed());
        let filtered: Filtered = serde_json::from_slice(&answer).map_err(CallError::from)?;
        if let Some(node) = chosen(&filtered) {
            placed += 1;
            client.bind("bench", &name, &uid, &node).await?;
        }
    }
    shutdown.cancel();
    drop(client);
    // A task that only ends.
    let _ = running.await;
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    Ok(FilterLatency {
        calls,
        placed,
        request_bytes,
        p50: at(50).copied().unwrap_or_default(),
        p99: at(99).copied().unwrap_or_default(),
    })
}

fn chosen(filtered: &Filtered) -> Option<String> {
    match (&filtered.node_names, &filtered.nodes) {
        (Some(names), _) => names.first().cloned(),
        (None, Some(nodes)) => nodes.pointer("/items/0/metadata/name")?.as_str().map(str::to_owned),
        (None, None) => None,
    }
}

fn offered(names: &[String], form: Form) -> String {
    match form {
        Form::Names => format!(r#""Nodes":null,"NodeNames":{}"#, json!(names)),
        Form::WholeNodes => {
            let items: Vec<String> = names.iter().map(|name| whole_node(name)).collect();
            format!(r#""Nodes":{{"metadata":{{}},"items":[{}]}},"NodeNames":null"#, items.join(","))
        }
    }
}

/// A node object of the size that kube-scheduler sends for a small node.
fn whole_node(name: &str) -> String {
    let amounts = json!({"cpu": "96", "ephemeral-storage": "1000Gi", "memory": "1Ti", "nvidia.com/gpu": "8", "pods": "110"});
    let fields: serde_json::Map<String, serde_json::Value> =
        (0..40).map(|index| (format!("f:field-{index}"), json!({}))).collect();
    let metadata = format!(
        r#"{{"name":"{name}","uid":"{name}-uid","labels":{{"kubernetes.io/hostname":"{name}"}},"managedFields":[{}]}}"#,
        json!({"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": fields}})
    );
    let status = json!({"capacity": amounts, "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}]});
    format!(r#"{{"metadata":{metadata},"spec":{{}},"status":{status}}}"#)
}

fn node(index: usize, name: &str) -> Node {
    let labels = [
        ("kubernetes.io/hostname".to_owned(), name.to_owned()),
        ("muster.dev/rack".to_owned(), format!("rack-{}", index / 16)),
    ];
    Node {
        name: name.to_owned(),
        labels: labels.into_iter().collect(),
        schedulable: true,
        allocatable: Resources::new().with("cpu", 96_000).with(GPU_RESOURCE, 8_000).with("pods", 110_000),
        gpu_slots: 8,
        ..Node::default()
    }
}

fn pod(index: usize) -> PodSeen {
    let gang = Gang {
        namespace: "bench".to_owned(),
        name: format!("gang-{}", index / GANG_SIZE),
        min_available: GANG_SIZE,
        ..Gang::default()
    };
    let member = Member {
        name: format!("pod-{index}"),
        uid: format!("uid-{index}"),
        requests: Resources::new().with("cpu", 1_000).with(GPU_RESOURCE, 8_000).with("pods", 1_000),
        gpus: 8,
        rank: (index % GANG_SIZE) as u32,
        ..Member::default()
    };
    PodSeen {
        key: PodKey::new("bench", &member.name),
        member,
        gang: Some(Arc::new(gang)),
        owner: None,
        priority: 0,
        created: Time(0),
        planned: true,
        own: false,
        held: None,
        state: PodState::Waiting,
    }
}
