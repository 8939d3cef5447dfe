//! `/exec`, `/attach` and `/portForward`: requests that become streams between a client and a pod.

mod attach;
mod channels;
mod client;
mod command;
mod descriptor;
mod dial;
mod heartbeat;
mod ports;
mod spdy;
mod spdy_channels;
mod spdy_connection;
mod tunnel;
mod websocket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use self::command::CommandStart;
use self::dial::Target;
use self::heartbeat::{Gone, Heartbeat};
use self::websocket::Handshake;
use super::super::context::Context;
use super::super::record::Record;
use super::{Body, text};
use crate::streams::channel::Version;
use crate::streams::query::{self, CommandOptions};

/// How long a client that was told the end may take to close its side.
const FAREWELL: Duration = Duration::from_secs(5);

/// A pod of this node as a request names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// Its name.
    pub(super) pod: &'a str,
    /// Its uid.
    pub(super) uid: &'a str,
}

impl Named<'_> {
    /// The pod's folder and what is known of it, if it is of this node and not over.
    fn find(&self, context: &Context) -> Result<(PathBuf, Record), Box<Response<Body>>> {
        let missing = || Box::new(text(StatusCode::NOT_FOUND, format!("pod {} does not run here", self.pod)));
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        if self.uid.is_empty() || !self.uid.chars().all(plain) {
            return Err(missing());
        }
        let directory = context.pods_dir().join(self.uid);
        let record = Record::load(&directory).map_err(|_| missing())?;
        let same = record.namespace == self.namespace && record.name == self.pod;
        if same && !record.finished { Ok((directory, record)) } else { Err(missing()) }
    }
}

/// What a client wants in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To run a command.
    Exec,
    /// To see and write what its program prints and reads.
    Attach,
}

/// `/exec/NAMESPACE/POD/UID/CONTAINER` and the same for `/attach`.
pub(super) fn in_container(
    context: &Arc<Context>,
    over: &CancellationToken,
    wish: Wish,
    named: Named<'_>,
    container: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let bad = |why: String| text(StatusCode::BAD_REQUEST, why);
    let (directory, _) = match named.find(context) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let options = match CommandOptions::parse(request.uri().query().unwrap_or_default()) {
        Ok(options) if wish == Wish::Exec && options.argv.is_empty() => {
            return bad("you must specify at least one command for the container".to_owned());
        }
        Ok(options) => options,
        Err(error) => return bad(error.to_string()),
    };
    let (response, version) = if let Some(response) = plain_spdy(request.headers(), spdy_channels::PROTOCOL) {
        (response, None)
    } else {
        match Handshake::negotiate(request.headers(), &Version::NAMES) {
            Ok(handshake) => {
                let version = Version::of(handshake.protocol);
                (handshake.response(), version)
            }
            Err(error) => return bad(error.to_string()),
        }
    };
    let (container, over) = (container.to_owned(), over.clone());
    let (patience, heartbeat) = (context.stream_patience, Heartbeat::new(context.stream_patience));
    tokio::spawn(async move {
        let upgraded = match hyper::upgrade::on(request).await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a stream did not begin"),
        };
        let (client, command) = client::pair();
        let wanted = options.clone();
        let carried = async {
            match version {
                Some(version) => {
                    channels::carry(websocket::socket(upgraded).await, version, command, &heartbeat).await;
                }
                None => spdy_channels::carry(TokioIo::new(upgraded), wanted, command, &heartbeat).await,
            }
        };
        let start = CommandStart { directory: &directory, container, options };
        let served = async {
            match wish {
                Wish::Exec => command::run(start, client, &over).await,
                Wish::Attach => attach::run(start, client, patience.stuck, &over).await,
            }
        };
        tokio::join!(served, carried);
    });
    response
}

/// `/portForward/NAMESPACE/POD/UID`: over a WebSocket in either of two ways, or over plain SPDY.
pub(super) fn port_forward(
    context: &Arc<Context>,
    over: &CancellationToken,
    named: Named<'_>,
    request: Request<Incoming>,
) -> Response<Body> {
    let bad = |why: String| text(StatusCode::BAD_REQUEST, why);
    let (directory, record) = match named.find(context) {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let address = record.address.filter(|_| context.network.is_none());
    let target = Target { directory, name: format!("{}, uid {}", named.pod, named.uid), address };
    let plain = plain_spdy(request.headers(), spdy::PROTOCOL);
    let (response, way) = if let Some(response) = plain {
        (response, Way::Spdy)
    } else {
        let handshake = match Handshake::negotiate(request.headers(), &[spdy::TUNNEL, ports::PROTOCOL]) {
            Ok(handshake) => handshake,
            Err(error) => return bad(error.to_string()),
        };
        let way = if handshake.protocol == spdy::TUNNEL {
            Way::Tunnel
        } else {
            match query::ports(request.uri().query().unwrap_or_default()) {
                Ok(ports) => Way::Channels(ports),
                Err(error) => return bad(error.to_string()),
            }
        };
        (handshake.response(), way)
    };
    let (over, heartbeat) = (over.clone(), Heartbeat::new(context.stream_patience));
    tokio::spawn(async move {
        let upgraded = match hyper::upgrade::on(request).await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "a stream did not begin"),
        };
        let forwarded = async {
            match way {
                Way::Spdy => tunnel::raw(upgraded, &target, &heartbeat).await,
                Way::Tunnel => {
                    tunnel::websocket(websocket::socket(upgraded).await, &target, &heartbeat).await;
                }
                Way::Channels(ports) => {
                    ports::forward(websocket::socket(upgraded).await, ports, &target, &heartbeat).await;
                }
            }
        };
        tokio::select! {
            () = forwarded => {}
            () = over.cancelled() => {}
        }
    });
    response
}

/// Says in the log why a client is no longer told anything.
fn note(told: Result<(), Gone>) {
    if let Err(error) = told {
        tracing::debug!(%error, "a client of a stream is gone");
    }
}

/// How a client wants its ports forwarded.
enum Way {
    /// SPDY on the connection.
    Spdy,
    /// SPDY within a WebSocket.
    Tunnel,
    /// Channels of a WebSocket, for these ports.
    Channels(Vec<u16>),
}

/// The answer to a client that asks for SPDY without a WebSocket.
fn plain_spdy(headers: &HeaderMap, protocol: &'static str) -> Option<Response<Body>> {
    const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
    let asked =
        websocket::lists(headers, UPGRADE, "SPDY/3.1") && websocket::lists(headers, VERSION, protocol);
    asked.then(|| {
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(VERSION, HeaderValue::from_static(protocol));
        response
    })
}
