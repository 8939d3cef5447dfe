//! Runs daemon sets: one pod on every node that fits, bound by the scheduler like any other.

mod eligibility;
mod plan;
mod pod;
mod rollout;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::at_once;
use crate::claims::{claimed, look_again};
use crate::error::{Result, gone_is_fine};
use crate::events::{Recorder, Severity, post_params};
use crate::history::{Histories, History, REVISION_LABEL};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::pod_writer::PodWriter;
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "daemonset-controller";
/// Pause before a failed pod is replaced; it doubles with every further failure on the node.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const LAST_PAUSE: Duration = Duration::from_mins(15);

/// Failures of a set's pods on a node.
struct Failures {
    count: u32,
    /// When the last failed pod was deleted.
    last: Instant,
}

/// The daemon set controller.
pub(crate) struct DaemonSets {
    client: Client,
    recorder: Recorder,
    writer: PodWriter,
    sets: Arc<Informer<DaemonSet>>,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    histories: Histories,
    /// By uid of the set and name of the node.
    failures: Mutex<HashMap<(String, String), Failures>>,
    queue: Queue<Key>,
}

impl DaemonSets {
    pub(crate) fn new(client: Client, informers: &Informers, recorder: Recorder) -> Arc<Self> {
        let writer = PodWriter::new(client.clone(), recorder.clone(), informers.pods.clone(), COMPONENT);
        let controller = Arc::new(Self {
            client: client.clone(),
            recorder,
            writer,
            sets: informers.daemon_sets.clone(),
            nodes: informers.nodes.clone(),
            pods: informers.pods.clone(),
            histories: Histories::new(client, informers.revisions.clone()),
            failures: Mutex::default(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.daemon_sets.on_change(move |change| {
            let Some(set) = change.latest() else { return };
            if change.new.is_none() {
                own.failures.lock().retain(|(uid, _), _| Some(uid) != set.metadata.uid.as_ref());
            }
            own.queue.add(Key::of(&**set));
        });
        let own = controller.clone();
        informers.nodes.on_change(move |change| {
            if tells_something(change.old, change.new) {
                for set in own.sets.all() {
                    own.queue.add(Key::of(&*set));
                }
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

    async fn create(&self, set: &DaemonSet, hash: &str, nodes: &[String]) -> Result<()> {
        let spec = eligibility::tolerant(set);
        at_once::for_each(nodes.to_vec(), async |node| {
            self.writer.create(set, &pod::build(set, &spec, hash, &node)).await
        })
        .await
    }

    async fn delete(&self, set: &DaemonSet, doomed: Vec<Arc<Pod>>) -> Result<()> {
        at_once::for_each(doomed, async |pod| self.writer.delete(set, &pod).await).await
    }

    /// The failed pods whose node has waited long enough, and when the next has.
    fn ripe(&self, set: &DaemonSet, failed: &[(String, Arc<Pod>)]) -> (Vec<Arc<Pod>>, Option<Duration>) {
        let mut failures = self.failures.lock();
        let (mut ripe, mut next): (Vec<Arc<Pod>>, Option<Duration>) = (Vec::new(), None);
        for (node, pod) in failed {
            let key = (set.uid().unwrap_or_default(), node.clone());
            let before = failures.get(&key).filter(|before| before.last.elapsed() < LAST_PAUSE * 2);
            let count = before.map_or(0, |before| before.count);
            let pause = FIRST_PAUSE.saturating_mul(1 << count.min(16)).min(LAST_PAUSE);
            let left = before.map_or(Duration::ZERO, |before| pause.saturating_sub(before.last.elapsed()));
            if left.is_zero() {
                let message = format!(
                    "Found failed daemon pod {} on node {node}, will try to kill it",
                    Key::of(&**pod)
                );
                self.recorder.tell(COMPONENT, set, Severity::Warning, "FailedDaemonPod", message);
                failures.insert(key, Failures { count: count.saturating_add(1), last: Instant::now() });
                ripe.push(pod.clone());
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        (ripe, next)
    }

    async fn forget(&self, set: &DaemonSet, history: &History, pods: &[Arc<Pod>]) -> Result<()> {
        let followed = |revision: &Arc<ControllerRevision>| {
            let hash = revision.labels().get(REVISION_LABEL);
            hash.is_some_and(|hash| pods.iter().any(|pod| pod::follows(pod, hash)))
        };
        let named = history.all.iter().filter(|one| followed(one)).chain([&history.present]);
        let in_use: BTreeSet<String> = named.map(|one| one.name_any()).collect();
        self.histories.shorten(set, history, &in_use).await
    }
}

/// Whether a change of a node can change which pods run there: heartbeats do not.
fn tells_something(old: Option<&Arc<Node>>, new: Option<&Arc<Node>>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

impl Reconcile for DaemonSets {
    type Key = Key;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(set) = self.sets.get(key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        let pods = claimed(&self.client, &self.pods, &*set, &spec.selector, None).await?;
        let history = self.histories.of(&*set).await?;
        let hash = history.present.labels().get(REVISION_LABEL).cloned().unwrap_or_default();
        let plan = plan::plan(&set, &self.nodes.all(), &pods, &hash, Timestamp::now());
        let (ripe, next) = self.ripe(&set, &plan.failed);
        let delete = plan.delete.into_iter().chain(ripe).collect();
        // What the set has and lacks is told also when a pod is refused.
        let acted = match self.delete(&set, delete).await {
            Ok(()) => self.create(&set, &hash, &plan.create).await,
            failed => failed,
        };
        let pods = self.pods.controlled_by(&*set);
        let plan = plan::plan(&set, &self.nodes.all(), &pods, &hash, Timestamp::now());
        let mut status = plan.status;
        status.collision_count = Some(history.collisions).filter(|count| *count > 0);
        if set.status.as_ref() != Some(&status) {
            let changed = DaemonSet { status: Some(status), ..(*set).clone() };
            let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
            if let Some(written) =
                gone_is_fine(sets.replace_status(&key.name, &post_params(), &changed).await)?
            {
                self.sets.shows(&written).await?;
            }
        }
        acted?;
        self.forget(&set, &history, &pods).await?;
        Ok(plan.again.into_iter().chain(next).min())
    }
}
