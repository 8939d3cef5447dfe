//! What the node answers through its unix socket: logs of containers; streams are in [`crate::streams`].

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, BodyStream, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;

use crate::app::Call;
use crate::meta::{at, text};
use crate::read;
use crate::respond::{self, BodyError, Reply};
use crate::status::{ApiError, ApiResult};
use crate::streams::{self, Stream};

/// How long the node may take until its answer begins.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest refusal of the node that is passed on.
const LONGEST_REFUSAL: usize = 64 << 10;
/// Parameters of a log request that the node understands.
const LOG_PARAMETERS: [&str; 7] =
    ["follow", "tailLines", "timestamps", "previous", "sinceSeconds", "sinceTime", "limitBytes"];

/// Forwards a request to the node that runs the pod.
pub(crate) async fn answer(call: &mut Call, subresource: &str) -> ApiResult<Reply> {
    let object = read::find(call)?.object();
    match subresource {
        "log" => log(call, &object).await,
        "exec" => streams::answer(call, &object, Stream::Exec).await,
        "attach" => streams::answer(call, &object, Stream::Attach).await,
        "portforward" => streams::answer(call, &object, Stream::PortForward).await,
        other => {
            let message = format!("{other} is not served by this cluster");
            Err(ApiError { code: 501, reason: "NotImplemented", ..ApiError::bad_request(message) })
        }
    }
}

/// Names of the containers of one of a pod's lists.
pub(crate) fn names(pod: &Value, list: &str) -> Vec<String> {
    let containers = at(pod, &["spec", list]).as_array().into_iter().flatten();
    containers.map(|container| text(container, &["name"]).to_owned()).collect()
}

/// The container that is asked for.
pub(crate) fn container(call: &Call, pod: &Value, pod_name: &str) -> ApiResult<String> {
    let (own, initial) = (names(pod, "containers"), names(pod, "initContainers"));
    if let Some(wanted) = call.query.filled("container") {
        let known = own.iter().chain(&initial).any(|name| name == wanted)
            || names(pod, "ephemeralContainers").iter().any(|name| name == wanted);
        let why = || ApiError::bad_request(format!("container {wanted} is not valid for pod {pod_name}"));
        return known.then(|| wanted.to_owned()).ok_or_else(why);
    }
    match own.as_slice() {
        [one] => Ok(one.clone()),
        many => {
            let mut why = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                many.join(" ")
            );
            if !initial.is_empty() {
                why = format!("{why} or one of the init containers: [{}]", initial.join(" "));
            }
            Err(ApiError::bad_request(why))
        }
    }
}

async fn log(call: &Call, pod: &Value) -> ApiResult<Reply> {
    let pod_name = call.path.name.as_deref().unwrap_or_default();
    let container = container(call, pod, pod_name)?;
    if text(pod, &["spec", "nodeName"]).is_empty() {
        let mut reply = Reply::new(respond::full(Bytes::new()));
        *reply.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(reply);
    }
    let parameters: Vec<String> = LOG_PARAMETERS
        .iter()
        .filter_map(|key| call.query.filled(key).map(|value| format!("{key}={}", escape(value))))
        .collect();
    let path = format!("/containerLogs/{}/{pod_name}/{container}?{}", call.namespace(), parameters.join("&"));
    let answer = get(call.app.node_socket.as_deref(), &path).await?;
    if !answer.status().is_success() {
        return Err(passed_on(answer).await);
    }
    let pieces = BodyStream::new(answer.into_body()).filter_map(|frame| async move {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(BodyError::from(error))),
        }
    });
    // A followed log ends with the server.
    let ended = call.app.shutdown.clone().cancelled_owned();
    let mut reply = Reply::new(respond::streamed(pieces.take_until(ended).boxed()));
    let plain = http::HeaderValue::from_static("text/plain");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Ok(reply)
}

pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Asks the node for what is not a stream.
pub(crate) async fn get(socket: Option<&Path>, path: &str) -> ApiResult<Response<Incoming>> {
    send(socket, Request::get(path)).await
}

/// Sends the node a request without a body.
pub(crate) async fn send(
    socket: Option<&Path>,
    request: http::request::Builder,
) -> ApiResult<Response<Incoming>> {
    let Some(socket) = socket else {
        return Err(ApiError::internal_error("no node is connected to this server"));
    };
    let failed = |why: String| ApiError::internal_error(format!("the node cannot be reached: {why}"));
    let asked = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| failed(error.to_string()))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| failed(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the node's connection ended");
            }
        });
        let request = request.header(http::header::HOST, "node").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| failed(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| failed(error.to_string()))
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(failed("it does not answer".into())))
}

/// The node's refusal as a `Status`.
pub(crate) async fn passed_on(answer: Response<Incoming>) -> ApiError {
    let code = answer.status().as_u16();
    let body =
        tokio::time::timeout(PATIENCE, Limited::new(answer.into_body(), LONGEST_REFUSAL).collect()).await;
    let text = match body {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        _ => "the node refused without saying why".to_owned(),
    };
    match code {
        400 => ApiError::bad_request(text),
        404 => ApiError { code, reason: "NotFound", ..ApiError::bad_request(text) },
        _ => ApiError::internal_error(text),
    }
}
