//! Rolls deployments out: one replica set per pod template, replicas move from the old ones to the new one.

mod rollout;
mod status;
mod template;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};
use rollout::{Pace, Scaling, Share, Strategy, pace};
use serde_json::{Map, Value, json};

use crate::claims::claimed;
use crate::error::{Error, Result, existing_is_fine, gone_is_fine};
use crate::events::{Recorder, Severity, post_params};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::owners::controller_of;
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const ALLOWED: &str = "deployment.kubernetes.io/max-replicas";

/// The deployment controller.
pub(crate) struct Deployments {
    client: Client,
    recorder: Recorder,
    cache: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    queue: Queue<Key>,
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn number<T: std::str::FromStr>(object: &impl Resource, annotation: &str) -> Option<T> {
    object.meta().annotations.as_ref()?.get(annotation)?.parse().ok()
}

fn revision(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

fn share(set: &ReplicaSet) -> Share {
    Share {
        name: set.name_any(),
        replicas: replicas(set),
        available: set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
        desired: number(set, DESIRED),
        allowed: number(set, ALLOWED),
    }
}

/// The replica sets of a deployment.
struct Sets {
    /// All of them, from the oldest on.
    all: Vec<Arc<ReplicaSet>>,
    /// The one that runs the present template.
    new: Option<Arc<ReplicaSet>>,
}

impl Sets {
    fn sort(deployment: &Deployment, mut all: Vec<Arc<ReplicaSet>>) -> Self {
        all.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.name_any()));
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let runs = |set: &&Arc<ReplicaSet>| template.is_some_and(|template| template::runs(set, template));
        let new = all.iter().find(runs).cloned();
        Self { all, new }
    }

    fn old(&self) -> impl DoubleEndedIterator<Item = &Arc<ReplicaSet>> {
        let new = self.new.as_ref().and_then(|new| new.uid());
        self.all.iter().filter(move |set| set.uid() != new)
    }

    fn total(&self) -> i32 {
        self.all.iter().map(|set| replicas(set)).sum()
    }
}

impl Deployments {
    pub(crate) fn new(client: Client, informers: &Informers, recorder: Recorder) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            recorder,
            cache: informers.deployments.clone(),
            sets: informers.replica_sets.clone(),
            pods: informers.pods.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.deployments.on_change(move |change| {
            if let Some(deployment) = change.latest() {
                own.queue.add(Key::of(&**deployment));
            }
        });
        let own = controller.clone();
        informers.replica_sets.on_change(move |change| {
            for set in [change.old, change.new].into_iter().flatten() {
                own.set_changed(set);
            }
        });
        let own = controller.clone();
        informers.pods.on_change(move |change| {
            // A deployment that recreates its pods waits for the last old one.
            let ended = change.new.is_none_or(|pod| crate::pods::is_finished(pod));
            let Some(pod) = change.latest().filter(|_| ended) else { return };
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == ReplicaSet::kind(&()));
            let key = owner.map(|owner| Key::new(pod.namespace().unwrap_or_default(), owner.name.clone()));
            if let Some(set) = key.and_then(|key| own.sets.get(&key)) {
                own.set_changed(&set);
            }
        });
        controller
    }

    fn set_changed(&self, set: &ReplicaSet) {
        let namespace = set.namespace().unwrap_or_default();
        match controller_of(&set.metadata) {
            Some(owner) if owner.kind == Deployment::kind(&()) => {
                self.queue.add(Key::new(namespace, owner.name.clone()));
            }
            Some(_) => {}
            None => {
                for deployment in self.cache.in_namespace(&namespace) {
                    self.queue.add(Key::of(&*deployment));
                }
            }
        }
    }

    fn sets_api(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default())
    }

    async fn patch(&self, deployment: &Deployment, set: &ReplicaSet, patch: Value) -> Result<()> {
        let api = self.sets_api(deployment);
        let written = api.patch(&set.name_any(), &patch_params(), &Patch::Merge(patch)).await?;
        self.sets.shows(&written).await
    }

    async fn scale(&self, deployment: &Deployment, pace: Pace, sets: &Sets, scaling: Scaling) -> Result<()> {
        for (name, wanted) in scaling {
            let Some(set) = sets.all.iter().find(|set| set.name_any() == name) else { continue };
            let before = replicas(set);
            let patch = json!({
                "metadata": {
                    "resourceVersion": set.resource_version(),
                    "annotations": {
                        DESIRED: pace.desired.to_string(), ALLOWED: (pace.desired + pace.surge).to_string(),
                    },
                },
                "spec": { "replicas": wanted },
            });
            self.patch(deployment, set, patch).await?;
            self.tell_scaling(deployment, &name, before, wanted);
        }
        Ok(())
    }

    fn tell_scaling(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.recorder.tell(COMPONENT, deployment, Severity::Normal, "ScalingReplicaSet", message);
    }

    /// Creates the replica set of the present template; none when another had its name.
    async fn create(&self, deployment: &Deployment, sets: &Sets) -> Result<Option<Arc<ReplicaSet>>> {
        let Some(mut set) = template::build(deployment) else { return Ok(None) };
        let (strategy, pace) = pace(deployment);
        let wanted = match strategy {
            Strategy::Rolling => rollout::grow(strategy, pace, 0, sets.total()),
            Strategy::Recreate => 0,
        };
        let wanted = if strategy == Strategy::Recreate && sets.total() == 0 && !self.pods_left(sets) {
            pace.desired
        } else {
            wanted
        };
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(wanted);
        }
        let revision = sets.all.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
        let annotations = set.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.into(), revision.to_string());
        annotations.insert(DESIRED.into(), pace.desired.to_string());
        annotations.insert(ALLOWED.into(), (pace.desired + pace.surge).to_string());
        if let Some(written) = existing_is_fine(self.sets_api(deployment).create(&post_params(), &set).await)?
        {
            self.sets.shows(&written).await?;
            if wanted > 0 {
                self.tell_scaling(deployment, &written.name_any(), 0, wanted);
            }
            return Ok(Some(Arc::new(written)));
        }
        // Either the cache is behind, or another template has this hash.
        let found = self.sets_api(deployment).get_opt(&set.name_any()).await?;
        let spec = deployment.spec.as_ref();
        let ours = |found: &ReplicaSet| {
            crate::owners::controller_uid(&found.metadata) == deployment.metadata.uid.as_deref()
                && spec.is_some_and(|spec| template::runs(found, &spec.template))
        };
        if found.is_some_and(|found| !ours(&found)) {
            let count = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0) + 1;
            let api: Api<Deployment> =
                Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "status": { "collisionCount": count } }));
            api.patch_status(&deployment.name_any(), &patch_params(), &patch).await?;
        }
        Ok(None)
    }

    fn pods_left(&self, sets: &Sets) -> bool {
        let pods = sets.old().flat_map(|set| self.pods.controlled_by(&**set));
        pods.into_iter().any(|pod| !crate::pods::is_finished(&pod))
    }

    /// Gives the new set the highest revision and the deployment's annotations.
    async fn annotate(&self, deployment: &Deployment, sets: &Sets) -> Result<()> {
        let Some(new) = &sets.new else { return Ok(()) };
        let mut wanted: Map<String, Value> =
            template::inherited(deployment).into_iter().map(|(key, value)| (key, value.into())).collect();
        let newest = sets.old().map(|set| revision(set)).max().unwrap_or(0) + 1;
        let own = revision(new);
        if own < newest {
            wanted.insert(REVISION.into(), newest.to_string().into());
            if own > 0 {
                let history = new.annotations().get(REVISION_HISTORY);
                let history = history.map_or_else(|| own.to_string(), |history| format!("{history},{own}"));
                wanted.insert(REVISION_HISTORY.into(), history.into());
            }
        }
        wanted.retain(|key, value| new.annotations().get(key).map(String::as_str) != value.as_str());
        if !wanted.is_empty() {
            let metadata = json!({ "resourceVersion": new.resource_version(), "annotations": wanted });
            self.patch(deployment, new, json!({ "metadata": metadata })).await?;
        }
        let current = own.max(newest).to_string();
        if deployment.annotations().get(REVISION) != Some(&current) {
            let api: Api<Deployment> =
                Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "metadata": { "annotations": { REVISION: current } } }));
            let written = api.patch(&deployment.name_any(), &patch_params(), &patch).await?;
            self.cache.shows(&written).await?;
        }
        Ok(())
    }

    /// Deletes the oldest sets beyond the history limit.
    async fn clean(&self, deployment: &Deployment, sets: &Sets) -> Result<()> {
        let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let empty = |set: &&Arc<ReplicaSet>| {
            replicas(set) == 0
                && set.metadata.deletion_timestamp.is_none()
                && set.status.as_ref().is_none_or(|status| status.replicas == 0)
                && set.metadata.generation
                    <= set.status.as_ref().and_then(|status| status.observed_generation).or(Some(0))
        };
        let mut old: Vec<&Arc<ReplicaSet>> = sets.old().collect();
        let Some(extra) = old.len().checked_sub(usize::try_from(limit).unwrap_or(0)) else { return Ok(()) };
        old.sort_by_key(|set| revision(set));
        for set in old.into_iter().take(extra).filter(empty) {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: set.uid(), resource_version: None }),
                ..DeleteParams::background()
            };
            gone_is_fine(self.sets_api(deployment).delete(&set.name_any(), &parameters).await)?;
        }
        Ok(())
    }

    async fn sets(&self, deployment: &Deployment) -> Result<Sets> {
        let Some(spec) = &deployment.spec else {
            return Err(Error::Missing { what: deployment.name_any(), field: "spec" });
        };
        let claimed = claimed(&self.client, &self.sets, deployment, &spec.selector, None).await?;
        Ok(Sets::sort(deployment, claimed))
    }

    /// Moves replicas; returns whether a new set was created.
    async fn advance(&self, deployment: &Deployment, sets: &Sets) -> Result<bool> {
        let (strategy, pace) = pace(deployment);
        let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
        let active = || sets.all.iter().filter(|set| replicas(set) > 0);
        let was_scaled =
            active().any(|set| number(&**set, DESIRED).is_some_and(|before: i32| before != pace.desired));
        if paused || was_scaled {
            let new = sets.new.as_ref().map(|set| share(set));
            let shares: Vec<Share> =
                new.clone().into_iter().chain(sets.old().rev().map(|set| share(set))).collect();
            let scaling = rollout::rescale(strategy, pace, new.as_ref(), &shares);
            self.scale(deployment, pace, sets, scaling).await?;
            self.note_pace(deployment, pace).await?;
            return Ok(false);
        }
        let Some(new) = &sets.new else { return Ok(self.create(deployment, sets).await?.is_some()) };
        let (new, old) = (share(new), sets.old().map(|set| share(set)).collect::<Vec<_>>());
        let scaling = match strategy {
            Strategy::Rolling => rollout::roll(pace, &new, &old),
            Strategy::Recreate => rollout::recreate(pace, &new, &old, self.pods_left(sets)),
        };
        self.scale(deployment, pace, sets, scaling).await?;
        Ok(false)
    }

    /// Notes on every active set what the deployment wants now, so that a rescaling is done once.
    async fn note_pace(&self, deployment: &Deployment, pace: Pace) -> Result<()> {
        for set in self.sets(deployment).await?.all.iter().filter(|set| replicas(set) > 0) {
            if number::<i32>(&**set, DESIRED) != Some(pace.desired) {
                let annotations = json!({
                    DESIRED: pace.desired.to_string(), ALLOWED: (pace.desired + pace.surge).to_string(),
                });
                self.patch(deployment, set, json!({ "metadata": { "annotations": annotations } })).await?;
            }
        }
        Ok(())
    }
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() }
}

impl Reconcile for Deployments {
    type Key = Key;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(deployment) = self.cache.get(key) else { return Ok(None) };
        let mut created = false;
        if deployment.metadata.deletion_timestamp.is_none() {
            let sets = self.sets(&deployment).await?;
            self.annotate(&deployment, &sets).await?;
            // The annotations gave the sets new revisions.
            let sets = self.sets(&deployment).await?;
            created = self.advance(&deployment, &sets).await?;
            self.clean(&deployment, &self.sets(&deployment).await?).await?;
            if created {
                self.annotate(&deployment, &self.sets(&deployment).await?).await?;
            }
        }
        let Some(deployment) = self.cache.get(key) else { return Ok(None) };
        let sets = Sets::sort(&deployment, self.sets.controlled_by(&*deployment));
        let (status, again) =
            status::status(&deployment, &sets.all, sets.new.as_deref(), created, Timestamp::now());
        if deployment.status.as_ref() != Some(&status) {
            let changed = Deployment { status: Some(status), ..(*deployment).clone() };
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), &key.namespace);
            if let Some(written) =
                gone_is_fine(api.replace_status(&key.name, &post_params(), &changed).await)?
            {
                self.cache.shows(&written).await?;
            }
        }
        Ok(again)
    }
}
