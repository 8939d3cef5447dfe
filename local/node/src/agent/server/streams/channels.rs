//! Carries a stream over a WebSocket whose messages name channels.

use bytes::Bytes;
use futures::stream::SplitStream;
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::FAREWELL;
use super::client::Command;
use super::websocket::Socket;
use crate::streams::channel::{FromClient, ToClient, Version, decode, encode};

/// Carries until the command has said all, or the client is gone.
pub(super) async fn carry(socket: Socket, version: Version, command: Command) {
    let (mut sink, mut stream) = socket.split();
    let Command { to, mut from } = command;
    let told = async {
        // Clients may wait for a first message: it says that the stream is there.
        sink.send(Message::Binary(encode(&ToClient::Output(Bytes::new())))).await?;
        while let Some(said) = from.recv().await {
            sink.send(Message::Binary(encode(&said))).await?;
        }
        let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(farewell))).await
    };
    let heard = hear(&mut stream, version, to);
    tokio::pin!(heard);
    let told = tokio::select! {
        told = told => told,
        // Nobody is left to be told.
        () = &mut heard => return,
    };
    match told {
        // The client answers the farewell. Leaving before that could cost it what it has not read yet.
        Ok(()) => drop(timeout(FAREWELL, heard).await),
        Err(error) => tracing::debug!(%error, "a client of a stream is gone"),
    }
}

/// Passes on what the client says until it is gone.
async fn hear(stream: &mut SplitStream<Socket>, version: Version, to: mpsc::Sender<FromClient>) {
    while let Some(message) = stream.next().await {
        let said = match message {
            Ok(Message::Binary(bytes)) => decode(version, &bytes),
            Ok(Message::Text(text)) => decode(version, &Bytes::from(text)),
            Ok(Message::Close(_)) => Some(FromClient::Left),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "a client of a stream vanished");
                return;
            }
        };
        if let Some(said) = said {
            // What a command that is over does not hear is dropped.
            let _ = to.send(said).await;
        }
    }
}
