//! The processes of one container: an init of its own that ends with the program and takes every process left
//! over with it, and the program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use super::command::{Terminal, open_terminal};
use super::filesystem;
use crate::protocol::session::{SessionEvent, WindowSize};
use crate::protocol::{ContainerStart, Sandbox, User, send};
use crate::sys::process::{Forked, SingleThreaded, reset_signals};

/// What the new processes get from the pod's init.
pub(super) struct Pipes {
    /// Input and output of the program.
    pub(super) streams: Streams,
    /// Takes the reason if the program cannot start; closes by itself when it starts.
    pub(super) failure: OwnedFd,
}

/// Input and output of a container's program.
pub(super) enum Streams {
    /// Pipes; without one for the input that is `/dev/null`.
    Pipes {
        /// Standard input.
        input: Option<OwnedFd>,
        /// Standard output.
        output: OwnedFd,
        /// Standard error.
        error: OwnedFd,
    },
    /// A terminal of the container, whose other side is sent over this connection.
    Terminal(UnixStream),
}

/// Runs the container's init; returns its exit code, which is that of the program.
pub(super) fn run(token: &SingleThreaded, sandbox: &Sandbox, start: &ContainerStart, pipes: Pipes) -> i32 {
    match try_run(token, sandbox, start, &pipes) {
        Ok(program) => {
            drop(pipes);
            supervise(program, sandbox.isolated)
        }
        Err(message) => {
            let _ = rustix::io::write(&pipes.failure, message.as_bytes());
            128
        }
    }
}

fn try_run(
    token: &SingleThreaded,
    sandbox: &Sandbox,
    start: &ContainerStart,
    pipes: &Pipes,
) -> Result<Pid, String> {
    let _ = nix::sys::prctl::set_name(c"muster-container");
    join_cgroups(start)?;
    if sandbox.isolated {
        filesystem::enter_root(sandbox, start)?;
    } else {
        nix::sys::prctl::set_child_subreaper(true).map_err(|error| error.to_string())?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    }
    let terminal = match &pipes.streams {
        Streams::Pipes { .. } => None,
        Streams::Terminal(console) => {
            let Terminal { controller, terminal } = open_terminal(WindowSize::default(), &start.user)?;
            send(console, &SessionEvent::Ready { terminal: true }, &[controller.as_fd()])
                .map_err(|error| format!("hand over the terminal: {error}"))?;
            Some(terminal)
        }
    };
    match token.fork(nix::sched::CloneFlags::empty()).map_err(|error| format!("fork: {error}"))? {
        Forked::Parent { pid, .. } => Ok(pid),
        Forked::Child => {
            let message = match exec(sandbox, start, pipes, terminal.as_ref()) {
                Ok(never) => match never {},
                Err(message) => message,
            };
            let _ = rustix::io::write(&pipes.failure, message.as_bytes());
            std::process::exit(128)
        }
    }
}

fn exec(
    sandbox: &Sandbox,
    start: &ContainerStart,
    pipes: &Pipes,
    terminal: Option<&OwnedFd>,
) -> Result<std::convert::Infallible, String> {
    let _ = nix::unistd::setsid();
    if !sandbox.isolated {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    }
    let mut env = start.env.clone();
    if let Some(terminal) = terminal {
        own_terminal(terminal, &mut env)?;
    } else if let Streams::Pipes { input, output, error } = &pipes.streams {
        redirect(input.as_ref(), Some(output), Some(error))?;
    }
    become_program(start, &start.argv, &env)
}

/// Puts this process into the container's control groups.
pub(super) fn join_cgroups(start: &ContainerStart) -> Result<(), String> {
    for cgroup in &start.cgroups {
        fs::write(cgroup, "0").map_err(|error| format!("join the container's cgroup: {error}"))?;
    }
    Ok(())
}

/// Sets standard input, output and error; without a descriptor they stay what they are, which is `/dev/null`.
pub(super) fn redirect(
    input: Option<&OwnedFd>,
    output: Option<&OwnedFd>,
    error: Option<&OwnedFd>,
) -> Result<(), String> {
    let text = |error: nix::Error| error.to_string();
    input.map_or(Ok(()), nix::unistd::dup2_stdin).map_err(text)?;
    output.map_or(Ok(()), nix::unistd::dup2_stdout).map_err(text)?;
    error.map_or(Ok(()), nix::unistd::dup2_stderr).map_err(text)
}

/// Replaces this process, which is where the container is already, by a program that runs as the container's own does:
/// its user, limits and working folder.
pub(super) fn become_program(
    start: &ContainerStart,
    argv: &[String],
    env: &[(String, String)],
) -> Result<std::convert::Infallible, String> {
    if let Some(limit) = start.data_limit {
        let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_DATA, limit, limit);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    become_user(&start.user).map_err(|error| format!("run as {:?}: {error}", start.user))?;
    if let Some(folder) = &start.working_directory {
        std::env::set_current_dir(folder)
            .map_err(|error| format!("chdir to working directory \"{folder}\": {error}"))?;
    }
    exec_program(argv, env)
}

/// Makes a terminal the one of this session, and its input and output.
pub(super) fn own_terminal(terminal: &OwnedFd, env: &mut Vec<(String, String)>) -> Result<(), String> {
    rustix::process::ioctl_tiocsctty(terminal)
        .map_err(|error| format!("make the terminal the program's own: {error}"))?;
    redirect(Some(terminal), Some(terminal), Some(terminal))?;
    // Programs want to know what it understands.
    if !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    Ok(())
}

/// Replaces this process; on return nothing was replaced.
fn exec_program(argv: &[String], env: &[(String, String)]) -> Result<std::convert::Infallible, String> {
    let name = argv.first().ok_or("no command")?;
    let path = env.iter().rev().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value.as_str());
    let program = find_program(name, path)?;
    let string =
        |text: String| CString::new(text).map_err(|_| "argument or variable contains a NUL byte".to_owned());
    let program = CString::new(program.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    let argv = argv.iter().cloned().map(string).collect::<Result<Vec<_>, _>>()?;
    let env =
        env.iter().map(|(key, value)| string(format!("{key}={value}"))).collect::<Result<Vec<_>, _>>()?;
    reset_signals().map_err(|error| error.to_string())?;
    nix::unistd::execve(&program, &argv, &env).map_err(|error| match error {
        nix::Error::ENOENT => {
            format!("exec: \"{name}\": no such file or directory (or its interpreter is missing)")
        }
        nix::Error::ENOEXEC => format!("exec: \"{name}\": exec format error (a script needs a `#!` line)"),
        error => format!("exec: \"{name}\": {error}"),
    })
}

fn find_program(name: &str, path: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt as _;
    if name.contains('/') {
        return match fs::metadata(name) {
            Ok(found) if found.is_dir() => Err(format!("exec: \"{name}\": is a directory")),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => {
                Err(format!("exec: \"{name}\": permission denied"))
            }
            Ok(_) => Ok(PathBuf::from(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("exec: \"{name}\": stat {name}: no such file or directory"))
            }
            Err(error) => Err(format!("exec: \"{name}\": {error}")),
        };
    }
    let found =
        path.split(':').filter(|folder| !folder.is_empty()).map(|folder| Path::new(folder).join(name)).find(
            |candidate| {
                std::fs::metadata(candidate)
                    .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
            },
        );
    found.ok_or_else(|| format!("exec: \"{name}\": executable file not found in $PATH"))
}

fn become_user(user: &User) -> nix::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    if user.uid.is_some() || user.gid.is_some() || !groups.is_empty() {
        nix::unistd::setgroups(&groups)?;
    }
    if let Some(gid) = user.gid.or(user.uid.map(|_| 0)) {
        let gid = Gid::from_raw(gid);
        nix::unistd::setresgid(gid, gid, gid)?;
    }
    if let Some(uid) = user.uid {
        let uid = Uid::from_raw(uid);
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    Ok(())
}

/// Passes signals on to the program, reaps orphans, and returns the program's exit code.
fn supervise(program: Pid, isolated: bool) -> i32 {
    let every_signal = SigSet::all();
    loop {
        match every_signal.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(program) {
                    if !isolated {
                        kill_descendants();
                    }
                    return code;
                }
            }
            // How the pod's init asks for the end of everything where there is no PID namespace.
            Ok(Signal::SIGUSR2) if !isolated => {
                kill_descendants();
                return 137;
            }
            Ok(signal) => {
                let _ = kill(program, signal);
            }
            Err(_) => {}
        }
    }
}

/// Reaps what has ended; the exit code of `program` once it has.
pub(super) fn reap(program: Pid) -> Option<i32> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => return Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return None,
            Err(nix::Error::EINTR) | Ok(_) => {}
            Err(_) => return Some(255),
        }
    }
}

/// Without a PID namespace: this process is the subreaper of everything the program started, so killing its
/// children until there are none leaves nobody.
pub(super) fn kill_descendants() {
    let own = std::process::id();
    loop {
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(_) => return,
        }
    }
}
