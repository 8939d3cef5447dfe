use serde_json::{Value, json};

use super::*;
use crate::field::aggregate;

fn widgets() -> Value {
    serde_json::from_str(include_str!("testdata/widgets.json")).unwrap()
}

fn parse(mut definition: Value) -> CustomResource {
    apply_definition_defaults(&mut definition);
    CustomResource::parse(&definition).unwrap()
}

fn problems(definition: &Value) -> String {
    aggregate(&CustomResource::parse(definition).unwrap_err())
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "demo.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

/// What a server answers to a new object: the object with defaults, or the errors.
fn create(resource: &CustomResource, mut object: Value) -> Result<Value, String> {
    let validator = &resource.versions[0].validator;
    validator.prune(&mut object);
    validator.default(&mut object);
    let errors = validator.validate_create(&object);
    if errors.is_empty() { Ok(object) } else { Err(aggregate(&errors)) }
}

const UNCHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was \
                         invalid; correct the existing errors to complete validation";

#[test]
fn errors_read_as_kubernetes_writes_them() {
    let resource = parse(widgets());
    let blocked = |text: &str| format!("[{text}, {UNCHECKED}]");
    for (spec, expected) in [
        (
            json!({"size": 0}),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1".to_owned(),
        ),
        (
            json!({"size": 3, "color": "blue"}),
            blocked(r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#),
        ),
        (json!({}), blocked("spec.size: Required value")),
        (
            json!({"size": 3, "name": "TOOLONGNAME"}),
            blocked("spec.name: Too long: may not be more than 8 bytes"),
        ),
        (json!({"size": 3, "tags": ["a", "a"]}), r#"spec.tags[1]: Duplicate value: "a""#.to_owned()),
        (
            json!({"size": 3, "parts": [{"key": "a"}, {"key": "a"}]}),
            r#"spec.parts[1]: Duplicate value: {"key":"a"}"#.to_owned(),
        ),
        (json!({"size": 9, "replicas": 0}), "spec: Invalid value: size too large for replicas".to_owned()),
        (
            json!({"size": 1, "name": "abc"}),
            "spec.size: Invalid value: named widgets are larger than one".to_owned(),
        ),
        (
            json!({"size": "x"}),
            blocked(
                r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
            ),
        ),
        (
            json!({"size": 3, "replicas": "three"}),
            format!(
                "[spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\", \
                 .spec.replicas: Invalid value: 0: .spec.replicas accessor error: three is of the type string, \
                 expected int64, {UNCHECKED}]"
            ),
        ),
    ] {
        assert_eq!(create(&resource, widget(spec)).unwrap_err(), expected);
    }
}

#[test]
fn prunes_and_defaults() {
    let resource = parse(widgets());
    let mut object = widget(
        json!({"size": 3, "parts": [{"key": "a", "x": 1}], "any": {"x": 1}, "port": "http", "extra": 1, "color": null}),
    );
    object["metadata"]["nosuch"] = json!(1);
    let removed = resource.versions[0].validator.prune(&mut object);
    assert_eq!(removed, ["metadata.nosuch", "spec.extra", "spec.parts[0].x"]);
    let object = create(&resource, object).unwrap();
    assert_eq!(
        object["spec"],
        json!({"size": 3, "color": "red", "replicas": 1, "parts": [{"key": "a", "count": 7}], "any": {"x": 1}, "port": "http"})
    );
}

#[test]
fn transition_rules_run_on_update_only_and_old_mistakes_are_tolerated() {
    let resource = parse(widgets());
    let validator = &resource.versions[0].validator;
    let old = widget(json!({"size": 3, "replicas": 1, "name": "abc"}));
    let new = widget(json!({"size": 4, "replicas": 1, "name": "abd"}));
    assert!(validator.validate_create(&new).is_empty());
    let errors = validator.validate_update(&new, &old);
    assert_eq!(aggregate(&errors), r#"spec.name: Invalid value: "abd": name is immutable"#);
    let old = widget(json!({"size": 30, "replicas": 10}));
    let mut new = old.clone();
    new["spec"]["color"] = json!("green");
    assert!(validator.validate_update(&new, &old).is_empty());
}

#[test]
fn definitions_are_checked() {
    let mut definition = widgets();
    apply_definition_defaults(&mut definition);
    definition["metadata"]["name"] = json!("wrong.demo.example");
    assert_eq!(
        problems(&definition),
        r#"metadata.name: Invalid value: "wrong.demo.example": must be spec.names.plural+"."+spec.group"#
    );
    definition["metadata"]["name"] = json!("widgets.demo.example");
    definition["spec"]["versions"][0]["storage"] = json!(false);
    assert!(problems(&definition).contains("must have exactly one version marked as storage version"));
    definition["spec"]["versions"][0]["storage"] = json!(true);
    let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] =
        json!([{"rule": "self.size < ]"}, {"rule": "other > 1"}, {"rule": "nosuch(1)"}]);
    spec["properties"]["color"] = json!({"description": "no type"});
    let problems = problems(&definition);
    assert!(
        problems.contains(
            "properties[color].type: Required value: must not be empty for specified object fields"
        ),
        "{problems}"
    );
    assert!(problems.contains("x-kubernetes-validations[0].rule: Invalid value"), "{problems}");
    assert!(problems.contains("compilation failed: undeclared reference to 'other'"), "{problems}");
    assert!(problems.contains("compilation failed: undeclared reference to 'nosuch'"), "{problems}");
}

#[test]
fn status_of_a_definition() {
    let resource = parse(widgets());
    let [names, established] = conditions(&resource, &NamesInUse::default());
    assert!(names.holds && established.holds);
    assert_eq!(names.to_value("2026-11-20T23:53:53Z")["message"], "no conflicts found");
    assert_eq!(accepted_names(&resource)["listKind"], "WidgetList");
    assert_eq!(
        initial_status(&resource),
        json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]})
    );
    let taken = NamesInUse { kinds: ["Widget".to_owned()].into(), ..NamesInUse::default() };
    let [names, established] = conditions(&resource, &taken);
    assert!(!names.holds && !established.holds);
    assert_eq!(names.message, "\"Widget\" is already in use");
}

#[test]
fn alternatives_and_special_types() {
    let mut definition = widgets();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({
        "type": "object",
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"required": ["c"]},
        "properties": {
            "a": {"type": "integer"}, "b": {"type": "string", "nullable": true}, "c": {"type": "boolean"},
            "port": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "list": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}
        }
    });
    let resource = parse(definition);
    let check = |spec: Value| create(&resource, widget(spec));
    assert!(check(json!({"a": 1})).is_ok());
    assert!(check(json!({"b": null})).is_ok());
    assert!(check(json!({"a": 1, "any": [1, "x", {"y": null}]})).is_ok());
    for (spec, expected) in [
        (
            json!({}),
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid, spec.a: Required value",
        ),
        (
            json!({"a": 1, "b": "x"}),
            "\"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (json!({"a": 1, "c": true}), "\"spec\" must not validate the schema (not)"),
        (json!({"a": 1, "port": true}), "spec.port in body must be of type integer,string: \"boolean\""),
        (json!({"a": 1, "when": "now"}), "spec.when in body must be of type date-time: \"now\""),
        (
            json!({"a": 1, "list": []}),
            "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
        ),
        (json!({"a": 1, "list": [1, 2, 3]}), "spec.list: Too many: 3: must have at most 2 items"),
        (json!({"a": 1, "list": [1, "x"]}), "spec.list[1]: Invalid value: \"string\""),
        (json!({"a": 1, "map": {"x": 1, "y": 2}}), "spec.map: Too many: 2: must have at most 1 item"),
        (json!({"a": 1, "inner": {"kind": "X"}}), "spec.inner.apiVersion: Required value: must not be empty"),
    ] {
        let problems = check(spec).unwrap_err();
        assert!(problems.contains(expected), "{problems}");
    }
}
