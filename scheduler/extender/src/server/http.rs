//! The listener and the routes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use muster_machinery::server::CLIENT_PATIENCE;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::core::{BindStep, FilterStep, GangKey, Verdict};
use crate::plans::Plans;
use crate::wire::{BindRequest, FilterAnswer, FilterRequest, Passed, PreemptRequest, Refused, answer};

/// Largest request body: 5,000 whole nodes of 10 kB are 50 MB.
const BODY_LIMIT: usize = 64 << 20;
/// A filter call is answered by then; kube-scheduler schedules nothing else meanwhile.
const FILTER_DEADLINE: Duration = Duration::from_millis(45);
/// A bind call is answered by then; kube-scheduler waits five seconds.
const BIND_DEADLINE: Duration = Duration::from_secs(4);

const NOT_SYNCED: &str = "not synced: the cluster is still being listed; try again";

type Reply = Response<Full<Bytes>>;

/// Serves connections until the shutdown, then lets open requests end.
pub(super) async fn serve<P: Plans>(
    shared: Arc<Shared<P>>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: CancellationToken,
) {
    let handler = move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move { route(&shared, request).await }
    };
    muster_machinery::server::serve(listener, tls, shutdown, handler).await;
}

async fn route<P: Plans>(shared: &Arc<Shared<P>>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let verb = path.rsplit('/').next().unwrap_or_default();
    if *request.method() == Method::POST {
        if !matches!(verb, "filter" | "prioritize" | "preempt" | "bind") {
            return error(
                StatusCode::NOT_FOUND,
                "no such verb; known are filter, prioritize, preempt and bind",
            );
        }
        let body = match read(request).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        return match verb {
            "filter" => filter(shared, &body).await,
            "prioritize" => prioritize(shared, &body),
            "preempt" => preempt(shared, &body),
            _ => bind(shared, &body).await,
        };
    }
    if *request.method() != Method::GET {
        return error(
            StatusCode::METHOD_NOT_ALLOWED,
            "verbs are called by POST, everything else is read by GET",
        );
    }
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["healthz"] => text("ok".to_owned()),
        ["readyz"] if shared.apply(|core, _| core.is_synced()) => text("ok".to_owned()),
        ["readyz"] => error(StatusCode::SERVICE_UNAVAILABLE, NOT_SYNCED),
        ["metrics"] => text(shared.content.metrics()),
        ["queue"] => match shared.content.queue() {
            Some(queue) => json(StatusCode::OK, &queue),
            None => json(StatusCode::OK, &shared.apply(|core, _| core.queue())),
        },
        ["explain", namespace, gang] => explain(shared, namespace, gang),
        _ => error(StatusCode::NOT_FOUND, "no such page"),
    }
}

/// Reads a bounded body.
async fn read(request: Request<Incoming>) -> Result<Bytes, Reply> {
    let too_large = || {
        let mut reply = error(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!(
                "the body has more than {BODY_LIMIT} bytes; set nodeCacheCapable to send names of nodes only"
            ),
        );
        // What is still to come is not read.
        reply.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        reply
    };
    let body = request.into_body();
    if body.size_hint().lower() > BODY_LIMIT as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(CLIENT_PATIENCE, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(failure)) if failure.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(failure)) => Err(error(StatusCode::BAD_REQUEST, &format!("cannot read the body: {failure}"))),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    }
}

async fn filter<P: Plans>(shared: &Arc<Shared<P>>, body: &[u8]) -> Reply {
    let failed = |status, message: &str| raw(status, answer::filter_error(message));
    let request = match FilterRequest::read(body) {
        Ok(request) => request,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let deadline = Instant::now() + FILTER_DEADLINE;
    let offered = &request.offered;
    loop {
        let mut changed = pin!(shared.changed.notified());
        changed.as_mut().enable();
        let step = shared.apply(|core, _| match core.filter(&request.pod, offered) {
            FilterStep::Answer(verdict) => Ok((verdict, core.unknown(offered.names()))),
            other => Err(other),
        });
        let (verdict, unknown) = match step {
            Ok(answer) => answer,
            Err(FilterStep::NotSynced) => return failed(StatusCode::SERVICE_UNAVAILABLE, NOT_SYNCED),
            Err(FilterStep::Wait(why)) => {
                if tokio::time::timeout_at(deadline, changed).await.is_err() {
                    return failed(StatusCode::OK, why);
                }
                continue;
            }
            Err(FilterStep::Answer(_)) => continue,
        };
        if !unknown.is_empty() && unknown.len() == offered.len() {
            let count = offered.len();
            let first = unknown.first().copied().unwrap_or_default();
            return failed(
                StatusCode::OK,
                &format!("none of the {count} offered nodes is known, such as {first}"),
            );
        }
        let reason;
        let passed_and_refused = match &verdict {
            Verdict::Any => Some((Passed::All, Refused::Silent)),
            Verdict::Node(node) => Some((Passed::Only(node), Refused::Silent)),
            Verdict::Refused(refusal) => {
                reason = refusal.to_string();
                Some((Passed::Nothing, refused(&reason, refusal.evictable)))
            }
            Verdict::Error(_) => None,
        };
        let Some((passed, refused)) = passed_and_refused else {
            let Verdict::Error(message) = verdict else { continue };
            return failed(StatusCode::OK, &message);
        };
        return raw(StatusCode::OK, FilterAnswer { offered, passed, refused, unknown }.body());
    }
}

fn refused(reason: &str, evictable: bool) -> Refused<'_> {
    if evictable { Refused::ForNow(reason) } else { Refused::Unresolvable(reason) }
}

fn prioritize<P: Plans>(shared: &Arc<Shared<P>>, body: &[u8]) -> Reply {
    let request = match FilterRequest::read(body) {
        Ok(request) => request,
        Err(refusal) => return error(StatusCode::BAD_REQUEST, &refusal.to_string()),
    };
    let preferred = shared.apply(|core, _| core.preferred(&request.pod, &request.offered));
    raw(StatusCode::OK, answer::priorities(&request.offered, preferred.as_deref()))
}

fn preempt<P: Plans>(shared: &Arc<Shared<P>>, body: &[u8]) -> Reply {
    let request = match PreemptRequest::read(body) {
        Ok(request) => request,
        Err(refusal) => return error(StatusCode::BAD_REQUEST, &refusal.to_string()),
    };
    let synced = shared.apply(|core, _| core.is_synced().then(|| core.preempt(&request)));
    match synced {
        Some(victims) => raw(StatusCode::OK, answer::victims(&victims)),
        None => error(StatusCode::SERVICE_UNAVAILABLE, NOT_SYNCED),
    }
}

async fn bind<P: Plans>(shared: &Arc<Shared<P>>, body: &[u8]) -> Reply {
    let request = match BindRequest::read(body) {
        Ok(request) => request,
        Err(refusal) => return error(StatusCode::BAD_REQUEST, &refusal.to_string()),
    };
    let deadline = Instant::now() + BIND_DEADLINE;
    let mut attempt = None;
    loop {
        let mut changed = pin!(shared.changed.notified());
        changed.as_mut().enable();
        let late = match shared.apply(|core, now| core.bind(now, &request, attempt)) {
            BindStep::NotSynced => return error(StatusCode::SERVICE_UNAVAILABLE, NOT_SYNCED),
            BindStep::Answer(Ok(())) => return raw(StatusCode::OK, answer::bound("")),
            BindStep::Answer(Err(message)) => return raw(StatusCode::OK, answer::bound(&message)),
            BindStep::Wait(number) => {
                attempt = Some(number);
                "the binding is still under way; try again"
            }
            BindStep::Unseen => "the pod is not known: its creation has not been seen, or it is gone",
        };
        let deadline = if attempt.is_some() { deadline } else { deadline - BIND_DEADLINE + FILTER_DEADLINE };
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            return raw(StatusCode::OK, answer::bound(late));
        }
    }
}

fn explain<P: Plans>(shared: &Arc<Shared<P>>, namespace: &str, gang: &str) -> Reply {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (namespace, gang) = (decoded(namespace), decoded(gang));
    if let Some(content) = shared.content.explain(&namespace, &gang) {
        return json(StatusCode::OK, &content);
    }
    let report = shared.apply(|core, _| {
        // A pod on its own is asked for by its name.
        let alone = format!("pod {gang}");
        core.explain(&GangKey::new(&namespace, &gang))
            .or_else(|| core.explain(&GangKey::new(&namespace, alone)))
    });
    match report {
        Some(report) => json(StatusCode::OK, &report),
        None => error(StatusCode::NOT_FOUND, &format!("no gang or pod {namespace}/{gang} is known")),
    }
}

fn raw(status: StatusCode, body: Vec<u8>) -> Reply {
    with_type(status, "application/json", body)
}

fn text(body: String) -> Reply {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", body.into_bytes())
}

fn json(status: StatusCode, body: &impl Serialize) -> Reply {
    match serde_json::to_vec(body) {
        Ok(body) => raw(status, body),
        Err(failure) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write the answer: {failure}"))
        }
    }
}

/// An error in the one form that all answers share.
fn error(status: StatusCode, message: &str) -> Reply {
    raw(status, answer::bound(message))
}

fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    reply
}
