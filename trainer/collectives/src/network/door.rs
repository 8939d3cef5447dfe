//! The socket at which a rank listens, and the strangers in front of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::handshake::{Answer, Hello, LONGEST_MESSAGE, Nonce, challenge, nonce};
use super::sockets;
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
    pub(super) stream: TcpStream,
}

impl Arrival {
    /// Answers; an arrival that is gone by now is noticed where it is waited for.
    pub(super) fn answer(&self, answer: &Answer, more: &[u8], token: &Token) -> io::Result<()> {
        let bytes = [&answer.seal(token, &self.hello.nonce), more].concat();
        let patience = Patience::new(LONGEST_GREETING);
        sockets::write_all(&self.stream, &bytes, patience)
    }
}

/// One who has come in but has not said who it is.
struct Stranger {
    stream: TcpStream,
    from: SocketAddr,
    challenge: Nonce,
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
    fn listen(&mut self, token: &Token) -> Said {
        let mut chunk = [0; 512];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Said::Nonsense("it hung up".into()),
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Said::Nonsense(error.to_string()),
            }
            if self.bytes.len() > 2 + LONGEST_MESSAGE {
                return Said::Nonsense("its greeting is too long".into());
            }
        }
        let Some((length, rest)) = self.bytes.split_first_chunk::<2>() else { return Said::More };
        let length = usize::from(u16::from_le_bytes(*length));
        if length > LONGEST_MESSAGE {
            return Said::Nonsense("its greeting is too long".into());
        }
        if rest.len() < length {
            return Said::More;
        }
        Hello::open(&rest[..length], token, &self.challenge).map_or_else(Said::Nonsense, Said::Hello)
    }
}

/// Those who come to a door while a group forms.
pub(super) struct Reception<'a> {
    door: &'a Door,
    token: &'a Token,
    strangers: Vec<Stranger>,
    /// Why the last one was turned away that was no rank of the group.
    pub(super) turned_away: Option<String>,
}

impl<'a> Reception<'a> {
    pub(super) fn new(door: &'a Door, token: &'a Token) -> Self {
        Self { door, token, strangers: Vec::new(), turned_away: None }
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
            match if speaks { stranger.listen(self.token) } else { Said::More } {
                Said::Hello(hello) => {
                    arrivals.push(Arrival { hello, from: stranger.from, stream: stranger.stream });
                }
                Said::More if stranger.since.elapsed() < LONGEST_GREETING => silent.push(stranger),
                Said::More => {}
                Said::Nonsense(reason) => {
                    tracing::debug!(from = %stranger.from, reason, "turned a stranger away");
                    let answer = Answer::Refused { again: false, reason: reason.clone() };
                    // It does not block; if it does not fit, the stranger has filled the buffer itself.
                    let _ = stranger.stream.write(&answer.seal(self.token, &stranger.challenge));
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
        loop {
            match self.door.listener.accept().and_then(|(stream, from)| greet(stream, from)) {
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

fn greet(mut stream: TcpStream, from: SocketAddr) -> io::Result<Stranger> {
    stream.set_nonblocking(true)?;
    let challenge_nonce = nonce()?;
    stream.write_all(&challenge(&challenge_nonce))?;
    Ok(Stranger { stream, from, challenge: challenge_nonce, bytes: Vec::new(), since: Instant::now() })
}
