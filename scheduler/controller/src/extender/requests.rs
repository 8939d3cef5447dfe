//! The requests to the API server: fenced reservations, bindings of the very pod.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use muster_scheduler_api::{GangReservation, annotations};
use muster_scheduler_extender::core::{
    BindOutcome, BindPod, GangKey, SeenReservation, WriteOutcome, WriteReservation,
};
use muster_scheduler_extender::server;
use serde_json::{Value, json};
use tokio::time::timeout;

/// Who wrote a reservation: value of the label `app.kubernetes.io/managed-by`, and the field manager.
pub const MANAGED_BY: &str = "muster-extender";
/// Label of whoever wrote an object.
pub(super) const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// A request without an answer is given up, and its outcome asked for; kube-scheduler waits five seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a request failed.
enum Failure {
    /// It was refused with this code: nothing happened.
    Refused(u16, String),
    /// Nobody knows whether it happened.
    Unknown(String),
}

/// The requests to one cluster.
#[derive(Clone)]
pub(super) struct Requests {
    client: Client,
}

/// Waits for an answer, and tells a refusal from one that got lost.
async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code < 500 => {
            Err(Failure::Refused(status.code, status.message.clone()))
        }
        Ok(Err(error)) => Err(Failure::Unknown(muster_machinery::hint::chain(&error))),
        Err(_) => Err(Failure::Unknown(format!(
            "the API server did not answer within {} seconds",
            PATIENCE.as_secs()
        ))),
    }
}

impl Requests {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    fn reservations(&self, gang: &GangKey) -> Api<GangReservation> {
        Api::namespaced(self.client.clone(), &gang.namespace)
    }

    async fn write(self, write: WriteReservation) -> WriteOutcome {
        let api = self.reservations(&write.gang);
        let mut object = GangReservation::from(&write);
        object.metadata.labels = Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())]));
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        let written = match &write.replaces {
            None => answer(api.create(&PostParams::default(), &object)).await,
            // The version in it is the precondition; what others put into the metadata stays.
            Some(_) => answer(api.patch(&write.gang.name, &parameters, &Patch::Merge(&object))).await,
        };
        match written {
            Ok(written) => WriteOutcome::Written(written.metadata.resource_version.unwrap_or_default()),
            Err(Failure::Refused(409, message)) => match answer(api.get_opt(&write.gang.name)).await {
                Ok(current) => WriteOutcome::Conflict(current.as_ref().map(SeenReservation::from)),
                // It was refused, whatever is there now.
                Err(_) => WriteOutcome::Failed(message),
            },
            Err(Failure::Refused(404, _)) if write.replaces.is_some() => WriteOutcome::Conflict(None),
            Err(Failure::Refused(_, message)) => WriteOutcome::Failed(message),
            Err(Failure::Unknown(message)) => WriteOutcome::Unknown(message),
        }
    }

    async fn bind(self, bind: BindPod) -> BindOutcome {
        let slots: Vec<String> = bind.gpu_indices.iter().map(u32::to_string).collect();
        let chosen = (!slots.is_empty())
            .then(|| BTreeMap::from([(annotations::GPU_INDICES.to_owned(), slots.join(","))]));
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(bind.pod.name.clone()),
                namespace: Some(bind.pod.namespace.clone()),
                // This very pod, not a successor of the same name.
                uid: Some(bind.uid.clone()),
                annotations: chosen,
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(bind.node.clone()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &bind.pod.namespace);
        let parameters = PostParams::default();
        let request =
            api.create_subresource::<Binding, Value>("binding", &bind.pod.name, &parameters, &binding);
        match answer(request).await {
            Ok(_) => BindOutcome::Bound,
            Err(Failure::Refused(404, _)) => BindOutcome::Gone,
            // It has a node already, or it is another pod.
            Err(Failure::Refused(409, message)) => match self.look(bind).await {
                BindOutcome::NotBound => BindOutcome::Failed(message),
                found => found,
            },
            Err(Failure::Refused(_, message)) => BindOutcome::Failed(message),
            Err(Failure::Unknown(message)) => BindOutcome::Unknown(message),
        }
    }

    async fn look(self, bind: BindPod) -> BindOutcome {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &bind.pod.namespace);
        match answer(api.get_opt(&bind.pod.name)).await {
            Ok(Some(pod)) if pod.metadata.uid.as_ref() == Some(&bind.uid) => {
                let node = pod.spec.and_then(|spec| spec.node_name).filter(|node| !node.is_empty());
                node.map_or(BindOutcome::NotBound, BindOutcome::AlreadyBound)
            }
            Ok(_) => BindOutcome::Gone,
            Err(Failure::Refused(_, message) | Failure::Unknown(message)) => BindOutcome::Unknown(message),
        }
    }

    async fn mark_bound(self, gang: GangKey, epoch: i64) {
        let steps = json!([
            {"op": "test", "path": "/spec/epoch", "value": epoch},
            {"op": "add", "path": "/status", "value": {"phase": "Bound"}},
        ]);
        let Ok(steps) = serde_json::from_value(steps) else { return };
        let api = self.reservations(&gang);
        let (parameters, steps) = (PatchParams::default(), Patch::Json::<()>(steps));
        let marked = answer(api.patch_status(&gang.name, &parameters, &steps)).await;
        if let Err(Failure::Refused(_, error) | Failure::Unknown(error)) = marked {
            tracing::debug!(error, %gang, "cannot mark the reservation as bound");
        }
    }

    pub(super) async fn remove(self, gang: GangKey, resource_version: String) {
        let preconditions = Some(Preconditions { resource_version: Some(resource_version), uid: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let api = self.reservations(&gang);
        match answer(api.delete(&gang.name, &parameters)).await {
            Ok(_) | Err(Failure::Refused(404 | 409, _)) => {}
            Err(Failure::Refused(_, error) | Failure::Unknown(error)) => {
                tracing::debug!(error, %gang, "cannot remove the reservation of a gang without pods");
            }
        }
    }
}

impl server::Api for Requests {
    fn write(&self, write: WriteReservation) -> BoxFuture<'static, WriteOutcome> {
        self.clone().write(write).boxed()
    }

    fn bind(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome> {
        self.clone().bind(bind).boxed()
    }

    fn look(&self, bind: BindPod) -> BoxFuture<'static, BindOutcome> {
        self.clone().look(bind).boxed()
    }

    fn mark_bound(&self, gang: GangKey, epoch: i64) -> BoxFuture<'static, ()> {
        self.clone().mark_bound(gang, epoch).boxed()
    }

    fn remove(&self, gang: GangKey, resource_version: String) -> BoxFuture<'static, ()> {
        self.clone().remove(gang, resource_version).boxed()
    }
}
