//! The paths of a resource and what can be done there.

use serde_json::{Map, Value, json};

use super::{META, ResourceDescription, SchemaNames, kind_object, reference};
use crate::catalogue::GroupVersionKind;

const WRITE_PARAMETERS: [(&str, &str); 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];

const LIST_PARAMETERS: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

const DELETE_PARAMETERS: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// Adds the paths of `resource`. `definition` names the schema of a built-in kind.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    kind: &GroupVersionKind,
    resource: &ResourceDescription,
    names: &SchemaNames,
    definition: impl Fn(&GroupVersionKind) -> Option<String>,
) {
    let root = format!("/{}", super::index_key(&kind.0, &kind.1));
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", resource.resource)
    } else {
        format!("{root}/{}", resource.resource)
    };
    let builtin = resource.schema.is_none();
    let list = names.list.as_deref().unwrap_or(&names.object);
    let operations = |wanted: &[&str], verbs: &[String], kind: &GroupVersionKind, object: &str| {
        let mut operations = Map::new();
        for verb in wanted.iter().filter(|verb| verbs.iter().any(|other| other == *verb)) {
            let schema = if *verb == "list" { list } else { object };
            let (method, operation) = operation(verb, kind, schema, builtin);
            operations.insert(method.into(), operation);
        }
        operations
    };
    let mut insert = |path: String, mut operations: Map<String, Value>| {
        if !operations.is_empty() {
            let parameters: Vec<_> = ["name", "namespace"]
                .into_iter()
                .filter(|name| path.contains(&format!("{{{name}}}")))
                .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
                .collect();
            if !parameters.is_empty() {
                operations.insert("parameters".into(), parameters.into());
            }
            paths.insert(path, operations.into());
        }
    };
    let item = format!("{collection}/{{name}}");
    let verbs = &resource.verbs;
    if resource.namespaced {
        insert(format!("{root}/{}", resource.resource), operations(&["list"], verbs, kind, &names.object));
    }
    insert(collection, operations(&["list", "create", "deletecollection"], verbs, kind, &names.object));
    for subresource in &resource.subresources {
        let object = definition(&subresource.kind).unwrap_or_else(|| names.object.clone());
        let wanted = ["get", "create", "update", "patch"];
        insert(
            format!("{item}/{}", subresource.name),
            operations(&wanted, &subresource.verbs, &subresource.kind, &object),
        );
    }
    insert(item, operations(&["get", "update", "patch", "delete"], verbs, kind, &names.object));
}

/// The HTTP method of a verb and its operation.
fn operation(verb: &str, kind: &GroupVersionKind, schema: &str, builtin: bool) -> (&'static str, Value) {
    let status = format!("{META}Status");
    let patch_types: &[&str] = if builtin {
        &[
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ]
    } else {
        &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
    };
    let (patch, delete) = (format!("{META}Patch"), format!("{META}DeleteOptions"));
    let (method, action, parameters, body, answer): (_, _, &[(&str, &str)], _, _) = match verb {
        "list" => ("get", "list", &LIST_PARAMETERS, None, schema),
        "create" => ("post", "post", &WRITE_PARAMETERS, Some((schema, &["application/json"][..])), schema),
        "update" => ("put", "put", &WRITE_PARAMETERS, Some((schema, &["application/json"][..])), schema),
        "patch" => ("patch", "patch", &WRITE_PARAMETERS, Some((patch.as_str(), patch_types)), schema),
        "delete" => (
            "delete",
            "delete",
            &DELETE_PARAMETERS,
            Some((delete.as_str(), &["application/json"][..])),
            status.as_str(),
        ),
        "deletecollection" => ("delete", "deletecollection", &LIST_PARAMETERS, None, status.as_str()),
        _ => ("get", "get", &[], None, schema),
    };
    let mut parameters: Vec<_> = parameters
        .iter()
        .map(|(name, kind)| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}))
        .collect();
    if verb == "patch" {
        parameters.push(
            json!({"name": "force", "in": "query", "schema": {"type": "boolean", "uniqueItems": true}}),
        );
    }
    let content = json!({"application/json": {"schema": reference(answer)}});
    let mut operation = json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": content}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind_object(kind),
    });
    if let Some((schema, types)) = body {
        let content: Map<_, _> =
            types.iter().map(|media| ((*media).to_owned(), json!({"schema": reference(schema)}))).collect();
        operation["requestBody"] = json!({"required": verb != "delete", "content": content});
    }
    (method, operation)
}
