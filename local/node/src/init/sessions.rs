//! Sessions as the pod's init keeps them: who connected, what was asked for, and how it ended.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::attached::Attached;
use super::command::{self, CommandPipes};
use super::{Connection, Container, Init, SEND_PATIENCE};
use crate::protocol::session::{CommandStreams, Family, Incoming, SessionEvent, SessionRequest};
use crate::protocol::{InitRequest, send};
use crate::sys::process::Forked;

/// Connections that have not yet said what they are; beyond that the oldest is closed.
const NEWCOMERS: usize = 32;
/// Sessions of one pod at a time.
const SESSIONS: usize = 256;

/// A connection that has not yet said what it is.
pub(super) struct Newcomer {
    pub(super) stream: UnixStream,
    incoming: Incoming,
}

/// What a client does in a container.
pub(super) struct Session {
    /// `None` once the client is gone.
    pub(super) connection: Option<UnixStream>,
    /// Which container.
    pub(super) container: String,
    pub(super) kind: Kind,
}

/// What a session is.
pub(super) enum Kind {
    /// A command.
    Command {
        /// Waits for the command outside of the container's namespaces.
        helper: Pid,
        /// Takes the reason if the command cannot start.
        failure: io::PipeReader,
    },
    /// Connected with the container's own program.
    Attached(Attached),
}

impl Session {
    fn helper(&self) -> Option<Pid> {
        match self.kind {
            Kind::Command { helper, .. } => Some(helper),
            Kind::Attached(_) => None,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(helper) = self.helper() {
            let _ = kill(helper, signal);
        }
    }

    /// Tells the client how its command ended.
    fn ended(self, code: i32) {
        let (Some(connection), Kind::Command { mut failure, .. }) = (self.connection, self.kind) else {
            return;
        };
        let mut message = String::new();
        // The helper is gone, so all is in the pipe.
        let _ = failure.read_to_string(&mut message);
        let event =
            if message.is_empty() { SessionEvent::Ended { code } } else { SessionEvent::Failed { message } };
        tell(&connection, &event, &[]);
    }
}

/// The client may be gone already, and then nobody wants to know.
pub(super) fn tell(connection: &UnixStream, event: &SessionEvent, descriptors: &[BorrowedFd<'_>]) {
    let _ = send(connection, event, descriptors);
}

impl Init<'_> {
    /// Takes a connection whose first request says what it is.
    pub(super) fn welcome(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.newcomers.len() == NEWCOMERS {
            self.newcomers.pop_front();
        }
        let id = self.next_id();
        self.newcomers.push_back((id, Newcomer { stream, incoming: Incoming::default() }));
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Reads what a newcomer says.
    pub(super) fn hear_newcomer(&mut self, id: u64) {
        let Some(place) = self.newcomers.iter().position(|(own, _)| *own == id) else { return };
        let newcomer = &mut self.newcomers[place].1;
        let stays = match newcomer.incoming.read(&newcomer.stream) {
            Ok(open) => open,
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        let request = newcomer.incoming.next::<InitRequest>();
        if stays && matches!(request, Ok(None)) {
            return;
        }
        let Some((_, Newcomer { stream, mut incoming })) = self.newcomers.remove(place) else { return };
        let Ok(Some(request)) = request else { return };
        let set_up =
            stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(SEND_PATIENCE)));
        if set_up.is_err() {
            return;
        }
        if let InitRequest::Session(request) = request {
            let descriptors = incoming.take_descriptors();
            self.begin_session(stream, request, descriptors);
        } else {
            self.agent = Some(Connection { stream, buffer: incoming.into_rest() });
            self.answer(request);
            self.answer_buffered();
        }
    }

    fn begin_session(&mut self, stream: UnixStream, request: SessionRequest, descriptors: VecDeque<OwnedFd>) {
        if self.sessions.len() >= SESSIONS {
            let message = format!("the pod has {SESSIONS} sessions already; end one");
            tell(&stream, &SessionEvent::Failed { message }, &[]);
            return;
        }
        match request {
            SessionRequest::Command { container, argv, streams } => {
                let pipes = CommandPipes::new(streams, descriptors);
                let begun =
                    pipes.and_then(|pipes| self.begin_command(&stream, &container, &argv, streams, pipes));
                match begun {
                    Ok((helper, failure)) => {
                        let id = self.next_id();
                        let kind = Kind::Command { helper, failure };
                        self.sessions.insert(id, Session { connection: Some(stream), container, kind });
                    }
                    Err(message) => tell(&stream, &SessionEvent::Failed { message }, &[]),
                }
            }
            SessionRequest::Attach { container, input, output, error, stuck } => {
                let mut descriptors = descriptors.into_iter();
                let pipes = [output, error].map(|wanted| if wanted { descriptors.next() } else { None });
                self.attach(stream, container, input, pipes, stuck);
            }
            SessionRequest::Socket { family } => {
                let family = match family {
                    Family::V4 => AddressFamily::INET,
                    Family::V6 => AddressFamily::INET6,
                };
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                match socket_with(family, SocketType::STREAM, flags, None) {
                    Ok(socket) => tell(&stream, &SessionEvent::Ready { terminal: false }, &[socket.as_fd()]),
                    Err(error) => {
                        let message = format!("open a socket: {error}");
                        tell(&stream, &SessionEvent::Failed { message }, &[]);
                    }
                }
            }
        }
    }

    /// Forks the process that runs the command and waits for it.
    fn begin_command(
        &mut self,
        stream: &UnixStream,
        container: &str,
        argv: &[String],
        streams: CommandStreams,
        pipes: CommandPipes,
    ) -> Result<(Pid, io::PipeReader), String> {
        let found = self.containers.get(container).filter(|found| found.runs());
        let Some(Container { process: Some((_, pidfd)), start, .. }) = found else {
            return Err(format!("container {container} does not run"));
        };
        let beside = pidfd.try_clone().map_err(|error| error.to_string())?;
        let start = start.clone();
        let (failure, failure_end) = io::pipe().map_err(|error| format!("make a pipe: {error}"))?;
        match self.token.fork(nix::sched::CloneFlags::empty()).map_err(|error| format!("fork: {error}"))? {
            Forked::Parent { pid, .. } => Ok((pid, failure)),
            Forked::Child => {
                let connection = stream.try_clone();
                self.forget_descriptors();
                drop(failure);
                let isolated = self.sandbox.isolated;
                let ran = connection.map_err(|error| error.to_string()).and_then(|connection| {
                    let place = command::Place { isolated, beside: &beside, start: &start };
                    command::run(self.token, &place, argv, streams, pipes, &connection, &failure_end)
                });
                let code = ran.unwrap_or_else(|message| {
                    let _ = rustix::io::write(&failure_end, message.as_bytes());
                    126
                });
                std::process::exit(code)
            }
        }
    }

    /// A client is gone, and its command is hung up on. One that is attached may also say, with a byte, that its input
    /// ends.
    pub(super) fn hear_session(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut byte = [0];
        let said =
            session.connection.as_mut().is_some_and(|connection| matches!(connection.read(&mut byte), Ok(1)));
        if said {
            return self.end_input(id);
        }
        session.connection = None;
        session.signal(Signal::SIGHUP);
        if session.helper().is_none() {
            self.end_input(id);
            self.sessions.remove(&id);
        }
    }

    /// If the process was the helper of a session, that one is over.
    pub(super) fn session_ended(&mut self, helper: Pid, code: i32) {
        let found =
            self.sessions.iter().find(|(_, session)| session.helper() == Some(helper)).map(|(id, _)| *id);
        if let Some(session) = found.and_then(|id| self.sessions.remove(&id)) {
            session.ended(code);
        }
    }

    /// A container ended, and its commands end with it.
    pub(super) fn end_sessions_of(&mut self, container: &str, code: i32) {
        for session in self.sessions.values().filter(|session| session.container == container) {
            session.signal(Signal::SIGUSR2);
        }
        self.program_ended(container, code);
    }
}
