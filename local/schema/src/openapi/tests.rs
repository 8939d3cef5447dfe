use std::sync::Arc;

use super::*;
use crate::model::{Schema, Type};

fn verbs() -> Vec<String> {
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        .map(str::to_owned)
        .to_vec()
}

fn deployments() -> ResourceDescription {
    let kind = GroupVersionKind("autoscaling".into(), "v1".into(), "Scale".into());
    let scale = SubresourceDescription {
        name: "scale".into(),
        kind,
        verbs: vec!["get".into(), "patch".into(), "update".into()],
    };
    ResourceDescription {
        resource: "deployments".into(),
        kind: "Deployment".into(),
        namespaced: true,
        verbs: verbs(),
        subresources: vec![scale],
        schema: None,
    }
}

/// Every reference of the document, wherever it stands.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.insert(reference.trim_start_matches("#/components/schemas/").to_owned());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn documents_are_closed_under_references() {
    let document = group_version_document("apps", "v1", &[deployments()], "v1.36.2");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(found.contains("io.k8s.api.core.v1.PodSpec"), "{found:?}");
    assert!(found.iter().all(|name| schemas.contains_key(name)), "{found:?}");
    let kinds = &schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"];
    assert_eq!(kinds, &json!([{"group": "apps", "kind": "Deployment", "version": "v1"}]));
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["allOf"], json!([reference("io.k8s.api.apps.v1.DeploymentStrategy")]));
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    insta::assert_json_snapshot!(containers, @r##"
    {
      "items": {
        "$ref": "#/components/schemas/io.k8s.api.core.v1.Container"
      },
      "type": "array",
      "x-kubernetes-list-map-keys": [
        "name"
      ],
      "x-kubernetes-list-type": "map",
      "x-kubernetes-patch-merge-key": "name",
      "x-kubernetes-patch-strategy": "merge"
    }
    "##);
}

#[test]
fn patches_tell_clients_what_the_server_understands() {
    let document = group_version_document("apps", "v1", &[deployments()], "v1.36.2");
    let paths = document["paths"].as_object().unwrap();
    let names: Vec<_> = paths
        .iter()
        .map(|(path, item)| {
            let methods: Vec<_> = item
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| *key != "parameters")
                .map(String::as_str)
                .collect();
            format!("{path} {}", methods.join(","))
        })
        .collect();
    insta::assert_snapshot!(names.join("\n"), @r"
    /apis/apps/v1/deployments get
    /apis/apps/v1/namespaces/{namespace}/deployments delete,get,post
    /apis/apps/v1/namespaces/{namespace}/deployments/{name} delete,get,patch,put
    /apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale get,patch,put
    ");
    let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "kind": "Deployment", "version": "v1"})
    );
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|parameter| parameter["name"] == "fieldValidation")
    );
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
}

#[test]
fn custom_resources_get_what_every_object_has() {
    let spec = Schema { kind: Type::Object, description: Some("What to run.".into()), ..Schema::default() };
    let mut schema = Schema { kind: Type::Object, ..Schema::default() };
    schema.properties.insert("spec".into(), SchemaRef::Inline(Arc::new(spec)));
    let resource = ResourceDescription {
        resource: "pytorchjobs".into(),
        kind: "PyTorchJob".into(),
        subresources: Vec::new(),
        schema: Some(SchemaRef::Inline(Arc::new(schema))),
        ..deployments()
    };
    let document = group_version_document("kubeflow.org", "v1", &[resource], "v1.36.2");
    insta::assert_json_snapshot!(document["components"]["schemas"]["org.kubeflow.v1.PyTorchJob"], @r##"
    {
      "properties": {
        "apiVersion": {
          "type": "string"
        },
        "kind": {
          "type": "string"
        },
        "metadata": {
          "allOf": [
            {
              "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
            }
          ],
          "default": {}
        },
        "spec": {
          "description": "What to run.",
          "type": "object"
        }
      },
      "type": "object",
      "x-kubernetes-group-version-kind": [
        {
          "group": "kubeflow.org",
          "kind": "PyTorchJob",
          "version": "v1"
        }
      ]
    }
    "##);
    let patch =
        &document["paths"]["/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}

#[test]
fn the_index_names_documents_by_their_hash() {
    let hash = document_hash(b"{}");
    assert_ne!(hash, document_hash(b"{ }"));
    let key = index_key("apps", "v1");
    assert_eq!(
        index([(key.as_str(), "AB")]),
        json!({"paths": {"apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=AB"}}})
    );
    assert_eq!(index_key("", "v1"), "api/v1");
}
