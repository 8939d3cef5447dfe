//! Requests that are almost right: real ones with a few bytes changed, in every format that a client's bytes come in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{Server, ask, create};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CASES: u32 = 1_000;

/// A request before it is changed.
#[derive(Debug, Clone)]
struct Sample {
    method: String,
    path: String,
    accept: String,
    media: String,
    body: Vec<u8>,
}

impl Sample {
    fn new(method: &str, path: &str, media: &str, body: impl Into<Vec<u8>>) -> Self {
        let accept = "application/json".to_owned();
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            accept,
            media: media.to_owned(),
            body: body.into(),
        }
    }
}

/// One request in each format and on each kind of path.
fn written_samples(token: &str) -> Vec<Sample> {
    let (json, merge) = ("application/json", "application/merge-patch+json");
    let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"x":"y"}},"data":{"a":"1"}}"#;
    let container = r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"img:2","env":[{"name":"A","value":"1"}],"ports":[{"containerPort":80}]}],"$setElementOrder/containers":[{"name":"c"}]}}}}"#;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\n  labels: {x: &x y, z: *x}\ndata:\n  a: |\n    text\n";
    let owned = r#"{"metadata":{"managedFields":[{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:a":{}}}}]}}"#;
    let list = format!(
        "{MAPS}?limit=1&labelSelector=x%20in%20%28y%2Cz%29%2C%21a&fieldSelector=metadata.name%21%3Db"
    );
    let scale =
        r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":2}}"#;
    let apply = "application/apply-patch+yaml";
    let steps = r#"[{"op":"test","path":"/data/a","value":"1"},{"op":"add","path":"/data/b~1c","value":"2"},{"op":"copy","from":"/data/a","path":"/data/d"},{"op":"move","from":"/data/d","path":"/data/e"}]"#;
    let options = r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":5,"propagationPolicy":"Foreground","preconditions":{"uid":"u"},"dryRun":["All"]}"#;
    vec![
        Sample::new("POST", MAPS, json, map),
        Sample::new("PUT", &format!("{MAPS}/a"), json, map),
        Sample::new(
            "POST",
            &format!("{MAPS}?dryRun=All&fieldManager=m&fieldValidation=Strict"),
            "application/yaml",
            yaml,
        ),
        Sample::new("PATCH", &format!("{MAPS}/a?fieldManager=m&force=true"), apply, map),
        Sample::new("PATCH", &format!("{MAPS}/a"), merge, owned),
        Sample::new("PATCH", &format!("{MAPS}/a"), "application/json-patch+json", steps),
        Sample::new(
            "PATCH",
            &format!("{DEPLOYMENTS}/d"),
            "application/strategic-merge-patch+json",
            container,
        ),
        Sample::new("PATCH", &format!("{DEPLOYMENTS}/d/scale?fieldManager=m"), apply, scale),
        Sample::new("PUT", &format!("{DEPLOYMENTS}/d/scale"), json, scale),
        Sample::new("DELETE", &format!("{MAPS}/a"), json, options),
        Sample::new("DELETE", &format!("{list}&gracePeriodSeconds=0&propagationPolicy=Orphan"), "", ""),
        Sample::new("GET", &list, "", ""),
        Sample::new("GET", &format!("{MAPS}?limit=1&continue={token}"), "", ""),
        Sample::new("GET", &format!("{MAPS}?resourceVersion=5&resourceVersionMatch=Exact"), "", ""),
        Sample::new(
            "GET",
            &format!("{MAPS}?watch=1&resourceVersion=5&allowWatchBookmarks=true&timeoutSeconds=1"),
            "",
            "",
        ),
        Sample::new("GET", "/openapi/v3/apis/apps/v1?hash=0", "", ""),
        Sample {
            accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5".into(),
            ..Sample::new("GET", &list, "", "")
        },
        Sample { accept: "application/yaml".into(), ..Sample::new("GET", &format!("{MAPS}/a"), "", "") },
    ]
}

/// What `kubectl` sends with protobuf, as it was recorded.
fn protobuf_samples() -> Vec<Sample> {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../schema/tests/data/kubectl-1.32-protobuf.json"))
            .expect("recorded");
    let samples = recorded.as_array().expect("a list").iter().map(|sent| {
        let body = STANDARD.decode(sent["body"].as_str().expect("body")).expect("base64");
        Sample::new("POST", sent["path"].as_str().expect("path"), "application/vnd.kubernetes.protobuf", body)
    });
    samples.collect()
}

/// The requests of the recordings of a real cluster, when they are at hand.
fn recorded_samples() -> Vec<Sample> {
    let Some(shared) = std::env::var_os("MUSTER_SHARED").map(std::path::PathBuf::from) else {
        return Vec::new();
    };
    let mut samples = Vec::new();
    for file in std::fs::read_dir(shared.join("upstream/kube-1.36/answers")).expect("answers") {
        let text = std::fs::read_to_string(file.expect("entry").path()).expect("recorded");
        let steps: Vec<Value> = serde_json::from_str(&text).expect("steps");
        for request in steps.iter().map(|step| &step["request"]).filter(|request| request.is_object()) {
            let text = |field: &str| request[field].as_str().unwrap_or_default();
            let body = match &request["body"] {
                Value::Null => Vec::new(),
                Value::String(text) => text.clone().into_bytes(),
                object => object.to_string().into_bytes(),
            };
            let media = if text("contentType") == "None" { "" } else { text("contentType") };
            let path = text("path").replace("/rec", "/default");
            let accept = if text("accept").is_empty() { "*/*" } else { text("accept") };
            samples.push(Sample {
                accept: accept.to_owned(),
                ..Sample::new(text("method"), &path, media, body)
            });
        }
    }
    samples
}

/// One change of a text.
#[derive(Debug, Clone)]
enum Mutation {
    Replace(Index, u8),
    Remove(Index, usize),
    Insert(Index, &'static [u8]),
    Repeat(Index, usize, usize),
    Cut(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    const PIECES: [&[u8]; 22] = [
        b"null",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b",",
        b":",
        b"0",
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b"\\u0000",
        b"\\ud800",
        b"\xff\xfe",
        b"\0",
        b"%00",
        b"../",
        b"- ",
        b"\n  ",
        b"&a *a",
        b"$patch",
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Mutation::Replace(place, byte)),
        (any::<Index>(), 1..12_usize).prop_map(|(place, length)| Mutation::Remove(place, length)),
        (any::<Index>(), prop::sample::select(PIECES.to_vec()))
            .prop_map(|(place, piece)| Mutation::Insert(place, piece)),
        (any::<Index>(), 1..24_usize, 1..200_usize)
            .prop_map(|(place, length, times)| Mutation::Repeat(place, length, times)),
        any::<Index>().prop_map(Mutation::Cut),
    ]
}

fn mutate(text: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        let at = |place: &Index| place.index(text.len() + 1);
        match mutation {
            Mutation::Replace(place, byte) => {
                let at = at(place);
                if let Some(old) = text.get_mut(at) {
                    *old = *byte;
                }
            }
            Mutation::Remove(place, length) => {
                let at = at(place);
                text.drain(at..(at + length).min(text.len()));
            }
            Mutation::Insert(place, piece) => {
                let at = at(place);
                text.splice(at..at, piece.iter().copied());
            }
            Mutation::Repeat(place, length, times) => {
                let at = at(place);
                let piece = text[at..(at + length).min(text.len())].repeat(*times);
                text.splice(at..at, piece);
            }
            Mutation::Cut(place) => text.truncate(at(place)),
        }
    }
}

fn hexadecimal(digit: u8) -> char {
    char::from_digit(digit.into(), 16).expect("a digit")
}

/// Changes what stands behind the `?`, and sometimes the path; whatever is no URI any more is percent-encoded.
fn mutated_path(path: &str, mutations: &[Mutation], whole: bool) -> String {
    let (start, rest) = match path.split_once('?') {
        Some((start, query)) if !whole => (format!("{start}?"), query),
        _ if whole => ("/".to_owned(), path.trim_start_matches('/')),
        _ => (path.to_owned(), ""),
    };
    let mut bytes = rest.as_bytes().to_vec();
    mutate(&mut bytes, mutations);
    let escaped = bytes.iter().fold(start, |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'?' | b'&' | b'=' | b'%' | b'.' | b'-' => {
                text.push(char::from(*byte));
            }
            other => text.extend(['%', hexadecimal(other >> 4), hexadecimal(other & 15)]),
        }
        text
    });
    if escaped.parse::<Uri>().is_ok() { escaped } else { path.to_owned() }
}

/// What is changed about a request.
#[derive(Debug, Clone)]
enum Target {
    Body,
    Query,
    Path,
    Headers,
}

async fn send(client: &kube::Client, sample: &Sample) -> (u16, String, Bytes) {
    let mut request = Request::builder()
        .method(sample.method.as_str())
        .uri(&sample.path)
        .body(kube::client::Body::from(sample.body.clone()))
        .expect("request");
    for (name, value) in
        [("accept", &sample.accept), ("content-type", &sample.media), ("user-agent", &sample.media)]
    {
        if let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) {
            request.headers_mut().insert(name, value);
        }
    }
    let response = client.send(request).await.expect("answer");
    let status = response.status().as_u16();
    let media = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().to_owned();
    // A watch goes on for as long as its client likes; its head is answer enough.
    let endless = sample.path.contains("watch") && status == 200;
    let body = if endless {
        Bytes::from("{}")
    } else {
        response.into_body().collect().await.expect("body").to_bytes()
    };
    (status, media, body)
}

#[test]
fn requests_that_are_almost_right_are_answered_with_an_object_or_a_status() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let server = runtime.block_on(Server::start());
    let client = runtime.block_on(async { server.handle.client() });
    let token = runtime.block_on(async {
        for name in ["a", "b"] {
            create(&client, MAPS, &json!({ "metadata": { "name": name }, "data": { "a": "1" } })).await;
        }
        let deployment = json!({
            "metadata": { "name": "d" },
            "spec": {
                "selector": { "matchLabels": { "a": "b" } },
                "template": {
                    "metadata": { "labels": { "a": "b" } },
                    "spec": { "containers": [{ "name": "c", "image": "img:1" }] },
                },
            },
        });
        create(&client, DEPLOYMENTS, &deployment).await;
        let (_, page) = ask(&client, "GET", &format!("{MAPS}?limit=1"), "", "").await;
        page["metadata"]["continue"].as_str().expect("token").to_owned()
    });
    let mut samples = written_samples(&token);
    samples.extend(protobuf_samples());
    let recorded = recorded_samples();
    if recorded.is_empty() {
        eprintln!("skipped: MUSTER_SHARED is not set, so no recorded requests are changed");
    }
    samples.extend(recorded);
    let target = prop_oneof![
        5 => Just(Target::Body), 3 => Just(Target::Query), 1 => Just(Target::Path), 1 => Just(Target::Headers),
    ];
    let requests = (prop::sample::select(samples), target, prop::collection::vec(mutation(), 1..4));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() });
    let outcome = runner.run(&requests, |(mut sample, target, mutations)| {
        match target {
            Target::Body => mutate(&mut sample.body, &mutations),
            Target::Query => sample.path = mutated_path(&sample.path, &mutations, false),
            Target::Path => sample.path = mutated_path(&sample.path, &mutations, true),
            Target::Headers => {
                for header in [&mut sample.accept, &mut sample.media] {
                    let mut bytes = std::mem::take(header).into_bytes();
                    mutate(&mut bytes, &mutations);
                    *header = String::from_utf8_lossy(&bytes).into_owned();
                }
            }
        }
        let (status, media, body) = runtime.block_on(send(&client, &sample));
        if status >= 400 && &body[..] != b"404 page not found\n" {
            let answer: Value = serde_json::from_slice(&body).expect("a Status");
            prop_assert_eq!((&answer["kind"], &answer["code"]), (&json!("Status"), &json!(status)));
            prop_assert!(answer["reason"] != "InternalError", "{}", answer);
            prop_assert!(answer["message"].is_string() && answer["status"] == "Failure", "{}", answer);
        } else if media.starts_with("application/json") {
            prop_assert!(serde_json::from_slice::<Value>(&body).is_ok(), "{:?}", body);
        }
        Ok(())
    });
    runtime.block_on(server.stop());
    outcome.expect("answers");
}
