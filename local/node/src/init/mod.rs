//! The init process of a pod: process 1 of its PID namespace.
//!
//! It starts the containers, writes their logs, remembers how they ended, and answers whichever agent is connected.
//! It does not need the agent: when that one dies, the pod runs on, and the next agent connects to `init.sock`.
//! When it ends, the kernel ends every process of the pod.

mod attached;
pub(crate) mod command;
mod container;
mod exec;
pub(crate) mod filesystem;
pub(crate) mod logs;
mod sessions;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use fs_err as fs;
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::protocol::{
    ContainerExit, ContainerStart, ContainerState, InitEvent, InitRequest, Sandbox, decode, read_available,
    write,
};
use crate::runtime::CONTAINER_PIDS;
use crate::sys::process::{Forked, SingleThreaded};
use attached::ProgramInputs;
use exec::Exec;
use logs::{LogWriter, Stream};
use sessions::{Newcomer, Session};

/// Name of the socket in the pod's folder.
pub(crate) const SOCKET: &str = "init.sock";
/// Bytes that are read at once of what a container prints.
const PIECE: usize = 16 << 10;
/// So many of them fit into a pipe at most: whoever still writes after a program's end is not waited for.
const LAST_PIECES: usize = 128;
/// An agent that does not read for so long is cut off; it can connect again.
const SEND_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the pod's init in a freshly forked process; returns its exit code.
pub(crate) fn run(
    token: &SingleThreaded,
    sandbox: Sandbox,
    agent: Option<UnixStream>,
    network: Option<OwnedFd>,
) -> i32 {
    match Init::new(token, sandbox, agent, network) {
        Ok(mut init) => init.serve(),
        Err(message) => {
            report(&message);
            1
        }
    }
}

/// Standard error is the agent's log; there is no subscriber in this process.
pub(crate) fn report(message: &str) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "error: pod init: {message}");
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
}

struct Container {
    attempt: u32,
    /// In this process's PID namespace; `None` once reaped.
    process: Option<(Pid, OwnedFd)>,
    start: ContainerStart,
    log: LogWriter,
    output: Option<fs::File>,
    error: Option<fs::File>,
    programs: ProgramInputs,
    failure: Option<fs::File>,
    failure_text: Vec<u8>,
    started: Option<Timestamp>,
    exit: Option<ContainerExit>,
}

impl Container {
    /// Whether its program runs: before that the container's root is not yet what it will be.
    fn runs(&self) -> bool {
        self.process.is_some() && self.started.is_some()
    }
}

enum Source {
    Signals,
    Listener,
    Agent,
    Newcomer(u64),
    Session(u64),
    Attached(u64),
    Console(String),
    Pipe(String, Stream),
    Failure(String),
    Exec(u64),
}

struct Init<'a> {
    token: &'a SingleThreaded,
    sandbox: Sandbox,
    signals: SignalFd,
    listener: UnixListener,
    agent: Option<Connection>,
    containers: BTreeMap<String, Container>,
    execs: Vec<Exec>,
    newcomers: VecDeque<(u64, Newcomer)>,
    sessions: BTreeMap<u64, Session>,
    /// The last number given to a newcomer or a session.
    ids: u64,
    over: bool,
}

impl<'a> Init<'a> {
    fn new(
        token: &'a SingleThreaded,
        sandbox: Sandbox,
        agent: Option<UnixStream>,
        network: Option<OwnedFd>,
    ) -> Result<Self, String> {
        let text = |error: nix::Error| error.to_string();
        let io_text = |error: io::Error| error.to_string();
        SigSet::all().thread_block().map_err(text)?;
        let _ = nix::unistd::setsid();
        let _ = nix::sys::prctl::set_name(c"muster-pod");
        if let Some(network) = network {
            setns(network, CloneFlags::CLONE_NEWNET)
                .map_err(|error| format!("join the pod's network: {error}"))?;
        }
        let folder = fs::File::open(&sandbox.directory).map_err(io_text)?;
        if sandbox.isolated {
            filesystem::prepare_pod(&sandbox)?;
            if let Some(hostname) = &sandbox.hostname {
                nix::unistd::sethostname(hostname)
                    .map_err(|error| format!("set host name {hostname}: {error}"))?;
            }
        } else {
            nix::sys::prctl::set_child_subreaper(true).map_err(text)?;
        }
        // Through the descriptor, because the path of a socket may have only 107 bytes.
        let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        let listener = UnixListener::bind(path).map_err(|error| format!("listen on {SOCKET}: {error}"))?;
        listener.set_nonblocking(true).map_err(io_text)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let signals =
            SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(text)?;
        let mut init = Self {
            token,
            sandbox,
            signals,
            listener,
            agent: None,
            containers: BTreeMap::new(),
            execs: Vec::new(),
            newcomers: VecDeque::new(),
            sessions: BTreeMap::new(),
            ids: 0,
            over: false,
        };
        if let Some(stream) = agent {
            init.accept(stream);
        }
        Ok(init)
    }

    fn accept(&mut self, stream: UnixStream) {
        // Reads are made only when poll says so; writes wait, but not for ever.
        if stream.set_write_timeout(Some(SEND_PATIENCE)).is_ok() && stream.set_nonblocking(false).is_ok() {
            self.agent = Some(Connection { stream, buffer: Vec::new() });
        }
    }

    fn serve(&mut self) -> i32 {
        while !self.over {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    report(&format!("poll: {error}"));
                    return 1;
                }
            };
            for source in ready {
                self.handle(source);
            }
            self.finish_execs();
            self.drop_stuck_clients();
        }
        if !self.sandbox.isolated {
            container::kill_descendants();
        }
        0
    }

    fn wait(&self) -> nix::Result<Vec<Source>> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut waiting = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(agent) = &self.agent {
            sources.push(Source::Agent);
            waiting.push(PollFd::new(agent.stream.as_fd(), PollFlags::POLLIN));
        }
        for (id, newcomer) in &self.newcomers {
            sources.push(Source::Newcomer(*id));
            waiting.push(PollFd::new(newcomer.stream.as_fd(), PollFlags::POLLIN));
        }
        for (id, session) in &self.sessions {
            if let Some(connection) = &session.connection {
                sources.push(Source::Session(*id));
                waiting.push(PollFd::new(connection.as_fd(), PollFlags::POLLIN));
            }
            for pipe in session.waits_for() {
                sources.push(Source::Attached(*id));
                waiting.push(PollFd::new(pipe, PollFlags::POLLOUT));
            }
        }
        for (name, container) in &self.containers {
            if let Some((console, _)) = &container.programs.console {
                sources.push(Source::Console(name.clone()));
                waiting.push(PollFd::new(console.as_fd(), PollFlags::POLLIN));
            }
            for (pipe, stream) in [(&container.output, Stream::Output), (&container.error, Stream::Error)] {
                // A client that is slow holds up the program, for a while.
                if let Some(pipe) = pipe
                    && !self.is_held_up(name, stream)
                {
                    sources.push(Source::Pipe(name.clone(), stream));
                    waiting.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
                }
            }
            if let Some(pipe) = &container.failure {
                sources.push(Source::Failure(name.clone()));
                waiting.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            }
        }
        for exec in &self.execs {
            if let Some(output) = &exec.output {
                sources.push(Source::Exec(exec.id));
                waiting.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
            }
        }
        let deadlines = self.execs.iter().map(|exec| exec.deadline);
        let deadline = deadlines.chain(self.sessions.values().filter_map(Session::deadline)).min();
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis().min(60_000) as u16;
            PollTimeout::from(left.saturating_add(1))
        });
        match poll(&mut waiting, timeout) {
            Err(nix::Error::EINTR) => return Ok(Vec::new()),
            other => other?,
        };
        let ready: Vec<bool> = waiting.iter().map(|entry| entry.any() == Some(true)).collect();
        Ok(sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect())
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Signals => {
                while matches!(self.signals.read_signal(), Ok(Some(_))) {}
                self.reap();
            }
            Source::Listener => {
                if let Ok((stream, _)) = self.listener.accept() {
                    self.welcome(stream);
                }
            }
            Source::Agent => self.read_requests(),
            Source::Newcomer(id) => self.hear_newcomer(id),
            Source::Session(id) => self.hear_session(id),
            Source::Attached(id) => self.write_attached(id),
            Source::Console(name) => self.take_console(&name),
            Source::Pipe(name, stream) => {
                self.pump(&name, stream);
            }
            Source::Failure(name) => self.read_failure(&name),
            Source::Exec(id) => {
                if let Some(exec) = self.execs.iter_mut().find(|exec| exec.id == id) {
                    exec.pump();
                }
            }
        }
    }

    fn read_requests(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let mut chunk = [0; 8 << 10];
        match io::Read::read(&mut agent.stream, &mut chunk) {
            Ok(0) => self.agent = None,
            Ok(count) => agent.buffer.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => self.agent = None,
        }
        self.answer_buffered();
    }

    fn answer_buffered(&mut self) {
        while let Some(agent) = &mut self.agent {
            match decode::<InitRequest>(&mut agent.buffer) {
                Ok(Some(request)) => self.answer(request),
                Ok(None) => return,
                Err(error) => {
                    report(&format!("request: {error}"));
                    self.agent = None;
                }
            }
        }
    }

    fn tell(&mut self, event: &InitEvent) {
        if let Some(agent) = &mut self.agent
            && write(&mut agent.stream, event).is_err()
        {
            self.agent = None;
        }
    }

    fn answer(&mut self, request: InitRequest) {
        match request {
            InitRequest::Start(start) => {
                if let Err(message) = self.start(&start) {
                    let exit = ContainerExit {
                        container: start.name,
                        attempt: start.attempt,
                        code: 128,
                        start_failure: Some(message),
                        started: None,
                        finished: Timestamp::now(),
                    };
                    self.tell(&InitEvent::Exited(exit));
                }
            }
            InitRequest::Signal { container, signal } => {
                let process =
                    self.containers.get(&container).and_then(|container| container.process.as_ref());
                if let (Some((pid, _)), Ok(signal)) = (process, Signal::try_from(signal)) {
                    let _ = kill(*pid, signal);
                }
            }
            InitRequest::Kill { container } => {
                if let Some((pid, _)) =
                    self.containers.get(&container).and_then(|found| found.process.as_ref())
                {
                    // With namespaces the kernel ends the rest with the container's init; without, that one does.
                    let signal = if self.sandbox.isolated { Signal::SIGKILL } else { Signal::SIGUSR2 };
                    let _ = kill(*pid, signal);
                }
            }
            InitRequest::Exec(request) => {
                let started = match self.containers.get(&request.container) {
                    Some(Container { process: Some((_, pidfd)), start, .. }) => {
                        Exec::start(self.token, self.sandbox.isolated, &request, pidfd, start)
                    }
                    _ => Err(format!("container {} does not run", request.container)),
                };
                match started {
                    Ok(exec) => self.execs.push(exec),
                    Err(message) => {
                        let event = InitEvent::ExecDone {
                            id: request.id,
                            result: Err(message),
                            output: String::new(),
                        };
                        self.tell(&event);
                    }
                }
            }
            InitRequest::Session(_) => report("a session needs a connection of its own"),
            InitRequest::State => {
                let states = self.containers.iter().map(|(name, container)| match &container.exit {
                    Some(exit) => ContainerState::Exited(exit.clone()),
                    None => ContainerState::Running {
                        container: name.clone(),
                        attempt: container.attempt,
                        started: container.started,
                    },
                });
                let states = states.collect();
                self.tell(&InitEvent::State(states));
            }
            InitRequest::Shutdown => self.over = true,
        }
    }

    fn start(&mut self, start: &ContainerStart) -> Result<(), String> {
        if self.containers.get(&start.name).is_some_and(|container| container.process.is_some()) {
            return Err(format!("container {} runs already", start.name));
        }
        let pipe_error = |error: io::Error| format!("make a pipe: {error}");
        let log = LogWriter::create(&start.log).map_err(|error| format!("create the log: {error}"))?;
        let (ours, streams) = attached::streams(start).map_err(pipe_error)?;
        let (failure, failure_end) = io::pipe().map_err(pipe_error)?;
        let flags = match (self.sandbox.isolated, self.sandbox.share_processes) {
            (false, _) => CloneFlags::empty(),
            (true, true) => CloneFlags::CLONE_NEWNS,
            (true, false) => CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID,
        };
        match self.token.fork(flags).map_err(|error| format!("clone: {error}"))? {
            Forked::Parent { pid, pidfd } => {
                self.note_pid(&start.name, pid);
                let container = Container {
                    attempt: start.attempt,
                    process: Some((pid, pidfd)),
                    start: start.clone(),
                    log,
                    output: ours.output.map(non_blocking).transpose()?,
                    error: ours.error.map(non_blocking).transpose()?,
                    programs: ours.inputs,
                    failure: Some(non_blocking(failure.into())?),
                    failure_text: Vec::new(),
                    started: None,
                    exit: None,
                };
                self.containers.insert(start.name.clone(), container);
                Ok(())
            }
            Forked::Child => {
                self.forget_descriptors();
                drop((ours, failure));
                let pipes = container::Pipes { streams, failure: failure_end.into() };
                std::process::exit(container::run(self.token, &self.sandbox, start, pipes))
            }
        }
    }

    /// So that the agent knows whose the processes below that one are. Without it their use counts for the pod alone.
    fn note_pid(&self, container: &str, pid: Pid) {
        let folder = self.sandbox.directory.join(CONTAINER_PIDS);
        let _statistics_only = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(container), pid.as_raw().to_string()));
    }

    /// In a forked process: copies of the init's own descriptors would hold them open beyond it.
    fn forget_descriptors(&mut self) {
        self.agent = None;
        self.containers.clear();
        self.execs.clear();
        self.newcomers.clear();
        self.sessions.clear();
    }

    /// The failure pipe closed: with a text the start failed, without the program runs.
    fn read_failure(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name) else { return };
        let Some(pipe) = &mut container.failure else { return };
        if read_available(pipe, &mut container.failure_text).unwrap_or(false) {
            return;
        }
        container.failure = None;
        if container.failure_text.is_empty() {
            let at = Timestamp::now();
            container.started = Some(at);
            let event = InitEvent::Started { container: name.to_owned(), attempt: container.attempt, at };
            self.tell(&event);
        }
    }

    fn reap(&mut self) {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) => return,
                Err(nix::Error::EINTR) | Ok(_) => continue,
                Err(_) => return,
            };
            let found = self
                .containers
                .iter()
                .find(|(_, container)| container.process.as_ref().is_some_and(|(process, _)| *process == pid))
                .map(|(name, _)| name.clone());
            if let Some(name) = found {
                self.ended(&name, code);
            } else if let Some(exec) = self.execs.iter_mut().find(|exec| exec.pid == pid) {
                exec.code = Some(code);
            } else {
                self.session_ended(pid, code);
            }
        }
    }

    fn ended(&mut self, name: &str, code: i32) {
        self.read_failure(name);
        self.take_console(name);
        // All writers are dead: what is in the pipes now is the rest.
        for stream in [Stream::Output, Stream::Error] {
            let mut pieces = 0;
            while pieces < LAST_PIECES && self.pump(name, stream) {
                pieces += 1;
            }
        }
        let Some(container) = self.containers.get_mut(name) else { return };
        container.process = None;
        container.output = None;
        container.error = None;
        container.programs = ProgramInputs::default();
        let finished = Timestamp::now();
        container.log.finish(finished);
        let start_failure = (!container.failure_text.is_empty())
            .then(|| String::from_utf8_lossy(&container.failure_text).into_owned());
        let exit = ContainerExit {
            container: name.to_owned(),
            attempt: container.attempt,
            code,
            start_failure,
            started: container.started,
            finished,
        };
        container.exit = Some(exit.clone());
        self.tell(&InitEvent::Exited(exit));
        self.end_sessions_of(name, code);
    }

    /// Reads a piece of what a container prints, for its log and those that are attached; `false` if nothing is there.
    fn pump(&mut self, name: &str, stream: Stream) -> bool {
        let Some(container) = self.containers.get_mut(name) else { return false };
        let slot = match stream {
            Stream::Output => &mut container.output,
            Stream::Error => &mut container.error,
        };
        let Some(pipe) = slot else { return false };
        let mut chunk = [0; PIECE];
        match io::Read::read(pipe, &mut chunk) {
            Ok(count @ 1..) => {
                container.log.push(stream, &chunk[..count], Timestamp::now());
                self.show_attached(name, stream, &chunk[..count]);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            // The end; a terminal says it with an error.
            Ok(_) | Err(_) => {
                *slot = None;
                false
            }
        }
    }

    fn finish_execs(&mut self) {
        let now = Instant::now();
        let mut done = Vec::new();
        self.execs.retain_mut(|exec| {
            let event = exec.finish(now);
            let stays = event.is_none();
            done.extend(event);
            stays
        });
        for event in done {
            self.tell(&event);
        }
    }
}

fn non_blocking(descriptor: OwnedFd) -> Result<fs::File, String> {
    rustix::io::ioctl_fionbio(&descriptor, true).map_err(|error| error.to_string())?;
    Ok(fs::File::from_parts(std::fs::File::from(descriptor), "pipe"))
}
