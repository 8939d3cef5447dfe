//! Carries a stream over SPDY, as clients did before they spoke WebSocket: each channel is a SPDY stream.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::Command;
use super::heartbeat::Heartbeat;
use super::spdy_connection::{pieces, write};
use super::{FAREWELL, note};
use crate::streams::channel::{FromClient, ToClient, decode_size};
use crate::streams::query::CommandOptions;
use crate::streams::spdy::{Decoder, Frame, ReplyEncoder, encode_data, encode_ping, encode_reset};

/// What is spoken over SPDY.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";
/// How long a client may take to open its streams.
const PATIENCE: Duration = Duration::from_secs(30);
/// Frames that wait for a slow client.
const UNDER_WAY: usize = 8;

/// The numbers of the client's streams by what they are for.
type Streams = HashMap<&'static str, u32>;

/// Carries until the command has said all, or the client is gone.
pub(super) async fn carry(
    connection: impl AsyncRead + AsyncWrite + Send,
    options: CommandOptions,
    command: Command,
    heartbeat: &Heartbeat,
) {
    let (reader, writer) = tokio::io::split(connection);
    let (outgoing, frames) = mpsc::channel::<Bytes>(UNDER_WAY);
    let incoming = pieces(reader, heartbeat);
    let connection = Connection { incoming, decoder: Decoder::default(), outgoing };
    tokio::select! {
        () = speak(connection, &options, command) => {}
        written = write(writer, frames, heartbeat) => note(written),
    }
}

struct Connection<Incoming> {
    incoming: Incoming,
    decoder: Decoder,
    outgoing: mpsc::Sender<Bytes>,
}

impl<Incoming: Stream<Item = Bytes> + Unpin> Connection<Incoming> {
    /// The next frame that is not a ping, which is answered; nothing when the client is gone.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next() {
                Ok(Some(Frame::Ping(number))) => self.outgoing.send(encode_ping(number).into()).await.ok()?,
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => self.decoder.push(&self.incoming.next().await?),
                Err(error) => {
                    tracing::debug!(%error, "a client of a stream does not speak SPDY as it should");
                    return None;
                }
            }
        }
    }
}

async fn speak<Incoming: Stream<Item = Bytes> + Unpin>(
    mut connection: Connection<Incoming>,
    options: &CommandOptions,
    command: Command,
) {
    let Command { to, from } = command;
    let opened = timeout(PATIENCE, open(&mut connection, options)).await;
    let Ok(Some(streams)) = opened else { return };
    let outgoing = connection.outgoing.clone();
    let heard = hear(&mut connection, &streams, to);
    tokio::pin!(heard);
    tokio::select! {
        () = tell(&outgoing, &streams, from) => {}
        // Nobody is left to be told.
        () = &mut heard => return,
    }
    // The client closes the connection when it has read everything.
    drop(timeout(FAREWELL, heard).await);
}

/// Waits for the streams that belong to what was asked for.
async fn open<Incoming: Stream<Item = Bytes> + Unpin>(
    connection: &mut Connection<Incoming>,
    options: &CommandOptions,
) -> Option<Streams> {
    let kinds = [
        ("error", true),
        ("stdin", options.input),
        ("stdout", options.output),
        ("stderr", options.error),
        ("resize", options.terminal),
    ];
    let wanted: Vec<&'static str> =
        kinds.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect();
    let (mut streams, mut replies) = (Streams::new(), ReplyEncoder::default());
    while streams.len() < wanted.len() {
        let Frame::Open { stream, headers, .. } = connection.next().await? else { continue };
        let kind = wanted.iter().find(|kind| headers.get("streamtype") == Some(**kind));
        let answer = match kind {
            Some(kind) if !streams.contains_key(kind) => {
                streams.insert(kind, stream);
                replies.accept(stream)
            }
            _ => encode_reset(stream),
        };
        connection.outgoing.send(answer.into()).await.ok()?;
    }
    Some(streams)
}

/// Passes on what the client says until it is gone.
async fn hear<Incoming: Stream<Item = Bytes> + Unpin>(
    connection: &mut Connection<Incoming>,
    streams: &Streams,
    to: mpsc::Sender<FromClient>,
) {
    let (input, resize) = (streams.get("stdin").copied(), streams.get("resize").copied());
    while let Some(frame) = connection.next().await {
        let Frame::Data { stream, bytes, fin } = frame else { continue };
        // What a command that is over does not hear is dropped.
        if Some(stream) == input {
            if !bytes.is_empty() {
                let _ = to.send(FromClient::Input(bytes)).await;
            }
            if fin {
                let _ = to.send(FromClient::InputEnd).await;
            }
        } else if Some(stream) == resize
            && let Some(size) = decode_size(&bytes)
        {
            let _ = to.send(FromClient::Resize(size)).await;
        }
    }
}

/// Tells the client everything, and with the status that it was everything.
async fn tell(outgoing: &mpsc::Sender<Bytes>, streams: &Streams, mut from: mpsc::Receiver<ToClient>) {
    let say = |kind: &str, bytes: &[u8], fin: bool| {
        let frame = streams.get(kind).map(|stream| encode_data(*stream, bytes, fin));
        async move {
            if let Some(frame) = frame {
                let _ = outgoing.send(frame.into()).await;
            }
        }
    };
    while let Some(said) = from.recv().await {
        match said {
            ToClient::Output(bytes) => say("stdout", &bytes, false).await,
            ToClient::Error(bytes) => say("stderr", &bytes, false).await,
            ToClient::Status(status) => {
                say("stdout", &[], true).await;
                say("stderr", &[], true).await;
                say("error", status.as_bytes(), true).await;
            }
        }
    }
}
