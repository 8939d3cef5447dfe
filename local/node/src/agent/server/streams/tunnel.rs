//! What carries SPDY: a connection, or a WebSocket whose messages are pieces of it.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::ReaderStream;

use super::dial::Target;
use super::spdy;
use super::websocket::Socket;
use crate::streams::spdy::SpdyError;

/// Frames that wait for a slow client.
const UNDER_WAY: usize = 16;

/// SPDY on the connection itself.
pub(super) async fn raw(upgraded: Upgraded, target: &Target) {
    let (reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let (outgoing, mut frames) = mpsc::channel::<Bytes>(UNDER_WAY);
    let incoming = ReaderStream::new(reader).filter_map(|piece| std::future::ready(piece.ok()));
    let written = async {
        while let Some(frame) = frames.recv().await {
            writer.write_all(&frame).await?;
            writer.flush().await?;
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::select! {
        served = spdy::serve(target, incoming, outgoing) => note(served),
        written = written => tracing::debug!(?written, "a client of forwarded ports is gone"),
    }
}

/// SPDY within a WebSocket.
pub(super) async fn websocket(socket: Socket, target: &Target) {
    let (mut sink, stream) = socket.split();
    let (outgoing, mut frames) = mpsc::channel::<Bytes>(UNDER_WAY);
    let incoming = stream.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(bytes),
            // After an error nothing more comes.
            Ok(_) | Err(_) => None,
        })
    });
    let written = async {
        while let Some(frame) = frames.recv().await {
            sink.send(Message::Binary(frame)).await?;
        }
        Ok::<_, tokio_tungstenite::tungstenite::Error>(())
    };
    tokio::select! {
        served = spdy::serve(target, incoming, outgoing) => note(served),
        written = written => tracing::debug!(?written, "a client of forwarded ports is gone"),
    }
}

fn note(served: Result<(), SpdyError>) {
    if let Err(error) = served {
        tracing::debug!(%error, "a client of forwarded ports does not speak SPDY as it should");
    }
}
