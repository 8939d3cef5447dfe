//! What the controllers want to know of a pod. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};

use crate::informer::Object;

/// Of what a pod runs, controllers ask for names, ports and resources; environments and volumes are most of it.
impl Object for Pod {
    fn trim(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let Container { name, ports, resources, restart_policy, .. } = std::mem::take(container);
            *container = Container { name, ports, resources, restart_policy, ..Container::default() };
        }
        if let Some(volumes) = &mut spec.volumes {
            volumes.retain(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some());
        }
    }
}

/// The phase, empty when there is none yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The pod ended.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Somebody deleted the pod.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The pod runs or will run.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// A condition of the pod.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// The pod may receive traffic.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// How long until the pod has been ready for `min_ready_seconds`: zero when it has been, none when it is not ready.
pub(crate) fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<SignedDuration> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    if min_ready_seconds <= 0 {
        return Some(SignedDuration::ZERO);
    }
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let left = SignedDuration::from_secs(min_ready_seconds.into()) - now.duration_since(since);
    Some(left.max(SignedDuration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_pod_says_what_controllers_ask_for() {
        let whole = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": {
                "nodeName": "n", "hostname": "h", "subdomain": "s", "resourceClaims": [{ "name": "gpu" }],
                "containers": [{
                    "name": "c", "image": "i", "command": ["true"], "env": [{ "name": "A", "value": "b" }],
                    "ports": [{ "name": "http", "containerPort": 80 }],
                    "resources": { "requests": { "cpu": "1" } },
                }],
                "initContainers": [{ "name": "side", "restartPolicy": "Always", "image": "i" }],
                "volumes": [
                    { "name": "token", "projected": { "sources": [] } },
                    { "name": "data", "persistentVolumeClaim": { "claimName": "data" } },
                ],
            },
        });
        let mut pod: Pod = serde_json::from_value(whole.clone()).unwrap();
        pod.trim();
        let mut kept = whole;
        let spec = kept["spec"].as_object_mut().unwrap();
        for name in ["image", "command", "env"] {
            spec["containers"][0].as_object_mut().unwrap().remove(name);
            spec["initContainers"][0].as_object_mut().unwrap().remove(name);
        }
        spec["volumes"].as_array_mut().unwrap().remove(0);
        assert_eq!(serde_json::to_value(pod).unwrap(), kept);
    }
}
