//! The kubelet-like HTTP API on a unix socket: logs and statistics, for the API server.

mod logs;
mod stats;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use super::context::Context;

type Body = BoxBody<Bytes, Infallible>;

/// Serves until dropped.
pub(super) async fn serve(context: Arc<Context>, listener: UnixListener) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the node's socket does not accept; trying again");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let context = context.clone();
        connections.spawn(async move {
            let service =
                service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&context, &request))));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the node's socket ended");
            }
        });
    }
}

fn answer(context: &Arc<Context>, request: &Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let parts: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    match parts.as_slice() {
        _ if request.method() != http::Method::GET => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served")
        }
        ["containerLogs", namespace, pod, container] => {
            logs::answer(context, namespace, pod, container, &query)
        }
        ["stats", "summary"] => {
            let summary = stats::summary(context).to_string();
            let mut response = Response::new(Full::new(Bytes::from(summary)).boxed());
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
            response
        }
        ["healthz"] => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::NOT_FOUND, "the node serves /containerLogs, /stats/summary and /healthz"),
    }
}

fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(message.into())).boxed());
    *response.status_mut() = status;
    response
}
