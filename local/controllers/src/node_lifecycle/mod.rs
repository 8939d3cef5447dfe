//! Nodes whose agent stopped renewing its Lease: they become Unknown and take no more pods. Nothing is evicted.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::error::{Result, gone_is_fine};
use crate::events::{Recorder, Severity};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::queue::Queue;
use crate::worker::Reconcile;

/// Where agents renew their Leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
const COMPONENT: &str = "node-controller";

/// A renewal, and when it was seen here: clocks of other machines may be wrong.
struct Sign {
    renewed: Option<MicroTime>,
    seen: Instant,
}

/// The node lifecycle controller. A node that never had a Lease is nobody's to judge and is left alone.
pub(crate) struct NodeLifecycle {
    client: Client,
    nodes: Arc<Informer<Node>>,
    grace: Duration,
    signs: Mutex<HashMap<String, Sign>>,
    recorder: Recorder,
    queue: Queue<Key>,
}

impl NodeLifecycle {
    pub(crate) fn new(
        client: Client,
        informers: &Informers,
        recorder: Recorder,
        grace: Duration,
    ) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            nodes: informers.nodes.clone(),
            grace,
            signs: Mutex::default(),
            recorder,
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.nodes.on_change(move |change| {
            if let Some(node) = change.new {
                own.queue.add(Key::of(&**node));
            }
        });
        let own = controller.clone();
        informers.leases.on_change(move |change| {
            let Some(lease) = change.latest() else { return };
            if lease.namespace().as_deref() == Some(LEASE_NAMESPACE) {
                own.note(&lease.name_any(), change.new.map(|lease| &**lease));
            }
        });
        controller
    }

    /// Remembers a renewal; a Lease that is only written again counts for nothing.
    fn note(&self, node: &str, lease: Option<&Lease>) {
        let mut signs = self.signs.lock();
        let Some(lease) = lease else {
            signs.remove(node);
            return;
        };
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        if signs.get(node).is_none_or(|sign| sign.renewed != renewed) {
            signs.insert(node.to_owned(), Sign { renewed, seen: Instant::now() });
            drop(signs);
            self.queue.add(Key::new("", node));
        }
    }

    /// How long the agent may still be silent; zero when that is over.
    fn left(&self, node: &str) -> Option<Duration> {
        let signs = self.signs.lock();
        signs.get(node).map(|sign| self.grace.saturating_sub(sign.seen.elapsed()))
    }

    async fn mark(&self, node: &Node) -> Result<()> {
        let (api, name): (Api<Node>, _) = (Api::all(self.client.clone()), node.name_any());
        let conditions = plan::unknown_conditions(node, Timestamp::now());
        if conditions.is_empty() {
            return Ok(());
        }
        if plan::is_ready(node) {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.tell(COMPONENT, node, Severity::Normal, "NodeNotReady", message);
        }
        let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
        gone_is_fine(api.patch_status(&name, &parameters(), &patch).await)?;
        Ok(())
    }

    async fn taint(&self, node: &Node, silent: bool) -> Result<()> {
        let Some(taints) = plan::taints(node, silent, Timestamp::now()) else { return Ok(()) };
        let api: Api<Node> = Api::all(self.client.clone());
        // The list is written as a whole, so somebody else's change in between must not be lost.
        let patch = json!({
            "metadata": { "uid": node.uid(), "resourceVersion": node.resource_version() },
            "spec": { "taints": taints },
        });
        gone_is_fine(api.patch(&node.name_any(), &parameters(), &Patch::Merge(patch)).await)?;
        Ok(())
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() }
}

impl Reconcile for NodeLifecycle {
    type Key = Key;

    const NAME: &'static str = "node-lifecycle-controller";

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let (Some(node), Some(left)) = (self.nodes.get(key), self.left(&key.name)) else { return Ok(None) };
        if left.is_zero() {
            // The taints first: their precondition is the version that the conditions change.
            self.taint(&node, true).await?;
            self.mark(&node).await?;
            return Ok(None);
        }
        // That the node takes pods again is for its agent to say.
        if plan::is_ready(&node) {
            self.taint(&node, false).await?;
        }
        Ok(Some(left))
    }
}
