use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::{ListKind, Schema, Type};

fn inline(schema: Schema) -> SchemaRef {
    SchemaRef::Inline(Arc::new(schema))
}

fn object(fields: impl IntoIterator<Item = (&'static str, SchemaRef)>) -> Schema {
    let properties = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    Schema { kind: Type::Object, properties, ..Schema::default() }
}

fn widget_schema() -> SchemaRef {
    let scalar = || inline(Schema { kind: Type::Integer, ..Schema::default() });
    let part = object([("key", scalar()), ("count", scalar())]);
    let list =
        |list, items| inline(Schema { kind: Type::Array, list, items: Some(items), ..Schema::default() });
    let map = Schema { kind: Type::Object, additional: Some(scalar()), ..Schema::default() };
    inline(object([
        (
            "spec",
            inline(object([
                ("size", scalar()),
                ("color", scalar()),
                ("parts", list(ListKind::Map(vec!["key".to_owned()]), inline(part))),
                ("tags", list(ListKind::Set, scalar())),
                ("words", list(ListKind::Atomic, scalar())),
                ("map", inline(map)),
                ("any", inline(Schema { kind: Type::Object, preserve_unknown: true, ..Schema::default() })),
            ])),
        ),
        ("status", inline(object([("replicas", scalar())]))),
    ]))
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "demo.example/v1", subresource: "", now: "2026-11-20T23:53:56Z" }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "demo.example/v1", "kind": "Widget", "metadata": {"name": "ssa"}, "spec": spec})
}

fn applied(live: Option<&Value>, manager: &str, spec: Value, force: bool) -> Result<Value, ApplyError> {
    apply(&widget_schema(), live, &config(spec), &writer(manager), &FieldSet::default(), force)
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn the_recorded_conversation() {
    let first = applied(None, "one", json!({"size": 2, "parts": [{"key": "a", "count": 1}]}), false).unwrap();
    assert_eq!(
        owned(&first, "one"),
        json!({"f:spec": {"f:parts": {"k:{\"key\":\"a\"}": {".": {}, "f:count": {}, "f:key": {}}}, "f:size": {}}})
    );
    let second = json!({"size": 3, "parts": [{"key": "b", "count": 2}]});
    let conflict = applied(Some(&first), "two", second.clone(), false).unwrap_err();
    assert_eq!(conflict.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.size");
    let ApplyError::Conflicts(conflicts) = conflict else { panic!() };
    assert_eq!(
        (conflicts[0].message(), conflicts[0].path.as_str()),
        ("conflict with \"one\"".to_owned(), ".spec.size")
    );
    let forced = applied(Some(&first), "two", second, true).unwrap();
    assert_eq!(
        forced["spec"],
        json!({"size": 3, "parts": [{"key": "a", "count": 1}, {"key": "b", "count": 2}]})
    );
    assert_eq!(
        owned(&forced, "one"),
        json!({"f:spec": {"f:parts": {"k:{\"key\":\"a\"}": {".": {}, "f:count": {}, "f:key": {}}}}})
    );
    let third = applied(Some(&forced), "one", json!({"size": 3}), false).unwrap();
    assert_eq!(third["spec"], json!({"size": 3, "parts": [{"key": "b", "count": 2}]}));
    assert_eq!(owned(&third, "one"), json!({"f:spec": {"f:size": {}}}));
    assert_eq!(
        owned(&third, "two"),
        json!({"f:spec": {"f:parts": {"k:{\"key\":\"b\"}": {".": {}, "f:count": {}, "f:key": {}}}, "f:size": {}}})
    );
}

#[test]
fn ordinary_writes_are_tracked() {
    let mut object =
        config(json!({"size": 3, "color": 1, "any": {"x": 1}, "parts": [{"key": "a", "count": 7}]}));
    let none = FieldSet::default();
    update_managed_fields(&widget_schema(), None, &mut object, &writer("unknown"), &none);
    assert_eq!(
        owned(&object, "unknown"),
        json!({"f:spec": {".": {}, "f:any": {".": {}, "f:x": {}}, "f:color": {}, "f:size": {},
            "f:parts": {".": {}, "k:{\"key\":\"a\"}": {".": {}, "f:count": {}, "f:key": {}}}}})
    );
    let mut status = object.clone();
    status["status"] = json!({"replicas": 5});
    let through_status = Writer { subresource: "status", ..writer("unknown") };
    update_managed_fields(
        &widget_schema(),
        Some(&object),
        &mut status,
        &through_status,
        &reset_fields(true, "status"),
    );
    let entries = status["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {".": {}, "f:replicas": {}}}));
    assert_eq!(entries[1]["subresource"], "status");
    let mut forgotten = status.clone();
    forgotten["metadata"]["managedFields"] = json!([{}]);
    update_managed_fields(&widget_schema(), Some(&status), &mut forgotten, &writer("unknown"), &none);
    assert_eq!(forgotten["metadata"].get("managedFields"), None);
    let applied = applied(Some(&forgotten), "one", json!({"size": 3}), false).unwrap();
    assert_ne!(owned(&applied, "before-first-apply"), Value::Null);
}

#[test]
fn built_in_structs_are_nobodys() {
    let schema = crate::catalogue::Catalogue::get().by_kind("apps", "v1", "Deployment").unwrap();
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": "d"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [
            {"name": "a", "image": "x", "resources": {}, "env": [{"name": "E", "value": "1"}]}]}}
    }, "status": {}});
    let writer = Writer { api_version: "apps/v1", ..writer("unknown") };
    update_managed_fields(&schema, None, &mut object, &writer, &reset_fields(true, ""));
    assert_eq!(
        owned(&object, "unknown"),
        json!({"f:spec": {"f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:env": {".": {}, "k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}}}}}}})
    );
}

#[test]
fn subresource_owners_are_named_in_conflicts() {
    let mut object = config(json!({"size": 3}));
    let none = FieldSet::default();
    update_managed_fields(&widget_schema(), None, &mut object, &writer("kubectl"), &none);
    let mut scaled = object.clone();
    scaled["spec"]["size"] = json!(4);
    let scale = Writer { subresource: "scale", ..writer("kubectl") };
    update_managed_fields(&widget_schema(), Some(&object), &mut scaled, &scale, &none);
    assert_eq!(
        applied(Some(&scaled), "other", json!({"size": 5}), false).unwrap_err().to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using demo.example/v1: .spec.size"
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    let mut object = config(json!({"size": 3}));
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": config(json!({"size": 3})).to_string()});
    let none = FieldSet::default();
    update_managed_fields(&widget_schema(), None, &mut object, &writer("kubectl-client-side-apply"), &none);
    assert!(applied(Some(&object), "other", json!({"size": 4}), false).is_err());
    let taken = applied(Some(&object), "kubectl", json!({"size": 4}), false).unwrap();
    assert_eq!(taken["spec"]["size"], 4);
}

#[test]
fn repeated_keys_are_refused() {
    let problem = applied(None, "one", json!({"parts": [{"key": 1}, {"key": 1}]}), false).unwrap_err();
    assert!(problem.to_string().ends_with(".spec.parts: duplicate entries for key [key=1]"), "{problem}");
}

#[test]
fn many_writers_are_folded() {
    let mut object = config(json!({"map": {}}));
    let none = FieldSet::default();
    update_managed_fields(&widget_schema(), None, &mut object, &writer("first"), &none);
    for number in 0..30 {
        let (name, now) = (format!("writer-{number}"), format!("2026-11-20T23:54:{number:02}Z"));
        let old = object.clone();
        object["spec"]["map"][&name] = json!(1);
        update_managed_fields(
            &widget_schema(),
            Some(&old),
            &mut object,
            &Writer { now: &now, ..writer(&name) },
            &none,
        );
    }
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 10);
    assert_ne!(owned(&object, "ancient-changes"), Value::Null);
}

fn element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        "[a-c]".prop_map(PathElement::Field),
        (0..2_i64).prop_map(|key| PathElement::Key(json!({"key": key}).to_string())),
        (0..2_i64).prop_map(|value| PathElement::Value(value.to_string())),
        (0..2_usize).prop_map(PathElement::Index),
    ]
}

fn any_set() -> impl Strategy<Value = FieldSet> {
    proptest::collection::vec(proptest::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
        let mut set = FieldSet::default();
        for path in &paths {
            set.insert(path);
        }
        set
    })
}

fn spec() -> impl Strategy<Value = Value> {
    let scalar = 0..3_i64;
    let parts = proptest::collection::btree_map(0..3_i64, 0..3_i64, 0..3);
    let tags = proptest::collection::btree_set(0..4_i64, 0..4);
    let map = proptest::collection::btree_map("[a-c]", 0..3_i64, 0..3);
    (
        proptest::option::of(scalar.clone()),
        proptest::option::of(parts),
        proptest::option::of(tags),
        proptest::option::of(map),
    )
        .prop_map(|(size, parts, tags, map)| {
            let mut spec = json!({});
            if let Some(size) = size {
                spec["size"] = json!(size);
            }
            if let Some(parts) = parts {
                let parts: Vec<_> =
                    parts.iter().map(|(key, count)| json!({"key": key, "count": count})).collect();
                spec["parts"] = json!(parts);
            }
            if let Some(tags) = tags {
                spec["tags"] = json!(tags);
            }
            if let Some(map) = map {
                spec["map"] = json!(map);
            }
            spec
        })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!({})), Just(json!(null)), Just(json!(1)), Just(json!("x"))];
    leaf.prop_recursive(4, 32, 4, |inner| {
        proptest::collection::btree_map("(f:|k:|v:|i:|\\.|)[a0{}\":]{0,4}", inner, 0..4)
            .prop_map(|map| json!(map))
    })
}

proptest! {
    #[test]
    fn sets_obey_algebra(left in any_set(), right in any_set()) {
        prop_assert_eq!(left.union(&right), right.union(&left));
        prop_assert_eq!(left.intersection(&right), right.intersection(&left));
        prop_assert!(left.difference(&left).is_empty());
        prop_assert_eq!(left.union(&right).difference(&right), left.difference(&right));
        prop_assert_eq!(left.difference(&right).union(&left.intersection(&right)), left.clone());
        prop_assert!(left.difference(&right).intersection(&right).is_empty());
        prop_assert_eq!(FieldSet::parse(&left.to_value()).unwrap(), left);
    }

    #[test]
    fn any_fields_are_read_without_panic(value in any_json()) {
        if let Ok(set) = FieldSet::parse(&value) {
            prop_assert_eq!(FieldSet::parse(&set.to_value()).unwrap(), set);
        }
        let live = json!({"metadata": {"managedFields": [{"manager": "x", "operation": "Apply", "fieldsV1": value}]}});
        let _ = applied(Some(&live), "y", json!({"size": 1}), true);
    }

    #[test]
    fn applying_twice_changes_nothing(first in spec(), second in spec()) {
        let live = applied(None, "one", first, false).unwrap();
        let once = applied(Some(&live), "two", second.clone(), true).unwrap();
        let twice = applied(Some(&once), "two", second, false).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn force_owns_all_that_is_listed(first in spec(), second in spec()) {
        let live = applied(None, "one", first, false).unwrap();
        let forced = applied(Some(&live), "two", second.clone(), true).unwrap();
        let listed = typed::field_set(&Place::root(&widget_schema()), &json!({"spec": second}));
        let owned = FieldSet::parse(&owned(&forced, "two")).unwrap_or_default();
        prop_assert_eq!(listed, owned);
    }

    #[test]
    fn disjoint_appliers_do_not_conflict(left in 0..3_i64, right in 0..3_i64, tag in 0..3_i64) {
        let live = applied(None, "one", json!({"size": left, "parts": [{"key": 1, "count": 1}], "tags": [9]}), false).unwrap();
        let both = applied(Some(&live), "two", json!({"color": right, "parts": [{"key": 2, "count": 1}], "tags": [tag]}), false);
        prop_assert!(both.is_ok());
        let alone = applied(Some(&both.unwrap()), "two", json!({}), false).unwrap();
        prop_assert_eq!(&alone["spec"], &live["spec"]);
    }
}
