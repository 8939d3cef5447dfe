//! The table of built-in resources, one row each, in the order in which discovery names them.

use std::sync::Arc;

use crate::registry::{Resource, Subresource};

/// A subresource: its path segment, group, version and kind of its body (empty: the object's own), verbs.
struct SubRow(&'static str, &'static str, &'static str, &'static str, &'static str);

/// One built-in resource.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static str,
    subresources: &'static [SubRow],
}

const NAMESPACED: bool = true;
const CLUSTER: bool = false;
const ALL: &str = "create,delete,deletecollection,get,list,patch,update,watch";
const CREATE: &str = "create";
const CHANGE: &str = "get,patch,update";
const STREAM: &str = "create,get";
const PROXY: &str = "create,delete,get,patch,update";
const STATUS: SubRow = SubRow("status", "", "", "", CHANGE);
const SCALE: SubRow = SubRow("scale", "autoscaling", "v1", "Scale", CHANGE);

const fn sub(
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static str,
) -> SubRow {
    SubRow(name, group, version, kind, verbs)
}

#[expect(clippy::too_many_arguments, reason = "a table row, read column by column")]
const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    verbs: &'static str,
    subresources: &'static [SubRow],
) -> Row {
    Row { group, version, plural, singular, kind, namespaced, short_names, categories, verbs, subresources }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("", "v1", "bindings", "binding", "Binding", NAMESPACED, &[], &[], CREATE, &[]),
    row("", "v1", "configmaps", "configmap", "ConfigMap", NAMESPACED, &["cm"], &[], ALL, &[]),
    row("", "v1", "endpoints", "endpoints", "Endpoints", NAMESPACED, &["ep"], &[], ALL, &[]),
    row("", "v1", "events", "event", "Event", NAMESPACED, &["ev"], &[], ALL, &[]),
    row("", "v1", "limitranges", "limitrange", "LimitRange", NAMESPACED, &["limits"], &[], ALL, &[]),
    row("", "v1", "namespaces", "namespace", "Namespace", CLUSTER, &["ns"], &[], "create,delete,get,list,patch,update,watch", &[sub("finalize", "", "", "", "update"), STATUS]),
    row("", "v1", "nodes", "node", "Node", CLUSTER, &["no"], &[], ALL, &[sub("proxy", "", "v1", "NodeProxyOptions", PROXY), STATUS]),
    row("", "v1", "persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim", NAMESPACED, &["pvc"], &[], ALL, &[STATUS]),
    row("", "v1", "persistentvolumes", "persistentvolume", "PersistentVolume", CLUSTER, &["pv"], &[], ALL, &[STATUS]),
    row("", "v1", "pods", "pod", "Pod", NAMESPACED, &["po"], &["all"], ALL, &[sub("attach", "", "v1", "PodAttachOptions", STREAM), sub("binding", "", "v1", "Binding", CREATE), sub("ephemeralcontainers", "", "", "", CHANGE), sub("eviction", "policy", "v1", "Eviction", CREATE), sub("exec", "", "v1", "PodExecOptions", STREAM), sub("log", "", "", "", "get"), sub("portforward", "", "v1", "PodPortForwardOptions", STREAM), sub("proxy", "", "v1", "PodProxyOptions", PROXY), sub("resize", "", "", "", CHANGE), STATUS]),
    row("", "v1", "podtemplates", "podtemplate", "PodTemplate", NAMESPACED, &[], &[], ALL, &[]),
    row("", "v1", "replicationcontrollers", "replicationcontroller", "ReplicationController", NAMESPACED, &["rc"], &["all"], ALL, &[SCALE, STATUS]),
    row("", "v1", "resourcequotas", "resourcequota", "ResourceQuota", NAMESPACED, &["quota"], &[], ALL, &[STATUS]),
    row("", "v1", "secrets", "secret", "Secret", NAMESPACED, &[], &[], ALL, &[]),
    row("", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount", NAMESPACED, &["sa"], &[], ALL, &[sub("token", "authentication.k8s.io", "v1", "TokenRequest", CREATE)]),
    row("", "v1", "services", "service", "Service", NAMESPACED, &["svc"], &["all"], ALL, &[sub("proxy", "", "v1", "ServiceProxyOptions", PROXY), STATUS]),
    row("apps", "v1", "controllerrevisions", "controllerrevision", "ControllerRevision", NAMESPACED, &[], &[], ALL, &[]),
    row("apps", "v1", "daemonsets", "daemonset", "DaemonSet", NAMESPACED, &["ds"], &["all"], ALL, &[STATUS]),
    row("apps", "v1", "deployments", "deployment", "Deployment", NAMESPACED, &["deploy"], &["all"], ALL, &[SCALE, STATUS]),
    row("apps", "v1", "replicasets", "replicaset", "ReplicaSet", NAMESPACED, &["rs"], &["all"], ALL, &[SCALE, STATUS]),
    row("apps", "v1", "statefulsets", "statefulset", "StatefulSet", NAMESPACED, &["sts"], &["all"], ALL, &[SCALE, STATUS]),
    row("events.k8s.io", "v1", "events", "event", "Event", NAMESPACED, &["ev"], &[], ALL, &[]),
    row("authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", CLUSTER, &[], &[], CREATE, &[]),
    row("authentication.k8s.io", "v1", "tokenreviews", "tokenreview", "TokenReview", CLUSTER, &[], &[], CREATE, &[]),
    row("authorization.k8s.io", "v1", "localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview", NAMESPACED, &[], &[], CREATE, &[]),
    row("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview", CLUSTER, &[], &[], CREATE, &[]),
    row("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview", CLUSTER, &[], &[], CREATE, &[]),
    row("authorization.k8s.io", "v1", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", CLUSTER, &[], &[], CREATE, &[]),
    row("autoscaling", "v2", "horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler", NAMESPACED, &["hpa"], &["all"], ALL, &[STATUS]),
    row("autoscaling", "v1", "horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler", NAMESPACED, &["hpa"], &["all"], ALL, &[STATUS]),
    row("batch", "v1", "cronjobs", "cronjob", "CronJob", NAMESPACED, &["cj"], &["all"], ALL, &[STATUS]),
    row("batch", "v1", "jobs", "job", "Job", NAMESPACED, &[], &["all"], ALL, &[STATUS]),
    row("certificates.k8s.io", "v1", "certificatesigningrequests", "certificatesigningrequest", "CertificateSigningRequest", CLUSTER, &["csr"], &[], ALL, &[sub("approval", "", "", "", CHANGE), STATUS]),
    row("networking.k8s.io", "v1", "ingressclasses", "ingressclass", "IngressClass", CLUSTER, &[], &[], ALL, &[]),
    row("networking.k8s.io", "v1", "ingresses", "ingress", "Ingress", NAMESPACED, &["ing"], &[], ALL, &[STATUS]),
    row("networking.k8s.io", "v1", "ipaddresses", "ipaddress", "IPAddress", CLUSTER, &["ip"], &[], ALL, &[]),
    row("networking.k8s.io", "v1", "networkpolicies", "networkpolicy", "NetworkPolicy", NAMESPACED, &["netpol"], &[], ALL, &[]),
    row("networking.k8s.io", "v1", "servicecidrs", "servicecidr", "ServiceCIDR", CLUSTER, &[], &[], ALL, &[STATUS]),
    row("policy", "v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget", NAMESPACED, &["pdb"], &[], ALL, &[STATUS]),
    row("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding", CLUSTER, &[], &[], ALL, &[]),
    row("rbac.authorization.k8s.io", "v1", "clusterroles", "clusterrole", "ClusterRole", CLUSTER, &[], &[], ALL, &[]),
    row("rbac.authorization.k8s.io", "v1", "rolebindings", "rolebinding", "RoleBinding", NAMESPACED, &[], &[], ALL, &[]),
    row("rbac.authorization.k8s.io", "v1", "roles", "role", "Role", NAMESPACED, &[], &[], ALL, &[]),
    row("storage.k8s.io", "v1", "csidrivers", "csidriver", "CSIDriver", CLUSTER, &[], &[], ALL, &[]),
    row("storage.k8s.io", "v1", "csinodes", "csinode", "CSINode", CLUSTER, &[], &[], ALL, &[]),
    row("storage.k8s.io", "v1", "csistoragecapacities", "csistoragecapacity", "CSIStorageCapacity", NAMESPACED, &[], &[], ALL, &[]),
    row("storage.k8s.io", "v1", "storageclasses", "storageclass", "StorageClass", CLUSTER, &["sc"], &[], ALL, &[]),
    row("storage.k8s.io", "v1", "volumeattachments", "volumeattachment", "VolumeAttachment", CLUSTER, &[], &[], ALL, &[STATUS]),
    row("storage.k8s.io", "v1", "volumeattributesclasses", "volumeattributesclass", "VolumeAttributesClass", CLUSTER, &["vac"], &[], ALL, &[]),
    row("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", "mutatingadmissionpolicy", "MutatingAdmissionPolicy", CLUSTER, &[], &["api-extensions"], ALL, &[]),
    row("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding", "MutatingAdmissionPolicyBinding", CLUSTER, &[], &["api-extensions"], ALL, &[]),
    row("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "mutatingwebhookconfiguration", "MutatingWebhookConfiguration", CLUSTER, &[], &["api-extensions"], ALL, &[]),
    row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "validatingadmissionpolicy", "ValidatingAdmissionPolicy", CLUSTER, &[], &["api-extensions"], ALL, &[STATUS]),
    row("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding", "ValidatingAdmissionPolicyBinding", CLUSTER, &[], &["api-extensions"], ALL, &[]),
    row("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "validatingwebhookconfiguration", "ValidatingWebhookConfiguration", CLUSTER, &[], &["api-extensions"], ALL, &[]),
    row("apiextensions.k8s.io", "v1", "customresourcedefinitions", "customresourcedefinition", "CustomResourceDefinition", CLUSTER, &["crd", "crds"], &["api-extensions"], ALL, &[STATUS]),
    row("scheduling.k8s.io", "v1", "priorityclasses", "priorityclass", "PriorityClass", CLUSTER, &["pc"], &[], ALL, &[]),
    row("coordination.k8s.io", "v1", "leases", "lease", "Lease", NAMESPACED, &[], &[], ALL, &[]),
    row("node.k8s.io", "v1", "runtimeclasses", "runtimeclass", "RuntimeClass", CLUSTER, &[], &[], ALL, &[]),
    row("discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice", NAMESPACED, &[], &[], ALL, &[]),
    row("resource.k8s.io", "v1", "deviceclasses", "deviceclass", "DeviceClass", CLUSTER, &[], &[], ALL, &[]),
    row("resource.k8s.io", "v1", "resourceclaims", "resourceclaim", "ResourceClaim", NAMESPACED, &[], &[], ALL, &[STATUS]),
    row("resource.k8s.io", "v1", "resourceclaimtemplates", "resourceclaimtemplate", "ResourceClaimTemplate", NAMESPACED, &[], &[], ALL, &[]),
    row("resource.k8s.io", "v1", "resourceslices", "resourceslice", "ResourceSlice", CLUSTER, &[], &[], ALL, &[]),
    row("metrics.k8s.io", "v1beta1", "nodes", "", "NodeMetrics", CLUSTER, &[], &[], "get,list", &[]),
    row("metrics.k8s.io", "v1beta1", "pods", "", "PodMetrics", NAMESPACED, &[], &[], "get,list", &[]),
];

fn words(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

impl Row {
    fn storage_key(&self) -> Arc<str> {
        // events.k8s.io is a second view of the core events.
        let group = if self.group.is_empty() || self.group == "events.k8s.io" { "core" } else { self.group };
        format!("{group}/{}", self.plural).into()
    }

    fn resource(&self) -> Resource {
        let subresources =
            self.subresources.iter().map(|SubRow(name, group, version, kind, verbs)| Subresource {
                name: (*name).to_owned(),
                kind: (!kind.is_empty())
                    .then(|| ((*group).to_owned(), (*version).to_owned(), (*kind).to_owned())),
                verbs: words(verbs),
            });
        Resource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.singular.to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            namespaced: self.namespaced,
            short_names: owned(self.short_names),
            categories: owned(self.categories),
            verbs: words(self.verbs),
            subresources: subresources.collect(),
            storage_key: self.storage_key(),
            custom: None,
            schema: std::sync::OnceLock::new(),
        }
    }
}

/// Every built-in resource.
pub(crate) fn resources() -> Vec<Resource> {
    TABLE.iter().map(Row::resource).collect()
}
