//! A command that runs beside a container: exec probes and lifecycle hooks.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use fs_err as fs;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{container, non_blocking};
use crate::protocol::{ContainerStart, ExecStart, InitEvent, read_available};
use crate::sys::process::{Forked, SingleThreaded};

/// What a probe or hook prints is only shown in messages.
const OUTPUT_LIMIT: usize = 8 << 10;

pub(super) struct Exec {
    pub(super) id: u64,
    pub(super) pid: Pid,
    pub(super) output: Option<fs::File>,
    pub(super) deadline: Instant,
    pub(super) code: Option<i32>,
    text: Vec<u8>,
    timed_out: bool,
}

impl Exec {
    pub(super) fn start(
        token: &SingleThreaded,
        isolated: bool,
        request: &ExecStart,
        beside: &OwnedFd,
        start: &ContainerStart,
    ) -> Result<Self, String> {
        let (output, output_end) = io::pipe().map_err(|error| format!("make a pipe: {error}"))?;
        match token.fork(CloneFlags::empty()).map_err(|error| format!("fork: {error}"))? {
            Forked::Parent { pid, .. } => Ok(Self {
                id: request.id,
                pid,
                output: Some(non_blocking(output.into())?),
                deadline: Instant::now() + Duration::from_millis(request.timeout_milliseconds),
                code: None,
                text: Vec::new(),
                timed_out: false,
            }),
            Forked::Child => {
                drop(output);
                let output_end = OwnedFd::from(output_end);
                let code = match join_and_run(token, isolated, request, beside, start, &output_end) {
                    Ok(code) => code,
                    Err(message) => {
                        let _ = rustix::io::write(&output_end, message.as_bytes());
                        126
                    }
                };
                std::process::exit(code)
            }
        }
    }

    pub(super) fn pump(&mut self) {
        let Some(output) = &mut self.output else { return };
        let open = read_available(output, &mut self.text).unwrap_or(false);
        self.text.truncate(OUTPUT_LIMIT);
        if !open {
            self.output = None;
        }
    }

    /// The event to send once the command is over.
    pub(super) fn finish(&mut self, now: Instant) -> Option<InitEvent> {
        if self.code.is_none() {
            if now < self.deadline {
                return None;
            }
            // In a PID namespace the helper is outside: its death signal takes the command along.
            let _ = kill(self.pid, Signal::SIGKILL);
            self.timed_out = true;
            self.code = Some(137);
        }
        self.pump();
        let result = if self.timed_out { Err("command timed out".to_owned()) } else { Ok(self.code?) };
        let output = String::from_utf8_lossy(&self.text).into_owned();
        Some(InitEvent::ExecDone { id: self.id, result, output })
    }
}

fn join_and_run(
    token: &SingleThreaded,
    isolated: bool,
    request: &ExecStart,
    beside: &OwnedFd,
    start: &ContainerStart,
    output: &OwnedFd,
) -> Result<i32, String> {
    container::join_cgroups(start)?;
    if isolated {
        setns(beside, CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
            .map_err(|error| format!("join the container's namespaces: {error}"))?;
    }
    // A PID namespace holds from the next fork on.
    match token.fork(CloneFlags::empty()).map_err(|error| format!("fork: {error}"))? {
        Forked::Parent { pid, .. } => loop {
            match nix::sys::wait::waitpid(pid, None) {
                Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => return Ok(code),
                Ok(nix::sys::wait::WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
                Err(nix::Error::EINTR) | Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        },
        Forked::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            let _ = nix::unistd::setsid();
            container::redirect(None, Some(output), Some(output))?;
            match container::become_program(start, &request.argv, &start.env) {
                Ok(never) => match never {},
                Err(message) => {
                    let _ = rustix::io::write(output, message.as_bytes());
                    std::process::exit(126)
                }
            }
        }
    }
}
