use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(kind: (&str, &str, &str), object: &Value, patch: &Value) -> Result<Value, StrategicError> {
    let schema = Catalogue::get().by_kind(kind.0, kind.1, kind.2).unwrap();
    let mut object = object.clone();
    apply_strategic_patch(&schema, &mut object, patch)?;
    Ok(object)
}

const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const POD: (&str, &str, &str) = ("", "v1", "Pod");

fn template(spec: &Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

#[test]
fn items_follow_the_order_that_the_patch_sets() {
    let object = template(&json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}));
    let patch = template(&json!({
        "containers": [{"name": "b", "image": "z"}],
        "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
    }));
    let expected =
        template(&json!({"containers": [{"name": "b", "image": "z"}, {"name": "a", "image": "x"}]}));
    assert_eq!(patched(DEPLOYMENT, &object, &patch).unwrap(), expected);
}

#[test]
fn new_items_come_first_and_deleted_ones_go() {
    let object = template(
        &json!({"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}]}, {"name": "b"}]}),
    );
    let patch = template(&json!({"containers": [
        {"name": "a", "env": [{"name": "F", "value": "2"}]}, {"name": "b", "$patch": "delete"}]}));
    let expected = template(&json!({"containers": [
        {"name": "a", "env": [{"name": "F", "value": "2"}, {"name": "E", "value": "1"}]}]}));
    assert_eq!(patched(DEPLOYMENT, &object, &patch).unwrap(), expected);
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let object = template(&json!({"tolerations": [{"key": "k"}]}));
    let patch = template(&json!({"tolerations": [{"key": "q"}]}));
    assert_eq!(patched(DEPLOYMENT, &object, &patch).unwrap(), patch);
}

#[test]
fn retain_keys_drops_the_rest() {
    let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        patched(DEPLOYMENT, &object, &patch).unwrap(),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let wrong = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert_eq!(patched(DEPLOYMENT, &object, &wrong), Err(StrategicError::RetainKeys));
}

#[test]
fn scalars_merge_once_each_and_can_be_deleted() {
    let object = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let patch = json!({"metadata": {"finalizers": ["d", "b"]}});
    assert_eq!(
        patched(POD, &object, &patch).unwrap(),
        json!({"metadata": {"finalizers": ["d", "a", "b", "c"]}})
    );
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["c", "a"]}});
    assert_eq!(patched(POD, &object, &patch).unwrap(), json!({"metadata": {"finalizers": ["c", "a"]}}));
}

#[test]
fn replace_and_delete_in_objects_and_lists() {
    let object =
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "a"}]}});
    let replace = json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}});
    assert_eq!(patched(POD, &object, &replace).unwrap()["metadata"]["labels"], json!({"c": "3"}));
    let delete = json!({"metadata": {"labels": {"$patch": "delete"}}});
    assert_eq!(patched(POD, &object, &delete).unwrap()["metadata"]["labels"], json!({}));
    let list = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}});
    assert_eq!(patched(POD, &object, &list).unwrap()["spec"]["containers"], json!([{"name": "z"}]));
    let unset = json!({"status": {"podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.1"}]}});
    assert_eq!(patched(POD, &object, &unset).unwrap()["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    let null = json!({"metadata": {"labels": {"a": null, "zz": null}, "annotations": {"x": null}}});
    assert_eq!(
        patched(POD, &object, &null).unwrap()["metadata"],
        json!({"labels": {"b": "2"}, "annotations": {}})
    );
}

#[test]
fn mistakes_leave_the_object_alone_and_say_what_is_wrong() {
    let object = json!({"spec": {"containers": [{"name": "a"}]}});
    let texts: Vec<_> = [
        json!([]),
        json!({"spec": {"containers": [{"image": "x"}]}}),
        json!({"spec": {"containers": [{"name": "a", "$patch": "mix"}]}}),
        json!({"spec": {"containers": ["a"]}}),
        json!({"spec": {"$setElementOrder/containers": "a"}}),
        json!({"spec": {"containers": [{"name": "b"}], "$setElementOrder/containers": [{"name": "a"}]}}),
        json!({"spec": {"$patch": "merge"}}),
    ]
    .iter()
    .map(|patch| {
        let error = patched(POD, &object, patch).unwrap_err();
        format!("{} {error}", error.code())
    })
    .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    400 error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}
    422 map: {"image":"x"} does not contain declared merge key: name
    422 unknown patch type: mix in map: {"$patch":"mix","name":"a"}
    500 list element types are not identical
    400 invalid patch format of setElementOrder list
    400 invalid patch format of setElementOrder list
    422 unknown patch type: merge in map: {"$patch":"merge"}
    "#);
}

fn containers() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[0-9]", 0..3);
    let container = (proptest::option::of("[xyz]"), env).prop_map(|(image, env)| {
        let env: Vec<_> =
            env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"image": image, "env": env})
    });
    prop::collection::btree_map("[a-d]", container, 0..4).prop_map(|containers| {
        let containers = containers.into_iter().map(|(name, mut container)| {
            container["name"] = name.into();
            container
        });
        containers.collect()
    })
}

proptest! {
    #[test]
    fn the_empty_patch_changes_nothing(list in containers()) {
        let object = json!({"spec": {"containers": list}});
        prop_assert_eq!(&patched(POD, &object, &json!({})).unwrap(), &object);
        prop_assert_eq!(&patched(POD, &object, &json!({"spec": {"containers": []}})).unwrap(), &object);
    }

    #[test]
    fn applying_a_patch_again_changes_nothing(before in containers(), change in containers()) {
        let patch = json!({"spec": {"containers": change}});
        let once = patched(POD, &json!({"spec": {"containers": before}}), &patch).unwrap();
        prop_assert_eq!(&patched(POD, &once, &patch).unwrap(), &once);
    }

    #[test]
    fn no_patch_leaves_directives_behind(before in containers(), change in containers(), names in prop::collection::vec("[a-d]", 0..3)) {
        let order: Vec<_> = change.as_array().unwrap().iter().map(|item| json!({"name": item["name"]})).collect();
        let mut change = change;
        change.as_array_mut().unwrap().extend(names.iter().map(|name| json!({"name": name, "$patch": "delete"})));
        let patch = json!({"spec": {"containers": change, "$setElementOrder/containers": order}});
        let after = patched(POD, &json!({"spec": {"containers": before}}), &patch).unwrap();
        prop_assert!(!after.to_string().contains('$'), "{after}");
    }
}
