//! What the messages of both rendezvous are written and read with: numbers in little-endian order, short texts.

/// Takes values off the front of bytes from elsewhere; every one may be missing.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        self.text_of(length)
    }

    pub(crate) fn long_text(&mut self) -> Option<String> {
        let length = usize::from(self.u16()?);
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Option<String> {
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// Writes a text of at most `longest` bytes, which is at most 255, behind its length.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str, longest: u8) {
    let text = truncated(text, usize::from(longest));
    bytes.push(text.len() as u8);
    bytes.extend(text.as_bytes());
}

/// Writes a text of at most `longest` bytes behind its length of 16 bits.
pub(crate) fn put_long_text(bytes: &mut Vec<u8>, text: &str, longest: u16) {
    let text = truncated(text, usize::from(longest));
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// The text, cut between characters if it is longer.
pub(crate) fn truncated(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}
