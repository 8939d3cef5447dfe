use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::catalogue::Catalogue;

fn checked(group: &str, version: &str, kind: &str, value: &Value) -> Checked {
    check(&Catalogue::get().by_kind(group, version, kind).unwrap(), value)
}

#[test]
fn texts_of_the_real_server() {
    let body =
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"dup","name":"dup2"},"unknown":1}"#;
    let (value, duplicates) = decode_json(body).unwrap();
    assert_eq!(value["metadata"]["name"], "dup2");
    let found = checked("", "v1", "ConfigMap", &value);
    let problems = field_problems(&duplicates, &found.unknown);
    assert_eq!(problems, ["duplicate field \"metadata.name\"", "unknown field \"unknown\""]);
    assert_eq!(
        cannot_be_handled("ConfigMap", "v1", "ConfigMap", &strict_error(&problems[1..]).unwrap()),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"unknown\""
    );
    assert_eq!(warning(&problems[1]), r#"299 - "unknown field \"unknown\"""#);
    assert_eq!(strict_error(&[]), None);
}

#[test]
fn bodies_that_are_no_json() {
    for (body, end) in [
        ("{bad json", "invalid character 'b' looking for beginning of object key string ({bad json)"),
        ("", "unexpected end of JSON input (<empty>)"),
    ] {
        let error = decode_json(body.as_bytes()).unwrap_err();
        assert_eq!(
            unrecognized("ConfigMap", &error, body.as_bytes()),
            format!(
                "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: {end}"
            )
        );
    }
    let deep = [vec![b'['; 5000], vec![b']'; 5000]].concat();
    assert!(matches!(decode_json(&deep), Err(DecodeError::Json(_))));
    assert_eq!(decode_json(&vec![b' '; MAX_BYTES + 1]), Err(DecodeError::TooLarge));
}

#[test]
fn whole_numbers_have_one_form() {
    let (read, _) = decode_json(br#"{"a":[0.0,-2.0,1.5,1e300,7],"b":"2.0"}"#).unwrap();
    let mut given = json!({"a": [0.0, -2.0, 1.5, 1e300, 7], "b": "2.0"});
    whole_numbers(&mut given);
    assert_eq!(given, read);
    assert_eq!(given, json!({"a": [0, -2, 1.5, 1e300, 7], "b": "2.0"}));
}

#[test]
fn unknown_fields_have_their_whole_path() {
    let pod = json!({"metadata": {"name": "x", "labls": {}}, "spec": {
        "containers": [{"name": "c", "comand": ["x"], "resources": {"limits": {"anything": 1}}}],
        "volumes": [{"name": "v", "configMap": {"nam": "x"}}], "NodeName": "n"}});
    let found = checked("", "v1", "Pod", &pod);
    let expected =
        ["metadata.labls", "spec.NodeName", "spec.containers[0].comand", "spec.volumes[0].configMap.nam"];
    assert_eq!(found.unknown, expected);
    assert_eq!(found.type_errors, Vec::<String>::new());
}

#[test]
fn wrong_types_in_words_of_go() {
    let cases = [
        (
            "",
            "ConfigMap",
            json!({"data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "apps",
            "Deployment",
            json!({"spec": {"replicas": "1"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps",
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            "",
            "Pod",
            json!({"spec": {"containers": {}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "",
            "Pod",
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            "",
            "Pod",
            json!({"spec": {"priority": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            "",
            "Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "abc"}}}]}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("", "Secret", json!({"data": {"a": "aGk!"}}), "illegal base64 data at input byte 3"),
        (
            "",
            "Service",
            json!({"spec": {"ports": [{"targetPort": true}]}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            "",
            "Pod",
            json!({"metadata": {"labels": "x"}}),
            "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
    ];
    for (group, kind, value, expected) in cases {
        assert_eq!(checked(group, "v1", kind, &value).type_errors, [expected], "{value}");
    }
}

#[test]
fn schemas_inside_of_custom_resource_definitions_are_checked() {
    let crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"a": {"type": "array", "items": {"typ": "string"}},
        "b": {"additionalProperties": true, "default": {"any": 1}}}}}}]}});
    let found = checked("apiextensions.k8s.io", "v1", "CustomResourceDefinition", &crd);
    assert_eq!(found.unknown, ["spec.versions[0].schema.openAPIV3Schema.properties.a.items.typ"]);
}

#[test]
fn pruning_keeps_what_go_keeps() {
    let catalogue = Catalogue::get();
    let mut pod = json!({"metadata": {"name": "p", "labels": {"a": null}, "creationTimestamp": null}, "x": 1,
        "spec": {"nodeName": null, "containers": [{"name": "c", "comand": [], "args": [null, "a"],
        "resources": {"limits": {"cpu": null}}}]}});
    prune(&catalogue.by_kind("", "v1", "Pod").unwrap(), &mut pod);
    let expected = json!({"metadata": {"name": "p", "labels": {"a": ""}}, "spec": {"containers": [
        {"name": "c", "args": ["", "a"], "resources": {"limits": {"cpu": "0"}}}]}});
    assert_eq!(pod, expected);
}

#[test]
fn yaml_bodies() {
    let (value, duplicates) =
        decode_yaml(b"kind: ConfigMap\ndata: {a: x, n: '1'}\nlist: [1, true, null]\n").unwrap();
    assert_eq!(value, json!({"kind": "ConfigMap", "data": {"a": "x", "n": "1"}, "list": [1, true, null]}));
    assert!(duplicates.is_empty());
    let (value, duplicates) = decode_yaml(b"a: 1\na: 2\n").unwrap();
    assert_eq!(value, json!({"a": 2}));
    assert_eq!(duplicates, [DuplicateField { path: "a".into() }]);
    assert!(matches!(decode_yaml(b"a: [1"), Err(DecodeError::Yaml(_))));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: Vec<u8>) {
        let _ = decode_json(&text);
        let _ = decode_yaml(&text);
    }

    #[test]
    fn pruned_objects_have_no_unknown_fields(labels: std::collections::BTreeMap<String, String>, field in "[a-z]{1,8}") {
        let reference = Catalogue::get().by_kind("", "v1", "Pod").unwrap();
        let mut pod = json!({"metadata": {"labels": labels, (field.clone()): null}, "spec": {(field.clone()): {}, "containers": [{(field): 1}]}});
        prune(&reference, &mut pod);
        prop_assert_eq!(check(&reference, &pod).unknown, Vec::<String>::new());
        let once = pod.clone();
        prune(&reference, &mut pod);
        prop_assert_eq!(once, pod);
    }
}
