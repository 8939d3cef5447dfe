//! The socket at which a rank listens, and the strangers in front of it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::credentials::{Credentials, distrust};
use super::handshake::{Answer, Challenge, Hello, LONGEST_MESSAGE, Nonce, nonce};
use super::preface::Preface;
use super::secured::Secured;
use super::sockets;
use super::stream::Stream;
use crate::options::Token;
use crate::rendezvous::{Patience, wait_readable};

/// Most strangers that are listened to at once.
const MOST_STRANGERS: usize = 1024;

/// How long a stranger may take to say who it is.
const LONGEST_GREETING: Duration = Duration::from_secs(5);

/// Where a rank listens as long as its communicator, or one that came from it, lives.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    port: u16,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = sockets::open_listener(address)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// A connection whose other side said who it is, and proved that it knows the token.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) hello: Hello,
    pub(super) from: SocketAddr,
    pub(super) stream: Stream,
}

impl Arrival {
    /// Answers; an arrival that is gone by now is noticed where it is waited for.
    pub(super) fn answer(&self, answer: &Answer, more: &[u8], token: &Token) -> io::Result<()> {
        let nonce = self.stream.bound(&self.hello.nonce)?;
        let bytes = [&answer.seal(token, &nonce), more].concat();
        let patience = Patience::new(LONGEST_GREETING);
        self.stream.write_all(&bytes, patience)
    }
}

/// One who has come in but has not said who it is.
struct Stranger {
    stream: Stream,
    from: SocketAddr,
    challenge: Nonce,
    /// Who it is by its own account, if it has certificates.
    preface: Option<Preface>,
    /// The part of a message that has come.
    bytes: Vec<u8>,
    since: Instant,
}

/// What came of listening to a stranger.
enum Said {
    /// It has more to say.
    More,
    Hello(Hello),
    /// Nothing that can be answered, or not the truth.
    Nonsense(String),
}

impl Stranger {
    fn listen(&mut self, credentials: &Credentials) -> Said {
        self.try_listen(credentials).unwrap_or_else(|reason| {
            let from = self.from;
            Said::Nonsense(match &self.preface {
                Some(preface) => format!("{from}, which calls itself {preface}: {reason}"),
                None => reason,
            })
        })
    }

    fn try_listen(&mut self, credentials: &Credentials) -> Result<Said, String> {
        while let Some(message) = self.message()? {
            let Some(preface) = Preface::decode(&message).filter(|_| self.preface.is_none()) else {
                let challenge = self.stream.bound(&self.challenge).map_err(|error| error.to_string())?;
                let hello = Hello::open(&message, &credentials.token, &challenge)?;
                if credentials.are_certified() && !self.stream.is_secured() {
                    let (rank, host, from) = (hello.rank, hello.host, self.from);
                    return Err(format!("rank {rank} on {host} at {from} shows no certificate"));
                }
                return Ok(Said::Hello(hello));
            };
            self.preface = Some(preface);
            let connection = credentials.listening().map_err(|error| error.to_string())?;
            let connection = connection.ok_or("it has certificates, but this rank has none")?;
            let socket = self.stream.socket().try_clone().map_err(|error| error.to_string())?;
            self.stream = Stream::Secured(Box::new(Secured::new(socket, connection)));
        }
        Ok(Said::More)
    }

    /// The next message, if it has come; nothing behind it is taken.
    fn message(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut chunk = [0; 2 + LONGEST_MESSAGE];
        loop {
            let length = self.bytes.first_chunk::<2>().map(|length| usize::from(u16::from_le_bytes(*length)));
            let wanted = 2 + length.unwrap_or(0);
            if wanted > chunk.len() {
                return Err("its greeting is too long".into());
            }
            if length.is_some() && self.bytes.len() == wanted {
                return Ok(Some(std::mem::take(&mut self.bytes).split_off(2)));
            }
            match self.stream.receive(&mut chunk[..wanted - self.bytes.len()], false) {
                Ok(0) => return Err("it hung up".into()),
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(distrust(&error).unwrap_or_else(|| error.to_string())),
            }
        }
    }

    /// Tells it why it is turned away, if it can be told.
    fn turn_away(&self, reason: &str, token: &Token) {
        let answer = Answer::Refused { again: false, reason: reason.to_owned() };
        // It does not block; if it does not fit, the stranger has filled the buffer itself.
        let _ = self.stream.send(&[], &answer.seal(token, &self.challenge), false);
    }
}

/// Those who come to a door while a group forms.
pub(super) struct Reception<'a> {
    door: &'a Door,
    credentials: &'a Credentials,
    strangers: Vec<Stranger>,
    /// Why the last one was turned away that was no rank of the group.
    pub(super) turned_away: Option<String>,
}

impl<'a> Reception<'a> {
    pub(super) fn new(door: &'a Door, credentials: &'a Credentials) -> Self {
        Self { door, credentials, strangers: Vec::new(), turned_away: None }
    }

    /// Waits until somebody has said who it is or one of `watched` is readable, at most as long as `longest`; gives
    /// those who have, and which of `watched` are readable.
    pub(super) fn wait(
        &mut self,
        watched: &[BorrowedFd<'_>],
        longest: Duration,
    ) -> io::Result<(Vec<Arrival>, Vec<bool>)> {
        let mut descriptors = vec![self.door.listener.as_fd()];
        descriptors.extend(watched);
        descriptors.extend(self.strangers.iter().map(|stranger| stranger.stream.as_fd()));
        let ready = wait_readable(&descriptors, longest)?;
        let mut arrivals = Vec::new();
        let mut speaks = ready[1 + watched.len()..].iter();
        let mut silent = Vec::new();
        for mut stranger in self.strangers.drain(..) {
            let speaks = speaks.next().copied().unwrap_or(false);
            match if speaks { stranger.listen(self.credentials) } else { Said::More } {
                Said::Hello(hello) => {
                    arrivals.push(Arrival { hello, from: stranger.from, stream: stranger.stream });
                }
                Said::More if stranger.since.elapsed() < LONGEST_GREETING => silent.push(stranger),
                Said::More => {}
                Said::Nonsense(reason) => {
                    tracing::debug!(from = %stranger.from, reason, "turned a stranger away");
                    stranger.turn_away(&reason, &self.credentials.token);
                    self.turned_away = Some(reason);
                }
            }
        }
        self.strangers = silent;
        if ready[0] {
            self.let_in();
        }
        Ok((arrivals, ready[1..=watched.len()].to_vec()))
    }

    fn let_in(&mut self) {
        let is_certified = self.credentials.are_certified();
        loop {
            match self.door.listener.accept().and_then(|(stream, from)| greet(stream, from, is_certified)) {
                Ok(stranger) if self.strangers.len() < MOST_STRANGERS => self.strangers.push(stranger),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "a rank hung up while it was let in");
                    return;
                }
            }
        }
    }
}

fn greet(mut socket: TcpStream, from: SocketAddr, is_certified: bool) -> io::Result<Stranger> {
    socket.set_nonblocking(true)?;
    let challenge = nonce()?;
    socket.write_all(&Challenge { is_certified, nonce: challenge }.encode())?;
    let stream = Stream::Plain(socket);
    Ok(Stranger { stream, from, challenge, preface: None, bytes: Vec::new(), since: Instant::now() })
}
