//! Blocks of headers: compressed with one state for a whole connection and direction.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{SpdyError, dictionary};

/// How far back compressed bytes may refer.
const WINDOW: usize = 32 << 10;
/// Longest block, decompressed.
const LONGEST: usize = 64 << 10;

/// Headers of a stream by their names in small letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn parse(mut block: &[u8]) -> Result<Self, SpdyError> {
        let count = number(&mut block)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?.to_lowercase();
            headers.push((name, text(&mut block)?));
        }
        Ok(Self(headers))
    }
}

fn number(block: &mut &[u8]) -> Result<u32, SpdyError> {
    let (number, rest) = block.split_first_chunk::<4>().ok_or(SpdyError::Headers("they are cut short"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(block)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(SpdyError::Headers("they are cut short"))?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Reads the blocks of one direction of a connection, in order.
pub(super) struct HeaderDecoder {
    state: Box<DecompressorOxide>,
    window: Vec<u8>,
    position: usize,
    begun: bool,
}

impl Default for HeaderDecoder {
    fn default() -> Self {
        Self { state: Box::default(), window: vec![0; WINDOW], position: 0, begun: false }
    }
}

impl HeaderDecoder {
    /// Reads the next block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        let mut block = block;
        if !self.begun {
            block = self.begin(block)?;
        }
        Headers::parse(&self.inflate(block)?)
    }

    /// Reads the head of the zlib stream, which comes with the first block.
    fn begin<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], SpdyError> {
        let wrong = SpdyError::Headers("they do not begin as a zlib stream");
        let Some((head, mut rest)) = block.split_first_chunk::<2>() else { return Err(wrong) };
        if head[0] & 0x0f != 8 || u16::from_be_bytes(*head) % 31 != 0 {
            return Err(wrong);
        }
        if head[1] & 0x20 != 0 {
            if number(&mut rest)? != dictionary::ID {
                return Err(SpdyError::Headers("they are compressed with another dictionary"));
            }
            let dictionary = dictionary::bytes();
            self.window[..dictionary.len()].copy_from_slice(&dictionary);
            self.position = dictionary.len();
        }
        self.begun = true;
        Ok(rest)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut block = Vec::new();
        loop {
            let (status, read, written) = decompress(
                &mut self.state,
                input,
                &mut self.window,
                self.position,
                TINFL_FLAG_HAS_MORE_INPUT,
            );
            input = &input[read..];
            block.extend_from_slice(&self.window[self.position..self.position + written]);
            self.position = (self.position + written) % WINDOW;
            if block.len() > LONGEST {
                return Err(SpdyError::Headers("they are too long"));
            }
            match status {
                TINFLStatus::NeedsMoreInput if input.is_empty() => return Ok(block),
                TINFLStatus::HasMoreOutput if read + written > 0 => {}
                _ => return Err(SpdyError::Headers("they are not compressed as zlib does")),
            }
        }
    }
}

/// Writes answers to new streams. They have no headers, which is said in the words of zlib without compressing.
#[derive(Debug, Default)]
pub(crate) struct ReplyEncoder {
    begun: bool,
}

impl ReplyEncoder {
    /// The frame that accepts a stream.
    pub(crate) fn accept(&mut self, stream: u32) -> Vec<u8> {
        let mut block = Vec::new();
        if !self.begun {
            self.begun = true;
            block.extend_from_slice(&[0x78, 0x01]);
        }
        // A stored piece that holds "no headers", and an empty one: readers take that as the end of the block.
        block.extend_from_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        block.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        let mut frame = super::frame::control(super::frame::SYN_REPLY, 0, 4 + block.len());
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&block);
        frame
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A block of headers that is not compressed yet.
    pub(in super::super) fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut block = (pairs.len() as u32).to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        block
    }

    /// A block in a stored piece of zlib's.
    pub(in super::super) fn stored(block: &[u8], first: bool) -> Vec<u8> {
        let length = (block.len() as u16).to_le_bytes();
        let mut bytes = if first { vec![0x78, 0x01] } else { Vec::new() };
        bytes.extend_from_slice(&[0, length[0], length[1], !length[0], !length[1]]);
        bytes.extend_from_slice(block);
        bytes.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        bytes
    }

    #[test]
    fn blocks_share_their_state_and_the_dictionary() {
        // Made with Python's zlib.compressobj(zdict=...), flushed with Z_SYNC_FLUSH after each block.
        let blocks: [&[u8]; 2] = [BLOCK_ONE, BLOCK_TWO];
        let mut decoder = HeaderDecoder::default();
        let first = decoder.decode(blocks[0]).unwrap();
        assert_eq!((first.get("streamtype"), first.get("port")), (Some("error"), Some("8080")));
        let second = decoder.decode(blocks[1]).unwrap();
        assert_eq!((second.get("streamtype"), second.get("requestid")), (Some("data"), Some("0")));
        assert!(decoder.decode(&[1, 2, 3]).is_err(), "what is no zlib is an error");
    }

    #[test]
    fn a_reply_can_be_read_as_a_block() {
        let (mut encoder, mut decoder) = (ReplyEncoder::default(), HeaderDecoder::default());
        for stream in [1, 3] {
            let frame = encoder.accept(stream);
            assert_eq!(frame[8..12], stream.to_be_bytes());
            assert_eq!(decoder.decode(&frame[12..]).unwrap(), Headers::default());
        }
    }

    #[test]
    fn a_block_that_unfolds_endlessly_is_refused() {
        let bomb = block(&[("a", &"x".repeat(60_000)), ("b", &"x".repeat(60_000))]);
        let mut decoder = HeaderDecoder::default();
        let mut pieces = vec![0x78, 0x01];
        for piece in bomb.chunks(60_000) {
            pieces.extend(stored(piece, false));
        }
        assert_eq!(decoder.decode(&pieces), Err(SpdyError::Headers("they are too long")));
    }

    #[rustfmt::skip]
    const BLOCK_ONE: &[u8] = &[
        0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0x25, 0x3a, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc,
        0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x86, 0x14, 0xcb, 0x45, 0xe0, 0x1c, 0x60, 0x61, 0x60,
        0x61, 0x00, 0xa4, 0x39, 0x8b, 0x20, 0xd1, 0x98, 0x09, 0x4a, 0xde, 0x8c, 0x06, 0x00, 0x00, 0x00,
        0x00, 0xff, 0xff,
    ];
    #[rustfmt::skip]
    const BLOCK_TWO: &[u8] = &[
        0xc2, 0xaa, 0x19, 0x54, 0x0e, 0x25, 0x12, 0xd6, 0x0b, 0x00, 0x00, 0x00, 0xff, 0xff,
    ];
}
