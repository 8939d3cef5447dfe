//! The listener: TLS, HTTP/1.1 and HTTP/2, bounded bodies, deadlines, a graceful end.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use muster_machinery::server::CLIENT_PATIENCE;
use tokio::net::TcpListener;

use crate::app::App;
use crate::respond::{self, Reply};
use crate::status::ApiError;

/// Largest request body.
const BODY_LIMIT: usize = 3 << 20;
/// How much of a body that is too large is read before the connection ends.
const DRAIN_LIMIT: usize = 64 << 20;
/// How long a request may take until its answer begins.
const REQUEST_DEADLINE: Duration = Duration::from_mins(1);

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
    let shutdown = app.shutdown.clone();
    let handler = move |request: Request<Incoming>| {
        let app = app.clone();
        async move { answer(&app, request, None).await }
    };
    muster_machinery::server::serve(listener, Some(tls), shutdown, handler).await;
}
