//! Pods that a controller creates and deletes for their owner, and what it tells of that.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};

use crate::error::{Result, gone_is_fine};
use crate::events::{Recorder, Severity, post_params};
use crate::informer::{Informer, Key};

/// Writes the pods of one controller. Each call ends when the controller's cache shows what was written.
pub(crate) struct PodWriter {
    client: Client,
    recorder: Recorder,
    pods: Arc<Informer<Pod>>,
    component: &'static str,
}

impl PodWriter {
    pub(crate) fn new(
        client: Client,
        recorder: Recorder,
        pods: Arc<Informer<Pod>>,
        component: &'static str,
    ) -> Self {
        Self { client, recorder, pods, component }
    }

    fn api<O: Resource<DynamicType = ()>>(&self, owner: &O) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &owner.namespace().unwrap_or_default())
    }

    fn tell_refused<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        reason: &'static str,
        doing: &str,
        error: &kube::Error,
    ) {
        self.recorder.tell_refused(self.component, owner, reason, &format!("Error {doing}"), error);
    }

    /// Creates a pod beside its owner.
    pub(crate) async fn create<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: &Pod) -> Result<()> {
        let answer = self.api(owner).create(&post_params(), pod).await;
        let written =
            answer.inspect_err(|error| self.tell_refused(owner, "FailedCreate", "creating", error))?;
        let message = format!("Created pod: {}", written.name_any());
        self.recorder.tell(self.component, owner, Severity::Normal, "SuccessfulCreate", message);
        self.pods.shows(&written).await
    }

    /// Deletes this very pod; one that is gone already is fine.
    pub(crate) async fn delete<O: Resource<DynamicType = ()>>(&self, owner: &O, pod: &Pod) -> Result<()> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let answer = self.api(owner).delete(&pod.name_any(), &parameters).await;
        let answer = answer.inspect_err(|error| self.tell_refused(owner, "FailedDelete", "deleting", error));
        if gone_is_fine(answer)?.is_some() {
            let message = format!("Deleted pod: {}", pod.name_any());
            self.recorder.tell(self.component, owner, Severity::Normal, "SuccessfulDelete", message);
        }
        self.pods.shows_deletion(&Key::of(pod), pod.metadata.uid.as_deref()).await
    }
}
