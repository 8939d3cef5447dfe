//! What is served here: groups, versions, resources; and the paths that are no objects.

use std::sync::Arc;

use http::request;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::User;
use crate::negotiate::{self, Encoding};
use crate::openapi;
use crate::rbac;
use crate::registry::{Resource, Snapshot};
use crate::request::{Query, Route};
use crate::respond::{self, Reply};
use crate::status::{ApiError, ApiResult};
use crate::telemetry;

/// Answers a path that names no objects.
pub(crate) fn answer(
    app: &App,
    parts: &request::Parts,
    route: &Route,
    query: &Query,
    user: &User,
) -> ApiResult<Reply> {
    let verb = parts.method.as_str().to_lowercase();
    rbac::authorize_path(app, user, &verb, parts.uri.path())?;
    if let Route::Other(path) = route {
        return Ok(other(app, path, parts, query));
    }
    if parts.method != http::Method::GET && parts.method != http::Method::HEAD {
        return Err(ApiError::method_not_allowed());
    }
    let snapshot = app.registry.snapshot();
    let aggregated = negotiate::aggregated_discovery(&parts.headers);
    let json = |value: &Value| respond::value(200, Encoding::Json, value);
    Ok(match route {
        Route::CoreVersions => match aggregated {
            Some(version) => aggregated_reply(version, &aggregated_list(&snapshot, version, true)),
            None => json(&core_versions(app)),
        },
        Route::Groups => match aggregated {
            Some(version) => aggregated_reply(version, &aggregated_list(&snapshot, version, false)),
            None => json(&groups(&snapshot)),
        },
        Route::Group(group) => match snapshot.versions(group) {
            Some(_) if !group.is_empty() => {
                let mut found = group_value(&snapshot, group);
                found["kind"] = "APIGroup".into();
                found["apiVersion"] = "v1".into();
                json(&found)
            }
            _ => respond::page_not_found(),
        },
        Route::GroupVersion(group, version) => match snapshot.resources(group, version) {
            Some(resources) => json(&resource_list(group, version, resources)),
            None => respond::page_not_found(),
        },
        Route::Resource(_) | Route::Other(_) => respond::page_not_found(),
    })
}

fn other(app: &App, path: &str, parts: &request::Parts, query: &Query) -> Reply {
    if let Some(path) = path.strip_prefix("/openapi/v3") {
        return openapi::answer(app, path.trim_matches('/'));
    }
    match path.trim_end_matches('/') {
        "/metrics" => respond::text(200, telemetry::text(app)),
        "/openapi/v2" => openapi::answer_v2(&parts.headers),
        "/version" => respond::value(200, Encoding::Json, &version()),
        "/healthz" | "/livez" | "/readyz" => {
            let name = path.trim_matches('/');
            if query.get("verbose").is_some() {
                respond::text(
                    200,
                    format!("[+]ping ok\n[+]log ok\n[+]storage ok\n[+]shutdown ok\n{name} check passed\n"),
                )
            } else {
                respond::text(200, "ok")
            }
        }
        "" => respond::value(
            200,
            Encoding::Json,
            &json!({ "paths": [
                "/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"
            ] }),
        ),
        _ => respond::page_not_found(),
    }
}

/// The version that the server speaks.
fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn core_versions(app: &App) -> Value {
    let address = app.address.get().map(ToString::to_string).unwrap_or_default();
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

fn group_value(snapshot: &Snapshot, group: &str) -> Value {
    let versions: Vec<Value> = snapshot
        .versions(group)
        .into_iter()
        .flatten()
        .map(|(version, _)| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

fn groups(snapshot: &Snapshot) -> Value {
    let names = snapshot.groups.iter().map(|(name, _)| name).filter(|name| !name.is_empty());
    let groups: Vec<Value> = names.map(|name| group_value(snapshot, name)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn insert_filled(entry: &mut Value, key: &str, list: &[String]) {
    if !list.is_empty() {
        entry[key] = json!(list);
    }
}

fn resource_list(group: &str, version: &str, resources: &[Arc<Resource>]) -> Value {
    let mut list = Vec::new();
    for resource in resources {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        insert_filled(&mut entry, "shortNames", &resource.short_names);
        insert_filled(&mut entry, "categories", &resource.categories);
        list.push(entry);
        for subresource in &resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": subresource.verbs,
            });
            if let Some((group, version, kind)) = &subresource.kind {
                entry["kind"] = kind.clone().into();
                if !group.is_empty() {
                    entry["group"] = group.clone().into();
                    entry["version"] = version.clone().into();
                }
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut answer = json!({ "kind": "APIResourceList", "groupVersion": group_version, "resources": list });
    if !group.is_empty() {
        answer["apiVersion"] = "v1".into();
    }
    answer
}

fn aggregated_resource(resource: &Resource) -> Value {
    let own = json!({ "group": "", "version": "", "kind": resource.kind });
    let mut entry = json!({
        "resource": resource.plural, "responseKind": own, "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": resource.verbs,
    });
    insert_filled(&mut entry, "shortNames", &resource.short_names);
    insert_filled(&mut entry, "categories", &resource.categories);
    let subresources: Vec<Value> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let kind = subresource.kind.as_ref().map_or_else(
                || own.clone(),
                |(group, version, kind)| json!({ "group": group, "version": version, "kind": kind }),
            );
            json!({ "subresource": subresource.name, "responseKind": kind, "verbs": subresource.verbs })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn aggregated_list(snapshot: &Snapshot, version: &str, core: bool) -> Value {
    let groups = snapshot.groups.iter().filter(|(name, _)| name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, resources)| {
                    let resources: Vec<Value> =
                        resources.iter().map(|resource| aggregated_resource(resource)).collect();
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    })
}

fn aggregated_reply(version: &str, list: &Value) -> Reply {
    let content_type = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    respond::bytes(200, content_type, list.to_string())
}
