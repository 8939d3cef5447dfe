//! Calling on another rank's door.

use std::io;
use std::net::TcpStream;

use super::credentials::{Credentials, distrust};
use super::handshake::{Answer, CHALLENGE_BYTES, Challenge, Hello, LONGEST_MESSAGE, Purpose, nonce};
use super::preface::Preface;
use super::secured::Secured;
use super::stream::Stream;
use crate::rendezvous::Patience;

/// How an attempt ended that led to nothing.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Worth another try.
    Again(String),
    /// Not worth one: the other side does not want this rank.
    Refused(String),
    /// Not worth one: rank 0 gave the group up.
    GaveUp(String),
    /// Not worth one: certificates stand between the two.
    Untrusted(String),
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        distrust(&error).map_or_else(|| Self::Again(error.to_string()), Self::Untrusted)
    }
}

/// Says `hello` on a new connection and waits for the welcome.
pub(super) fn introduce(
    socket: TcpStream,
    hello: Hello,
    credentials: &Credentials,
    patience: Patience<'_>,
) -> Result<Stream, Attempt> {
    let stream = Stream::Plain(socket);
    let mut bytes = [0; CHALLENGE_BYTES];
    stream.read_exactly(&mut bytes, patience)?;
    let challenge = Challenge::decode(&bytes).map_err(Attempt::Refused)?;
    let hello = Hello { nonce: nonce()?, ..hello };
    let stream = secure(stream, &challenge, &hello, credentials, patience)?;
    let challenge = stream.bound(&challenge.nonce)?;
    stream.write_all(&hello.seal(&credentials.token, &challenge), patience)?;
    let joins = hello.purpose == Purpose::Join;
    let patience = if joins { patience.for_rank_0() } else { patience };
    let answer = stream.read_framed(LONGEST_MESSAGE, patience)?;
    let nonce = stream.bound(&hello.nonce)?;
    match Answer::open(&answer, &credentials.token, &nonce).map_err(Attempt::Refused)? {
        Answer::Welcome => Ok(stream),
        Answer::Refused { again: true, reason } => Err(Attempt::Again(reason)),
        Answer::Refused { again: false, reason } => Err(Attempt::Refused(reason)),
        Answer::GaveUp { reason } => Err(Attempt::GaveUp(reason)),
    }
}

/// Puts the connection under TLS if this rank has certificates. Where only the other side has some, it refuses the hello
/// itself and says why.
fn secure(
    stream: Stream,
    challenge: &Challenge,
    hello: &Hello,
    credentials: &Credentials,
    patience: Patience<'_>,
) -> Result<Stream, Attempt> {
    let unusable = |error: rustls::Error| Attempt::Untrusted(error.to_string());
    let (Some(connection), Stream::Plain(socket)) = (credentials.calling().map_err(unusable)?, &stream)
    else {
        return Ok(stream);
    };
    // The other side names this rank by it where what follows fails.
    let preface = Preface { rank: hello.rank, host: hello.host.clone() };
    stream.write_all(&preface.encode(), patience)?;
    if !challenge.is_certified {
        let reason = "it has no certificates: give some to all ranks of the group, or to none";
        return Err(Attempt::Untrusted(reason.into()));
    }
    let secured = Secured::new(socket.try_clone()?, connection);
    secured.shake(patience)?;
    Ok(Stream::Secured(Box::new(secured)))
}
