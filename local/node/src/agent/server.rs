//! The kubelet-like HTTP API on a unix socket, for the API server: logs, statistics, and streams into pods.

mod logs;
mod stats;
mod streams;

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
use tokio_util::sync::CancellationToken;

use self::streams::{Named, Wish};
use super::context::Context;

type Body = BoxBody<Bytes, Infallible>;

/// Serves until dropped.
pub(super) async fn serve(context: Arc<Context>, listener: UnixListener) {
    // Streams have left their connections, and end with the agent all the same.
    let over = CancellationToken::new();
    let _guard = over.clone().drop_guard();
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
        let (context, over) = (context.clone(), over.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(answer(&context, &over, request)))
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the node's socket ended");
            }
        });
    }
}

fn answer(context: &Arc<Context>, over: &CancellationToken, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        _ if !matches!(*request.method(), http::Method::GET | http::Method::POST) => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served, and POST for streams")
        }
        ["containerLogs", namespace, pod, container] => {
            logs::answer(context, namespace, pod, container, &query)
        }
        [wish @ ("exec" | "attach"), namespace, pod, uid, container] => {
            let wish = if *wish == "exec" { Wish::Exec } else { Wish::Attach };
            streams::in_container(context, over, wish, Named { namespace, pod, uid }, container, request)
        }
        ["portForward", namespace, pod, uid] => {
            streams::port_forward(context, over, Named { namespace, pod, uid }, request)
        }
        ["stats", "summary"] => {
            let summary = stats::summary(context).to_string();
            let mut response = Response::new(Full::new(Bytes::from(summary)).boxed());
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
            response
        }
        ["healthz"] => text(StatusCode::OK, "ok"),
        _ => text(
            StatusCode::NOT_FOUND,
            "the node serves /containerLogs, /exec, /attach, /portForward, /stats/summary and /healthz",
        ),
    }
}

fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(message.into())).boxed());
    *response.status_mut() = status;
    response
}
