//! The spawner: a process with one thread that forks the init process of every pod.
//!
//! The agent runs many threads, and a process with threads cannot fork safely. So it starts the spawner first, as
//! a program of its own, and sends it requests over the socket that is the spawner's standard input. When the
//! agent dies the spawner ends; the pods stay and are adopted by the next agent.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::init;
use crate::protocol::{Capabilities, SpawnReply, SpawnRequest, receive, send};
use crate::sys::process::{Forked, SingleThreaded};

/// Namespaces of a pod's init besides the network, which comes prepared.
pub(crate) const POD_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// The agent's user and group, and root of a namespace for this user alone.
#[derive(Debug, Clone, Copy)]
struct Outside {
    user: nix::unistd::Uid,
    group: nix::unistd::Gid,
}

impl Outside {
    fn now() -> Self {
        Self { user: nix::unistd::geteuid(), group: nix::unistd::getegid() }
    }

    /// To be called first in a process of a new user namespace: makes the agent's user its root.
    fn become_root(self) -> Result<(), String> {
        let Self { user, group } = self;
        let texts = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {user} 1")),
            ("gid_map", format!("0 {group} 1")),
        ];
        for (file, text) in texts {
            fs_err::write(format!("/proc/self/{file}"), text).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Runs the spawner until the agent closes the connection. Call it first thing in `main`, before any thread
/// exists; standard input is the connection.
pub fn spawner_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(io::stderr(), "error: node spawner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let token = SingleThreaded::prove()?;
    let connection = io::stdin().as_fd().try_clone_to_owned()?;
    let null = fs_err::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    // A signal for the terminal's foreground group is meant for the agent, not for the pods.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"muster-spawner");
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // What an init without namespaces leaves when it is killed comes here.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut inits = Inits::default();
    loop {
        let mut waiting = [
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let (request_waits, child_ended) = (waiting[0].any() == Some(true), waiting[1].any() == Some(true));
        if child_ended {
            while children.read_signal()?.is_some() {}
            inits.reap();
        }
        if request_waits {
            let Some((request, descriptors)) = receive::<SpawnRequest>(&connection)? else { return Ok(()) };
            match request {
                SpawnRequest::Pod(sandbox) => {
                    let mut descriptors = descriptors.into_iter();
                    let (agent, network) = (descriptors.next(), descriptors.next());
                    let mut flags = if sandbox.isolated { POD_NAMESPACES } else { CloneFlags::empty() };
                    flags.set(CloneFlags::CLONE_NEWUSER, sandbox.user);
                    let outside = Outside::now();
                    match token.fork(flags) {
                        Ok(Forked::Parent { pid, pidfd }) => {
                            inits.add(pid, sandbox.isolated);
                            send(&connection, &SpawnReply::Pod { pid: pid.as_raw() }, &[pidfd.as_fd()])?;
                        }
                        Ok(Forked::Child) => {
                            // With a copy left here the agent would not notice that the spawner died.
                            drop(connection);
                            drop(children);
                            if sandbox.user
                                && let Err(message) = outside.become_root()
                            {
                                init::report(&message);
                                std::process::exit(1);
                            }
                            std::process::exit(init::run(
                                &token,
                                *sandbox,
                                agent.map(UnixStream::from),
                                network,
                            ))
                        }
                        Err(error) => {
                            let message = format!("clone of the pod's init process: {error}");
                            send(&connection, &SpawnReply::Failed { message }, &[])?;
                        }
                    }
                }
                SpawnRequest::Probe { directory } => {
                    send(&connection, &SpawnReply::Probe(probe(&token, &directory)), &[])?;
                }
            }
        }
    }
}

/// The inits that this process started. Every other child is an orphan of a pod whose init was killed.
#[derive(Default)]
struct Inits {
    all: HashSet<Pid>,
    /// Those whose end takes nothing along but what the kernel ends anyway.
    isolated: HashSet<Pid>,
}

impl Inits {
    fn add(&mut self, pid: Pid, isolated: bool) {
        self.all.insert(pid);
        if isolated {
            self.isolated.insert(pid);
        }
    }

    fn reap(&mut self) {
        let mut orphans = false;
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            self.all.remove(&pid);
            orphans |= !self.isolated.remove(&pid);
        }
        // The children of an orphan that dies become orphans here, and its end is heard of again.
        if orphans {
            self.end_orphans();
        }
    }

    fn end_orphans(&self) {
        let own = std::process::id();
        let children = fs_err::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
        for orphan in children.filter(|child| !self.all.contains(child)) {
            let _ = kill(orphan, Signal::SIGKILL);
        }
    }
}

fn probe(token: &SingleThreaded, directory: &Path) -> Capabilities {
    let namespaces = trial(token, POD_NAMESPACES | CloneFlags::CLONE_NEWNET, || Ok(()));
    let overlay = match &namespaces {
        Err(reason) => Err(reason.clone()),
        Ok(()) => trial(token, POD_NAMESPACES, || init::filesystem::try_overlay(directory)),
    };
    let outside = Outside::now();
    let user = trial(token, POD_NAMESPACES | CloneFlags::CLONE_NEWUSER, || {
        outside.become_root()?;
        init::filesystem::try_binds(directory)
    });
    Capabilities { namespaces, overlay, user }
}

/// Runs `attempt` in a throw-away child with the given namespaces.
fn trial(
    token: &SingleThreaded,
    flags: CloneFlags,
    attempt: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let (mut reader, mut writer) = io::pipe().map_err(|error| error.to_string())?;
    match token.fork(flags).map_err(|error| format!("clone with new namespaces: {error}"))? {
        Forked::Parent { pid, .. } => {
            drop(writer);
            let mut message = String::new();
            let _ = io::Read::read_to_string(&mut reader, &mut message);
            let _ = waitpid(pid, None);
            if message == "ok" { Ok(()) } else { Err(message) }
        }
        Forked::Child => {
            let answer = attempt().map_or_else(|message| message, |()| "ok".to_owned());
            let _ = io::Write::write_all(&mut writer, answer.as_bytes());
            std::process::exit(0)
        }
    }
}
