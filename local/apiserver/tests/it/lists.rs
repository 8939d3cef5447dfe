//! Lists and watches: which state they show, and in which form.

use futures::AsyncBufReadExt as _;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Server, ask, create};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn put(client: &kube::Client, name: &str, labels: Value) -> String {
    let map = json!({ "metadata": { "name": name, "labels": labels } });
    create(client, MAPS, &map).await["metadata"]["resourceVersion"].as_str().expect("version").to_owned()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items").iter();
    items.filter_map(|item| item["metadata"]["name"].as_str()).filter(|name| name.len() == 1).collect()
}

#[tokio::test]
async fn pages_show_one_state_whatever_happens_between_them() {
    let server = Server::start().await;
    let client = server.handle.client();
    for name in ["a", "b", "c", "d"] {
        put(&client, name, json!({ "page": "yes" })).await;
    }
    let path = format!("{MAPS}?labelSelector=page%3Dyes&limit=2");
    let (_, first) = ask(&client, "GET", &path, "", "").await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(ask(&client, "DELETE", &format!("{MAPS}/c"), "", "").await.0, 200);
    put(&client, "e", json!({ "page": "yes" })).await;
    let token = first["metadata"]["continue"].as_str().expect("token");
    let (_, second) = ask(&client, "GET", &format!("{path}&continue={token}"), "", "").await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    server.stop().await;
}

#[tokio::test]
async fn a_revision_is_meant_as_the_options_say() {
    let server = Server::start().await;
    let client = server.handle.client();
    let before = put(&client, "a", json!({})).await;
    put(&client, "b", json!({})).await;
    for (options, wanted) in [
        ("", &["a", "b"][..]),
        ("&resourceVersionMatch=NotOlderThan", &["a", "b"]),
        ("&resourceVersionMatch=Exact", &["a"]),
        // A page at a revision shows that revision.
        ("&limit=500", &["a"]),
        ("&limit=500&resourceVersionMatch=NotOlderThan", &["a", "b"]),
    ] {
        let (status, list) =
            ask(&client, "GET", &format!("{MAPS}?resourceVersion={before}{options}"), "", "").await;
        assert_eq!(status, 200, "{list}");
        assert_eq!(names(&list), wanted, "{options}");
    }
    let (status, answer) = ask(&client, "GET", &format!("{MAPS}?resourceVersion=999999"), "", "").await;
    assert_eq!((status, &answer["reason"]), (504, &json!("Timeout")), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn selectors_select() {
    let server = Server::start().await;
    let client = server.handle.client();
    for (name, labels) in
        [("a", json!({ "tier": "front", "size": "3" })), ("b", json!({ "tier": "back" })), ("c", json!({}))]
    {
        put(&client, name, labels).await;
    }
    for (selector, wanted) in [
        ("tier in (front,back)", &["a", "b"][..]),
        ("tier notin (front)", &["b", "c"]),
        ("!tier", &["c"]),
        ("tier", &["a", "b"]),
        ("tier!=front", &["b", "c"]),
        ("size > 2", &["a"]),
        ("tier=front,size in (3)", &["a"]),
        ("tier==back, !size", &["b"]),
    ] {
        let encoded = percent_encoding::utf8_percent_encode(selector, percent_encoding::NON_ALPHANUMERIC);
        let (status, list) = ask(&client, "GET", &format!("{MAPS}?labelSelector={encoded}"), "", "").await;
        assert_eq!(status, 200, "{list}");
        assert_eq!(names(&list), wanted, "{selector}");
    }
    let (_, list) = ask(&client, "GET", &format!("{MAPS}?fieldSelector=metadata.name!%3Da"), "", "").await;
    assert_eq!(names(&list), ["b", "c"]);
    server.stop().await;
}

/// An open watch, read line by line.
struct Events(futures::stream::BoxStream<'static, std::io::Result<String>>);

impl Events {
    async fn open(client: &kube::Client, query: &str, accept: &str) -> Self {
        let request = http::Request::get(format!("{MAPS}?watch=1&{query}")).header("accept", accept);
        let request = request.body(Vec::new()).expect("request");
        Self(client.request_stream(request).await.expect("watch").lines().boxed())
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(DEADLINE, self.0.next()).await.expect("in time");
        serde_json::from_str(&line.expect("a line").expect("read")).expect("JSON")
    }
}

#[tokio::test]
async fn watchers_of_one_change_each_get_their_own_form_of_it() {
    let server = Server::start().await;
    let client = server.handle.client();
    let start = put(&client, "z", json!({})).await;
    let query = format!("resourceVersion={start}");
    let selected = format!("{query}&labelSelector=keep%3Dyes");
    let as_ = |form: &str| format!("application/json;as={form};g=meta.k8s.io;v=v1");
    let table = as_("Table");
    let mut whole = Events::open(&client, &query, "application/json").await;
    let mut again = Events::open(&client, &query, "application/json").await;
    let mut partial = Events::open(&client, &query, &as_("PartialObjectMetadata")).await;
    let mut rows = Events::open(&client, &query, &table).await;
    let mut full_rows = Events::open(&client, &format!("{query}&includeObject=Object"), &table).await;
    let mut kept = Events::open(&client, &selected, "application/json").await;
    let map = json!({ "metadata": { "name": "a", "labels": { "keep": "yes" } }, "data": { "x": "y" } });
    create(&client, MAPS, &map).await;
    let patch = json!({ "metadata": { "labels": null }, "data": { "x": "z" } }).to_string();
    let (_, patched) =
        ask(&client, "PATCH", &format!("{MAPS}/a"), "application/merge-patch+json", patch).await;
    let version = &patched["metadata"]["resourceVersion"];
    for kind in ["ADDED", "MODIFIED"] {
        let event = whole.next().await;
        assert_eq!((&event["type"], &event["object"]["kind"]), (&json!(kind), &json!("ConfigMap")));
        assert_eq!(again.next().await, event);
        let metadata = partial.next().await;
        assert_eq!(
            (&metadata["type"], &metadata["object"]["kind"]),
            (&json!(kind), &json!("PartialObjectMetadata"))
        );
        assert_eq!(metadata["object"]["metadata"], event["object"]["metadata"]);
        assert!(metadata["object"].get("data").is_none());
        let row = rows.next().await;
        assert_eq!((&row["type"], &row["object"]["rows"][0]["cells"][0]), (&json!(kind), &json!("a")));
        assert_eq!(row["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(full_rows.next().await["object"]["rows"][0]["object"], event["object"]);
    }
    assert_eq!(kept.next().await["type"], "ADDED");
    // It left the selection: its last selected state, at the revision of the change that others see as such.
    let left = kept.next().await;
    assert_eq!((&left["type"], &left["object"]["metadata"]["resourceVersion"]), (&json!("DELETED"), version));
    assert_eq!(left["object"]["data"], json!({ "x": "y" }));
    server.stop().await;
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    let client = server.handle.client();
    put(&client, "a", json!({ "keep": "yes" })).await;
    put(&client, "b", json!({})).await;
    let query = "labelSelector=keep%3Dyes&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = Events::open(&client, query, "application/json").await;
    assert_eq!(events.next().await["object"]["metadata"]["name"], "a");
    let end = events.next().await;
    assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    // What the bookmark says is where another watch goes on.
    let version = end["object"]["metadata"]["resourceVersion"].as_str().expect("version").to_owned();
    let mut next = Events::open(&client, &format!("resourceVersion={version}"), "application/json").await;
    put(&client, "c", json!({ "keep": "yes" })).await;
    for events in [&mut events, &mut next] {
        assert_eq!(events.next().await["object"]["metadata"]["name"], "c");
    }
    server.stop().await;
}
