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

/// So many events about the normal course of things are told at once.
const BURST: f64 = 100.0;
/// And so many per second after that, as a kubelet does; the rest is dropped.
const PER_SECOND: f64 = 50.0;

/// A bucket that fills with time. Pure.
#[derive(Debug)]
struct Allowance {
    left: f64,
    filled: Timestamp,
}

impl Allowance {
    fn take(&mut self, now: Timestamp) -> bool {
        let seconds = now.duration_since(self.filled).as_secs_f64().max(0.0);
        self.filled = now;
        self.left = (self.left + seconds * PER_SECOND).min(BURST);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

/// Tells queued events until the queue is closed.
pub(crate) async fn tell(client: kube::Client, mut queue: mpsc::Receiver<Event>) {
    let mut allowance = Allowance { left: BURST, filled: Timestamp::now() };
    while let Some(Event { object }) = queue.recv().await {
        if object.type_.as_deref() == Some("Normal") && !allowance.take(Timestamp::now()) {
            continue;
        }
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let api: Api<ApiEvent> = Api::namespaced(client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            tracing::debug!(%error, "an event was not accepted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_and_then_the_rate() {
        let begin = Timestamp::UNIX_EPOCH;
        let mut allowance = Allowance { left: BURST, filled: begin };
        let told = (0..500).filter(|_| allowance.take(begin)).count();
        assert_eq!(told, 100);
        let later = begin + jiff::SignedDuration::from_millis(100);
        assert_eq!((0..500).filter(|_| allowance.take(later)).count(), 5);
    }
}
