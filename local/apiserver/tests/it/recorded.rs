//! Plays what a real Kubernetes 1.36.2 answered, step by step, and compares.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Full};
use regex::Regex;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Raw, Server};
use crate::meant_differences::{MEANT, Meant};

/// Longest pause between two steps: no other process has to catch up here.
const LONGEST_PAUSE: Duration = Duration::from_millis(300);

struct Answer {
    status: u16,
    warning: Option<String>,
    body: Value,
}

struct Player {
    raw: Raw,
    token: Option<String>,
}

impl Player {
    async fn play(&mut self, request: &Value) -> Answer {
        let mut path = request["path"].as_str().expect("path").to_owned();
        if let (Some(start), Some(token)) = (path.find("continue=ey"), &self.token) {
            path = format!("{}continue={token}", &path[..start]);
        }
        let mut builder = Request::builder().method(request["method"].as_str().expect("method")).uri(path);
        builder = builder
            .header("host", "localhost")
            .header("accept", request["accept"].as_str().unwrap_or("application/json"));
        if let Some(content_type) = request["contentType"].as_str().filter(|text| *text != "None") {
            builder = builder.header("content-type", content_type);
        }
        let body = match &request["body"] {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            object => object.to_string().into_bytes(),
        };
        builder = match request["auth"].as_str() {
            Some("none") => builder,
            Some(_) => builder.header("authorization", "Bearer wrong"),
            None => builder.header("authorization", format!("Bearer {}", self.raw.token)),
        };
        let response = self.raw.send(builder.body(Full::from(body)).expect("request")).await;
        let status = response.status().as_u16();
        let warning = response.headers().get("warning").map(|value| value.to_str().expect("text").to_owned());
        let collected = tokio::time::timeout(DEADLINE, response.into_body().collect()).await;
        let collected = collected.unwrap_or_else(|_| panic!("the answer to {request} does not end"));
        let bytes = collected.expect("body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
        let body = match lines {
            Ok(mut lines) if lines.len() == 1 => lines.remove(0),
            Ok(lines) => Value::Array(lines),
            Err(_) => Value::String(text),
        };
        self.token = body["metadata"]["continue"].as_str().map(str::to_owned);
        Answer { status, warning, body }
    }
}

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-<random>"),
        (r"\bgen-[a-z0-9]{5}\b", "gen-<random>"),
        (r"\b(10\.\d+\.\d+\.\d+|127\.0\.0\.1:\d+)\b", "<address>"),
        (r"current: \d+", "current: <revision>"),
        (r"^(\d+[smhd])+$", "<age>"),
    ]
    .map(|(pattern, shown)| (Regex::new(pattern).expect("pattern"), shown))
    .into()
});

/// Replaces what differs from run to run.
fn normalise(value: &mut Value) {
    match value {
        Value::String(text) => {
            for (pattern, shown) in PATTERNS.iter() {
                *text = pattern.replace_all(text, *shown).into_owned();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match key.as_str() {
                    "resourceVersion" | "continue" | "token" | "ca.crt" if value.is_string() => {
                        *value = json!("<any>");
                    }
                    _ => normalise(value),
                }
            }
        }
        _ => {}
    }
}

/// A list as an object, when its entries can be told apart: one entry more must not shift all others.
fn keyed(list: &[Value]) -> Option<Value> {
    let key = |entry: &Value| {
        if let Some(manager) = entry["manager"].as_str() {
            return Some(format!("{manager}/{}", entry["subresource"].as_str().unwrap_or_default()));
        }
        let names = ["/name", "/resource", "/subresource", "/metadata/name", "/object/metadata/name"];
        let name = names.iter().find_map(|pointer| entry.pointer(pointer).and_then(Value::as_str))?;
        Some(name.to_owned())
    };
    let entries = list.iter().map(|entry| Some((key(entry)?, entry.clone()))).collect::<Option<Vec<_>>>()?;
    let fields: serde_json::Map<String, Value> = entries.into_iter().collect();
    (fields.len() == list.len() && !list.is_empty()).then_some(Value::Object(fields))
}

fn compare(real: &Value, ours: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match (real, ours) {
        (Value::Object(real), Value::Object(ours)) => {
            for (key, value) in real {
                let place = format!("{path}.{key}");
                match ours.get(key) {
                    Some(other) => compare(value, other, &place, found),
                    None => found.push((place, format!("missing, real: {value}"))),
                }
            }
            for (key, value) in ours.iter().filter(|(key, _)| !real.contains_key(*key)) {
                found.push((format!("{path}.{key}"), format!("not in the real answer: {value}")));
            }
        }
        (Value::Array(real), Value::Array(ours)) if keyed(real).is_some() && keyed(ours).is_some() => {
            compare(&keyed(real).unwrap_or_default(), &keyed(ours).unwrap_or_default(), path, found);
        }
        (Value::Array(real), Value::Array(ours)) => {
            if real.len() != ours.len() {
                found.push((path.to_owned(), format!("{} entries, real: {}", ours.len(), real.len())));
            }
            for (place, (real, ours)) in real.iter().zip(ours).enumerate() {
                compare(real, ours, &format!("{path}[{place}]"), found);
            }
        }
        (real, ours) if real == ours => {}
        (real, ours) => found.push((path.to_owned(), format!("{ours}, real: {real}"))),
    }
}

fn differences(real: &Value, ours: &Answer) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let status = real["status"].as_u64().unwrap_or_default();
    if status != u64::from(ours.status) {
        found.push((".status".to_owned(), format!("{}, real: {status}", ours.status)));
    }
    let warning = real["headers"]["warning"].as_str();
    if warning != ours.warning.as_deref() {
        found.push((".warning".to_owned(), format!("{:?}, real: {warning:?}", ours.warning)));
    }
    let (mut expected, mut actual) = (real["body"].clone(), ours.body.clone());
    normalise(&mut expected);
    normalise(&mut actual);
    compare(&expected, &actual, "", &mut found);
    found
}

fn is_meant(meant: &Meant, file: &str, step: usize, path: &str) -> bool {
    let steps = meant.steps.is_empty() || meant.steps.contains(&step);
    let file_fits = meant.file.is_empty() || file.starts_with(meant.file);
    file_fits && steps && Regex::new(meant.path).expect("pattern").is_match(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_are_given_again() {
    let Some(shared) = std::env::var_os("MUSTER_SHARED").map(PathBuf::from) else {
        eprintln!("skipped: MUSTER_SHARED is not set, so there are no recorded answers");
        return;
    };
    let folder = shared.join("upstream/kube-1.36/answers");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("answers").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    let server = Server::start().await;
    let mut player = Player { raw: Raw::new(&server), token: None };
    let namespace = json!({
        "method": "POST", "path": "/api/v1/namespaces",
        "body": { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "rec" } },
    });
    assert_eq!(player.play(&namespace).await.status, 201);
    let mut used = vec![BTreeSet::new(); MEANT.len()];
    let (mut unmeant, mut steps) = (Vec::new(), 0);
    for file in files {
        let name = file.file_name().expect("name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("recorded");
        let recorded: Vec<Value> = serde_json::from_str(&text).expect("steps");
        for (step, recorded) in recorded.iter().enumerate() {
            if let Some(seconds) = recorded["wait_s"].as_f64() {
                tokio::time::sleep(Duration::from_secs_f64(seconds).min(LONGEST_PAUSE)).await;
                continue;
            }
            steps += 1;
            let answer = player.play(&recorded["request"]).await;
            for (path, what) in differences(&recorded["response"], &answer) {
                let mut known = false;
                for (meant, used) in MEANT.iter().zip(&mut used) {
                    if is_meant(meant, &name, step, &path) {
                        used.insert(step);
                        known = true;
                    }
                }
                if !known {
                    unmeant.push(format!("{name} step {step} {path}: {what}"));
                }
            }
        }
    }
    server.stop().await;
    for line in &unmeant {
        eprintln!("{}", line.chars().take(400).collect::<String>());
    }
    let is_stale = |meant: &Meant, used: &BTreeSet<usize>| {
        used.is_empty() || meant.steps.iter().any(|step| !used.contains(step))
    };
    let stale: Vec<_> = MEANT.iter().zip(&used).filter(|(meant, used)| is_stale(meant, used)).collect();
    assert!(steps > 150, "only {steps} steps were played");
    assert!(unmeant.is_empty(), "{} differences of {steps} steps are not listed", unmeant.len());
    assert!(
        stale.is_empty(),
        "listed differences that do not occur any more, with the steps where they do: {stale:#?}"
    );
}
