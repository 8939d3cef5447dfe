//! Replacing, patching and deleting, in the corners that clients reach.

use serde_json::{Value, json};

use crate::harness::{Server, ask, create};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "img:1" }] },
    })
}

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "1" } })
}

#[tokio::test]
async fn a_replaced_pod_keeps_what_admission_gave_it() {
    let server = Server::start().await;
    let client = server.handle.client();
    let made = create(&client, PODS, &pod("web")).await;
    // The author's manifest names neither the token's volume nor the account: these are changes. The tolerations and
    // the priority, which admission adds to replacements as well, are none.
    let (status, answer) = ask(&client, "PUT", &format!("{PODS}/web"), JSON, pod("web").to_string()).await;
    assert_eq!(status, 422, "{answer}");
    let causes = answer["details"]["causes"].as_array().expect("causes");
    assert_eq!(causes.len(), 1, "{answer}");
    assert_eq!(causes[0]["field"], "spec");
    let mut wanted = made.clone();
    for field in ["tolerations", "priority", "preemptionPolicy"] {
        wanted["spec"].as_object_mut().expect("spec").remove(field);
    }
    wanted["spec"]["containers"][0]["image"] = json!("img:2");
    let (status, answer) = ask(&client, "PUT", &format!("{PODS}/web"), JSON, wanted.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    wanted = made;
    wanted["spec"]["containers"][0]["image"] = json!("img:2");
    assert_eq!(answer["spec"], wanted["spec"]);
    server.stop().await;
}

#[tokio::test]
async fn a_quota_is_paid_back_when_the_last_finalizer_goes() {
    let server = Server::start().await;
    let client = server.handle.client();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" },
        "spec": { "hard": { "count/configmaps": "2", "configmaps": "2" } },
    });
    create(&client, "/api/v1/namespaces/default/resourcequotas", &quota).await;
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["test.example/hold"]);
    // One place is taken by the certificate that every namespace has.
    for _ in 0..3 {
        create(&client, MAPS, &held).await;
        let (status, answer) = ask(&client, "DELETE", &format!("{MAPS}/held"), JSON, "").await;
        assert_eq!(status, 200, "{answer}");
        let patch = json!({ "metadata": { "finalizers": null } }).to_string();
        let (status, answer) = ask(&client, "PATCH", &format!("{MAPS}/held"), MERGE, patch).await;
        assert_eq!(status, 200, "{answer}");
        let (status, _) = ask(&client, "GET", &format!("{MAPS}/held"), "", "").await;
        assert_eq!(status, 404);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_shows_what_it_would() {
    let server = Server::start().await;
    let client = server.handle.client();
    let (status, answer) =
        ask(&client, "POST", &format!("{MAPS}?dryRun=All"), JSON, map("a").to_string()).await;
    assert_eq!((status, &answer["metadata"]["name"]), (201, &json!("a")));
    assert!(answer["metadata"]["uid"].is_string() && answer["metadata"].get("resourceVersion").is_none());
    assert_eq!(ask(&client, "GET", &format!("{MAPS}/a"), "", "").await.0, 404);
    let made = create(&client, MAPS, &map("a")).await;
    let patch = json!({ "data": { "a": "2" } }).to_string();
    let (status, answer) = ask(&client, "PATCH", &format!("{MAPS}/a?dryRun=All"), MERGE, patch).await;
    assert_eq!((status, &answer["data"]["a"]), (200, &json!("2")));
    for path in [format!("{MAPS}/a?dryRun=All"), format!("{MAPS}?dryRun=All")] {
        assert_eq!(ask(&client, "DELETE", &path, JSON, "").await.0, 200);
    }
    let options = json!({ "dryRun": ["All"] }).to_string();
    assert_eq!(ask(&client, "DELETE", &format!("{MAPS}/a"), JSON, options).await.0, 200);
    let (_, kept) = ask(&client, "GET", &format!("{MAPS}/a"), "", "").await;
    assert_eq!(kept, made);
    server.stop().await;
}

#[tokio::test]
async fn preconditions_hold_or_nothing_happens() {
    let server = Server::start().await;
    let client = server.handle.client();
    let made = create(&client, MAPS, &map("a")).await;
    for preconditions in [json!({ "uid": "other" }), json!({ "resourceVersion": "1" })] {
        let options = json!({ "preconditions": preconditions }).to_string();
        let (status, answer) = ask(&client, "DELETE", &format!("{MAPS}/a"), JSON, options).await;
        assert_eq!((status, &answer["reason"]), (409, &json!("Conflict")), "{answer}");
    }
    let mut other = made.clone();
    other["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    let (status, answer) = ask(&client, "PUT", &format!("{MAPS}/a"), JSON, other.to_string()).await;
    assert_eq!(status, 409, "{answer}");
    let tested = json!([
        { "op": "test", "path": "/data/a", "value": "9" }, { "op": "replace", "path": "/data/a", "value": "2" },
    ]);
    let (status, answer) = ask(&client, "PATCH", &format!("{MAPS}/a"), JSON_PATCH, tested.to_string()).await;
    assert_eq!((status, &answer["reason"]), (422, &json!("Invalid")), "{answer}");
    let (_, kept) = ask(&client, "GET", &format!("{MAPS}/a"), "", "").await;
    assert_eq!(kept, made);
    server.stop().await;
}

#[tokio::test]
async fn patches_of_the_wrong_shape_are_refused() {
    let server = Server::start().await;
    let client = server.handle.client();
    create(&client, MAPS, &map("a")).await;
    for (media, body) in [
        (MERGE, "[]"),
        (MERGE, "7"),
        (MERGE, r#"{"data":{"a":7}}"#),
        (MERGE, r#"{"metadata":[]}"#),
        (MERGE, r#"{"metadata":null}"#),
        (MERGE, r#"{"kind":"Secret"}"#),
        (STRATEGIC, "[]"),
        (STRATEGIC, r#"{"data":{"a":{}}}"#),
        (STRATEGIC, r#"{"metadata":{"finalizers":{"a":1}}}"#),
        (STRATEGIC, r#"{"metadata":"x"}"#),
        (JSON_PATCH, "{}"),
        (JSON_PATCH, r#"[{"op":"fly","path":"/data"}]"#),
        (JSON_PATCH, r#"[{"op":"replace","path":"","value":[]}]"#),
        (JSON_PATCH, r#"[{"op":"remove","path":"/metadata/name"}]"#),
        (JSON_PATCH, r#"[{"op":"add","path":"/metadata/labels","value":"x"}]"#),
        ("application/apply-patch+yaml", "[]"),
        (JSON, "{}"),
    ] {
        let path = format!("{MAPS}/a?fieldManager=test");
        let (status, answer) = ask(&client, "PATCH", &path, media, body).await;
        assert!((400..500).contains(&status), "{media} {body}: {answer}");
        assert_eq!((&answer["kind"], &answer["code"]), (&json!("Status"), &json!(status)), "{body}");
    }
    let (_, kept) = ask(&client, "GET", &format!("{MAPS}/a"), "", "").await;
    assert_eq!((&kept["data"], &kept["metadata"]["name"]), (&json!({ "a": "1" }), &json!("a")));
    server.stop().await;
}

#[tokio::test]
async fn the_status_is_written_apart_from_the_rest() {
    let server = Server::start().await;
    let client = server.handle.client();
    let mut object = pod("p");
    object["status"] = json!({ "phase": "Running" });
    assert_eq!(create(&client, PODS, &object).await["status"]["phase"], "Pending");
    let both = json!({
        "spec": { "activeDeadlineSeconds": 5 }, "status": { "phase": "Running" },
        "metadata": { "labels": { "a": "b" } },
    });
    let path = format!("{PODS}/p");
    let (_, main) = ask(&client, "PATCH", &path, MERGE, both.to_string()).await;
    assert_eq!(
        (&main["status"]["phase"], &main["spec"]["activeDeadlineSeconds"]),
        (&json!("Pending"), &json!(5))
    );
    let patch = json!({ "spec": { "activeDeadlineSeconds": 4 }, "status": { "phase": "Running" } });
    let (status, part) = ask(&client, "PATCH", &format!("{path}/status"), MERGE, patch.to_string()).await;
    assert_eq!(status, 200, "{part}");
    assert_eq!(
        (&part["status"]["phase"], &part["spec"]["activeDeadlineSeconds"]),
        (&json!("Running"), &json!(5))
    );
    server.stop().await;
}

#[tokio::test]
async fn owners_and_names_are_checked() {
    let server = Server::start().await;
    let client = server.handle.client();
    let owner = |controller: bool| json!({ "apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u", "controller": controller });
    for (owners, field) in [
        (json!([owner(true), owner(true)]), "metadata.ownerReferences"),
        (json!([{ "apiVersion": "v1", "kind": "Pod", "name": "o" }]), "metadata.ownerReferences.uid"),
        (json!([{ "apiVersion": "v1", "kind": "Pod", "uid": "u" }]), "metadata.ownerReferences.name"),
    ] {
        let mut object = map("owned");
        object["metadata"]["ownerReferences"] = owners;
        let (status, answer) = ask(&client, "POST", MAPS, JSON, object.to_string()).await;
        assert_eq!(status, 422, "{answer}");
        let fields: Vec<&Value> = answer["details"]["causes"]
            .as_array()
            .expect("causes")
            .iter()
            .map(|cause| &cause["field"])
            .collect();
        assert!(fields.contains(&&json!(field)), "{answer}");
    }
    let mut generated = map("");
    generated["metadata"] = json!({ "generateName": "a-rather-long-beginning-".repeat(3) });
    let made = create(&client, MAPS, &generated).await;
    let name = made["metadata"]["name"].as_str().expect("name");
    assert!(name.len() == 63 && name.starts_with("a-rather-long-beginning-a"), "{name}");
    let (status, answer) = ask(&client, "POST", MAPS, JSON, json!({ "data": {} }).to_string()).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["message"].as_str().is_some_and(|text| text.contains("name or generateName is required")));
    server.stop().await;
}

#[tokio::test]
async fn a_deletion_in_the_past_is_a_deletion_soon() {
    let server = Server::start().await;
    let client = server.handle.client();
    let mut object = pod("p");
    object["spec"]["nodeName"] = json!("n");
    create(&client, PODS, &object).await;
    let options = json!({ "gracePeriodSeconds": -5 }).to_string();
    let (_, answer) = ask(&client, "DELETE", &format!("{PODS}/p"), JSON, options).await;
    assert_eq!(answer["metadata"]["deletionGracePeriodSeconds"], 1, "{answer}");
    let options = json!({ "gracePeriodSeconds": "soon" }).to_string();
    let (status, answer) = ask(&client, "DELETE", &format!("{PODS}/p"), JSON, options).await;
    assert_eq!(status, 400, "{answer}");
    server.stop().await;
}
