//! The part of SPDY/3.1 that Kubernetes' clients speak: streams with headers, data, half-closes, resets and pings. There
//! is no flow control in it, as the clients know none.

mod dictionary;
mod frame;
mod headers;

pub(crate) use frame::{Decoder, FIRST_OWN_PING, Frame, encode_data, encode_ping, encode_reset};
pub(crate) use headers::{Headers, ReplyEncoder};

/// What a client sends is not SPDY as Kubernetes' clients speak it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpdyError {
    /// A control frame of another version.
    #[error("SPDY version {0} is not served; speak version 3")]
    Version(u16),
    /// A control frame that is larger than any sensible one.
    #[error("a SPDY control frame of {0} bytes is too large")]
    TooLarge(usize),
    /// A control frame that is shorter than what it must say.
    #[error("a SPDY control frame of type {0} is too short")]
    TooShort(u16),
    /// A block of headers.
    #[error("the headers of a SPDY stream cannot be read: {0}")]
    Headers(&'static str),
}
