//! A command that a client runs in a container: in its namespaces and control group, as its user, with its environment.
//!
//! A helper joins the container and forks the command, because a PID namespace holds from the next fork on. The helper
//! stays outside of it, waits, and passes on how the command ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use super::container;
use crate::protocol::session::{CommandStreams, SessionEvent, WindowSize};
use crate::protocol::{ContainerStart, User, send};
use crate::sys::process::{Forked, SingleThreaded};

/// The container in which the command runs.
pub(super) struct Place<'a> {
    /// Whether it has namespaces of its own.
    pub(super) isolated: bool,
    /// A process of it.
    pub(super) beside: &'a OwnedFd,
    /// How its program was started.
    pub(super) start: &'a ContainerStart,
}

/// Input and output of the command as far as the client wants them.
pub(super) struct CommandPipes {
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    error: Option<OwnedFd>,
}

impl CommandPipes {
    /// Tells the descriptors that came with a request apart.
    pub(super) fn new(streams: CommandStreams, mut descriptors: VecDeque<OwnedFd>) -> Result<Self, String> {
        let mut take = |wanted: bool| {
            if !wanted {
                return Ok(None);
            }
            descriptors.pop_front().map(Some).ok_or("a descriptor of the command is missing")
        };
        match streams {
            CommandStreams::Terminal(_) => Ok(Self { input: None, output: None, error: None }),
            CommandStreams::Pipes { input, output, error } => {
                Ok(Self { input: take(input)?, output: take(output)?, error: take(error)? })
            }
        }
    }
}

/// Runs the command to its end; its exit code. `failure` closes by itself when the command starts.
pub(super) fn run(
    token: &SingleThreaded,
    place: &Place<'_>,
    argv: &[String],
    streams: CommandStreams,
    pipes: CommandPipes,
    connection: &UnixStream,
    failure: &io::PipeWriter,
) -> Result<i32, String> {
    let _ = nix::sys::prctl::set_name(c"muster-exec");
    // The command's children must stay below this process, or nobody would find them.
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| error.to_string())?;
    container::join_cgroups(place.start)?;
    if place.isolated {
        setns(place.beside, CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
            .map_err(|error| format!("join the container's namespaces: {error}"))?;
    } else {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    }
    let terminal = match streams {
        CommandStreams::Terminal(size) => {
            let Terminal { controller, terminal } = open_terminal(size, &place.start.user)?;
            send(connection, &SessionEvent::Ready { terminal: true }, &[controller.as_fd()])
                .map_err(|error| format!("hand over the terminal: {error}"))?;
            Some(terminal)
        }
        CommandStreams::Pipes { .. } => None,
    };
    match token.fork(CloneFlags::empty()).map_err(|error| format!("fork: {error}"))? {
        Forked::Parent { pid, .. } => {
            // While this process held them the client would not see the end of the output.
            drop((pipes, terminal));
            Ok(supervise(pid, place.isolated))
        }
        Forked::Child => {
            let message = match execute(place, argv, terminal, pipes) {
                Ok(never) => match never {},
                Err(message) => message,
            };
            let _ = rustix::io::write(failure, message.as_bytes());
            std::process::exit(126)
        }
    }
}

/// Replaces this process by the command.
fn execute(
    place: &Place<'_>,
    argv: &[String],
    terminal: Option<OwnedFd>,
    pipes: CommandPipes,
) -> Result<std::convert::Infallible, String> {
    let text = |error: nix::Error| error.to_string();
    if !place.isolated {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(text)?;
    }
    let _ = nix::unistd::setsid();
    let mut env = place.start.env.clone();
    if let Some(terminal) = terminal {
        container::own_terminal(&terminal, &mut env)?;
    } else {
        container::redirect(pipes.input.as_ref(), pipes.output.as_ref(), pipes.error.as_ref())?;
    }
    container::become_program(place.start, argv, &env)
}

/// A terminal of the container.
pub(super) struct Terminal {
    /// Where its input is written, its output is read and its size is set.
    pub(super) controller: OwnedFd,
    /// What programs see.
    pub(super) terminal: OwnedFd,
}

/// Opens a terminal where this process is, for a program of `user`.
pub(super) fn open_terminal(size: WindowSize, user: &User) -> Result<Terminal, String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: nix::Error| {
            format!("open a terminal: {what}: {error}; does the container have /dev/pts?")
        }
    };
    let controller =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).map_err(failed("/dev/ptmx"))?;
    grantpt(&controller).map_err(failed("grant"))?;
    unlockpt(&controller).map_err(failed("unlock"))?;
    let name = ptsname_r(&controller).map_err(failed("name"))?;
    let terminal = rustix::fs::open(
        name.as_str(),
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|error| format!("open the terminal {name}: {error}"))?;
    if let Some(uid) = user.uid {
        // As a login does; the descriptor works without it.
        let _ = rustix::fs::fchown(&terminal, Some(rustix::fs::Uid::from_raw(uid)), None);
    }
    let controller = OwnedFd::from(controller);
    set_size(&controller, size).map_err(|error| format!("set the size of the terminal: {error}"))?;
    Ok(Terminal { controller, terminal })
}

/// Sets a terminal's size, which its foreground program hears of.
pub(crate) fn set_size(terminal: &OwnedFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).map_err(io::Error::from)
}

/// Waits for the command. SIGHUP hangs up on its session, SIGUSR2 ends all of it.
fn supervise(command: Pid, isolated: bool) -> i32 {
    let every_signal = SigSet::all();
    loop {
        match every_signal.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = container::reap(command) {
                    return code;
                }
            }
            Ok(Signal::SIGHUP) => signal_group(command, Signal::SIGHUP),
            Ok(Signal::SIGUSR2) if isolated => signal_group(command, Signal::SIGKILL),
            Ok(Signal::SIGUSR2) => {
                container::kill_descendants();
                return 137;
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fn signal_group(command: Pid, signal: Signal) {
    // Before the command has made its session there is no group yet.
    if killpg(command, signal).is_err() {
        let _ = kill(command, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_go_to_the_streams_that_were_asked_for() {
        let (read, write) = io::pipe().unwrap();
        let streams = CommandStreams::Pipes { input: true, output: false, error: true };
        let descriptors: VecDeque<OwnedFd> = [read.into(), write.into()].into();
        let pipes = CommandPipes::new(streams, descriptors).unwrap();
        assert!(pipes.input.is_some() && pipes.output.is_none() && pipes.error.is_some());
        assert!(CommandPipes::new(streams, VecDeque::new()).is_err());
    }
}
