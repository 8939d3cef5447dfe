//! An S3 that speaks as much of the protocol as is needed, and often does not have time.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use muster_checkpoint::{
    Checkpoints, DataType, ModelFolder, ModelOptions, Place, Retention, SaverOptions, Shard, write_model,
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

use crate::samples::{PATIENCE, Sample, evenly, save_all};

const ROLE: &str = "s3::role_of_a_client";

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Bytes>,
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    requests: usize,
    refused: usize,
    parts: usize,
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    Response::builder()
        .status(status)
        .header("ETag", "\"tag\"")
        .header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
        .body(Full::new(body))
        .unwrap()
}

fn parameters(request: &Request<Incoming>) -> HashMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| Some(rest.split_once(end)?.0))
}

impl Bucket {
    fn list(&self, prefix: &str) -> Answer {
        let mut text = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        for (key, content) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            write!(
                text,
                "<Contents><Key>{key}</Key><LastModified>2026-11-02T10:00:00.000Z</LastModified>\
                 <ETag>\"tag\"</ETag><Size>{}</Size></Contents>",
                content.len()
            )
            .unwrap();
        }
        answer(StatusCode::OK, text + "</ListBucketResult>")
    }

    fn get(&self, key: &str, range: Option<&str>, is_head: bool) -> Answer {
        let Some(content) = self.objects.get(key) else {
            return answer(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
        };
        if is_head {
            let mut found = answer(StatusCode::OK, "");
            found.headers_mut().insert("Content-Length", content.len().into());
            return found;
        }
        let Some((start, end)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
            return answer(StatusCode::OK, content.clone());
        };
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        if start >= content.len() {
            return answer(StatusCode::RANGE_NOT_SATISFIABLE, "<Error><Code>InvalidRange</Code></Error>");
        }
        let end = content.len().min(end + 1);
        let mut found = answer(StatusCode::PARTIAL_CONTENT, content.slice(start..end));
        let range = format!("bytes {start}-{}/{}", end - 1, content.len());
        found.headers_mut().insert("Content-Range", range.parse().unwrap());
        found
    }

    fn handle(
        &mut self,
        method: &Method,
        key: &str,
        parameters: &HashMap<String, String>,
        range: Option<&str>,
        body: Bytes,
    ) -> Answer {
        self.requests += 1;
        if self.requests.is_multiple_of(11) {
            self.refused += 1;
            return answer(StatusCode::SERVICE_UNAVAILABLE, "<Error><Code>SlowDown</Code></Error>");
        }
        let parameter = |name: &str| parameters.get(name).map(String::as_str);
        match (method.as_str(), parameter("uploadId"), parameter("partNumber")) {
            ("POST", None, _) if parameter("uploads").is_some() => {
                let id = format!("upload-{}", self.requests);
                self.uploads.insert(id.clone(), BTreeMap::new());
                let text = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                answer(StatusCode::OK, text)
            }
            ("PUT", Some(id), Some(number)) => {
                self.parts += 1;
                self.uploads.get_mut(id).unwrap().insert(number.parse().unwrap(), body);
                answer(StatusCode::OK, "")
            }
            ("POST", Some(id), _) => {
                let parts = self.uploads.remove(id).unwrap();
                let sizes: Vec<usize> = parts.values().map(Bytes::len).collect();
                assert!(sizes.iter().rev().skip(1).all(|size| *size >= 5 << 20), "S3 refuses {sizes:?}");
                let content: Vec<u8> = parts.into_values().flatten().collect();
                self.objects.insert(key.to_owned(), content.into());
                let text =
                    "<CompleteMultipartUploadResult><ETag>\"tag\"</ETag></CompleteMultipartUploadResult>";
                answer(StatusCode::OK, text)
            }
            ("DELETE", Some(id), _) => {
                self.uploads.remove(id);
                answer(StatusCode::NO_CONTENT, "")
            }
            ("POST", None, _) if parameter("delete").is_some() => {
                let mut text = "<DeleteResult>".to_owned();
                for key in between(str::from_utf8(&body).unwrap(), "<Key>", "</Key>") {
                    self.objects.remove(key);
                    write!(text, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
                }
                answer(StatusCode::OK, text + "</DeleteResult>")
            }
            ("DELETE", ..) => {
                self.objects.remove(key);
                answer(StatusCode::NO_CONTENT, "")
            }
            ("PUT", ..) => {
                self.objects.insert(key.to_owned(), body);
                answer(StatusCode::OK, "")
            }
            ("GET", ..) if parameter("list-type").is_some() => self.list(parameter("prefix").unwrap_or("")),
            ("GET", ..) => self.get(key, range, false),
            ("HEAD", ..) => self.get(key, range, true),
            other => panic!("{other:?}"),
        }
    }
}

/// Serves until the test's process ends; gives the port.
fn serve(bucket: Arc<Mutex<Bucket>>) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                let bucket = Arc::clone(&bucket);
                let service = service_fn(move |request: Request<Incoming>| {
                    let bucket = Arc::clone(&bucket);
                    async move {
                        let parameters = parameters(&request);
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let key = head.uri.path().trim_start_matches("/bucket").trim_start_matches('/');
                        let range = head.headers.get("Range").map(|range| range.to_str().unwrap());
                        let is_signed = head.headers.contains_key("Authorization");
                        assert!(is_signed, "{} {} is not signed", head.method, head.uri);
                        let answer = bucket.lock().handle(&head.method, key, &parameters, range, body);
                        Ok::<_, Infallible>(answer)
                    }
                });
                // A connection that breaks is the client's to mend.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    port
}

/// Not a test by itself: a trainer whose environment says where its S3 is.
#[test]
fn role_of_a_client() {
    let Ok(url) = std::env::var("MUSTER_TEST_URL") else { return };
    let checkpoints = Checkpoints::open(&url).unwrap();
    let small = [Sample::new("a", DataType::F32, &[1000], 1)];
    for step in [1, 2, 3] {
        save_all(&checkpoints, step, &small, &evenly(&small, 3), json!({ "step": step }));
    }
    let large = [Sample::new("a", DataType::F32, &[5, 1 << 20], 2)];
    let mut saver = checkpoints.saver(Place { rank: 0, world_size: 1 }, SaverOptions::default()).unwrap();
    let mut shard = Shard::new();
    shard.add_whole(&large[0].tensor, &large[0].bytes).unwrap();
    let receipt = saver.begin(4, &shard).unwrap().wait(PATIENCE).unwrap();
    checkpoints.commit(&[receipt], json!({ "step": 4 })).unwrap();
    // Saved, and never committed.
    saver.begin(5, &shard).unwrap().wait(PATIENCE).unwrap();

    let checkpoints = Checkpoints::open(&url).unwrap();
    assert_eq!(checkpoints.clean().unwrap().len(), 1);
    let retention = Retention { newest: std::num::NonZeroUsize::new(2).unwrap(), every: None };
    assert_eq!(checkpoints.retain(&retention).unwrap(), [1, 2]);
    let latest = checkpoints.latest_intact().unwrap().checkpoint.unwrap();
    assert_eq!((latest.step(), latest.state()), (4, &json!({ "step": 4 })));
    let part = 999..3_000_000;
    assert!(latest.read("a", part.clone()).unwrap() == large[0].part(&part));
    let before = checkpoints.checkpoint(3).unwrap();
    assert!(before.read("a", 0..1000).unwrap() == small[0].bytes);

    let store = muster_checkpoint::store::open(&format!("{url}-model")).unwrap();
    let tensors = [small[0].tensor.clone()];
    write_model(&*store, &tensors, &ModelOptions::default(), |_, bytes| {
        bytes.copy_from_slice(&small[0].bytes);
        Ok(())
    })
    .unwrap();
    let model = ModelFolder::open(&format!("{url}-model")).unwrap();
    assert!(model.read("a", 10..20).unwrap() == small[0].part(&(10..20)));
}

#[test]
fn checkpoints_lie_in_s3_as_well() {
    let bucket = Arc::new(Mutex::new(Bucket::default()));
    let port = serve(Arc::clone(&bucket));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ROLE, "--nocapture", "--test-threads=1"])
        .env("MUSTER_TEST_URL", "s3://bucket/runs/one")
        .env("AWS_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "eu-north-1")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        // Not for S3, whatever its name.
        .env("ENDPOINT", "http://192.0.2.1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let bucket = bucket.lock();
    let keys: Vec<_> = bucket.objects.keys().collect();
    let in_step =
        |step: u64| keys.iter().filter(|key| key.starts_with(&format!("runs/one/step-{step:020}/"))).count();
    assert_eq!([1, 2, 3, 4, 5].map(in_step), [0, 0, 4, 2, 0], "{keys:?}");
    assert!(keys.iter().any(|key| *key == "runs/one-model/model.safetensors"));
    assert_eq!(keys.len(), 7);
    assert!(bucket.uploads.is_empty() && bucket.parts >= 6 && bucket.refused > 2);
}
