//! Recorded requests and answers, read from the folder that `MUSTER_SHARED` names.

use std::path::PathBuf;

use muster_schema::catalogue::Catalogue;
use muster_schema::decode::{
    cannot_be_handled, check, decode_json, decode_yaml, field_problems, strict_error, unrecognized, warning,
};
use muster_schema::strategic::apply_strategic_patch;
use serde_json::Value;

/// The steps of one recording, or nothing when there are no recordings on this machine.
fn steps(topic: &str) -> Option<Vec<Value>> {
    let Some(shared) = std::env::var_os("MUSTER_SHARED") else {
        eprintln!("skipped: MUSTER_SHARED does not name the folder of the recorded answers");
        return None;
    };
    let path = PathBuf::from(shared).join("upstream/kube-1.36/answers").join(format!("{topic}.json"));
    Some(serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn strategic_merge_patches_give_the_recorded_objects() {
    let Some(steps) = steps("06-strategic-scale") else { return };
    let schema = Catalogue::get().by_kind("apps", "v1", "Deployment").unwrap();
    let mut object = steps[0]["response"]["body"].clone();
    let mut patches = 0;
    for step in &steps {
        if text(step, "/request/contentType") == "application/strategic-merge-patch+json" {
            apply_strategic_patch(&schema, &mut object, &step["request"]["body"]).unwrap();
            assert_eq!(object["spec"], step["response"]["body"]["spec"], "{}", step["request"]["body"]);
            patches += 1;
        }
    }
    assert!(patches >= 5, "only {patches} patches in the recording");
}

#[test]
fn bodies_are_refused_and_warned_about_in_the_recorded_words() {
    let topics = ["03-crud", "04-pods"];
    let mut compared = 0;
    for topic in topics {
        let Some(steps) = steps(topic) else { return };
        for step in steps.iter().filter(|step| step["request"]["method"] == "POST") {
            let (kind, version) = match text(step, "/request/path") {
                path if path.contains("/configmaps") => ("ConfigMap", "v1"),
                path if path.ends_with("/pods") => ("Pod", "v1"),
                _ => continue,
            };
            let body = match &step["request"]["body"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let (refusal, warnings) =
                read(kind, version, &body, text(step, "/request/contentType"), text(step, "/request/path"));
            let message = text(step, "/response/body/message");
            match refusal {
                Some(refusal) => assert_eq!(refusal, message, "{body}"),
                None => assert!(
                    !message.contains("decoding error") && !message.contains("unmarshal"),
                    "{message}"
                ),
            }
            compared += usize::from(refusal_is_about_the_body(message));
            if step["response"]["status"] == 201 {
                assert_eq!(warnings.join(", "), text(step, "/response/headers/warning"), "{body}");
            }
        }
    }
    assert!(compared >= 6, "only {compared} refused bodies in the recordings");
}

fn refusal_is_about_the_body(message: &str) -> bool {
    ["decoding error", "unmarshal", "parse error", "quantities must"]
        .iter()
        .any(|part| message.contains(part))
}

/// Why a body is refused, if it is, and the warnings that it earns.
fn read(
    kind: &str,
    version: &str,
    body: &str,
    media_type: &str,
    path: &str,
) -> (Option<String>, Vec<String>) {
    if media_type == "text/plain" {
        return (None, Vec::new());
    }
    let yaml = media_type.contains("yaml");
    let decoded = if yaml { decode_yaml(body.as_bytes()) } else { decode_json(body.as_bytes()) };
    let (value, duplicates) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return (Some(unrecognized(kind, &error, body.as_bytes())), Vec::new()),
    };
    if value["kind"] != kind || value["apiVersion"] != version {
        return (None, Vec::new());
    }
    let found = check(&Catalogue::get().by_kind("", version, kind).unwrap(), &value);
    let problems = field_problems(&duplicates, &found.unknown);
    let reason = match found.type_errors.first() {
        Some(error) => Some(error.clone()),
        None if path.contains("fieldValidation=Strict") => strict_error(&problems),
        None => None,
    };
    let warnings = problems.iter().map(|problem| warning(problem)).collect();
    (reason.map(|reason| cannot_be_handled(kind, version, kind, &reason)), warnings)
}
