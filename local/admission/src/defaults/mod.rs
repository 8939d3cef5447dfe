//! What a Kubernetes 1.36 server fills in when it decodes an object: one function per kind, found by group and kind.

mod pod;
mod service;
mod storage;
mod various;
mod workload;

use serde_json::Value;

use crate::group;
use crate::json::Fields;

type Default = fn(&mut Fields);

/// Every kind with defaults.
const KINDS: [((&str, &str), Default); 31] = [
    (("", "Pod"), pod::pod),
    (("", "PodTemplate"), pod::pod_template_holder),
    (("", "ReplicationController"), workload::replica_set),
    (("apps", "Deployment"), workload::deployment),
    (("apps", "ReplicaSet"), workload::replica_set),
    (("apps", "StatefulSet"), workload::stateful_set),
    (("apps", "DaemonSet"), workload::daemon_set),
    (("batch", "Job"), workload::job),
    (("batch", "CronJob"), workload::cron_job),
    (("autoscaling", "HorizontalPodAutoscaler"), workload::autoscaler),
    (("policy", "PodDisruptionBudget"), workload::disruption_budget),
    (("", "Service"), service::service),
    (("", "Endpoints"), service::endpoints),
    (("discovery.k8s.io", "EndpointSlice"), service::endpoint_slice),
    (("networking.k8s.io", "NetworkPolicy"), service::network_policy),
    (("networking.k8s.io", "Ingress"), service::ingress),
    (("", "Secret"), storage::secret),
    (("", "PersistentVolumeClaim"), storage::claim),
    (("", "PersistentVolume"), storage::volume),
    (("storage.k8s.io", "StorageClass"), storage::class),
    (("", "Namespace"), various::namespace),
    (("", "Node"), various::node),
    (("", "Event"), various::event),
    (("events.k8s.io", "Event"), various::event_v1),
    (("", "ResourceQuota"), various::resource_quota),
    (("", "LimitRange"), various::limit_range),
    (("coordination.k8s.io", "Lease"), various::lease),
    (("scheduling.k8s.io", "PriorityClass"), various::priority_class),
    (("rbac.authorization.k8s.io", "Role"), various::role),
    (("rbac.authorization.k8s.io", "ClusterRole"), various::role),
    (("autoscaling", "Scale"), various::scale),
];

/// Fills in an object's defaults. Role bindings are covered as well; a kind without defaults stays as it is.
pub fn apply(api_version: &str, kind: &str, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let group = group(api_version);
    if group == "rbac.authorization.k8s.io" && kind.ends_with("RoleBinding") {
        various::role_binding(fields);
    } else if (api_version, kind) == ("autoscaling/v1", "HorizontalPodAutoscaler") {
        // The rest comes with the stored form, see `convert`.
        workload::autoscaler_v1(fields);
    } else if let Some((_, default)) = KINDS.iter().find(|(known, _)| *known == (group, kind)) {
        default(fields);
    }
}

/// Where the pod spec of a kind that holds one is.
pub fn pod_spec_path(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    Some(match (group(api_version), kind) {
        ("", "Pod") => &["spec"],
        ("", "PodTemplate") => &["template", "spec"],
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => &["spec", "template", "spec"],
        ("batch", "CronJob") => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => return None,
    })
}
