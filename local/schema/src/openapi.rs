//! OpenAPI v3 documents, one for each group and version, as `kubectl apply`, `explain` and `create` read them.

mod paths;
mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use crate::catalogue::{Catalogue, GroupVersionKind};
use crate::model::SchemaRef;

pub use render::render;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// A resource of a group and version, as discovery has it.
#[derive(Debug, Clone)]
pub struct ResourceDescription {
    /// The plural name in paths, such as `pods`.
    pub resource: String,
    /// The kind of its objects.
    pub kind: String,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    /// What can be done with it, such as `list` and `create`.
    pub verbs: Vec<String>,
    /// Its subresources.
    pub subresources: Vec<SubresourceDescription>,
    /// The schema of a custom resource; nothing for a built-in kind, which the catalogue knows.
    pub schema: Option<SchemaRef>,
}

/// A subresource, such as `status` or `scale`.
#[derive(Debug, Clone)]
pub struct SubresourceDescription {
    /// The name in the path.
    pub name: String,
    /// Group, version and kind of what is read and written there.
    pub kind: GroupVersionKind,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

/// The document of one group and version; the group of the core kinds is empty.
///
/// `server_version` is shown as the document's version, such as `v1.36.2`.
pub fn group_version_document(
    group: &str,
    version: &str,
    resources: &[ResourceDescription],
    server_version: &str,
) -> Value {
    let mut document =
        Document { catalogue: Catalogue::get(), schemas: BTreeMap::new(), wanted: BTreeSet::new() };
    let mut paths = Map::new();
    for resource in resources {
        let kind = GroupVersionKind(group.to_owned(), version.to_owned(), resource.kind.clone());
        let names = document.add_kind(&kind, resource.schema.as_ref());
        for subresource in &resource.subresources {
            document.add_kind(&subresource.kind, None);
        }
        paths::add(&mut paths, &kind, resource, &names, |kind| {
            document.catalogue.definition_name(&kind.0, &kind.1, &kind.2)
        });
    }
    document.wanted.extend([format!("{META}DeleteOptions"), format!("{META}Status"), format!("{META}Patch")]);
    document.add_wanted();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths,
        "components": {"schemas": document.schemas},
    })
}

/// The hash by which clients cache a document: it changes when the document does.
pub fn document_hash(document: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

/// The path of a group and version in the index: `api/v1` or `apis/apps/v1`.
pub fn index_key(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The answer to `/openapi/v3`, from index keys and the hashes of their documents.
pub fn index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let paths: Map<_, _> = documents
        .into_iter()
        .map(|(key, hash)| {
            (key.to_owned(), json!({"serverRelativeURL": format!("/openapi/v3/{key}?hash={hash}")}))
        })
        .collect();
    json!({"paths": paths})
}

/// The names of the schemas of a kind and of its list.
struct SchemaNames {
    object: String,
    list: Option<String>,
}

struct Document {
    catalogue: &'static Catalogue,
    schemas: BTreeMap<String, Value>,
    /// Built-in definitions that are referred to and not yet in the document.
    wanted: BTreeSet<String>,
}

impl Document {
    fn add_kind(&mut self, kind: &GroupVersionKind, custom: Option<&SchemaRef>) -> SchemaNames {
        let GroupVersionKind(group, version, name) = kind;
        let list = format!("{name}List");
        let Some(schema) = custom else {
            let object = self.catalogue.definition_name(group, version, name);
            let list = self.catalogue.definition_name(group, version, &list);
            self.wanted.extend(object.iter().chain(&list).cloned());
            return SchemaNames { object: object.unwrap_or_else(|| custom_name(kind)), list };
        };
        let names =
            SchemaNames { object: custom_name(kind), list: Some(format!("{}List", custom_name(kind))) };
        self.wanted.extend([format!("{META}ObjectMeta"), format!("{META}ListMeta")]);
        let mut object = self.rendered(schema);
        object["type"] = "object".into();
        object["properties"]["apiVersion"] = json!({"type": "string"});
        object["properties"]["kind"] = json!({"type": "string"});
        object["properties"]["metadata"] =
            json!({"allOf": [reference(&format!("{META}ObjectMeta"))], "default": {}});
        object["x-kubernetes-group-version-kind"] = json!([kind_object(kind)]);
        let list_kind = GroupVersionKind(group.clone(), version.clone(), list);
        let list_object = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"allOf": [reference(&format!("{META}ListMeta"))]},
                "items": {"type": "array", "items": reference(&names.object)},
            },
            "x-kubernetes-group-version-kind": [kind_object(&list_kind)],
        });
        self.schemas.insert(format!("{}List", names.object), list_object);
        self.schemas.insert(names.object.clone(), object);
        names
    }

    /// Adds the definitions that are wanted, and what they refer to.
    fn add_wanted(&mut self) {
        while let Some(name) = self.wanted.pop_first() {
            if self.schemas.contains_key(&name) {
                continue;
            }
            let Some(schema) = self.catalogue.definition(&name) else { continue };
            let mut rendered = self.rendered(&SchemaRef::Inline(schema));
            let kinds: Vec<_> = self.catalogue.kinds(&name).iter().map(kind_object).collect();
            if !kinds.is_empty() {
                rendered["x-kubernetes-group-version-kind"] = kinds.into();
            }
            self.schemas.insert(name, rendered);
        }
    }

    fn rendered(&mut self, schema: &SchemaRef) -> Value {
        render(schema, &mut |name| {
            self.wanted.insert(name.to_owned());
        })
    }
}

/// `org.kubeflow.v1.PyTorchJob`: the group is read from behind, as in the names of built-in definitions.
fn custom_name(GroupVersionKind(group, version, kind): &GroupVersionKind) -> String {
    let mut parts: Vec<_> = group.split('.').rev().collect();
    parts.extend([version.as_str(), kind.as_str()]);
    parts.join(".")
}

fn kind_object(GroupVersionKind(group, version, kind): &GroupVersionKind) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests;
