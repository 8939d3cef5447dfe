//! Gangs of any scheduler: their pods are created behind a gate, planned as a whole, and let go one by one, each to
//! its own node. Whatever scheduler the pod names binds it there.

mod steer;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use muster_scheduler_core::{Assignment, PodKey};

use crate::attempt::attempt;
use crate::bind::{Binder, PAUSES, UNREACHABLE, Verdict};
use steer::{Steering, steering};

impl Binder {
    /// Opens a pod's gate towards its place, as often as it takes to know that it is open.
    pub(crate) async fn open(&self, pod: &PodKey, place: &Assignment) -> Verdict {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let mut pauses = PAUSES.into_iter();
        loop {
            if self.stop.is_cancelled() {
                return Verdict::Unknown;
            }
            let Ok(permit) = self.permits.acquire().await else { return Verdict::Unknown };
            let patch = match attempt(api.get_opt(&pod.name)).await {
                Ok(Some(found)) => match steering(&found, place) {
                    Steering::Needed(patch) => patch,
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
            let patched = attempt(api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))).await;
            let Err(failure) = patched else { return Verdict::Bound };
            drop(permit);
            // A conflict is with another change of the pod: what is left to do is looked at again.
            let refused = failure.is_refusal() && failure.code() != Some(409);
            let Some(pause) = pauses.next().filter(|_| !refused) else {
                tracing::info!(error = %failure, %pod, node = place.node, "cannot open the gate");
                return Verdict::Refused(Some(failure.to_string()));
            };
            self.pause(Duration::from_millis(pause)).await;
        }
    }
}
