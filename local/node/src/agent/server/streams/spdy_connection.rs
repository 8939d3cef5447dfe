//! A connection on which SPDY is spoken: its bytes, and the pings by which it is known that the client is there.

use bytes::Bytes;
use futures::stream::{BoxStream, unfold};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::heartbeat::{Gone, Heartbeat};
use crate::streams::spdy::{FIRST_OWN_PING, encode_ping};

/// What a client says in pieces; it ends when the client is gone or silent for too long.
pub(super) fn pieces<'a>(
    reader: impl AsyncRead + Send + 'a,
    heartbeat: &'a Heartbeat,
) -> BoxStream<'a, Bytes> {
    until_silent(ReaderStream::new(reader), heartbeat)
        .filter_map(|piece| std::future::ready(piece.ok()))
        .boxed()
}

/// What a client says until it is gone or silent for too long.
pub(super) fn until_silent<'a, Said: Send + 'a>(
    said: impl Stream<Item = Said> + Send + 'a,
    heartbeat: &'a Heartbeat,
) -> BoxStream<'a, Said> {
    let hear = move |mut said: BoxStream<'a, Said>| async move {
        let next = heartbeat.hear(said.next()).await?;
        Some((next, said))
    };
    unfold(said.boxed(), hear).boxed()
}

/// Writes frames until no more come, and asks the client between them whether it is there.
pub(super) async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Bytes>,
    heartbeat: &Heartbeat,
) -> Result<(), Gone> {
    let (mut times, mut number) = (heartbeat.times(), FIRST_OWN_PING);
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => return Ok(()),
            },
            _ = times.tick() => {
                let ping = encode_ping(number);
                number = number.wrapping_add(2);
                ping.into()
            }
        };
        let written = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        heartbeat.tell(written).await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::time::timeout;

    use super::super::heartbeat::tests::PATIENCE;
    use super::*;
    use crate::streams::spdy::encode_data;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_asked_between_frames_and_has_to_answer() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let (reader, writer) = tokio::io::split(ours);
        let heartbeat = Heartbeat::new(PATIENCE);
        let (outgoing, frames) = mpsc::channel(1);
        let data = encode_data(1, b"said", false);
        outgoing.send(data.clone().into()).await.unwrap();
        let mut pieces = pieces(reader, &heartbeat);
        let answers = async {
            let mut read = vec![0; data.len()];
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(read, data);
            for number in [FIRST_OWN_PING, FIRST_OWN_PING + 2] {
                let mut ping = vec![0; encode_ping(number).len()];
                theirs.read_exact(&mut ping).await.unwrap();
                assert_eq!(ping, encode_ping(number));
                theirs.write_all(&ping).await.unwrap();
            }
        };
        let ended = async {
            assert_eq!(pieces.next().await, Some(encode_ping(FIRST_OWN_PING).into()));
            assert_eq!(pieces.next().await, Some(encode_ping(FIRST_OWN_PING + 2).into()));
            pieces.next().await
        };
        let both = async { tokio::join!(answers, ended).1 };
        let ended = tokio::select! {
            ended = timeout(PATIENCE.silence * 3, both) => ended,
            written = write(writer, frames, &heartbeat) => panic!("{written:?}"),
        };
        assert_eq!(ended, Ok(None), "a client that does not answer any more is gone");
    }
}
