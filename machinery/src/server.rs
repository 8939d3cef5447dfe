//! How a server takes connections: TLS where asked for, HTTP/1.1 and HTTP/2, deadlines for clients, a graceful end.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the TLS handshake, and for its headers; bodies are the handler's business.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long open requests may take once the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// Serves connections until the shutdown, then lets open requests end. Without `tls` it speaks plain HTTP.
pub async fn serve<Handler, Answer, Content>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shutdown: CancellationToken,
    handler: Handler,
) where
    Handler: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Response<Content>> + Send + 'static,
    Content: Body + Send + 'static,
    Content::Data: Send,
    Content::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let acceptor = tls.map(TlsAcceptor::from);
    let graceful = Arc::new(GracefulShutdown::new());
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        connections.spawn(connection(stream, acceptor.clone(), graceful.watcher(), handler.clone()));
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

async fn connection<Handler, Answer, Content>(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    watcher: Watcher,
    handler: Handler,
) where
    Handler: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Response<Content>> + Send + 'static,
    Content: Body + Send + 'static,
    Content::Data: Send,
    Content::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return converse(stream, watcher, handler).await };
    match tokio::time::timeout(CLIENT_PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, watcher, handler).await,
        Ok(Err(error)) => tracing::debug!(%error, "tls handshake failed"),
        Err(_) => tracing::debug!("tls handshake took too long"),
    }
}

async fn converse<Handler, Answer, Content>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    watcher: Watcher,
    handler: Handler,
) where
    Handler: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output = Response<Content>> + Send + 'static,
    Content: Body + Send + 'static,
    Content::Data: Send,
    Content::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
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
