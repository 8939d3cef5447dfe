//! What a fresh cluster already has: namespaces, system priority classes, the basic roles.

use std::sync::Arc;

use muster_store::ObjectKey;
use serde_json::{Value, json};

use crate::app::App;
use crate::meta::meta;
use crate::objects::{Ownership, Scope};
use crate::plugins::namespace;
use crate::request::WriteOptions;
use crate::status::ApiResult;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Creates an object if it is not there.
pub(crate) async fn ensure(
    app: &Arc<App>,
    (group, version, plural): (&str, &str, &str),
    namespace: &str,
    object: Value,
    manager: &str,
) -> ApiResult<()> {
    let Some(resource) = app.registry.snapshot().find(group, version, plural) else { return Ok(()) };
    let key = ObjectKey::new(resource.storage_key.clone(), namespace, meta(&object, "name"));
    if app.store.get(&key).is_some() {
        return Ok(());
    }
    let options = WriteOptions::default();
    let mut scope = Scope {
        app,
        resource: &resource,
        namespace,
        options: &options,
        default_manager: manager,
        ownership: Ownership::Writer,
    };
    match scope.create(object).await {
        // Somebody else was faster, or the namespace ends: both are fine.
        Err(error) if matches!(error.code, 403 | 404 | 409) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Creates what is missing.
pub(crate) async fn fill(app: &Arc<App>) -> ApiResult<()> {
    for name in NAMESPACES {
        let object = json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name } });
        ensure(app, ("", "v1", "namespaces"), "", object, "kube-apiserver").await?;
        namespace::furnish(app, name).await?;
    }
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)]
    {
        let description = if name == "system-node-critical" {
            "Used for system critical pods that must not be moved from their current node."
        } else {
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
        };
        let object = json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": { "name": name },
            "value": value, "description": description,
        });
        ensure(app, ("scheduling.k8s.io", "v1", "priorityclasses"), "", object, "kube-apiserver").await?;
    }
    for (name, rules, groups) in roles() {
        let labels = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
        let metadata = json!({ "name": name, "labels": labels });
        let api_version = "rbac.authorization.k8s.io/v1";
        let role =
            json!({ "kind": "ClusterRole", "apiVersion": api_version, "metadata": metadata, "rules": rules });
        ensure(app, ("rbac.authorization.k8s.io", "v1", "clusterroles"), "", role, "kube-apiserver").await?;
        if groups.is_empty() {
            continue;
        }
        let subjects: Vec<Value> = groups
            .iter()
            .map(|group| json!({ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group }))
            .collect();
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
        let binding = json!({
            "kind": "ClusterRoleBinding", "apiVersion": api_version, "metadata": metadata, "roleRef": role,
            "subjects": subjects,
        });
        ensure(
            app,
            ("rbac.authorization.k8s.io", "v1", "clusterrolebindings"),
            "",
            binding,
            "kube-apiserver",
        )
        .await?;
    }
    Ok(())
}

/// Cluster roles, their rules, and the groups that have them.
fn roles() -> [(&'static str, Value, &'static [&'static str]); 7] {
    let everything = ["*"];
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    // Built-in groups whose objects the namespaced roles cover.
    let groups = [
        "",
        "apps",
        "autoscaling",
        "batch",
        "networking.k8s.io",
        "policy",
        "events.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
    ];
    let all = || json!({ "verbs": everything, "apiGroups": everything, "resources": everything });
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let public = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let workloads = |verbs: &[&str]| json!({ "verbs": verbs, "apiGroups": groups, "resources": ["*"] });
    let roles = json!({ "verbs": write, "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"] });
    let review = json!({
        "verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    });
    let identity = json!({ "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"] });
    let plain = [
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "resourcequotas",
        "serviceaccounts",
        "services",
    ];
    let view = json!([
        { "verbs": read, "apiGroups": [""], "resources": plain },
        { "verbs": read, "apiGroups": &groups[1..], "resources": ["*"] },
    ]);
    [
        (
            "cluster-admin",
            json!([all(), { "verbs": everything, "nonResourceURLs": everything }]),
            &["system:masters"],
        ),
        ("admin", json!([workloads(&write), roles]), &[]),
        ("edit", json!([workloads(&write)]), &[]),
        ("view", view, &[]),
        ("system:basic-user", json!([review, identity]), &["system:authenticated"]),
        (
            "system:discovery",
            json!([{ "verbs": ["get"], "nonResourceURLs": discovery }]),
            &["system:authenticated"],
        ),
        (
            "system:public-info-viewer",
            json!([{ "verbs": ["get"], "nonResourceURLs": public }]),
            &["system:authenticated", "system:unauthenticated"],
        ),
    ]
}
