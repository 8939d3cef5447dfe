//! Claims of devices: pods get those that their templates describe, and pods that have ended use theirs no more.

mod plan;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::error::{Result, gone_is_fine};
use crate::events::{Recorder, Severity, post_params};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::owners::controller_of;
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "resourceclaim-controller";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Whether a pod has all of its claims.
    Pod(Key),
    /// Whether a claim is still used.
    Claim(Key),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(formatter, "pod {key}"),
            Self::Claim(key) => write!(formatter, "claim {key}"),
        }
    }
}

/// The controller of claims of devices.
pub(crate) struct ResourceClaims {
    client: Client,
    recorder: Recorder,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<ResourceClaim>>,
    templates: Arc<Informer<ResourceClaimTemplate>>,
    queue: Queue<Subject>,
}

impl ResourceClaims {
    pub(crate) fn new(client: Client, informers: &Informers, recorder: Recorder) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            recorder,
            pods: informers.pods.clone(),
            claims: informers.resource_claims.clone(),
            templates: informers.resource_claim_templates.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.pods.on_change(move |change| {
            if let Some(pod) = change.latest() {
                own.pod_changed(pod, change.new.is_none());
            }
        });
        let own = controller.clone();
        informers.resource_claims.on_change(move |change| {
            let Some(claim) = change.latest() else { return };
            own.queue.add(Subject::Claim(Key::of(&**claim)));
            if let Some(owner) = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod") {
                let namespace = claim.namespace().unwrap_or_default();
                own.queue.add(Subject::Pod(Key::new(namespace, owner.name.clone())));
            }
        });
        let own = controller.clone();
        informers.resource_claim_templates.on_change(move |change| {
            let Some(template) = change.new else { return };
            let name = template.name_any();
            for pod in own.pods.in_namespace(&template.namespace().unwrap_or_default()) {
                if plan::templates(&pod).any(|(_, other)| other == name) {
                    own.queue.add(Subject::Pod(Key::of(&*pod)));
                }
            }
        });
        controller
    }

    fn pod_changed(&self, pod: &Pod, gone: bool) {
        if pod.spec.as_ref().is_none_or(|spec| spec.resource_claims.is_none()) {
            return;
        }
        let key = Key::of(pod);
        if gone || plan::is_done(pod) {
            for claim in plan::claims(pod) {
                self.queue.add(Subject::Claim(Key::new(key.namespace.clone(), claim)));
            }
        }
        self.queue.add(Subject::Pod(key));
    }

    /// Makes a claim for a pod from a template; its name, unless there is no such template.
    async fn make(&self, pod: &Pod, name: &str, template: &str) -> Result<Option<String>> {
        let key = Key::new(pod.namespace().unwrap_or_default(), template);
        let Some(template) = self.templates.get(&key) else {
            let message = format!(
                "ResourceClaimTemplate {template} of claim {name} does not exist; create it, or name another"
            );
            self.recorder.tell(COMPONENT, pod, Severity::Warning, "FailedResourceClaimCreation", message);
            return Ok(None);
        };
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let written = api.create(&post_params(), &plan::claim(pod, name, &template)).await?;
        self.claims.shows(&written).await?;
        Ok(Some(written.name_any()))
    }

    /// Makes the claims of a pod that are not there, and says on the pod which are its own.
    async fn furnish(&self, key: &Key) -> Result<()> {
        let Some(pod) = self.pods.get(key).filter(|pod| plan::needs_claims(pod)) else { return Ok(()) };
        let mut statuses = plan::statuses(&pod);
        let own = self.claims.controlled_by(&*pod);
        for (name, template) in plan::templates(&pod) {
            if statuses.iter().any(|status| status.name == name) {
                continue;
            }
            let known = own.iter().find(|claim| plan::is_for(claim, name)).map(|claim| claim.name_any());
            let made = match known {
                Some(made) => Some(made),
                None => self.make(&pod, name, template).await?,
            };
            statuses.extend(made.map(|made| plan::status(name, made)));
        }
        if statuses.len() > plan::statuses(&pod).len() {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"resourceClaimStatuses": statuses},
            });
            let params = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
            if let Some(written) =
                gone_is_fine(pods.patch_status(&key.name, &params, &Patch::Merge(patch)).await)?
            {
                self.pods.shows(&written).await?;
            }
        }
        Ok(())
    }

    /// Takes ended pods off a claim; whoever uses it no more leaves its devices to others.
    async fn look_after(&self, key: &Key) -> Result<()> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        let mut done = BTreeSet::new();
        for user in plan::pods(&claim) {
            if self.is_done(&Key::new(key.namespace.clone(), user.name.clone()), &user.uid).await? {
                done.insert(user.uid.clone());
            }
        }
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut claim = (*claim).clone();
        if let Some(status) = plan::without(&claim, &done) {
            claim.status = Some(status);
            claim = api.replace_status(&key.name, &post_params(), &claim).await?;
            self.claims.shows(&claim).await?;
        }
        if plan::needs_no_protection(&claim) {
            claim.finalizers_mut().retain(|finalizer| finalizer != plan::PROTECTION);
            // The last finalizer gone, the object may be gone with it.
            if let Some(written) = gone_is_fine(api.replace(&key.name, &post_params(), &claim).await)?
                && written.metadata.deletion_timestamp.is_none()
            {
                self.claims.shows(&written).await?;
            }
        }
        self.delete_if_done(key, &claim).await
    }

    /// A claim that was made for a pod ends with it, although the pod stays.
    async fn delete_if_done(&self, key: &Key, claim: &ResourceClaim) -> Result<()> {
        let Some(owner) = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod") else {
            return Ok(());
        };
        let pod = Key::new(key.namespace.clone(), owner.name.clone());
        if claim.metadata.deletion_timestamp.is_some() || !self.is_done(&pod, &owner.uid).await? {
            return Ok(());
        }
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let preconditions = Some(Preconditions { uid: claim.uid(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        gone_is_fine(api.delete(&key.name, &parameters).await)?;
        Ok(())
    }

    /// Whether a pod needs its claims no more. One that the cache does not know may only be new.
    async fn is_done(&self, key: &Key, uid: &str) -> Result<bool> {
        let same = |pod: &Pod| pod.metadata.uid.as_deref() == Some(uid);
        if let Some(pod) = self.pods.get(key).filter(|pod| same(pod)) {
            return Ok(plan::is_done(&pod));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await?;
        Ok(found.filter(same).is_none_or(|pod| plan::is_done(&pod)))
    }
}

impl Reconcile for ResourceClaims {
    type Key = Subject;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Subject> {
        &self.queue
    }

    async fn reconcile(&self, subject: &Subject) -> Result<Option<Duration>> {
        match subject {
            Subject::Pod(key) => self.furnish(key).await?,
            Subject::Claim(key) => self.look_after(key).await?,
        }
        Ok(None)
    }
}
