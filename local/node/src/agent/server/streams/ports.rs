//! Forwards ports over a WebSocket whose messages name channels, as `v4.channel.k8s.io` does: two channels for each port,
//! one for bytes and one for an error, and each begins with the port's number.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::dial::Target;
use super::heartbeat::Heartbeat;
use super::websocket::Socket;
use super::{FAREWELL, note};

/// The subprotocol.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";
/// Messages that wait for a slow port or a slow client.
const UNDER_WAY: usize = 8;
/// Bytes of one message.
const CHUNK: usize = 32 << 10;

/// Forwards until every port's connection is over, or the client is gone.
pub(super) async fn forward(socket: Socket, ports: Vec<u16>, target: &Target, heartbeat: &Heartbeat) {
    let (mut sink, mut stream) = socket.split();
    let (to_client, mut for_client) = mpsc::channel::<Bytes>(UNDER_WAY);
    let (to_ports, for_ports): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel(UNDER_WAY)).unzip();
    let forwarded = async {
        let all = ports.iter().zip(for_ports).enumerate().map(|(index, (port, from_client))| {
            let channel = (2 * index) as u8;
            one(target, *port, channel, from_client, to_client.clone())
        });
        join_all(all).await;
        drop(to_client);
    };
    let written = async {
        let mut times = heartbeat.times();
        loop {
            let message = tokio::select! {
                bytes = for_client.recv() => match bytes {
                    Some(bytes) => Message::Binary(bytes),
                    None => break,
                },
                _ = times.tick() => Message::Ping(Bytes::new()),
            };
            heartbeat.tell(sink.send(message)).await?;
        }
        heartbeat.tell(sink.send(Message::Close(None))).await
    };
    let read = async {
        let mut to_ports = to_ports;
        while let Some(Ok(message)) = heartbeat.hear(stream.next()).await {
            let Message::Binary(bytes) = message else { continue };
            let Some((channel, rest)) = bytes.split_first().map(|(channel, _)| (*channel, bytes.slice(1..)))
            else {
                continue;
            };
            let port = to_ports.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
            if let Some(port) = port
                && !rest.is_empty()
            {
                let _ = port.send(rest).await;
            }
        }
    };
    tokio::pin!(read);
    let served = async { tokio::join!(forwarded, written).1 };
    tokio::select! {
        written = served => match written {
            Ok(()) => drop(timeout(FAREWELL, read).await),
            gone => note(gone),
        },
        // The connections close with this.
        () = &mut read => {}
    }
}

/// One port: announces it, then carries bytes.
async fn one(
    target: &Target,
    port: u16,
    channel: u8,
    mut from_client: mpsc::Receiver<Bytes>,
    to_client: mpsc::Sender<Bytes>,
) {
    let tell = |channel: u8, bytes: &[u8]| {
        let mut message = BytesMut::with_capacity(bytes.len() + 1);
        message.put_u8(channel);
        message.put_slice(bytes);
        to_client.send(message.freeze())
    };
    for channel in [channel, channel + 1] {
        if tell(channel, &port.to_le_bytes()).await.is_err() {
            return;
        }
    }
    let connection = match target.dial(port).await {
        Ok(connection) => connection,
        Err(why) => return drop(tell(channel + 1, why.as_bytes()).await),
    };
    let (mut reader, mut writer) = connection.into_split();
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // What else the client sends is dropped, so that other ports do not wait behind it.
        while from_client.recv().await.is_some() {}
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            if tell(channel, &buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    // The protocol cannot say that one side is done, so the connection ends with what the program says.
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}
