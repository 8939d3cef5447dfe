//! Events about pods: told to the API in the background, dropped rather than waited for.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, PostParams};
use tokio::sync::mpsc;

/// So many events may wait to be told.
pub(crate) const QUEUE: usize = 256;

/// Something worth telling about a pod.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    object: ApiEvent,
}

impl Event {
    /// An event about `pod`, or about one of its containers.
    pub(crate) fn new(
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: String,
    ) -> Self {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let now = Timestamp::now();
        let component = "muster-node".to_owned();
        let host = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let object = ApiEvent {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:016x}", rand::random::<u64>())),
                namespace: pod.metadata.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: Some(name),
                uid: pod.metadata.uid.clone(),
                resource_version: pod.metadata.resource_version.clone(),
                field_path: container.map(|container| format!("spec.containers{{{container}}}")),
            },
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            reporting_component: Some(component.clone()),
            reporting_instance: host.clone(),
            source: Some(EventSource { component: Some(component), host }),
            ..ApiEvent::default()
        };
        Self { object }
    }
}

/// Tells queued events until the queue is closed.
pub(crate) async fn tell(client: kube::Client, mut queue: mpsc::Receiver<Event>) {
    while let Some(Event { object }) = queue.recv().await {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let api: Api<ApiEvent> = Api::namespaced(client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            tracing::debug!(%error, "an event was not accepted");
        }
    }
}
