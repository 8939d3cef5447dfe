//! What every pod gets: its service account's token, tolerations for a node that fails, its priority.

use muster_store::{ObjectKey, Query};
use serde_json::{Value, json};

use crate::meta::{at, meta, random_letters, set_at, text};
use crate::objects::Scope;
use crate::status::{About, ApiError, ApiResult};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the token in a pod is asked to live; the odd seconds mark it as the server's own wish.
const TOKEN_SECONDS: u32 = 3_607;
/// How long a pod stays on a node that stopped answering.
const TOLERATION_SECONDS: u32 = 300;

fn forbidden(pod: &Value, why: String) -> ApiError {
    ApiError::forbidden(About { group: "", what: "pods", name: meta(pod, "name") }, why)
}

/// Names the pod's service account and mounts its token.
pub(crate) fn service_account(scope: &Scope<'_>, pod: &mut Value) -> ApiResult<()> {
    let name = match text(pod, &["spec", "serviceAccountName"]) {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    set_at(pod, &["spec", "serviceAccountName"], Some(name.clone().into()));
    set_at(pod, &["spec", "serviceAccount"], Some(name.clone().into()));
    let key = ObjectKey::new("core/serviceaccounts", scope.namespace, name.as_str());
    let Some(account) = scope.app.store.get(&key) else {
        let why = format!(
            "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
            scope.namespace
        );
        return Err(forbidden(pod, why));
    };
    let account = account.object();
    if at(pod, &["spec", "imagePullSecrets"]).as_array().is_none_or(Vec::is_empty)
        && let Some(secrets) = account.get("imagePullSecrets").filter(|secrets| !secrets.is_null())
    {
        set_at(pod, &["spec", "imagePullSecrets"], Some(secrets.clone()));
    }
    let wanted = at(pod, &["spec", "automountServiceAccountToken"]).as_bool();
    if wanted.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(pod);
    }
    Ok(())
}

fn mount_token(pod: &mut Value) {
    let volume = format!("kube-api-access-{}", random_letters(5));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let mounts = at(container, &["volumeMounts"]).as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH) {
                continue;
            }
            let own = json!({ "name": volume, "readOnly": true, "mountPath": TOKEN_PATH });
            let mounts: Vec<Value> = mounts.into_iter().chain([own]).collect();
            set_at(container, &["volumeMounts"], Some(mounts.into()));
            used = true;
        }
    }
    if !used {
        return;
    }
    let namespace =
        json!({ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } });
    let projected = json!({
        "name": volume,
        "projected": {
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [namespace] } },
            ],
            "defaultMode": 420,
        },
    });
    let volumes = at(pod, &["spec", "volumes"]).as_array().cloned().unwrap_or_default();
    let volumes: Vec<Value> = volumes.into_iter().chain([projected]).collect();
    set_at(pod, &["spec", "volumes"], Some(volumes.into()));
}

/// Lets the pod stay for a while on a node that fails.
pub(crate) fn tolerations(pod: &mut Value) {
    let mut list = at(pod, &["spec", "tolerations"]).as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |toleration: &Value| {
            let same_key = text(toleration, &["key"]) == key || text(toleration, &["key"]).is_empty();
            same_key && matches!(text(toleration, &["effect"]), "" | "NoExecute")
        };
        if !list.iter().any(covers) {
            list.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            }));
        }
    }
    set_at(pod, &["spec", "tolerations"], Some(list.into()));
}

/// A replacement that leaves out the numbers of its priority keeps them.
pub(crate) fn keep_priority(old: &Value, pod: &mut Value) {
    for field in ["priority", "preemptionPolicy"] {
        let before = at(old, &["spec", field]);
        if at(pod, &["spec", field]).is_null() && !before.is_null() {
            set_at(pod, &["spec", field], Some(before.clone()));
        }
    }
}

/// Turns the name of the priority class into numbers.
pub(crate) fn priority(scope: &Scope<'_>, pod: &mut Value) -> ApiResult<()> {
    const CLASSES: &str = "scheduling.k8s.io/priorityclasses";
    let name = text(pod, &["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        let classes = scope.app.store.list(&Query::new(CLASSES)).entries;
        let defaults =
            classes.iter().map(|entry| entry.object()).filter(|class| class["globalDefault"] == true);
        defaults.min_by_key(|class| class["value"].as_i64())
    } else {
        let found = scope.app.store.get(&ObjectKey::new(CLASSES, "", name.as_str()));
        let Some(found) = found else {
            return Err(forbidden(pod, format!("no PriorityClass with name {name} was found")));
        };
        Some(found.object())
    };
    let (value, policy) = match &class {
        Some(class) => (class["value"].as_i64().unwrap_or(0), text(class, &["preemptionPolicy"]).to_owned()),
        None => (0, String::new()),
    };
    if let Some(given) = at(pod, &["spec", "priority"]).as_i64().filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        );
        return Err(forbidden(pod, why));
    }
    if let Some(class) = &class {
        set_at(pod, &["spec", "priorityClassName"], Some(meta(class, "name").into()));
    }
    set_at(pod, &["spec", "priority"], Some(value.into()));
    let policy = if policy.is_empty() { "PreemptLowerPriority".to_owned() } else { policy };
    set_at(pod, &["spec", "preemptionPolicy"], Some(policy.into()));
    Ok(())
}
