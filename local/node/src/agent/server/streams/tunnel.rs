//! What carries SPDY: a connection, or a WebSocket whose messages are pieces of it.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::dial::Target;
use super::heartbeat::Heartbeat;
use super::spdy_connection::{pieces, until_silent, write};
use super::websocket::Socket;
use super::{note, spdy};
use crate::streams::spdy::SpdyError;

/// Frames that wait for a slow client.
const UNDER_WAY: usize = 16;

/// SPDY on the connection itself.
pub(super) async fn raw(upgraded: Upgraded, target: &Target, heartbeat: &Heartbeat) {
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let (outgoing, frames) = mpsc::channel::<Bytes>(UNDER_WAY);
    tokio::select! {
        served = spdy::serve(target, pieces(reader, heartbeat), outgoing) => note_speech(served),
        written = write(writer, frames, heartbeat) => note(written),
    }
}

/// SPDY within a WebSocket.
pub(super) async fn websocket(socket: Socket, target: &Target, heartbeat: &Heartbeat) {
    let (mut sink, stream) = socket.split();
    let (outgoing, mut frames) = mpsc::channel::<Bytes>(UNDER_WAY);
    let incoming = until_silent(stream, heartbeat).filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(bytes),
            // After an error nothing more comes.
            Ok(_) | Err(_) => None,
        })
    });
    let written = async {
        let mut times = heartbeat.times();
        loop {
            let message = tokio::select! {
                frame = frames.recv() => match frame {
                    Some(frame) => Message::Binary(frame),
                    None => return Ok(()),
                },
                _ = times.tick() => Message::Ping(Bytes::new()),
            };
            heartbeat.tell(sink.send(message)).await?;
        }
    };
    tokio::select! {
        served = spdy::serve(target, incoming, outgoing) => note_speech(served),
        written = written => note(written),
    }
}

fn note_speech(served: Result<(), SpdyError>) {
    if let Err(error) = served {
        tracing::debug!(%error, "a client of forwarded ports does not speak SPDY as it should");
    }
}
