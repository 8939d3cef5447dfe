//! The definitions and the recorded answers of the shared reference folder.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::field::aggregate;

fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("MUSTER_SHARED").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: MUSTER_SHARED is not set, so there are no reference files to compare with");
    }
    folder
}

/// Every definition in the YAML files below `folder`.
pub(crate) fn definitions(folder: PathBuf) -> Vec<(PathBuf, Value)> {
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let definitions =
                documents.into_iter().filter(|document| document["kind"] == "CustomResourceDefinition");
            found.extend(definitions.map(|definition| (path.clone(), definition)));
        }
    }
    found
}

#[test]
fn all_definitions_load_and_their_rules_compile() {
    let Some(shared) = shared() else { return };
    let definitions = definitions(shared.join("upstream/crds"));
    assert!(definitions.len() >= 25, "{}", definitions.len());
    for (path, mut definition) in definitions {
        apply_definition_defaults(&mut definition);
        if let Err(errors) = CustomResource::parse(&definition) {
            panic!("{}: {}", path.display(), aggregate(&errors));
        }
    }
}

#[test]
fn a_bad_job_is_refused_as_recorded() {
    let Some(shared) = shared() else { return };
    let (_, mut definition) = definitions(shared.join("upstream/crds/training-operator-v1"))
        .into_iter()
        .find(|(_, definition)| definition["spec"]["names"]["kind"] == "PyTorchJob")
        .unwrap();
    apply_definition_defaults(&mut definition);
    let resource = CustomResource::parse(&definition).unwrap();
    let validator = &resource.versions[0].validator;
    let text = std::fs::read_to_string(shared.join("upstream/kube-1.36/kubectl/badjob.yaml")).unwrap();
    let mut object: Value = serde_saphyr::from_str(&text).unwrap();
    validator.prune(&mut object);
    validator.default(&mut object);
    let transcript =
        std::fs::read_to_string(shared.join("upstream/kube-1.36/kubectl/transcript.txt")).unwrap();
    let errors = validator.validate_create(&object);
    assert!(!errors.is_empty());
    for error in &errors {
        assert!(transcript.contains(&format!("err: * {error}")), "{error}");
    }
    let text = std::fs::read_to_string(shared.join("upstream/kube-1.36/kubectl/pytorchjob.yaml")).unwrap();
    let mut object: Value = serde_saphyr::from_str(&text).unwrap();
    validator.default(&mut object);
    let start = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(validator.validate_create(&object), []);
    }
    eprintln!("one validation of a PyTorchJob with its rules: {:?}", start.elapsed() / 100);
}

/// Plays the recorded creations of widgets and compares messages and causes.
#[test]
fn recorded_creations() {
    let Some(shared) = shared() else { return };
    let text = std::fs::read_to_string(shared.join("upstream/kube-1.36/answers/07-crd.json")).unwrap();
    let steps: Vec<Value> = serde_json::from_str(&text).unwrap();
    let resource = CustomResource::parse(&{
        let mut definition = steps[0]["request"]["body"].clone();
        apply_definition_defaults(&mut definition);
        definition
    })
    .unwrap();
    let validator = &resource.versions[0].validator;
    let mut compared = 0;
    for step in &steps[1..] {
        let request = &step["request"];
        let path = request["path"].as_str().unwrap_or_default();
        if request["method"] != "POST" || !path.starts_with("/apis/demo.example/v1/namespaces/rec/widgets") {
            continue;
        }
        let mut object = request["body"].clone();
        let removed = validator.prune(&mut object);
        validator.default(&mut object);
        let errors = validator.validate_create(&object);
        let answer = &step["response"]["body"];
        if let Some(message) = answer["message"].as_str() {
            if let Some(field) = message.split("unknown field ").nth(1) {
                assert_eq!(field, Value::from(removed[0].as_str()).to_string());
                continue;
            }
            assert!(message.ends_with(&format!("is invalid: {}", aggregate(&errors))), "{message}");
            let causes = answer["details"]["causes"].as_array().unwrap();
            assert_eq!(causes.len(), errors.len());
            for (cause, error) in causes.iter().zip(&errors) {
                assert_eq!(cause["field"], error.path);
                assert_eq!(cause["reason"], error.kind.reason());
                assert_eq!(cause["message"], error.message());
            }
        } else {
            assert!(errors.is_empty(), "{}", aggregate(&errors));
            assert_eq!(object["spec"], answer["spec"]);
        }
        compared += 1;
    }
    assert!(compared >= 10, "{compared}");
}
