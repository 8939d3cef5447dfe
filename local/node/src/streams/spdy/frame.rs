//! Frames, as they come out of a stream of bytes and go into one.

use bytes::{Buf as _, Bytes, BytesMut};

use super::SpdyError;
use super::headers::{HeaderDecoder, Headers};

pub(super) const SYN_STREAM: u16 = 1;
pub(super) const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;
const VERSION: u16 = 3;
const FIN: u8 = 1;
/// Pings of the server have even numbers, those of clients odd ones.
pub(crate) const FIRST_OWN_PING: u32 = 2;
/// Length of what comes before every frame's content.
const HEAD: usize = 8;
/// No control frame needs more.
const LARGEST_CONTROL: usize = 64 << 10;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A new stream.
    Open {
        /// Its number.
        stream: u32,
        /// What it is for.
        headers: Headers,
        /// The client will not write.
        fin: bool,
    },
    /// Bytes of a stream. A large frame comes in pieces.
    Data {
        /// Its number.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
        /// The client writes no more.
        fin: bool,
    },
    /// The client wants nothing more of a stream.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// Wants to come back; the number is odd.
    Ping(u32),
}

/// Finds frames in what a connection brings.
#[derive(Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    headers: HeaderDecoder,
    /// A data frame that has not come whole: stream, bytes missing, whether it is the last.
    data: Option<(u32, usize, bool)>,
}

impl Decoder {
    /// Takes bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or nothing until there are more bytes.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some((stream, missing, fin)) = self.data {
                if missing > 0 && self.buffer.is_empty() {
                    return Ok(None);
                }
                let bytes = self.buffer.split_to(missing.min(self.buffer.len())).freeze();
                let missing = missing - bytes.len();
                self.data = (missing > 0).then_some((stream, missing, fin));
                return Ok(Some(Frame::Data { stream, bytes, fin: fin && missing == 0 }));
            }
            let Some(head) = self.buffer.first_chunk::<HEAD>() else { return Ok(None) };
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            let flags = head[4];
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if first >> 31 == 0 {
                self.buffer.advance(HEAD);
                self.data = Some((first, length, flags & FIN != 0));
                continue;
            }
            let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
            if version != VERSION {
                return Err(SpdyError::Version(version));
            }
            if length > LARGEST_CONTROL {
                return Err(SpdyError::TooLarge(length));
            }
            if self.buffer.len() < HEAD + length {
                return Ok(None);
            }
            self.buffer.advance(HEAD);
            let content = self.buffer.split_to(length);
            if let Some(frame) = self.control(kind, flags, &content)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Reads a control frame; nothing of those that ask for nothing.
    fn control(&mut self, kind: u16, flags: u8, content: &[u8]) -> Result<Option<Frame>, SpdyError> {
        let (number, rest) = match content.split_first_chunk::<4>() {
            Some((number, rest)) => (u32::from_be_bytes(*number), rest),
            None if matches!(kind, SYN_STREAM | SYN_REPLY | RST_STREAM | PING | HEADERS) => {
                return Err(SpdyError::TooShort(kind));
            }
            None => return Ok(None),
        };
        let stream = number & 0x7fff_ffff;
        match kind {
            SYN_STREAM => {
                // The stream it belongs to, its priority and a slot come before the headers.
                let block = rest.get(6..).ok_or(SpdyError::TooShort(kind))?;
                let headers = self.headers.decode(block)?;
                Ok(Some(Frame::Open { stream, headers, fin: flags & FIN != 0 }))
            }
            // All blocks have to be read, since they share the compressor's state.
            SYN_REPLY | HEADERS => self.headers.decode(rest).map(|_| None),
            RST_STREAM => Ok(Some(Frame::Reset { stream })),
            // Others are our own, come back.
            PING => Ok((number % 2 == 1).then_some(Frame::Ping(number))),
            _ => Ok(None),
        }
    }
}

/// The beginning of a control frame.
pub(super) fn control(kind: u16, flags: u8, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + length);
    frame.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&(u32::from(flags) << 24 | length as u32).to_be_bytes());
    frame
}

/// Bytes of a stream, less than 16 MiB; `fin` says that they are the last.
pub(crate) fn encode_data(stream: u32, bytes: &[u8], fin: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + bytes.len());
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&(u32::from(fin) << 24 | bytes.len() as u32).to_be_bytes());
    frame.extend_from_slice(bytes);
    frame
}

/// Nothing more of a stream; it was refused.
pub(crate) fn encode_reset(stream: u32) -> Vec<u8> {
    const REFUSED: u32 = 3;
    let mut frame = control(RST_STREAM, 0, 8);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&REFUSED.to_be_bytes());
    frame
}

/// A ping, or the answer to one.
pub(crate) fn encode_ping(number: u32) -> Vec<u8> {
    let mut frame = control(PING, 0, 4);
    frame.extend_from_slice(&number.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::headers::tests::{block, stored};
    use super::*;

    fn open(stream: u32, pairs: &[(&str, &str)], first: bool) -> Vec<u8> {
        let block = stored(&block(pairs), first);
        let mut frame = control(SYN_STREAM, 0, 10 + block.len());
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&block);
        frame
    }

    fn all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[test]
    fn frames_of_another_version_or_size_are_refused() {
        let decode = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next()
        };
        assert_eq!(decode(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(SpdyError::Version(2)));
        assert_eq!(decode(&[0x80, 3, 0, 1, 0, 1, 0, 1]), Err(SpdyError::TooLarge(65_537)));
        assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 0]), Err(SpdyError::TooShort(PING)));
        assert_eq!(decode(&encode_ping(7)), Ok(Some(Frame::Ping(7))));
        assert_eq!(decode(&encode_ping(FIRST_OWN_PING)), Ok(None), "an answer asks for none");
        assert_eq!(decode(&encode_reset(5)), Ok(Some(Frame::Reset { stream: 5 })));
    }

    proptest! {
        #[test]
        fn frames_are_found_wherever_the_bytes_are_cut(
            datas in prop::collection::vec((1_u32..9, prop::collection::vec(any::<u8>(), 0..50), any::<bool>()), 0..8),
            cuts in prop::collection::vec(1_usize..20, 1..60),
        ) {
            let mut bytes = open(1, &[("streamtype", "data"), ("port", "80")], true);
            bytes.extend(open(3, &[("streamtype", "error")], false));
            for (stream, data, fin) in &datas {
                bytes.extend(encode_data(*stream, data, *fin));
                bytes.extend(encode_ping(2 * stream + 1));
            }
            let (mut decoder, mut frames, mut rest) = (Decoder::default(), Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                decoder.push(piece);
                frames.extend(all(&mut decoder));
                rest = left;
            }
            let opened: Vec<_> = frames.iter().filter(|frame| matches!(frame, Frame::Open { .. })).collect();
            prop_assert_eq!(opened.len(), 2);
            let mut found: Vec<(u32, Vec<u8>, bool)> = Vec::new();
            let mut open = None::<(u32, Vec<u8>, bool)>;
            for frame in frames {
                match frame {
                    Frame::Data { stream, bytes, fin } => {
                        let entry = open.get_or_insert((stream, Vec::new(), false));
                        prop_assert_eq!(entry.0, stream);
                        entry.1.extend_from_slice(&bytes);
                        entry.2 = fin;
                    }
                    Frame::Ping(_) => found.extend(open.take()),
                    _ => {}
                }
            }
            prop_assert_eq!(found, datas);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }

        #[test]
        fn any_block_of_headers_is_read_without_harm(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = control(SYN_STREAM, 0, 12 + block.len());
            bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x78, 0x01]);
            bytes.extend_from_slice(&block);
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            let _ = decoder.next();
        }
    }
}
