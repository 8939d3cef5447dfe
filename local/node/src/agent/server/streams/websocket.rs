//! The server's side of a WebSocket's beginning.

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::super::Body;

/// A WebSocket with a client.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Clients may write as much at once; what the client says is read only as the command takes it.
const LARGEST_MESSAGE: usize = 16 << 20;
const BUFFER: usize = 64 << 10;

/// Why a request does not become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeError {
    /// It does not ask for one.
    #[error("Upgrade request required")]
    NoUpgrade,
    /// It asks for SPDY, and for what is not spoken over it.
    #[error(
        "none of the protocols that the client offers over SPDY is served; header X-Stream-Protocol-Version names them"
    )]
    Spdy,
    /// A header is missing or wrong.
    #[error("the WebSocket handshake needs header {0}")]
    Header(&'static str),
    /// No common language.
    #[error("none of the subprotocols [{wanted}] is served; choose one of [{served}]")]
    Protocol {
        /// What the client offers.
        wanted: String,
        /// What it could offer.
        served: String,
    },
}

/// The answer that makes a request a WebSocket.
#[derive(Debug)]
pub(super) struct Handshake {
    /// The subprotocol that will be spoken.
    pub(super) protocol: &'static str,
    accept: HeaderValue,
}

/// Whether a header lists a word.
pub(super) fn lists(headers: &HeaderMap, name: http::HeaderName, word: &str) -> bool {
    words(headers, name).any(|own| own.eq_ignore_ascii_case(word))
}

/// The words of a header that may come more than once.
pub(super) fn words(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

impl Handshake {
    /// Checks a request, and chooses the first subprotocol of the client's that is served.
    pub(super) fn negotiate(headers: &HeaderMap, served: &[&'static str]) -> Result<Self, HandshakeError> {
        if lists(headers, UPGRADE, "SPDY/3.1") {
            return Err(HandshakeError::Spdy);
        }
        if !lists(headers, UPGRADE, "websocket") || !lists(headers, CONNECTION, "upgrade") {
            return Err(HandshakeError::NoUpgrade);
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(HandshakeError::Header("Sec-WebSocket-Version: 13"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Header("Sec-WebSocket-Key"))?;
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
            .map_err(|_| HandshakeError::Header("Sec-WebSocket-Key"))?;
        let mut wanted = words(headers, SEC_WEBSOCKET_PROTOCOL);
        let chosen = wanted.find_map(|word| served.iter().find(|own| **own == word));
        let Some(protocol) = chosen else {
            let wanted = words(headers, SEC_WEBSOCKET_PROTOCOL).collect::<Vec<_>>().join(", ");
            return Err(HandshakeError::Protocol { wanted, served: served.join(", ") });
        };
        Ok(Self { protocol, accept })
    }

    /// The answer.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = super::super::text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        response
    }
}

/// The WebSocket on a connection that was handed over.
pub(super) async fn socket(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn the_clients_first_choice_that_is_served_is_taken() {
        let request = headers(&[
            (UPGRADE, "WebSocket"),
            (CONNECTION, "keep-alive, Upgrade"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (SEC_WEBSOCKET_PROTOCOL, "v9.channel.k8s.io, b, a"),
        ]);
        let response = Handshake::negotiate(&request, &["a", "b"]).unwrap().response();
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "b");
        // The example of RFC 6455.
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let refused = Handshake::negotiate(&request, &["c"]).unwrap_err();
        assert!(refused.to_string().contains("[v9.channel.k8s.io, b, a]"), "{refused}");
        assert_eq!(Handshake::negotiate(&headers(&[]), &["a"]).unwrap_err(), HandshakeError::NoUpgrade);
    }
}
