//! May they: role based access control.

use muster_store::{ObjectKey, Query};
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::auth::User;
use crate::meta::{at, meta, text};
use crate::status::{About, ApiError, ApiResult};

/// What somebody wants to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    /// Verb, such as `list`.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Resource with its subresource: `pods/log`.
    pub resource: String,
    /// Object name, empty for none.
    pub name: String,
    /// Namespace, empty for the cluster.
    pub namespace: String,
    /// Path, when no object is asked for.
    pub path: Option<String>,
}

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a request for objects that no role allows.
pub(crate) fn authorize(call: &Call, verb: &str) -> ApiResult<()> {
    let resource = match &call.path.subresource {
        Some(subresource) => format!("{}/{subresource}", call.resource.plural),
        None => call.resource.plural.clone(),
    };
    let attributes = Attributes {
        verb: verb.to_owned(),
        group: call.resource.group.clone(),
        resource,
        name: call.path.name.clone().unwrap_or_default(),
        namespace: call.path.namespace.clone().unwrap_or_default(),
        path: None,
    };
    if allowed(&call.app, &call.user, &attributes) { Ok(()) } else { Err(refusal(call, &attributes)) }
}

fn refusal(call: &Call, attributes: &Attributes) -> ApiError {
    let scope = match attributes.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
        call.user.name, attributes.verb, attributes.resource, attributes.group
    );
    let about = About { group: &attributes.group, what: &call.resource.plural, name: &attributes.name };
    ApiError::forbidden(about, why)
}

/// Refuses a path that no role allows.
pub(crate) fn authorize_path(app: &App, user: &User, verb: &str, path: &str) -> ApiResult<()> {
    let attributes =
        Attributes { verb: verb.to_owned(), path: Some(path.to_owned()), ..Attributes::default() };
    if allowed(app, user, &attributes) {
        return Ok(());
    }
    let message = format!("forbidden: User \"{}\" cannot {verb} path \"{path}\"", user.name);
    Err(ApiError { code: 403, reason: "Forbidden", message, details: Some(json!({})), retry_after: None })
}

/// Whether a role allows it.
pub(crate) fn allowed(app: &App, user: &User, attributes: &Attributes) -> bool {
    user.is_master() || rules(app, user, &attributes.namespace).iter().any(|rule| covers(rule, attributes))
}

/// Every rule that holds for the user in a namespace (and in the cluster).
pub(crate) fn rules(app: &App, user: &User, namespace: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let cluster = app.store.list(&Query::new("rbac.authorization.k8s.io/clusterrolebindings")).entries;
    let local = if namespace.is_empty() {
        Vec::new()
    } else {
        app.store
            .list(&Query::new("rbac.authorization.k8s.io/rolebindings").namespace(Some(namespace)))
            .entries
    };
    for entry in cluster.iter().chain(&local) {
        let binding = entry.object();
        let subjects = at(&binding, &["subjects"]).as_array().into_iter().flatten();
        if subjects.into_iter().any(|subject| is_subject(subject, user, meta(&binding, "namespace"))) {
            found.extend(role_rules(app, at(&binding, &["roleRef"]), meta(&binding, "namespace")));
        }
    }
    found
}

fn is_subject(subject: &Value, user: &User, namespace: &str) -> bool {
    let name = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => user.name == name,
        "Group" => user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let own = text(subject, &["namespace"]);
            let namespace = if own.is_empty() { namespace } else { own };
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn role_rules(app: &App, role: &Value, namespace: &str) -> Vec<Value> {
    let name = text(role, &["name"]);
    let key = match text(role, &["kind"]) {
        "ClusterRole" => ObjectKey::new(format!("{GROUP}/clusterroles"), "", name),
        _ => ObjectKey::new(format!("{GROUP}/roles"), namespace, name),
    };
    let Some(entry) = app.store.get(&key) else { return Vec::new() };
    let role = entry.object();
    let mut rules = at(&role, &["rules"]).as_array().cloned().unwrap_or_default();
    let selectors = at(&role, &["aggregationRule", "clusterRoleSelectors"]).as_array();
    if let Some(selectors) = selectors {
        let others = app.store.list(&Query::new("rbac.authorization.k8s.io/clusterroles")).entries;
        for selector in selectors {
            let Ok(selector) = muster_admission::selectors::LabelSelector::from_json(selector) else {
                continue;
            };
            let chosen = others.iter().map(|entry| entry.object());
            let chosen = chosen.filter(|other| selector.matches(at(other, &["metadata", "labels"])));
            rules.extend(
                chosen.flat_map(|other| at(&other, &["rules"]).as_array().cloned().unwrap_or_default()),
            );
        }
    }
    rules
}

fn list_has(rule: &Value, key: &str, wanted: &str) -> bool {
    let list = at(rule, &[key]).as_array().into_iter().flatten();
    list.filter_map(Value::as_str).any(|entry| entry == "*" || entry == wanted)
}

fn covers(rule: &Value, attributes: &Attributes) -> bool {
    if !list_has(rule, "verbs", &attributes.verb) {
        return false;
    }
    if let Some(path) = &attributes.path {
        let paths = at(rule, &["nonResourceURLs"]).as_array().into_iter().flatten().filter_map(Value::as_str);
        return paths.into_iter().any(|own| match own.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => own == path,
        });
    }
    let any_of = attributes.resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
    let resource = list_has(rule, "resources", &attributes.resource)
        || any_of.is_some_and(|pattern| list_has(rule, "resources", &pattern));
    let names = at(rule, &["resourceNames"]).as_array().filter(|names| !names.is_empty());
    let named = names.is_none_or(|names| names.iter().any(|name| name == attributes.name.as_str()));
    resource && named && list_has(rule, "apiGroups", &attributes.group)
}
