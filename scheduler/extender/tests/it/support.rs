//! A running extender over an API server in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use muster_scheduler_core::{Assignment, Gang, Ledger, Member, Node, PodKey, Resources};
use muster_scheduler_extender::client::Client;
use muster_scheduler_extender::core::{
    BindOutcome, BindPod, GangKey, PodSeen, PodState, SeenReservation, Time, Timing, WriteOutcome,
    WriteReservation,
};
use muster_scheduler_extender::server::{Api, Handle, Observed, Options};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Reservations and bindings, as the API server would have them.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) reservations: Mutex<BTreeMap<GangKey, SeenReservation>>,
    pub(crate) bindings: Mutex<BTreeMap<String, BindPod>>,
    /// Bindings that landed before a reservation named them.
    pub(crate) unreserved: AtomicUsize,
    versions: AtomicUsize,
}

impl Cluster {
    fn write_now(&self, write: WriteReservation) -> WriteOutcome {
        let mut reservations = self.reservations.lock();
        let current = reservations.get(&write.gang);
        if current.map(|seen| &seen.resource_version) != write.replaces.as_ref() {
            return WriteOutcome::Conflict(current.cloned());
        }
        let resource_version = self.versions.fetch_add(1, Ordering::Relaxed).to_string();
        let seen = SeenReservation {
            gang: write.gang.clone(),
            epoch: write.epoch,
            members: write.members,
            resource_version: resource_version.clone(),
        };
        reservations.insert(write.gang, seen);
        WriteOutcome::Written(resource_version)
    }

    fn bind_now(&self, bind: BindPod) -> BindOutcome {
        let reserved = self
            .reservations
            .lock()
            .values()
            .any(|seen| seen.members.iter().any(|place| place.uid == bind.uid));
        if !reserved {
            self.unreserved.fetch_add(1, Ordering::Relaxed);
        }
        let mut bindings = self.bindings.lock();
        if let Some(earlier) = bindings.get(&bind.uid) {
            return BindOutcome::AlreadyBound(earlier.node.clone());
        }
        bindings.insert(bind.uid.clone(), bind);
        BindOutcome::Bound
    }
}

pub(crate) struct InMemory(pub(crate) Arc<Cluster>);

impl Api for InMemory {
    fn write(&self, write: WriteReservation) -> BoxFuture<'static, WriteOutcome> {
        let cluster = self.0.clone();
        async move { cluster.write_now(write) }.boxed()
    }

    fn bind(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome> {
        let cluster = self.0.clone();
        async move { cluster.bind_now(bind) }.boxed()
    }

    fn look(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome> {
        let node = self.0.bindings.lock().get(&bind.uid).map(|earlier| earlier.node.clone());
        async { node.map_or(BindOutcome::NotBound, BindOutcome::AlreadyBound) }.boxed()
    }

    fn mark_bound(&self, _: GangKey, _: i64) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }

    fn remove(&self, gang: GangKey, _: String) -> BoxFuture<'static, ()> {
        self.0.reservations.lock().remove(&gang);
        async {}.boxed()
    }
}

/// A running extender; it ends with the test.
pub(crate) struct Extender {
    pub(crate) handle: Handle<Ledger>,
    pub(crate) cluster: Arc<Cluster>,
    shutdown: CancellationToken,
}

impl Drop for Extender {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Extender {
    pub(crate) async fn start() -> Self {
        let cluster = Arc::new(Cluster::default());
        let options = Options::loopback(Ledger::default(), Arc::new(InMemory(cluster.clone())));
        let timing = Timing { settle: 0, ..Timing::default() };
        let (service, handle) = Options { timing, ..options }.build().await.unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(service.run(shutdown.clone()));
        Self { handle, cluster, shutdown }
    }

    /// With nodes, and synced.
    pub(crate) async fn with_nodes(names: &[&str], gpus: u32) -> Self {
        let extender = Self::start().await;
        extender.handle.observe(names.iter().map(|name| Observed::Node(Box::new(node(name, gpus)))));
        extender.handle.observe([Observed::Synced]);
        extender
    }

    pub(crate) fn see(&self, pod: PodSeen) {
        self.handle.observe([Observed::Pod(Box::new(pod))]);
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.handle.address()).await.unwrap()
    }
}

pub(crate) fn node(name: &str, gpus: u32) -> Node {
    Node {
        name: name.to_owned(),
        schedulable: true,
        allocatable: Resources::new()
            .with("cpu", 96_000)
            .with("nvidia.com/gpu", i64::from(gpus) * 1000)
            .with("pods", 110_000),
        gpu_slots: gpus,
        ..Node::default()
    }
}

/// A pod of its own that waits.
pub(crate) fn pod(namespace: &str, name: &str, uid: &str, gpus: u32) -> PodSeen {
    let requests =
        Resources::new().with("nvidia.com/gpu", i64::from(gpus) * 1000).with("cpu", 100).with("pods", 1000);
    let member = Member {
        name: name.to_owned(),
        uid: uid.to_owned(),
        requests,
        gpus,
        rank: u32::MAX,
        ..Member::default()
    };
    PodSeen {
        key: PodKey::new(namespace, name),
        member,
        gang: None,
        owner: None,
        priority: 0,
        created: Time(0),
        planned: true,
        own: false,
        held: None,
        state: PodState::Waiting,
    }
}

/// A pod of a gang that waits; its uid is its name with `-uid`.
pub(crate) fn member(gang: &str, rank: u32, least: usize, gpus: u32) -> PodSeen {
    let name = format!("{gang}-{rank}");
    let mut pod = pod("default", &name, &format!("{name}-uid"), gpus);
    pod.member.rank = rank;
    pod.gang = Some(Arc::new(Gang {
        namespace: "default".to_owned(),
        name: gang.to_owned(),
        min_available: least,
        ..Gang::default()
    }));
    pod
}

/// The same pod, bound.
pub(crate) fn bound(mut pod: PodSeen, node: &str) -> PodSeen {
    pod.state = PodState::Bound(Assignment {
        uid: pod.member.uid.clone(),
        node: node.to_owned(),
        resources: pod.member.requests.clone(),
        ..Assignment::default()
    });
    pod
}

/// The arguments of a filter call.
pub(crate) fn arguments(pod: &PodSeen, nodes: &[&str]) -> Value {
    let metadata = json!({"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.member.uid});
    json!({"Pod": {"metadata": metadata, "spec": {}, "status": {}}, "Nodes": null, "NodeNames": nodes})
}
