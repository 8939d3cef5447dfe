//! Messages of the WebSocket subprotocols `v4.channel.k8s.io` and `v5.channel.k8s.io`: a byte that names the channel,
//! then what is said on it.

use bytes::Bytes;
use serde::Deserialize;

use crate::protocol::session::WindowSize;

/// Which of the subprotocols is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The end of the input cannot be said: clients close the connection.
    V4,
    /// Says when a channel ends.
    V5,
}

impl Version {
    /// The subprotocols, as clients name them.
    pub(crate) const NAMES: [&'static str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

    /// The version that a subprotocol's name stands for.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "v4.channel.k8s.io" => Some(Self::V4),
            "v5.channel.k8s.io" => Some(Self::V5),
            _ => None,
        }
    }
}

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERROR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// In v5: the channel that the next byte names ends.
const CLOSE: u8 = 255;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromClient {
    /// Goes to standard input.
    Input(Bytes),
    /// Standard input ends.
    InputEnd,
    /// The terminal has another size.
    Resize(WindowSize),
    /// The client closed the connection as one does.
    Left,
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToClient {
    /// From standard output, or from the terminal.
    Output(Bytes),
    /// From standard error.
    Error(Bytes),
    /// How it ended, as a `Status` object; the last that is said.
    Status(String),
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// A terminal's size as clients write it.
pub(crate) fn decode_size(text: &[u8]) -> Option<WindowSize> {
    let Size { width, height } = serde_json::from_slice(text).ok()?;
    Some(WindowSize { columns: width, rows: height })
}

/// Reads a message. What makes no sense is skipped, as Kubernetes does.
pub(crate) fn decode(version: Version, message: &Bytes) -> Option<FromClient> {
    let (channel, rest) = (*message.first()?, message.slice(1..));
    match channel {
        INPUT if rest.is_empty() => None,
        INPUT => Some(FromClient::Input(rest)),
        RESIZE => decode_size(&rest).map(FromClient::Resize),
        CLOSE if version == Version::V5 && rest.first() == Some(&INPUT) => Some(FromClient::InputEnd),
        _ => None,
    }
}

/// Writes a message.
pub(crate) fn encode(said: &ToClient) -> Bytes {
    let (channel, rest) = match said {
        ToClient::Output(bytes) => (OUTPUT, bytes.as_ref()),
        ToClient::Error(bytes) => (ERROR, bytes.as_ref()),
        ToClient::Status(text) => (STATUS, text.as_bytes()),
    };
    let mut message = Vec::with_capacity(rest.len() + 1);
    message.push(channel);
    message.extend_from_slice(rest);
    message.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_told_apart() {
        let read = |version, bytes: &[u8]| decode(version, &Bytes::copy_from_slice(bytes));
        assert_eq!(read(Version::V4, b"\0abc"), Some(FromClient::Input(Bytes::from_static(b"abc"))));
        let size = WindowSize { columns: 80, rows: 24 };
        assert_eq!(read(Version::V5, b"\x04{\"Width\":80,\"Height\":24}"), Some(FromClient::Resize(size)));
        assert_eq!(read(Version::V5, b"\xff\0"), Some(FromClient::InputEnd));
        assert_eq!(read(Version::V4, b"\xff\0"), None, "v4 has no such signal");
        assert_eq!(read(Version::V5, b"\x01out"), None, "clients do not print");
        assert_eq!(read(Version::V5, b""), None);
        assert_eq!(encode(&ToClient::Error(Bytes::from_static(b"x"))).as_ref(), b"\x02x");
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..64), fifth: bool) {
            let version = if fifth { Version::V5 } else { Version::V4 };
            let message = Bytes::from(bytes.clone());
            if let Some(FromClient::Input(input)) = decode(version, &message) {
                prop_assert_eq!(&bytes[1..], input.as_ref());
            }
        }

        #[test]
        fn what_is_written_says_its_channel(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let message = encode(&ToClient::Output(bytes.clone().into()));
            prop_assert_eq!((message[0], &message[1..]), (1, bytes.as_slice()));
        }
    }
}
