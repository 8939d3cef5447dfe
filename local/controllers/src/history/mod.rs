//! The templates that a stateful or daemon set had, as `ControllerRevision`s: pods tell which one they follow, and
//! `kubectl rollout undo` goes back to one.

mod plan;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};
use plan::Step;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::claims::claimed;
use crate::error::{Error, Result, existing_is_fine, gone_is_fine};
use crate::events::post_params;
use crate::informer::{Informer, Key};
use crate::owners::controller_uid;

pub(crate) use plan::template;

/// Label of a pod that names the revision it follows.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
/// Names tried for one revision, should others have them.
const NAMES: i32 = 16;

/// An owner of pods whose templates are kept.
pub(crate) trait Revisioned:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned
{
    /// The label of a revision that holds its hash.
    const HASH_LABEL: &'static str;

    /// The template now.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// What finds its pods and revisions.
    fn selector(&self) -> Option<&LabelSelector>;
    /// How many old revisions are kept.
    fn limit(&self) -> i32;
    /// How often others had the name of a revision.
    fn collisions(&self) -> i32;
}

impl Revisioned for StatefulSet {
    const HASH_LABEL: &'static str = "controller.kubernetes.io/hash";

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }

    fn limit(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10)
    }

    fn collisions(&self) -> i32 {
        self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
    }
}

impl Revisioned for DaemonSet {
    const HASH_LABEL: &'static str = REVISION_LABEL;

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref().map(|spec| &spec.template)
    }

    fn selector(&self) -> Option<&LabelSelector> {
        self.spec.as_ref().map(|spec| &spec.selector)
    }

    fn limit(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10)
    }

    fn collisions(&self) -> i32 {
        self.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0)
    }
}

/// The revisions of one owner.
#[derive(Debug)]
pub(crate) struct History {
    /// All of them, from the oldest on.
    pub all: Vec<Arc<ControllerRevision>>,
    /// That of the present template.
    pub present: Arc<ControllerRevision>,
    /// How often others had its name.
    pub collisions: i32,
}

/// Reads and writes histories.
pub(crate) struct Histories {
    client: Client,
    cache: Arc<Informer<ControllerRevision>>,
}

impl Histories {
    pub(crate) fn new(client: Client, cache: Arc<Informer<ControllerRevision>>) -> Self {
        Self { client, cache }
    }

    fn api(&self, owner: &impl Resource) -> Api<ControllerRevision> {
        let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The revisions of the owner, the present template's among them.
    pub(crate) async fn of<O: Revisioned>(&self, owner: &O) -> Result<History> {
        let (Some(selector), Some(template)) = (owner.selector(), owner.template()) else {
            return Err(Error::Missing { what: owner.name_any(), field: "spec" });
        };
        let mut all = claimed(&self.client, &self.cache, owner, selector, None).await?;
        plan::sort(&mut all);
        let (present, collisions) = match plan::step(&all, template) {
            Step::Newest(present) => (present, owner.collisions()),
            Step::Again(old, number) => {
                let patch = json!({
                    "metadata": { "uid": old.uid(), "resourceVersion": old.resource_version() },
                    "revision": number,
                });
                let parameters =
                    PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
                let written =
                    self.api(owner).patch(&old.name_any(), &parameters, &Patch::Merge(patch)).await?;
                self.cache.shows(&written).await?;
                (Arc::new(written), owner.collisions())
            }
            Step::New(number) => self.create(owner, template, number).await?,
        };
        all.retain(|one| one.metadata.uid != present.metadata.uid);
        all.push(present.clone());
        Ok(History { all, present, collisions })
    }

    async fn create<O: Revisioned>(
        &self,
        owner: &O,
        template: &PodTemplateSpec,
        number: i64,
    ) -> Result<(Arc<ControllerRevision>, i32)> {
        let first = owner.collisions();
        for collisions in first..first.saturating_add(NAMES) {
            let revision = plan::build(owner, template, number, collisions);
            if let Some(written) = existing_is_fine(self.api(owner).create(&post_params(), &revision).await)?
            {
                self.cache.shows(&written).await?;
                return Ok((Arc::new(written), collisions));
            }
            // Either the cache is behind, or somebody else has the name.
            let found = self.api(owner).get_opt(&revision.name_any()).await?;
            let ours = found.filter(|found| controller_uid(&found.metadata) == owner.meta().uid.as_deref());
            if let Some(found) = ours.filter(|found| plan::template(found).as_ref() == Some(template)) {
                return Ok((Arc::new(found), collisions));
            }
        }
        Err(Error::NamesTaken { what: format!("a revision of {}", owner.name_any()), tried: NAMES })
    }

    /// Deletes the oldest revisions beyond the owner's limit; those named in `in_use` stay.
    pub(crate) async fn shorten<O: Revisioned>(
        &self,
        owner: &O,
        history: &History,
        in_use: &BTreeSet<String>,
    ) -> Result<()> {
        for old in plan::surplus(&history.all, in_use, owner.limit()) {
            let parameters = DeleteParams {
                preconditions: Some(Preconditions { uid: old.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            gone_is_fine(self.api(owner).delete(&old.name_any(), &parameters).await)?;
            self.cache.shows_deletion(&Key::of(&*old), old.metadata.uid.as_deref()).await?;
        }
        Ok(())
    }
}
