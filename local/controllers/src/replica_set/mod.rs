//! Keeps as many pods of one template as a replica set asks for.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::{Client, ResourceExt as _};

use crate::at_once;
use crate::claims::{claimed, look_again};
use crate::error::{Result, gone_is_fine};
use crate::events::{Recorder, post_params};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::pod_writer::PodWriter;
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "replicaset-controller";

/// The replica set controller.
pub(crate) struct ReplicaSets {
    client: Client,
    writer: PodWriter,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    queue: Queue<Key>,
}

impl ReplicaSets {
    pub(crate) fn new(client: Client, informers: &Informers, recorder: Recorder) -> Arc<Self> {
        let writer = PodWriter::new(client.clone(), recorder, informers.pods.clone(), COMPONENT);
        let controller = Arc::new(Self {
            client,
            writer,
            sets: informers.replica_sets.clone(),
            pods: informers.pods.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.replica_sets.on_change(move |change| {
            if let Some(set) = change.latest() {
                own.queue.add(Key::of(&**set));
            }
        });
        let own = controller.clone();
        informers.pods.on_change(move |change| {
            for pod in [change.old, change.new].into_iter().flatten() {
                // Any set may want a pod by its labels.
                look_again(&own.queue, &own.sets, pod, |_| !pod.labels().is_empty());
            }
        });
        controller
    }

    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<()> {
        let pod = plan::build(set);
        at_once::for_each(0..count, |_| self.writer.create(set, &pod)).await
    }

    async fn delete(&self, set: &ReplicaSet, doomed: Vec<Arc<Pod>>) -> Result<()> {
        at_once::for_each(doomed, async |pod| self.writer.delete(set, &pod).await).await
    }
}

impl Reconcile for ReplicaSets {
    type Key = Key;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(set) = self.sets.get(key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        let pods = claimed(&self.client, &self.pods, &*set, &spec.selector, None).await?;
        let plan = plan::plan(&set, &pods, Timestamp::now());
        // What the set has and lacks is told also when a pod is refused.
        let acted = match self.create(&set, plan.create).await {
            Ok(()) => self.delete(&set, plan.delete).await,
            failed => failed,
        };
        let pods = self.pods.controlled_by(&*set);
        let plan = plan::plan(&set, &pods, Timestamp::now());
        if set.status.as_ref() != Some(&plan.status) {
            let changed = ReplicaSet { status: Some(plan.status), ..(*set).clone() };
            let sets: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
            if let Some(written) =
                gone_is_fine(sets.replace_status(&key.name, &post_params(), &changed).await)?
            {
                self.sets.shows(&written).await?;
            }
        }
        acted?;
        Ok(plan.again)
    }
}
