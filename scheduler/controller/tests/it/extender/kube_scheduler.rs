//! kube-scheduler's side, by its rules: one pod at a time, filter, prioritize unless one node is left, bind; no
//! retry of a call, but of the pod later.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use muster_scheduler_extender::client::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::{DEADLINE, node_of};

/// Pause before pods that could not be placed are tried again.
const BACKOFF: Duration = Duration::from_millis(50);

/// What became of one pod in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    Bound,
    /// Why not: the extender's words.
    Waits(String),
    /// The call came to nothing.
    Failed,
}

pub(super) struct KubeScheduler {
    pods: Api<Pod>,
    nodes: Vec<String>,
}

impl KubeScheduler {
    pub(super) async fn of(client: &kube::Client) -> Self {
        let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap();
        Self {
            pods: Api::namespaced(client.clone(), "default"),
            nodes: nodes.iter().map(ResourceExt::name_any).collect(),
        }
    }

    /// Pods of the profile that need a node, by name.
    pub(super) async fn waiting(&self) -> Vec<Pod> {
        let all = self.pods.list(&ListParams::default()).await.unwrap();
        all.into_iter().filter(|pod| node_of(pod).is_none()).collect()
    }

    /// One cycle of a pod up to its binding; the node.
    pub(super) async fn choose(&self, client: &mut Client, pod: &Pod) -> Result<String, Attempt> {
        let arguments = self.arguments(pod);
        let filtered = client.filter(&arguments).await.map_err(|_| Attempt::Failed)?;
        if !filtered.error.is_empty() {
            return Err(Attempt::Waits(filtered.error));
        }
        let names = filtered.node_names.unwrap_or_default();
        assert!(names.iter().all(|name| self.nodes.contains(name)), "a node that was not offered: {names:?}");
        if names.len() > 1 {
            let mut scores = client.prioritize(&arguments).await.unwrap_or_default();
            scores.sort_by_key(|score| score.score);
            return Ok(scores.pop().map_or_else(|| names[0].clone(), |best| best.host));
        }
        let reasons = filtered.failed_nodes.values().chain(filtered.failed_and_unresolvable_nodes.values());
        let reason = reasons.into_iter().next().cloned().unwrap_or_default();
        names.into_iter().next().ok_or(Attempt::Waits(reason))
    }

    /// The binding, asked of the extender.
    pub(super) async fn bind(&self, client: &mut Client, pod: &Pod, node: &str) -> Attempt {
        let uid = pod.uid().unwrap_or_default();
        match client.bind("default", &pod.name_any(), &uid, node).await {
            Ok(error) if error.is_empty() => Attempt::Bound,
            Ok(error) => Attempt::Waits(error),
            Err(_) => Attempt::Failed,
        }
    }

    async fn cycle(&self, client: &mut Client, pod: &Pod) -> Attempt {
        match self.choose(client, pod).await {
            Ok(node) => self.bind(client, pod, &node).await,
            Err(attempt) => attempt,
        }
    }

    /// Schedules until no pod is left but so many, which wait because of this.
    pub(super) async fn schedule(&self, client: &mut Client, left: usize, because: &str) {
        let deadline = Instant::now() + DEADLINE;
        let mut every = interval(BACKOFF);
        loop {
            every.tick().await;
            let mut reasons = Vec::new();
            for pod in self.waiting().await {
                match self.cycle(client, &pod).await {
                    Attempt::Bound => {}
                    Attempt::Waits(reason) => reasons.push(reason),
                    Attempt::Failed => reasons.push("the call failed".to_owned()),
                }
            }
            let waiting = self.waiting().await.len();
            if waiting == left
                && reasons.len() == left
                && reasons.iter().all(|reason| reason.contains(because))
            {
                return;
            }
            assert!(Instant::now() < deadline, "these wait: {reasons:?}");
        }
    }

    /// As nodeCacheCapable is: names.
    fn arguments(&self, pod: &Pod) -> Value {
        let mut pod = serde_json::to_value(pod).unwrap();
        for key in ["apiVersion", "kind"] {
            pod.as_object_mut().unwrap().remove(key);
        }
        json!({"Pod": pod, "Nodes": null, "NodeNames": self.nodes})
    }
}
