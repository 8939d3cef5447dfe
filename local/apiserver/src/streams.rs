//! `exec`, `attach` and `portforward`: the request is checked here, then bytes are passed between client and node, which
//! speak with each other.

use std::time::Duration;

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, copy, split};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::Call;
use crate::meta::{meta, text};
use crate::node;
use crate::respond::{self, Reply};
use crate::status::{ApiError, ApiResult};

/// How long one side may take to close after the other has.
const FAREWELL: Duration = Duration::from_secs(5);
/// Headers that make a request a stream.
const ASKED: [HeaderName; 6] =
    [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_PROTOCOL, STREAM_PROTOCOL];
/// Headers of the answer that does.
const ANSWERED: [HeaderName; 6] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_EXTENSIONS,
    STREAM_PROTOCOL,
];
/// What is spoken over SPDY.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What the stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// A command in a container.
    Exec,
    /// The input and output of a container's program.
    Attach,
    /// Ports of the pod.
    PortForward,
}

/// Passes the request to the node and connects the client with it.
pub(crate) async fn answer(call: &mut Call, pod: &Value, stream: Stream) -> ApiResult<Reply> {
    // Since 1.35 a WebSocket needs what SPDY always did, though it begins with a GET.
    crate::rbac::authorize(call, "create")?;
    let Some(client) = call.upgrade.take().filter(|_| call.headers.contains_key(UPGRADE)) else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let path = target(call, pod, stream)?;
    let mut request = Request::builder().method(call.method.clone()).uri(path);
    for name in ASKED {
        for value in call.headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    let mut answer = node::send(call.app.node_socket.as_deref(), request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(node::passed_on(answer).await);
    }
    let mut reply = Reply::new(respond::full(bytes::Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_headers(answer.headers(), reply.headers_mut());
    let node = hyper::upgrade::on(&mut answer);
    tokio::spawn(connect(client, node, call.app.shutdown.clone()));
    Ok(reply)
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for name in ANSWERED {
        for value in from.get_all(&name) {
            to.append(&name, value.clone());
        }
    }
}

/// Where the node serves what is asked for; refuses what the pod cannot give.
fn target(call: &Call, pod: &Value, stream: Stream) -> ApiResult<String> {
    let name = call.path.name.as_deref().unwrap_or_default();
    let container = match stream {
        Stream::Exec | Stream::Attach => container(call, pod, name)?,
        Stream::PortForward => String::new(),
    };
    if text(pod, &["spec", "nodeName"]).is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let phase = text(pod, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        let what = match stream {
            Stream::Exec => "exec into a container in",
            Stream::Attach => "attach a container in",
            Stream::PortForward => "forward ports of",
        };
        return Err(ApiError::bad_request(format!(
            "cannot {what} a completed pod; current phase is {phase}"
        )));
    }
    let list =
        |name: &'static str| call.query.all(name).map(move |value| format!("{name}={}", node::escape(value)));
    let pod = format!("{}/{name}/{}", call.namespace(), meta(pod, "uid"));
    Ok(match stream {
        Stream::Exec => {
            let query: Vec<String> = list("command").chain(flags(call)).collect();
            format!("/exec/{pod}/{container}?{}", query.join("&"))
        }
        Stream::Attach => format!("/attach/{pod}/{container}?{}", flags(call).collect::<Vec<_>>().join("&")),
        Stream::PortForward => {
            // Named one by one or in a list.
            let query: Vec<String> = list("ports").map(|pair| pair.replacen("ports=", "port=", 1)).collect();
            format!("/portForward/{pod}?{}", query.join("&"))
        }
    })
}

/// The container that is asked for; the refusal of one that does not exist names those that do.
fn container(call: &Call, pod: &Value, name: &str) -> ApiResult<String> {
    node::container(call, pod, name).map_err(|refusal| {
        if call.query.filled("container").is_none() {
            return refusal;
        }
        let choices = node::names(pod, "containers").join(" ");
        ApiError::bad_request(format!("{}, choose one of: [{choices}]", refusal.message))
    })
}

/// The streams that are asked for, as the node calls them.
fn flags(call: &Call) -> impl Iterator<Item = String> + '_ {
    let names = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    names.into_iter().filter(|(name, _)| call.query.flag(name)).map(|(_, own)| format!("{own}=1"))
}

/// Passes bytes both ways until one side is done, the other had time to close, or the server ends.
async fn connect(client: OnUpgrade, node: OnUpgrade, shutdown: CancellationToken) {
    let connected = async {
        let (client, node) = tokio::try_join!(client, node)?;
        relay(client, node).await;
        Ok::<_, hyper::Error>(())
    };
    tokio::select! {
        connected = connected => if let Err(error) = connected {
            tracing::debug!(%error, "a stream did not begin");
        },
        () = shutdown.cancelled() => {}
    }
}

async fn relay(client: Upgraded, node: Upgraded) {
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_node, mut to_node) = split(TokioIo::new(node));
    let up = async {
        let copied = copy(&mut from_client, &mut to_node).await;
        // The node hears that the client is gone.
        let _ = to_node.shutdown().await;
        copied
    };
    let down = async {
        let copied = copy(&mut from_node, &mut to_client).await;
        let _ = to_client.shutdown().await;
        copied
    };
    tokio::pin!(up, down);
    let ended = tokio::select! {
        copied = &mut up => (copied, timeout(FAREWELL, down).await),
        copied = &mut down => (copied, timeout(FAREWELL, up).await),
    };
    match ended {
        (Ok(_), Ok(Ok(_))) => {}
        ended => tracing::debug!(?ended, "a stream broke off"),
    }
}
