//! The listener: TLS, HTTP/1.1 and HTTP/2, bounded bodies, deadlines, a graceful end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::respond::{self, Reply};
use crate::status::ApiError;

/// Largest request body.
const BODY_LIMIT: usize = 3 << 20;
/// How much of a body that is too large is read before the connection ends.
const DRAIN_LIMIT: usize = 64 << 20;
/// How long a client may take for the TLS handshake and for its body.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a request may take until its answer begins.
const REQUEST_DEADLINE: Duration = Duration::from_mins(1);
/// How long open requests may take once the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// Reads a bounded body and answers the request; `user` is set for callers inside the process.
pub(crate) async fn answer<B>(app: &Arc<App>, request: Request<B>, user: Option<crate::auth::User>) -> Reply
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(CLIENT_PATIENCE, bounded(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return respond::error(&refusal),
        Err(_) => return respond::error(&ApiError::timeout("the request's body did not arrive in time")),
    };
    match tokio::time::timeout(REQUEST_DEADLINE, app.handle(parts, body, user)).await {
        Ok(reply) => reply,
        Err(_) => respond::error(&ApiError::timeout("the request did not complete in time")),
    }
}

/// The body, if it is not too large. The rest of one that is gets read and dropped, within bounds: most clients hear the
/// answer only after they have sent everything.
async fn bounded<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = std::pin::pin!(body);
    let (mut read, mut kept) = (0, BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let error: Box<dyn std::error::Error + Send + Sync> = error.into();
            ApiError::bad_request(format!("cannot read the body: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len();
        if read <= BODY_LIMIT {
            kept.extend_from_slice(&data);
        } else if read > DRAIN_LIMIT {
            break;
        } else {
            kept = BytesMut::new();
        }
    }
    if read > BODY_LIMIT { Err(ApiError::too_large(BODY_LIMIT)) } else { Ok(kept.freeze()) }
}

/// Serves connections until the shutdown, then lets open requests end.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = Arc::new(GracefulShutdown::new());
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = app.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        connections.spawn(connection(app.clone(), acceptor.clone(), stream, graceful.watcher()));
    }
    drop(listener);
    connections.close();
    let ended = async {
        if let Ok(graceful) = Arc::try_unwrap(graceful) {
            graceful.shutdown().await;
        }
        connections.wait().await;
    };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::debug!("connections were still open when the server ended");
    }
}

async fn connection(
    app: Arc<App>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(CLIENT_PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "tls handshake failed"),
        Err(_) => return tracing::debug!("tls handshake took too long"),
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(answer(&app, request, None).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(CLIENT_PATIENCE);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1_000);
    let served =
        watcher.watch(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned());
    if let Err(error) = served.await {
        tracing::debug!(%error, "connection ended");
    }
}
