//! The protobuf wire format: numbered fields, each a number or a run of bytes.

/// Why bytes are not in the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends inside a field.
    #[error("unexpected end of the message")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("integer overflow")]
    Overflow,
    /// A field has the number 0 or one beyond the format's range.
    #[error("illegal field number")]
    FieldNumber,
    /// Groups and the unassigned wire types are not used by Kubernetes.
    #[error("illegal wire type {0}")]
    WireType(u8),
    /// The field is sent in another wire type than its definition has.
    #[error("wrong wire type for the field")]
    Mismatch,
    /// A string is not UTF-8.
    #[error("a string is not valid UTF-8")]
    Utf8,
}

/// The value of one field as it was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Raw<'a> {
    pub(super) fn varint(self) -> Result<u64, WireError> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(WireError::Mismatch),
        }
    }

    pub(super) fn double(self) -> Result<f64, WireError> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WireError::Mismatch),
        }
    }

    pub(super) fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Mismatch),
        }
    }

    pub(super) fn string(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8)
    }
}

/// Reads fields from a message.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next field's number and value, or nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(WireError::FieldNumber)?;
        let value = match key as u8 & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
                self.rest = rest;
                Raw::Bytes(bytes)
            }
            5 => self.array::<4>().map(|_| Raw::Fixed32)?,
            other => return Err(WireError::WireType(other)),
        };
        Ok(Some((number, value)))
    }

    /// The next number of a packed list, or nothing at the end.
    pub(super) fn packed(&mut self) -> Result<Option<i64>, WireError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(|number| Some(number as i64)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut result = 0_u64;
        for position in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(WireError::Truncated)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if position == 9 && bits > 1 {
                return Err(WireError::Overflow);
            }
            result |= bits << (7 * position);
            if byte & 0x80 == 0 {
                return Ok(result);
            }
        }
        Err(WireError::Overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Raw<'_>)>, WireError> {
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.next()? {
            fields.push(field);
        }
        Ok(fields)
    }

    #[test]
    fn fields_of_every_kind() {
        let bytes =
            [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let expected = [
            (1, Raw::Varint(150)),
            (2, Raw::Bytes(b"hi")),
            (3, Raw::Fixed32),
            (4, Raw::Fixed64(1.0_f64.to_bits())),
        ];
        assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn broken_input_is_named() {
        assert_eq!(read(&[0x08]), Err(WireError::Truncated));
        assert_eq!(read(&[0x12, 5, b'x']), Err(WireError::Truncated));
        assert_eq!(read(&[0x0b]), Err(WireError::WireType(3)));
        assert_eq!(read(&[0x00, 0x00]), Err(WireError::FieldNumber));
        assert_eq!(
            read(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            Err(WireError::Overflow)
        );
    }
}
