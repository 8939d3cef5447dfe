use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What kubectl 1.32 sent for some commands, and the object it printed with `--dry-run=client -o json`.
const RECORDED: &str = include_str!("../../tests/data/kubectl-1.32-protobuf.json");

/// `creationTimestamp: null`, which kubectl prints for a time that is not set.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[test]
fn bodies_of_kubectl_are_what_it_prints() {
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    let mut without_object = Vec::new();
    for entry in &recorded {
        let body = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            entry["body"].as_str().unwrap(),
        );
        let decoded = value(&body.unwrap());
        let Some(mut expected) = entry.get("object").cloned() else {
            without_object.push(decoded);
            continue;
        };
        without_nulls(&mut expected);
        // The printed object names its namespace, the sent one leaves it to the path, or the other way around.
        let mut decoded = decoded;
        for object in [&mut decoded, &mut expected] {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        assert_eq!(decoded, expected, "{}", entry["command"]);
    }
    insta::assert_json_snapshot!(without_object);
}

/// Writes messages the way Go does.
#[derive(Default, Clone)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(mut self, mut number: u64) -> Self {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    fn number(self, field: u32, number: u64) -> Self {
        self.varint(u64::from(field) << 3).varint(number)
    }

    fn bytes(self, field: u32, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut result = self.varint(u64::from(field) << 3 | 2).varint(bytes.len() as u64);
        result.0.extend_from_slice(bytes);
        result
    }

    fn message(self, field: u32, inner: Self) -> Self {
        self.bytes(field, inner.0)
    }
}

fn new() -> Writer {
    Writer::default()
}

fn body(api_version: &str, kind: &str, object: Writer) -> Vec<u8> {
    let envelope = new()
        .message(1, new().bytes(1, api_version).bytes(2, kind))
        .message(2, object)
        .bytes(3, "")
        .bytes(4, "");
    [MAGIC.as_slice(), &envelope.0].concat()
}

fn metadata(name: &str) -> Writer {
    // Go writes the fields it holds by value even when they are empty.
    new()
        .bytes(1, name)
        .bytes(2, "")
        .bytes(3, "")
        .bytes(4, "")
        .bytes(5, "")
        .bytes(6, "")
        .number(7, 0)
        .bytes(8, "")
}

fn value(body: &[u8]) -> Value {
    decode(body, None).unwrap().value
}

#[test]
fn a_config_map_with_text_and_bytes() {
    let object = new()
        .message(1, metadata("settings"))
        .message(2, new().bytes(1, "a").bytes(2, "1"))
        .message(2, new().bytes(1, "empty").bytes(2, ""))
        .message(3, new().bytes(1, "raw").bytes(2, [0xff, 0x00]));
    let expected = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"a": "1", "empty": ""}, "binaryData": {"raw": "/wA="},
    });
    assert_eq!(value(&body("v1", "ConfigMap", object)), expected);
}

#[test]
fn a_deployment_keeps_the_zero_of_a_pointer_and_embedded_structs_lie_flat() {
    let probe = new()
        .message(
            1,
            new().message(2, new().bytes(1, "/ok").message(2, new().number(1, 0).number(2, 80).bytes(3, ""))),
        )
        .number(2, 0)
        .number(3, 5);
    let limits = new().bytes(1, "cpu").message(2, new().bytes(1, "500m"));
    let container = new()
        .bytes(1, "c")
        .bytes(2, "image")
        .message(8, new().message(1, limits))
        .message(10, probe)
        .bytes(14, "")
        .number(18, 0);
    let volume = new().bytes(1, "v").message(2, new().message(19, new().message(1, new().bytes(1, "cm"))));
    let pod = new().message(1, volume).message(2, container).number(11, 0).number(21, 0);
    let template = new().message(1, metadata("")).message(2, pod);
    let selector = new().message(1, new().bytes(1, "app").bytes(2, "d"));
    let surge = new().message(2, new().number(1, 1).number(2, 0).bytes(3, "25%"));
    let strategy = new().bytes(1, "RollingUpdate").message(2, surge);
    let spec = new()
        .number(1, 0)
        .message(2, selector)
        .message(3, template)
        .message(4, strategy)
        .number(5, 0)
        .number(7, 0);
    let object = new().message(1, metadata("d")).message(2, spec).message(3, new());
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "d"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"metadata": {}, "spec": {
                "volumes": [{"name": "v", "configMap": {"name": "cm"}}],
                "containers": [{
                    "name": "c", "image": "image", "resources": {"limits": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"path": "/ok", "port": 80}, "timeoutSeconds": 5},
                }],
                "automountServiceAccountToken": false,
            }},
        },
        "status": {},
    });
    assert_eq!(value(&body("apps/v1", "Deployment", object)), expected);
}

#[test]
fn times_and_negative_numbers() {
    let time = new().number(1, 1_700_000_000).number(2, 5);
    let micro = new().number(1, 1_700_000_000).number(2, 123_456_789);
    let spec = new().bytes(1, "me").number(2, (-1_i64) as u64).message(3, time.clone()).message(4, micro);
    let lease = body(
        "coordination.k8s.io/v1",
        "Lease",
        new().message(1, metadata("l").message(9, time)).message(2, spec),
    );
    let expected = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l", "deletionTimestamp": "2023-11-14T22:13:20Z"},
        "spec": {
            "holderIdentity": "me", "leaseDurationSeconds": -1,
            "acquireTime": "2023-11-14T22:13:20.000000Z", "renewTime": "2023-11-14T22:13:20.123456Z",
        },
    });
    assert_eq!(value(&lease), expected);
}

#[test]
fn delete_options_and_a_kind_that_only_the_path_tells() {
    let options = new().number(1, 0).message(2, new().bytes(1, "uid")).bytes(4, "Background");
    let expected = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "preconditions": {"uid": "uid"}, "propagationPolicy": "Background",
    });
    assert_eq!(value(&body("v1", "DeleteOptions", options.clone())), expected);
    let unnamed = [MAGIC.as_slice(), &new().message(2, options).0].concat();
    assert_eq!(decode(&unnamed, Some(("v1", "DeleteOptions"))).unwrap().value, expected);
    assert_eq!(decode(&unnamed, None), Err(ProtobufError::NoKind));
}

#[test]
fn a_review_with_lists_in_a_map() {
    let extra = new().bytes(1, "scopes").message(2, new().bytes(1, "a").bytes(1, "b"));
    let spec = new().bytes(3, "me").message(5, extra);
    let review = value(&body("authorization.k8s.io/v1", "SubjectAccessReview", new().message(2, spec)));
    assert_eq!(review["spec"], json!({"user": "me", "extra": {"scopes": ["a", "b"]}}));
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    assert_eq!(decode(b"{}", None), Err(ProtobufError::NoMagic));
    let unknown = decode(&body("kubeflow.org/v1", "PyTorchJob", new()), None);
    assert!(matches!(unknown, Err(ProtobufError::UnknownKind { .. })), "{unknown:?}");
    let mismatch = decode(&body("v1", "ConfigMap", new().number(1, 3)), None).unwrap_err();
    insta::assert_snapshot!(mismatch, @"proto: io.k8s.api.core.v1.ConfigMap.metadata: wrong wire type for the field");
}

#[test]
fn nesting_is_bounded() {
    let mut schema = new();
    for _ in 0..2 * MAX_DEPTH {
        schema = new().message(28, schema.clone());
    }
    let version = new().bytes(1, "v1").message(4, new().message(1, schema));
    let crd = body(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        new().message(2, new().message(7, version)),
    );
    assert!(decode(&crd, None).is_err());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(kind in prop::sample::select(vec![("v1", "Pod"), ("apps/v1", "Deployment"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("v1", "Event")]), bytes: Vec<u8>) {
        let _ = decode(&body(kind.0, kind.1, Writer(bytes)), None);
    }

    #[test]
    fn mutated_bodies_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let pod = new().message(2, new().bytes(1, "c").message(8, new().message(1, new().bytes(1, "cpu").message(2, new().bytes(1, "1")))));
        let mut bytes = body("v1", "Pod", new().message(1, metadata("p")).message(2, pod));
        for (place, byte) in changes {
            let place = place.index(bytes.len() - MAGIC.len()) + MAGIC.len();
            bytes[place] = byte;
        }
        let _ = decode(&bytes, None);
    }
}
