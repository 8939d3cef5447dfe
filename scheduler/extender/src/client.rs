//! A client that talks to an extender as kube-scheduler does: HTTP/1.1, one connection kept alive, a deadline on
//! every call, only status 200 counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::wire::Victims;

/// kube-scheduler's own patience.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection.
    #[error("cannot talk to the extender at {address}: {reason}")]
    Connection {
        /// The extender.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// No answer in five seconds.
    #[error("the extender at {0} did not answer within five seconds")]
    Late(SocketAddr),
    /// Another status than 200.
    #[error("the extender answered {status}: {body}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The body.
        body: String,
    },
    /// Not the JSON of an answer.
    #[error("cannot read the extender's answer: {0}")]
    Answer(#[from] serde_json::Error),
}

/// The answer to a filter call as kube-scheduler reads it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Filtered {
    /// Whole nodes.
    pub nodes: Option<Value>,
    /// Names of nodes.
    pub node_names: Option<Vec<String>>,
    /// Why nodes are refused; evicting others may help.
    pub failed_nodes: BTreeMap<String, String>,
    /// Why nodes are refused; evicting others cannot help.
    pub failed_and_unresolvable_nodes: BTreeMap<String, String>,
    /// Why there is no answer.
    pub error: String,
}

/// One score.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Score {
    /// The node.
    pub host: String,
    /// From 0 to 10.
    pub score: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bound {
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Preempted {
    node_name_to_meta_victims: BTreeMap<String, Victims>,
}

/// A connection to an extender.
pub struct Client {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to an extender that speaks plain HTTP. Within a Tokio runtime.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Result<Self, CallError> {
        let stream = dial(address).await?;
        Self::over(address, stream).await
    }

    /// Connects to an extender that speaks HTTPS as `name`. Within a Tokio runtime.
    ///
    /// # Errors
    /// When nobody listens, or one of the two does not trust the other.
    pub async fn connect_tls(
        address: SocketAddr,
        name: ServerName<'static>,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<Self, CallError> {
        let stream = dial(address).await?;
        let stream = timeout(TIMEOUT, TlsConnector::from(config).connect(name, stream)).await;
        let stream = stream.map_err(|_| CallError::Late(address))?;
        let failed = |error: std::io::Error| CallError::Connection { address, reason: error.to_string() };
        Self::over(address, stream.map_err(failed)?).await
    }

    async fn over<Stream>(address: SocketAddr, stream: Stream) -> Result<Self, CallError>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |reason: String| CallError::Connection { address, reason };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the extender ended");
            }
        });
        Ok(Self { address, sender })
    }

    /// Makes a request; status and body.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let address = self.address;
        let failed = |reason: String| CallError::Connection { address, reason };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            Ok::<_, hyper::Error>((status, answer.into_body().collect().await?.to_bytes()))
        };
        match timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(CallError::Late(address)),
        }
    }

    /// Calls a verb; the body of an answer with status 200.
    ///
    /// # Errors
    /// When there is none.
    pub async fn call(&mut self, verb: &str, body: Bytes) -> Result<Bytes, CallError> {
        match self.request(Method::POST, &format!("/{verb}"), body).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, body) => {
                Err(CallError::Status { status, body: String::from_utf8_lossy(&body).into_owned() })
            }
        }
    }

    /// A filter call.
    ///
    /// # Errors
    /// When it comes to nothing.
    pub async fn filter(&mut self, arguments: &Value) -> Result<Filtered, CallError> {
        Ok(serde_json::from_slice(&self.call("filter", encode(arguments)).await?)?)
    }

    /// A prioritize call.
    ///
    /// # Errors
    /// When it comes to nothing, which kube-scheduler ignores.
    pub async fn prioritize(&mut self, arguments: &Value) -> Result<Vec<Score>, CallError> {
        Ok(serde_json::from_slice(&self.call("prioritize", encode(arguments)).await?)?)
    }

    /// A preempt call.
    ///
    /// # Errors
    /// When it comes to nothing.
    pub async fn preempt(&mut self, arguments: &Value) -> Result<BTreeMap<String, Victims>, CallError> {
        let answer: Preempted = serde_json::from_slice(&self.call("preempt", encode(arguments)).await?)?;
        Ok(answer.node_name_to_meta_victims)
    }

    /// A bind call; the error of the answer, empty for success.
    ///
    /// # Errors
    /// When it comes to nothing.
    pub async fn bind(
        &mut self,
        namespace: &str,
        name: &str,
        uid: &str,
        node: &str,
    ) -> Result<String, CallError> {
        let arguments = json!({"PodName": name, "PodNamespace": namespace, "PodUID": uid, "Node": node});
        let answer: Bound = serde_json::from_slice(&self.call("bind", encode(&arguments)).await?)?;
        Ok(answer.error)
    }
}

async fn dial(address: SocketAddr) -> Result<TcpStream, CallError> {
    let stream = timeout(TIMEOUT, TcpStream::connect(address)).await.map_err(|_| CallError::Late(address))?;
    let stream = stream.map_err(|error| CallError::Connection { address, reason: error.to_string() })?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn encode(value: &impl Serialize) -> Bytes {
    // Values of serde_json can always be written.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}
