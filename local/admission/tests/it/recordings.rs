//! Objects that a real server was asked to create, replayed: what it stored, or why it refused.

use std::path::PathBuf;

use muster_admission::{decode, defaults, field, prepare, printing, validate};
use serde_json::{Value, json};

const TOPICS: [&str; 6] = [
    "03-crud",
    "04-pods",
    "06-strategic-scale",
    "08-list-watch",
    "09-namespace-owner-quota",
    "10-builtin-validation",
];

/// Fields that other admission steps fill in.
const POD_FIELDS_OF_OTHERS: [&str; 6] =
    ["volumes", "serviceAccountName", "serviceAccount", "tolerations", "priority", "preemptionPolicy"];

fn topic(name: &str) -> Option<Vec<Value>> {
    let Some(shared) = std::env::var_os("MUSTER_SHARED") else {
        eprintln!("skipped: MUSTER_SHARED is not set, so there are no recorded answers to compare with");
        return None;
    };
    let path = PathBuf::from(shared).join(format!("upstream/kube-1.36/answers/{name}.json"));
    Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
}

/// What the server does around these functions: name, namespace and identity, taken from the recorded answer.
fn identified(request: &Value, answer: &Value) -> Value {
    let mut object = request["body"].clone();
    let path = request["path"].as_str().unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    if let Some((_, rest)) = path.split_once("/namespaces/")
        && let Some((namespace, _)) = rest.split_once('/')
    {
        metadata.insert("namespace".into(), json!(namespace));
    }
    for key in ["name", "uid", "creationTimestamp", "resourceVersion"] {
        if let Some(value) = answer["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    object
}

fn without_others_fields(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let kind = fields["kind"].as_str().unwrap_or_default().to_owned();
    fields.get_mut("metadata").and_then(Value::as_object_mut).unwrap().remove("managedFields");
    if kind == "Pod" {
        let spec = fields["spec"].as_object_mut().unwrap();
        for key in POD_FIELDS_OF_OTHERS {
            spec.remove(key);
        }
        for container in spec["containers"].as_array_mut().unwrap() {
            container.as_object_mut().unwrap().remove("volumeMounts");
        }
    }
    // Fields that the schema does not know are dropped before these functions run.
    fields.remove("unknown");
}

#[test]
fn created_objects_and_refusals_match_the_recordings() {
    let (mut created, mut refused) = (0, 0);
    for name in TOPICS {
        let Some(steps) = topic(name) else { return };
        for (index, step) in steps.iter().enumerate() {
            let (request, answer) = (&step["request"], &step["response"]["body"]);
            if request["method"] != "POST" || !request["body"].is_object() || answer["kind"] == "Table" {
                continue;
            }
            let (api_version, kind) =
                (request["body"]["apiVersion"].as_str().unwrap(), request["body"]["kind"].as_str().unwrap());
            if matches!(kind, "Binding" | "Eviction" | "CustomResourceDefinition") {
                continue;
            }
            let query_free = !request["path"].as_str().unwrap().contains("dryRun=Some");
            let status = step["response"]["status"].as_u64().unwrap();
            let mut object = identified(request, answer);
            match status {
                201 => {
                    decode::check(api_version, kind, &object).unwrap();
                    defaults::apply(api_version, kind, &mut object);
                    prepare::create(api_version, kind, &mut object);
                    assert_eq!(validate::create(api_version, kind, &object), [], "{name} step {index}");
                    let mut expected = answer.clone();
                    without_others_fields(&mut expected);
                    without_others_fields(&mut object);
                    if object["kind"] == "Event" {
                        // Reading fills in the other version's fields.
                        expected.as_object_mut().unwrap().retain(|key, _| object.get(key).is_some());
                    }
                    assert_eq!(object, expected, "{name} step {index}");
                    created += 1;
                }
                422 if query_free => {
                    defaults::apply(api_version, kind, &mut object);
                    prepare::create(api_version, kind, &mut object);
                    let errors = validate::create(api_version, kind, &object);
                    assert_refused(&errors, answer, &format!("{name} step {index}"));
                    refused += 1;
                }
                400 if answer["message"].as_str().unwrap().contains("quantities must")
                    || answer["message"].as_str().unwrap().contains("illegal base64") =>
                {
                    let error = decode::check(api_version, kind, &object).unwrap_err().to_string();
                    assert!(
                        answer["message"].as_str().unwrap().ends_with(&error),
                        "{name} step {index}: {error}"
                    );
                    refused += 1;
                }
                _ => {}
            }
        }
    }
    assert!(created >= 20, "only {created} created objects were compared");
    assert!(refused >= 12, "only {refused} refusals were compared");
}

fn assert_refused(errors: &[field::FieldError], answer: &Value, step: &str) {
    let causes: Vec<Value> = errors
        .iter()
        .map(|error| json!({"reason": error.reason.code(), "message": error.body(), "field": error.field}))
        .collect();
    assert_eq!(json!(causes), answer["details"]["causes"], "{step}");
    let message = answer["message"].as_str().unwrap();
    let (_, text) = message.split_once(" is invalid: ").unwrap();
    assert_eq!(field::aggregate(errors), text, "{step}");
}

/// Rows of tables whose objects were read in a step nearby, printed at the moment that the row's age tells.
#[test]
fn printed_rows_match_the_recordings() {
    let cases = [
        ("04-pods", 0, 1, "v1", "Pod"),
        ("06-strategic-scale", 10, 11, "apps/v1", "Deployment"),
        ("08-list-watch", 1, 15, "v1", "ConfigMap"),
        ("10-builtin-validation", 2, 3, "batch/v1", "Job"),
        ("10-builtin-validation", 25, 26, "v1", "Node"),
    ];
    for (name, object_step, table_step, api_version, kind) in cases {
        let Some(steps) = topic(name) else { return };
        let body = |step: usize| {
            let body = &steps[step]["response"]["body"];
            if body.get("type").is_some() { &body["object"] } else { body }
        };
        let (object, table) = (body(object_step), body(table_step));
        let row = &table["rows"][0];
        assert_eq!(row["object"]["metadata"]["kind"], Value::Null);
        let object = if kind == "ConfigMap" { &body(0).clone() } else { object };
        let columns: Vec<&str> =
            printing::columns(api_version, kind).iter().map(|column| column.name).collect();
        let expected: Vec<&str> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(columns, expected, "{kind}");
        for (column, definition) in
            printing::columns(api_version, kind).iter().zip(table["columnDefinitions"].as_array().unwrap())
        {
            let mut column = serde_json::to_value(column).unwrap();
            column["description"] = definition["description"].clone();
            assert_eq!(&column, definition, "{kind}");
        }
        let age = columns.iter().position(|name| *name == "Age").unwrap();
        let seconds: i64 = row["cells"][age].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
        let created: jiff::Timestamp =
            object["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
        let now = created + jiff::SignedDuration::from_secs(seconds);
        assert_eq!(json!(printing::row(api_version, kind, object, now)), row["cells"], "{kind}");
    }
}
