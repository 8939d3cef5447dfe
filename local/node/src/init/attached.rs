//! Clients attached to a container's program: they see what it prints, as its log does, and may write its input.
//!
//! A client that is slow holds up the program, so that it misses nothing; one that takes nothing for a while is cut off,
//! and told so.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Init;
use super::container::Streams;
use super::logs::Stream;
use super::sessions::{Kind, Session, tell};
use crate::protocol::session::{Incoming, SessionEvent};
use crate::protocol::{ContainerStart, ProgramInput};

/// What ends the input of a terminal.
const END_OF_INPUT: [u8; 1] = [4];

/// This process's side of a program's input.
#[derive(Default)]
pub(super) struct ProgramInputs {
    /// Where clients write; without one there is no input, or it has ended.
    pub(super) input: Option<OwnedFd>,
    /// The other side of the program's terminal.
    pub(super) controller: Option<OwnedFd>,
    /// Over which the controller comes.
    pub(super) console: Option<(UnixStream, Incoming)>,
}

/// This process's side of a program's input and output.
#[derive(Default)]
pub(super) struct Ours {
    pub(super) output: Option<OwnedFd>,
    pub(super) error: Option<OwnedFd>,
    pub(super) inputs: ProgramInputs,
}

/// Both sides of a program's input and output.
pub(super) fn streams(start: &ContainerStart) -> io::Result<(Ours, Streams)> {
    if start.terminal {
        let (console, theirs) = UnixStream::pair()?;
        console.set_nonblocking(true)?;
        let inputs = ProgramInputs { console: Some((console, Incoming::default())), ..Default::default() };
        return Ok((Ours { inputs, ..Default::default() }, Streams::Terminal(theirs)));
    }
    let (output, output_end) = io::pipe()?;
    let (error, error_end) = io::pipe()?;
    let (input_end, input) = match start.input {
        ProgramInput::Nothing => (None, None),
        ProgramInput::Clients | ProgramInput::FirstClient => {
            let (end, input) = io::pipe()?;
            (Some(OwnedFd::from(end)), Some(OwnedFd::from(input)))
        }
    };
    let ours = Ours {
        output: Some(output.into()),
        error: Some(error.into()),
        inputs: ProgramInputs { input, ..Default::default() },
    };
    let theirs = Streams::Pipes { input: input_end, output: output_end.into(), error: error_end.into() };
    Ok((ours, theirs))
}

/// The pipe to a client, and what does not fit into it yet.
struct Sink {
    pipe: OwnedFd,
    pending: Vec<u8>,
    /// Since when nothing of it was taken.
    stuck_since: Instant,
}

impl Sink {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe, pending: Vec::new(), stuck_since: Instant::now() })
    }

    /// Writes what the client takes; an error when it is gone.
    fn flush(&mut self) -> rustix::io::Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.pipe, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.stuck_since = Instant::now();
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A client attached to a program.
pub(super) struct Attached {
    output: Option<Sink>,
    error: Option<Sink>,
    /// It writes the program's input.
    writes: bool,
    /// How long it may take nothing.
    stuck: Duration,
    /// How the program ended.
    exit: Option<i32>,
}

impl Attached {
    fn sink(&self, stream: Stream) -> Option<&Sink> {
        match stream {
            Stream::Output => self.output.as_ref(),
            Stream::Error => self.error.as_ref(),
        }
    }

    fn sinks(&self) -> impl Iterator<Item = &Sink> {
        self.output.iter().chain(&self.error).filter(|sink| !sink.pending.is_empty())
    }

    fn flush(&mut self) {
        for sink in [&mut self.output, &mut self.error] {
            // One that is gone misses nothing.
            if sink.as_mut().is_some_and(|sink| sink.flush().is_err()) {
                *sink = None;
            }
        }
    }

    fn show(&mut self, stream: Stream, bytes: &[u8]) {
        if self.exit.is_some() {
            // What is printed now is the next start's.
            return;
        }
        let sink = match stream {
            Stream::Output => &mut self.output,
            Stream::Error => &mut self.error,
        };
        if let Some(sink) = sink {
            if sink.pending.is_empty() {
                sink.stuck_since = Instant::now();
            }
            sink.pending.extend_from_slice(bytes);
        }
        self.flush();
    }
}

impl Session {
    fn attached(&self) -> Option<&Attached> {
        match &self.kind {
            Kind::Attached(attached) => Some(attached),
            Kind::Command { .. } => None,
        }
    }

    fn attached_mut(&mut self) -> Option<&mut Attached> {
        match &mut self.kind {
            Kind::Attached(attached) => Some(attached),
            Kind::Command { .. } => None,
        }
    }

    /// Pipes into which something is to be written.
    pub(super) fn waits_for(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.attached().into_iter().flat_map(Attached::sinks).map(|sink| sink.pipe.as_fd())
    }

    /// When the client is cut off.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let attached = self.attached()?;
        attached.sinks().map(|sink| sink.stuck_since + attached.stuck).min()
    }
}

impl Init<'_> {
    /// Connects a client with a container's program.
    pub(super) fn attach(
        &mut self,
        stream: UnixStream,
        container: String,
        wants_input: bool,
        pipes: [Option<OwnedFd>; 2],
        stuck: Duration,
    ) {
        let refuse = |message: String| tell(&stream, &SessionEvent::Failed { message }, &[]);
        let Some(found) = self.containers.get(&container).filter(|found| found.runs()) else {
            return refuse(format!("container {container} does not run"));
        };
        let terminal = found.programs.controller.as_ref();
        let input = found.programs.input.as_ref().filter(|_| wants_input);
        let writes = wants_input && found.start.input != ProgramInput::Nothing;
        let descriptor = terminal.or(input).map(OwnedFd::as_fd);
        let ready = SessionEvent::Ready { terminal: terminal.is_some() };
        tell(&stream, &ready, &descriptor.into_iter().collect::<Vec<_>>());
        let [output, error] = pipes.map(|pipe| pipe.and_then(|pipe| Sink::new(pipe).ok()));
        let kind = Kind::Attached(Attached { output, error, writes, stuck, exit: None });
        let id = self.next_id();
        self.sessions.insert(id, Session { connection: Some(stream), container, kind });
    }

    /// A client that is attached says that its input ends.
    pub(super) fn end_input(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let container = session.container.clone();
        let wrote = session.attached_mut().is_some_and(|attached| std::mem::take(&mut attached.writes));
        let Some(found) = self.containers.get_mut(&container).filter(|_| wrote) else { return };
        if found.start.input == ProgramInput::FirstClient {
            found.programs.input = None;
            if let Some(controller) = &found.programs.controller {
                let _ = rustix::io::write(controller, &END_OF_INPUT);
            }
        }
    }

    /// Whether a client that is attached has not yet taken what was printed before.
    pub(super) fn is_held_up(&self, container: &str, stream: Stream) -> bool {
        let sessions = self.sessions.values().filter(|session| session.container == container);
        let attached = sessions.filter_map(Session::attached).filter(|attached| attached.exit.is_none());
        attached.filter_map(|attached| attached.sink(stream)).any(|sink| !sink.pending.is_empty())
    }

    /// Shows what a container printed to those that are attached.
    pub(super) fn show_attached(&mut self, container: &str, stream: Stream, bytes: &[u8]) {
        for session in self.sessions.values_mut().filter(|session| session.container == container) {
            if let Some(attached) = session.attached_mut() {
                attached.show(stream, bytes);
            }
        }
    }

    /// A client takes more.
    pub(super) fn write_attached(&mut self, id: u64) {
        if let Some(attached) = self.sessions.get_mut(&id).and_then(Session::attached_mut) {
            attached.flush();
        }
        self.finish_attached();
    }

    /// Cuts off those that took nothing for too long.
    pub(super) fn drop_stuck_clients(&mut self) {
        let now = Instant::now();
        self.sessions.retain(|_, session| {
            let stays = session.deadline().is_none_or(|deadline| now < deadline);
            if let (false, Some(connection), Some(attached)) =
                (stays, &session.connection, session.attached())
            {
                let message = format!(
                    "the client took nothing for {:?}, and the program does not wait for it any longer; attach again",
                    attached.stuck
                );
                tell(connection, &SessionEvent::Failed { message }, &[]);
            }
            stays
        });
    }

    /// The program ended, and what it printed last is on its way.
    pub(super) fn program_ended(&mut self, container: &str, code: i32) {
        for session in self.sessions.values_mut().filter(|session| session.container == container) {
            if let Some(attached) = session.attached_mut() {
                attached.exit = attached.exit.or(Some(code));
            }
        }
        self.finish_attached();
    }

    /// Says goodbye to those that have seen everything of a program that ended.
    fn finish_attached(&mut self) {
        self.sessions.retain(|_, session| {
            let Some(attached) = session.attached() else { return true };
            let Some(code) = attached.exit.filter(|_| attached.sinks().next().is_none()) else { return true };
            if let Some(connection) = &session.connection {
                tell(connection, &SessionEvent::Ended { code }, &[]);
            }
            false
        });
    }

    /// The other side of a terminal comes from the container's own init.
    pub(super) fn take_console(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name) else { return };
        let Some((console, incoming)) = &mut container.programs.console else { return };
        match incoming.read(&*console) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(false) | Err(_) => {
                container.programs.console = None;
                return;
            }
        }
        let Some(controller) = incoming.take_descriptors().pop_front() else { return };
        container.programs.console = None;
        // Without a second descriptor nobody could write into it, and the program still prints.
        container.programs.controller = controller.try_clone().ok();
        container.output = super::non_blocking(controller).ok();
    }
}
