//! Forwards ports over SPDY, as kubectl does: two streams for each connection, one for bytes and one for an error.
//!
//! kubectl's SPDY knows no flow control: while a program does not take what one connection brings, the others of the same
//! client wait. So does a kubelet's.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dial::Target;
use crate::streams::spdy::{
    Decoder, Frame, Headers, ReplyEncoder, SpdyError, encode_data, encode_ping, encode_reset,
};

/// The subprotocol of a WebSocket through which SPDY is spoken.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What is spoken over SPDY.
pub(super) const PROTOCOL: &str = "portforward.k8s.io";
/// Pieces that wait for a slow program.
const UNDER_WAY: usize = 8;
/// Bytes of one frame.
const CHUNK: usize = 32 << 10;
/// Connections that one client has at a time.
const CONNECTIONS: usize = 1024;

/// The two streams of a connection, as they come.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<DataStream>,
}

/// The stream for the bytes of a connection.
struct DataStream {
    stream: u32,
    port: u16,
    from_client: mpsc::Receiver<Bytes>,
    reset: CancellationToken,
}

/// Where the bytes of a stream go.
struct Carried {
    /// `None` once the client has written all.
    to_port: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
}

struct Session<'a> {
    target: &'a Target,
    outgoing: mpsc::Sender<Bytes>,
    replies: ReplyEncoder,
    /// Connections that wait for their second stream, by the client's number.
    waiting: HashMap<String, Pair>,
    carried: HashMap<u32, Carried>,
    connections: JoinSet<u32>,
}

/// Serves a client until it is gone; `outgoing` takes frames.
pub(super) async fn serve(
    target: &Target,
    mut incoming: impl Stream<Item = Bytes> + Unpin,
    outgoing: mpsc::Sender<Bytes>,
) -> Result<(), SpdyError> {
    let mut session = Session {
        target,
        outgoing,
        replies: ReplyEncoder::default(),
        waiting: HashMap::new(),
        carried: HashMap::new(),
        connections: JoinSet::new(),
    };
    let mut decoder = Decoder::default();
    loop {
        tokio::select! {
            bytes = incoming.next() => match bytes {
                Some(bytes) => decoder.push(&bytes),
                None => return Ok(()),
            },
            Some(ended) = session.connections.join_next() => {
                if let Ok(stream) = ended {
                    session.carried.remove(&stream);
                }
                continue;
            }
        }
        while let Some(frame) = decoder.next()? {
            session.take(frame).await;
        }
    }
}

impl Session<'_> {
    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers, fin } => {
                if !self.open(stream, &headers, fin).await {
                    self.say(encode_reset(stream)).await;
                }
            }
            Frame::Data { stream, bytes, fin } => {
                let Some(carried) = self.carried.get_mut(&stream) else { return };
                if let Some(to_port) = &carried.to_port
                    && !bytes.is_empty()
                {
                    // What a program does not take any more is dropped.
                    let _ = to_port.send(bytes).await;
                }
                if fin {
                    carried.to_port = None;
                }
            }
            Frame::Reset { stream } => {
                if let Some(carried) = self.carried.remove(&stream) {
                    carried.reset.cancel();
                }
                self.waiting.retain(|_, pair| {
                    pair.error != Some(stream) && pair.data.as_ref().is_none_or(|data| data.stream != stream)
                });
            }
            Frame::Ping(number) => self.say(encode_ping(number)).await,
        }
    }

    async fn say(&self, frame: Vec<u8>) {
        // A client that is gone is noticed by the end of what it says.
        let _ = self.outgoing.send(frame.into()).await;
    }

    /// Takes a new stream, if it makes sense; with the second of a pair the connection begins.
    async fn open(&mut self, stream: u32, headers: &Headers, fin: bool) -> bool {
        let port = headers.get("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        let (Some(port), Some(kind @ ("error" | "data"))) = (port, headers.get("streamtype")) else {
            return false;
        };
        // Old clients number no connections and have one for each port.
        let request = headers.get("requestid").map_or_else(|| format!("port {port}"), str::to_owned);
        let same = self.waiting.get(&request);
        let taken = same.is_some_and(|pair| match kind {
            "error" => pair.error.is_some(),
            _ => pair.data.is_some(),
        });
        let full = self.carried.len() + self.waiting.len() >= CONNECTIONS;
        if taken || full || self.carried.contains_key(&stream) {
            return false;
        }
        // Before anything else is said on it.
        let reply = self.replies.accept(stream);
        self.say(reply).await;
        let mut pair = self.waiting.remove(&request).unwrap_or_default();
        if kind == "error" {
            pair.error = Some(stream);
        } else {
            let (to_port, from_client) = mpsc::channel(UNDER_WAY);
            let reset = CancellationToken::new();
            self.carried.insert(stream, Carried { to_port: (!fin).then_some(to_port), reset: reset.clone() });
            pair.data = Some(DataStream { stream, port, from_client, reset });
        }
        match pair {
            Pair { error: Some(error), data: Some(data) } => {
                let (target, outgoing) = (self.target.clone(), self.outgoing.clone());
                self.connections.spawn(connect(target, data, error, outgoing));
            }
            half => {
                self.waiting.insert(request, half);
            }
        }
        true
    }
}

/// Carries one connection; the number of its stream when it is over.
async fn connect(target: Target, data: DataStream, error: u32, outgoing: mpsc::Sender<Bytes>) -> u32 {
    let DataStream { stream, port, from_client, reset } = data;
    let carried = tokio::select! {
        carried = carry(&target, port, stream, from_client, &outgoing) => carried,
        () = reset.cancelled() => Ok(()),
    };
    // The client waits for the end of the error stream.
    let why = carried.err().unwrap_or_default();
    let _ = outgoing.send(encode_data(error, why.as_bytes(), true).into()).await;
    stream
}

async fn carry(
    target: &Target,
    port: u16,
    stream: u32,
    mut from_client: mpsc::Receiver<Bytes>,
    outgoing: &mpsc::Sender<Bytes>,
) -> Result<(), String> {
    let say = |bytes: &[u8], fin: bool| outgoing.send(encode_data(stream, bytes, fin).into());
    let connection = match target.dial(port).await {
        Ok(connection) => connection,
        Err(why) => {
            let _ = say(&[], true).await;
            return Err(why);
        }
    };
    let (mut reader, mut writer) = connection.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
        // What the program does not take any more is dropped, so that other connections do not wait behind it.
        while from_client.recv().await.is_some() {}
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if say(&buffer[..count], false).await.is_err() {
                return;
            }
        }
        let _ = say(&[], true).await;
    };
    tokio::join!(up, down);
    Ok(())
}
