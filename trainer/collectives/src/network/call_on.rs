//! Calling on another rank's door.

use std::io;
use std::net::TcpStream;

use super::handshake::{Answer, CHALLENGE_BYTES, Hello, LONGEST_MESSAGE, nonce, read_challenge};
use super::sockets;
use crate::options::Token;
use crate::rendezvous::Patience;

/// How an attempt ended that led to nothing.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Worth another try.
    Again(String),
    /// Not worth one.
    Refused(String),
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Self::Again(error.to_string())
    }
}

/// Says `hello` on a new connection and waits for the welcome.
pub(super) fn introduce(
    stream: &TcpStream,
    hello: Hello,
    token: &Token,
    patience: Patience,
) -> Result<(), Attempt> {
    let mut bytes = [0; CHALLENGE_BYTES];
    sockets::read_exactly(stream, &mut bytes, patience)?;
    let challenge = read_challenge(&bytes).map_err(Attempt::Refused)?;
    let hello = Hello { nonce: nonce()?, ..hello };
    sockets::write_all(stream, &hello.seal(token, &challenge), patience)?;
    let answer = sockets::read_framed(stream, LONGEST_MESSAGE, patience)?;
    match Answer::open(&answer, token, &hello.nonce).map_err(Attempt::Refused)? {
        Answer::Welcome => Ok(()),
        Answer::Refused { again: true, reason } => Err(Attempt::Again(reason)),
        Answer::Refused { again: false, reason } => Err(Attempt::Refused(reason)),
    }
}
