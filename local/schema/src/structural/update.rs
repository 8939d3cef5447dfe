//! What may not change about a definition.

use serde_json::Value;

use crate::field::{self, FieldError};

/// What is wrong with the change of a definition: where and how its objects are stored must stay true for those that
/// are stored already. `new` carries the status of `old`.
pub fn definition_update_errors(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut fixed = |pointer: &str| {
        let value = new.pointer(pointer).unwrap_or(&Value::Null);
        if old.pointer(pointer).unwrap_or(&Value::Null) != value {
            let path = pointer.trim_start_matches('/').replace('/', ".");
            errors.push(FieldError::invalid(path, value.clone(), "field is immutable"));
        }
    };
    let conditions = old.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut established = conditions.filter(|condition| condition["type"] == "Established");
    if established.any(|condition| condition["status"] == "True") {
        fixed("/spec/scope");
        fixed("/spec/names/kind");
    }
    fixed("/spec/group");
    fixed("/spec/names/plural");
    let versions = new.pointer("/spec/versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let stored =
        new.pointer("/status/storedVersions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (position, stored) in stored.iter().enumerate() {
        if versions.iter().any(|version| version["name"] == *stored) {
            continue;
        }
        let name = stored.as_str().unwrap_or_default();
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {name} and removes {name} from \
             status.storedVersions"
        );
        errors.push(FieldError::invalid(field::index("status.storedVersions", position), name, detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn storage_stays_as_it_was() {
        let old = json!({
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
                "versions": [{"name": "v1"}],
            },
            "status": {
                "storedVersions": ["v1"], "conditions": [{"type": "Established", "status": "True"}],
            },
        });
        assert_eq!(definition_update_errors(&old, &old), []);
        let mut new = old.clone();
        new["spec"]["versions"].as_array_mut().unwrap().push(json!({"name": "v2"}));
        assert_eq!(definition_update_errors(&old, &new), []);
        new["spec"]["versions"].as_array_mut().unwrap().remove(0);
        new["spec"]["scope"] = json!("Cluster");
        let texts: Vec<String> =
            definition_update_errors(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], r#"spec.scope: Invalid value: "Cluster": field is immutable"#);
        assert!(texts[1].starts_with(
            r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 "#
        ));
        let mut unestablished = old.clone();
        unestablished["status"]["conditions"] = json!([]);
        new["spec"]["versions"] = old["spec"]["versions"].clone();
        assert_eq!(definition_update_errors(&unestablished, &new), []);
    }
}
