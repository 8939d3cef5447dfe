//! Runs stateful sets: pods with ordinals, each with a name and claims of its own that outlive it.

mod identity;
mod plan;
mod retention;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use plan::{Follows, Names, Plan};
use serde_json::{Value, json};

use crate::claims::{claimed_where, look_again};
use crate::error::{Result, existing_is_fine, gone_is_fine};
use crate::events::{Recorder, Severity, post_params};
use crate::history::{self, Histories, History};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "statefulset-controller";
/// When to look again for claims that are about to go.
const STALE_CLAIM_PAUSE: Duration = Duration::from_millis(500);

/// The stateful set controller.
pub(crate) struct StatefulSets {
    client: Client,
    recorder: Recorder,
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    histories: Histories,
    queue: Queue<Key>,
}

/// The two templates of a set.
struct Templates<'a> {
    names: Names<'a>,
    current: PodTemplateSpec,
    update: PodTemplateSpec,
}

impl Templates<'_> {
    fn of(&self, follows: Follows) -> (&PodTemplateSpec, &str) {
        match follows {
            Follows::Current => (&self.current, self.names.current),
            Follows::Update => (&self.update, self.names.update),
        }
    }
}

impl StatefulSets {
    pub(crate) fn new(client: Client, informers: &Informers, recorder: Recorder) -> Arc<Self> {
        let controller = Arc::new(Self {
            client: client.clone(),
            recorder,
            sets: informers.stateful_sets.clone(),
            pods: informers.pods.clone(),
            claims: informers.claims.clone(),
            histories: Histories::new(client, informers.revisions.clone()),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.stateful_sets.on_change(move |change| {
            if let Some(set) = change.latest() {
                own.queue.add(Key::of(&**set));
            }
        });
        let own = controller.clone();
        informers.pods.on_change(move |change| {
            for pod in [change.old, change.new].into_iter().flatten() {
                // The set whose name it bears may want it.
                look_again(&own.queue, &own.sets, pod, |set| identity::ordinal(set, pod).is_some());
            }
        });
        controller
    }

    fn pods_api(&self, set: &StatefulSet) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default())
    }

    fn claims_api(&self, set: &StatefulSet) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default())
    }

    /// The claims of an ordinal that exist.
    fn claims_of(&self, set: &StatefulSet, ordinal: i32) -> Vec<Arc<PersistentVolumeClaim>> {
        let claims = identity::claims(set, ordinal);
        claims.iter().filter_map(|(_, claim)| self.claims.get(&Key::of(claim))).collect()
    }

    /// Gives the claims of every pod the owner that the set's policy names.
    async fn retain(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Result<()> {
        let Some(spec) = &set.spec else { return Ok(()) };
        for pod in pods {
            let Some(ordinal) = identity::ordinal(set, pod) else { continue };
            let condemned = plan::is_condemned(spec, ordinal);
            for claim in self.claims_of(set, ordinal) {
                let Some(owners) = retention::owners(set, pod, condemned, &claim) else { continue };
                let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
                let patch = json!({ "metadata": {
                    "uid": claim.uid(), "resourceVersion": claim.resource_version(), "ownerReferences": owners,
                }});
                let answer = self
                    .claims_api(set)
                    .patch(&claim.name_any(), &patch_params(), &Patch::Merge(patch))
                    .await;
                if let Some(written) = gone_is_fine(answer)? {
                    self.claims.shows(&written).await?;
                }
            }
        }
        Ok(())
    }

    /// Creates the claims of an ordinal that are missing.
    async fn furnish(&self, set: &StatefulSet, ordinal: i32) -> Result<()> {
        let pod = identity::pod_name(set, ordinal);
        for (_, mut claim) in identity::claims(set, ordinal) {
            if self.claims.get(&Key::of(&claim)).is_some() {
                continue;
            }
            claim.metadata.owner_references = retention::first_owners(set);
            let answer = self.claims_api(set).create(&post_params(), &claim).await.inspect_err(|error| {
                let what = format!("Claim {} Pod {pod}", claim.name_any());
                self.tell_refused(set, "create", "FailedCreate", &what, error);
            });
            if let Some(written) = existing_is_fine(answer)? {
                let message = format!(
                    "create Claim {} Pod {pod} in StatefulSet {} success",
                    claim.name_any(),
                    set.name_any()
                );
                self.recorder.tell(COMPONENT, set, Severity::Normal, "SuccessfulCreate", message);
                self.claims.shows(&written).await?;
            }
        }
        Ok(())
    }

    fn tell(&self, set: &StatefulSet, verb: &str, reason: &str, pod: &str) {
        let message = format!("{verb} Pod {pod} in StatefulSet {} successful", set.name_any());
        self.recorder.tell(COMPONENT, set, Severity::Normal, reason, message);
    }

    fn tell_refused(
        &self,
        set: &StatefulSet,
        verb: &str,
        reason: &'static str,
        what: &str,
        error: &kube::Error,
    ) {
        let deed = format!("{verb} {what} in StatefulSet {} failed error", set.name_any());
        self.recorder.tell_refused(COMPONENT, set, reason, &deed, error);
    }

    async fn create(&self, set: &StatefulSet, pod: Pod) -> Result<()> {
        let answer = self.pods_api(set).create(&post_params(), &pod).await.inspect_err(|error| {
            self.tell_refused(set, "create", "FailedCreate", &format!("Pod {}", pod.name_any()), error);
        });
        let written = answer?;
        self.tell(set, "create", "SuccessfulCreate", &written.name_any());
        self.pods.shows(&written).await
    }

    async fn mark(&self, set: &StatefulSet, pod: &Pod) -> Result<()> {
        let Some(ordinal) = identity::ordinal(set, pod) else { return Ok(()) };
        let labels = json!({
            identity::POD_NAME: pod.name_any(), identity::POD_INDEX: ordinal.to_string(),
        });
        let patch = json!({ "metadata": { "uid": pod.uid(), "labels": labels } });
        let answer = self.pods_api(set).patch(&pod.name_any(), &patch_params(), &Patch::Merge(patch)).await;
        if let Some(written) = gone_is_fine(answer)? {
            self.pods.shows(&written).await?;
        }
        Ok(())
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<()> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let answer = self.pods_api(set).delete(&pod.name_any(), &parameters).await.inspect_err(|error| {
            self.tell_refused(set, "delete", "FailedDelete", &format!("Pod {}", pod.name_any()), error);
        });
        if gone_is_fine(answer)?.is_some() {
            self.tell(set, "delete", "SuccessfulDelete", &pod.name_any());
        }
        self.pods.shows_deletion(&Key::of(pod), pod.metadata.uid.as_deref()).await
    }

    /// Carries a plan out; returns whether a pod waits for claims of an earlier pod to go.
    async fn act(&self, set: &StatefulSet, plan: &Plan, templates: &Templates<'_>) -> Result<bool> {
        for ordinal in &plan.furnish {
            self.furnish(set, *ordinal).await?;
        }
        for pod in &plan.mark {
            self.mark(set, pod).await?;
        }
        for pod in &plan.delete {
            self.delete(set, pod).await?;
        }
        let mut waits = false;
        for (ordinal, follows) in &plan.create {
            let name = identity::pod_name(set, *ordinal);
            if self.claims_of(set, *ordinal).iter().any(|claim| retention::is_stale(claim, &name)) {
                waits = true;
                continue;
            }
            self.furnish(set, *ordinal).await?;
            let (template, revision) = templates.of(*follows);
            self.create(set, identity::pod(set, *ordinal, template, revision)).await?;
        }
        Ok(waits)
    }

    async fn write(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = StatefulSet { status: Some(status), ..set.clone() };
        let sets: Api<StatefulSet> =
            Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        let answer = sets.replace_status(&set.name_any(), &post_params(), &changed).await;
        if let Some(written) = gone_is_fine(answer)? {
            self.sets.shows(&written).await?;
        }
        Ok(())
    }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() }
}

/// The templates of before the rollout and of now, out of the set's history.
fn templates<'a>(set: &'a StatefulSet, history: &'a History) -> Templates<'a> {
    let update = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let present = history.present.metadata.name.as_deref().unwrap_or_default();
    let name = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let named = history.all.iter().find(|one| one.metadata.name.as_deref() == name);
    match named.and_then(|one| Some((one.metadata.name.as_deref()?, history::template(one)?))) {
        Some((current, template)) => {
            Templates { names: Names { current, update: present }, current: template, update }
        }
        None => {
            Templates { names: Names { current: present, update: present }, current: update.clone(), update }
        }
    }
}

impl Reconcile for StatefulSets {
    type Key = Key;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(set) = self.sets.get(key) else { return Ok(None) };
        let Some(spec) = &set.spec else { return Ok(None) };
        let named = |pod: &Pod| identity::ordinal(&set, pod).is_some();
        let pods = claimed_where(&self.client, &self.pods, &*set, &spec.selector, None, named).await?;
        let history = self.histories.of(&*set).await?;
        let templates = templates(&set, &history);
        let plan = plan::plan(&set, &pods, templates.names, Timestamp::now());
        if set.metadata.deletion_timestamp.is_none() {
            self.retain(&set, &pods).await?;
        }
        let acted = self.act(&set, &plan, &templates).await;
        let pods = self.pods.controlled_by(&*set);
        let plan = plan::plan(&set, &pods, templates.names, Timestamp::now());
        let mut status = plan.status;
        status.collision_count = Some(history.collisions);
        // What the set has and lacks is told also when a pod is refused.
        self.write(&set, status).await?;
        let waits = acted?;
        let followed = pods.iter().map(|pod| identity::revision(pod).to_owned());
        let named = [templates.names.current.to_owned(), templates.names.update.to_owned()];
        let in_use: BTreeSet<String> = followed.chain(named).collect();
        self.histories.shorten(&*set, &history, &in_use).await?;
        Ok(plan.again.into_iter().chain(waits.then_some(STALE_CLAIM_PAUSE)).min())
    }
}
