//! Namespace lifecycle: nothing is created in a namespace that is missing or ends; three can never end.

use std::sync::Arc;

use muster_store::ObjectKey;
use serde_json::{Value, json};

use crate::app::App;
use crate::bootstrap;
use crate::meta::{is_deleting, meta};
use crate::objects::Scope;
use crate::status::{About, ApiError, ApiResult, Cause};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses creations in missing and ending namespaces.
pub(crate) fn check_create(scope: &Scope<'_>, object: &Value) -> ApiResult<()> {
    if !scope.resource.namespaced {
        return Ok(());
    }
    let name = scope.namespace;
    let Some(entry) = scope.app.store.get(&ObjectKey::new("core/namespaces", "", name)) else {
        return Err(ApiError::not_found(About { group: "", what: "namespaces", name }));
    };
    if !is_deleting(&entry.object()) {
        return Ok(());
    }
    let about =
        About { group: &scope.resource.group, what: &scope.resource.plural, name: meta(object, "name") };
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let cause = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".into(),
    };
    Err(ApiError::forbidden(about, why).with_causes(&[cause]))
}

/// Refuses the end of the namespaces that the cluster itself needs.
pub(crate) fn check_delete(scope: &Scope<'_>, name: &str) -> ApiResult<()> {
    if scope.resource.is("", "namespaces") && IMMORTAL.contains(&name) {
        let about = About { group: "", what: "namespaces", name };
        return Err(ApiError::forbidden(about, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Every namespace carries its name as a label.
pub(crate) fn label(object: &mut Value) {
    let name = Value::from(meta(object, "name"));
    crate::meta::set_at(object, &["metadata", "labels", "kubernetes.io/metadata.name"], Some(name));
}

/// Puts into a namespace what every namespace has: the default service account and the cluster's certificate.
pub(crate) async fn furnish(app: &Arc<App>, namespace: &str) -> ApiResult<()> {
    let account = json!({ "kind": "ServiceAccount", "apiVersion": "v1", "metadata": { "name": "default" } });
    let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                       endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                       guaranteed across distributions of Kubernetes clusters.";
    let certificate = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "data": { "ca.crt": app.credentials.ca_pem },
        "metadata": {
            "name": "kube-root-ca.crt", "annotations": { "kubernetes.io/description": description },
        },
    });
    for (plural, object) in [("serviceaccounts", account), ("configmaps", certificate)] {
        bootstrap::ensure(app, ("", "v1", plural), namespace, object, "kube-controller-manager").await?;
    }
    Ok(())
}
