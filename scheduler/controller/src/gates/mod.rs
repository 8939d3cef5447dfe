//! Gangs of any scheduler: their pods are created behind a gate, planned as a whole, and let go one by one, each to
//! its own node. Whatever scheduler the pod names binds it there.

mod steer;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use muster_scheduler_core::{Assignment, PodKey};

use crate::attempt::{Failure, attempt};
use crate::bind::{Binder, PAUSES, UNREACHABLE, Verdict};
use steer::{Steering, steering};

impl Binder {
    /// Opens a pod's gate towards its place, as often as it takes to know that it is open.
    pub(crate) async fn open(&self, pod: &PodKey, place: &Assignment) -> Verdict {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let mut pauses = PAUSES.into_iter();
        let mut last: Option<Failure> = None;
        loop {
            if self.stop.is_cancelled() {
                return Verdict::Unknown;
            }
            let Ok(permit) = self.permits.acquire().await else { return Verdict::Unknown };
            let (patch, pause) = match attempt(api.get_opt(&pod.name)).await {
                Ok(Some(found)) => match steering(&found, place) {
                    Steering::Needed(patch) => (patch, pauses.next()),
                    Steering::Done => return Verdict::Bound,
                    Steering::Impossible => return Verdict::Refused(None),
                },
                Ok(None) => return Verdict::Refused(None),
                Err(unknown) => {
                    drop(permit);
                    tracing::info!(error = %unknown, %pod, "cannot see whether the gate is open; its place is kept");
                    self.pause(UNREACHABLE).await;
                    continue;
                }
            };
            // The look after the last attempt shows whether that one came to something.
            let Some(pause) = pause else {
                tracing::info!(%pod, node = place.node, "the gate does not open");
                return Verdict::Refused(last.map(|failure| failure.to_string()));
            };
            let patched = attempt(api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))).await;
            let Err(failure) = patched else { return Verdict::Bound };
            drop(permit);
            // A conflict is with another change of the pod: what is left to do is looked at again.
            if failure.is_refusal() && failure.code() != Some(409) {
                tracing::info!(error = %failure, %pod, node = place.node, "cannot open the gate");
                return Verdict::Refused(Some(failure.to_string()));
            }
            tracing::debug!(error = %failure, %pod, "the gate may not be open; looking again");
            last = Some(failure);
            self.pause(Duration::from_millis(pause)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use muster_machinery::CancellationToken;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::tell::Teller;

    /// A server with one pod, that loses the answer to every change, and carries out the one of this number.
    fn losing_answers(carried_out: usize) -> Client {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "a", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": [], "schedulingGates": [{"name": "muster.dev/gang"}]}});
        let state = Arc::new(Mutex::new((pod, 0)));
        let service = service_fn(move |request: Request<Body>| {
            let (code, body) = {
                let mut state = state.lock();
                if *request.method() == Method::PATCH {
                    state.1 += 1;
                    if state.1 == carried_out {
                        state.0["spec"]["schedulingGates"] = Value::Null;
                        state.0["metadata"]["annotations"] = json!({"muster.dev/placed-on": "n"});
                    }
                    let failed = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 504,
                        "reason": "Timeout", "message": "nobody knows"});
                    (504, failed)
                } else {
                    (200, state.0.clone())
                }
            };
            let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async move { answer.map_err(BoxError::from) }
        });
        Client::new(service, "a")
    }

    async fn verdict(carried_out: usize) -> Verdict {
        let client = losing_answers(carried_out);
        let teller = Teller::new(client.clone(), "muster");
        let binder = Binder::new(client, teller, CancellationToken::new());
        let place = Assignment { uid: "u".into(), node: "n".into(), ..Assignment::default() };
        binder.open(&PodKey::new("a", "p"), &place).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_is_looked_at_too() {
        assert!(matches!(verdict(1).await, Verdict::Bound));
        assert!(matches!(verdict(PAUSES.len()).await, Verdict::Bound));
        assert!(matches!(verdict(PAUSES.len() + 1).await, Verdict::Refused(Some(_))), "no attempt beyond");
    }
}
