//! `/openapi/v3`: the documents that `kubectl apply` and `explain` read; and of `/openapi/v2` as much as it takes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use muster_schema::catalogue::GroupVersionKind;
use muster_schema::openapi::{
    ResourceDescription, SubresourceDescription, document_hash, group_version_document, index, index_key,
};
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;

use crate::app::App;
use crate::negotiate::Encoding;
use crate::registry::{Resource, Snapshot};
use crate::respond::{self, Reply};

const SERVER_VERSION: &str = "v1.36.2";

/// Documents that were asked for, as of one state of the registry.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    generation: u64,
    by_key: HashMap<String, Bytes>,
}

/// The documents of a server.
pub(crate) type Cache = Mutex<Documents>;

fn description(resource: &Resource) -> ResourceDescription {
    let subresources = resource.subresources.iter().map(|subresource| {
        let (group, version, kind) = subresource
            .kind
            .clone()
            .unwrap_or_else(|| (resource.group.clone(), resource.version.clone(), resource.kind.clone()));
        SubresourceDescription {
            name: subresource.name.clone(),
            kind: GroupVersionKind(group, version, kind),
            verbs: subresource.verbs.clone(),
        }
    });
    ResourceDescription {
        resource: resource.plural.clone(),
        kind: resource.kind.clone(),
        namespaced: resource.namespaced,
        verbs: resource.verbs.clone(),
        subresources: subresources.collect(),
        schema: resource.custom.as_ref().and_then(|_| resource.schema().cloned()),
    }
}

fn document(
    app: &App,
    snapshot: &Snapshot,
    group: &str,
    version: &str,
    resources: &[Arc<Resource>],
) -> Bytes {
    let key = index_key(group, version);
    {
        let mut cache = app.documents.lock();
        if cache.generation != snapshot.generation {
            // Built-in documents never change.
            cache.by_key.retain(|key, _| snapshot.builtin_keys().any(|own| own == *key));
            cache.generation = snapshot.generation;
        }
        if let Some(found) = cache.by_key.get(&key) {
            return found.clone();
        }
    }
    let descriptions: Vec<ResourceDescription> =
        resources.iter().map(|resource| description(resource)).collect();
    let made: Bytes =
        group_version_document(group, version, &descriptions, SERVER_VERSION).to_string().into();
    app.documents.lock().by_key.insert(key, made.clone());
    made
}

/// Answers a path below `/openapi/v3`.
pub(crate) fn answer(app: &App, path: &str) -> Reply {
    let snapshot = app.registry.snapshot();
    let versions = || {
        snapshot.groups.iter().flat_map(|(group, versions)| {
            versions
                .iter()
                .map(move |(version, resources)| (group.as_str(), version.as_str(), resources.as_slice()))
        })
    };
    if path.is_empty() {
        let entries: Vec<(String, String)> = versions()
            .map(|(group, version, resources)| {
                let key = index_key(group, version);
                // A built-in document changes with the program only, so its hash needs no document.
                let hash = if resources.iter().any(|resource| resource.custom.is_some()) {
                    document_hash(&document(app, &snapshot, group, version, resources))
                } else {
                    document_hash(format!("{key} {}", env!("CARGO_PKG_VERSION")).as_bytes())
                };
                (key, hash)
            })
            .collect();
        let list = index(entries.iter().map(|(key, hash)| (key.as_str(), hash.as_str())));
        return respond::value(200, Encoding::Json, &list);
    }
    match versions().find(|(group, version, _)| index_key(group, version) == path) {
        Some((group, version, resources)) => {
            respond::bytes(200, "application/json", document(app, &snapshot, group, version, resources))
        }
        None => respond::page_not_found(),
    }
}

/// How clients ask for protobuf, and how Kubernetes calls it, since Go takes the former for no content type.
const PROTOBUF_V2: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// `openapi.v2.Document` of gnostic, without paths and definitions.
#[derive(Clone, PartialEq, Message)]
struct DocumentV2 {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<InfoV2>,
}

#[derive(Clone, PartialEq, Message)]
struct InfoV2 {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

/// A document that describes nothing. kubectl checks a file whose kind is `List` by it, and leaves what it does not find
/// to the server; without a document it refuses the file.
pub(crate) fn answer_v2(headers: &HeaderMap) -> Reply {
    let (swagger, title) = ("2.0", "Kubernetes");
    let accept = headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut accepted = accept.flat_map(|value| value.split(',')).map(str::trim);
    if accepted.any(|media| PROTOBUF_V2.iter().any(|protobuf| media.starts_with(protobuf))) {
        let info = InfoV2 { title: title.to_owned(), version: SERVER_VERSION.to_owned() };
        let document = DocumentV2 { swagger: swagger.to_owned(), info: Some(info) };
        return respond::bytes(200, PROTOBUF_V2[1], document.encode_to_vec());
    }
    let info = json!({"title": title, "version": SERVER_VERSION});
    respond::value(
        200,
        Encoding::Json,
        &json!({"swagger": swagger, "info": info, "paths": {}, "definitions": {}}),
    )
}
