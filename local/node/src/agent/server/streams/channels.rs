//! Carries a stream over a WebSocket whose messages name channels.

use bytes::Bytes;
use futures::stream::SplitStream;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::client::Command;
use super::heartbeat::Heartbeat;
use super::{FAREWELL, note};
use crate::streams::channel::{FromClient, ToClient, Version, decode, encode};

/// How a client went.
enum Parting {
    /// It closed the connection as one does.
    Left,
    /// It is gone.
    Vanished,
}

/// Carries until the command has said all, or the client is gone.
pub(super) async fn carry<Connection: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<Connection>,
    version: Version,
    command: Command,
    heartbeat: &Heartbeat,
) {
    let (mut sink, mut stream) = socket.split();
    let Command { to, mut from } = command;
    let parting = {
        let told = async {
            // Clients may wait for a first message: it says that the stream is there.
            heartbeat.tell(sink.send(Message::Binary(encode(&ToClient::Output(Bytes::new()))))).await?;
            let mut times = heartbeat.times();
            loop {
                let message = tokio::select! {
                    said = from.recv() => match said {
                        Some(said) => Message::Binary(encode(&said)),
                        None => break,
                    },
                    _ = times.tick() => Message::Ping(Bytes::new()),
                };
                heartbeat.tell(sink.send(message)).await?;
            }
            let farewell = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            heartbeat.tell(sink.send(Message::Close(Some(farewell)))).await
        };
        let heard = hear(&mut stream, version, &to, heartbeat);
        tokio::pin!(heard);
        tokio::select! {
            told = told => {
                if told.is_ok() {
                    // The client answers the farewell. Leaving before that could cost it what it has not read yet.
                    let _ = timeout(FAREWELL, heard).await;
                }
                return note(told);
            }
            parting = &mut heard => parting,
        }
    };
    if matches!(parting, Parting::Left) {
        // Answers the client's farewell.
        let _ = timeout(FAREWELL, stream.next()).await;
        drop((sink, stream));
        // The command may go on; nobody is left to be told.
        let _ = to.send(FromClient::Left).await;
        while from.recv().await.is_some() {}
    }
}

/// Passes on what the client says until it is gone.
async fn hear<Connection: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SplitStream<WebSocketStream<Connection>>,
    version: Version,
    to: &mpsc::Sender<FromClient>,
    heartbeat: &Heartbeat,
) -> Parting {
    while let Some(message) = heartbeat.hear(stream.next()).await {
        let said = match message {
            Ok(Message::Binary(bytes)) => decode(version, &bytes),
            Ok(Message::Text(text)) => decode(version, &Bytes::from(text)),
            Ok(Message::Close(_)) => return Parting::Left,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "a client of a stream vanished");
                return Parting::Vanished;
            }
        };
        if let Some(said) = said {
            // What a command that is over does not hear is dropped.
            let _ = to.send(said).await;
        }
    }
    Parting::Vanished
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::sleep;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::super::client::{self, Client};
    use super::super::heartbeat::tests::PATIENCE;
    use super::*;

    /// A stream whose client and whose command are the test.
    struct Stream {
        remote: WebSocketStream<DuplexStream>,
        client: Client,
        carried: tokio::task::JoinHandle<()>,
    }

    async fn stream() -> Stream {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let (client, command) = client::pair();
        let carried = tokio::spawn(async move {
            let socket = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
            carry(socket, Version::V4, command, &Heartbeat::new(PATIENCE)).await;
        });
        let remote = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        Stream { remote, client, carried }
    }

    /// A message on the channel of the input.
    fn input(bytes: &[u8]) -> Message {
        Message::Binary([&[0], bytes].concat().into())
    }

    /// Writes until nothing more is taken.
    async fn fill(remote: &mut WebSocketStream<DuplexStream>) {
        while timeout(PATIENCE.ask / 4, remote.send(input(&[7; 100]))).await.is_ok() {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanishes_is_noticed_while_its_input_is_unread() {
        let Stream { mut remote, client, carried } = stream().await;
        fill(&mut remote).await;
        drop(remote);
        client.to.closed().await;
        carried.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_input_is_unread_may_be_silent() {
        let Stream { mut remote, mut client, carried } = stream().await;
        fill(&mut remote).await;
        let waited = timeout(PATIENCE.silence * 3, client.to.closed()).await;
        assert!(waited.is_err(), "it cannot answer behind its own input");
        while let Ok(Some(said)) = timeout(PATIENCE.ask / 4, client.from.recv()).await {
            assert_eq!(said, FromClient::Input(Bytes::from_static(&[7; 100])));
        }
        client.to.closed().await;
        carried.await.unwrap();
        drop(remote);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_stays_and_one_that_does_not_goes() {
        let Stream { mut remote, client, carried } = stream().await;
        let answers = async { while remote.next().await.is_some() {} };
        let stayed = tokio::select! {
            stayed = timeout(PATIENCE.silence * 3, client.to.closed()) => stayed,
            () = answers => unreachable!("the stream goes on"),
        };
        assert!(stayed.is_err(), "it answers");
        client.to.closed().await;
        carried.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_goes_on_without_a_client_that_left_in_good_order() {
        let Stream { mut remote, mut client, carried } = stream().await;
        remote.send(input(b"all")).await.unwrap();
        remote.close(None).await.unwrap();
        let closed = async { while remote.next().await.is_some() {} };
        timeout(PATIENCE.ask, closed).await.expect("the connection closes before the command ends");
        assert_eq!(client.from.recv().await, Some(FromClient::Input(Bytes::from_static(b"all"))));
        assert_eq!(client.from.recv().await, Some(FromClient::Left));
        sleep(PATIENCE.silence * 3).await;
        assert!(!client.to.is_closed(), "it is no hang-up");
        client.to.send(ToClient::Status(String::new())).await.unwrap();
        drop(client);
        carried.await.unwrap();
    }
}
