//! Runs the launcher, and waits for it with a deadline.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Whatever takes longer is stuck.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// How a launcher ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{self:?}"))
    }

    /// Lines of standard output, sorted.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut lines: Vec<_> = self.stdout.lines().collect();
        lines.sort_unstable();
        lines
    }

    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code(), 0, "{self:?}");
        self
    }
}

/// The launcher with an environment of nothing but `PATH`, and these options.
pub(crate) fn launcher(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-exec-worker"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).args(options);
    command
}

/// The launcher with `script` as its workers.
pub(crate) fn workers(options: &[&str], script: &str) -> Command {
    let mut command = launcher(options);
    command.args(["--", "sh", "-c", script]);
    command
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Ended {
    start(command).end()
}

pub(crate) fn start(command: &mut Command) -> Running {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let stderr = read_aside(child.stderr.take().unwrap());
    Running { child, stdout: Some(stdout), seen: String::new(), stderr }
}

/// A launcher that runs; killed if the test ends first.
pub(crate) struct Running {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    seen: String,
    stderr: Receiver<String>,
}

impl Running {
    /// The next line of its standard output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.wait_readable();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        self.seen.push_str(&line);
        line.trim_end().to_owned()
    }

    /// The next line that contains `text`.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "no {text:?} in {}", self.seen);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// `count` lines, sorted.
    pub(crate) fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines: Vec<_> = (0..count).map(|_| self.line()).collect();
        lines.sort_unstable();
        lines
    }

    /// A few bytes of its standard output; none at its end.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        self.wait_readable();
        let count = self.stdout.as_mut().unwrap().read(&mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    fn wait_readable(&self) {
        let stdout = self.stdout.as_ref().unwrap();
        if stdout.buffer().is_empty() {
            wait_readable(stdout.get_ref(), "output");
        }
    }

    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its children's process numbers.
    pub(crate) fn children(&self) -> Vec<String> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// A field of `/proc/PID/status` in kB.
    pub(crate) fn kilobytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Reads the rest, and waits.
    pub(crate) fn end(mut self) -> Ended {
        let rest = self.stdout.take().map(read_aside);
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        wait_readable(&process, "the end of the launcher");
        let status = self.child.wait().unwrap();
        let mut stdout = std::mem::take(&mut self.seen);
        stdout.extend(rest.map(|rest| rest.recv_timeout(DEADLINE).unwrap()));
        let stderr = self.stderr.recv_timeout(DEADLINE).unwrap();
        assert_eq!(status.signal(), None, "{stderr}");
        Ended { status, stdout, stderr }
    }

    /// Its exit code, without reading on.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        wait_readable(&process, "the end of the launcher");
        self.child.wait().unwrap().code()
    }

    /// Until it holds SIGTERM back, which is the first that it does.
    pub(crate) fn wait_until_blocked(&self) {
        let until = Instant::now() + DEADLINE;
        let status = format!("/proc/{}/status", self.child.id());
        loop {
            let status = std::fs::read_to_string(&status).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
            if u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (Signal::TERM.as_raw() - 1) != 0 {
                return;
            }
            assert!(Instant::now() < until, "it never does");
            std::thread::yield_now();
        }
    }

    /// Kills the launcher, and nothing else.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "what a launcher said explains why its test failed")]
    fn drop(&mut self) {
        // Has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Ok(stderr) = self.stderr.recv_timeout(DEADLINE)
        {
            eprintln!("the launcher {} said:\n{}{stderr}", self.child.id(), self.seen);
        }
    }
}

fn read_aside(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(String::from_utf8(bytes).unwrap());
    });
    receiver
}

fn wait_readable(what: impl rustix::fd::AsFd, name: &str) {
    let until = Instant::now() + DEADLINE;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(&what, PollFlags::IN)], Some(&left)) {
            Ok(0) => panic!("no {name} for {DEADLINE:?}"),
            Ok(_) => return,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A process that is to end without being a child of this one.
pub(crate) struct Stranger(Option<rustix::fd::OwnedFd>);

impl Stranger {
    pub(crate) fn new(pid: &str) -> Self {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => Self(Some(process)),
            Err(rustix::io::Errno::SRCH) => Self(None),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn wait(&self) {
        if let Some(process) = &self.0 {
            wait_readable(process, "end of a process");
        }
    }

    pub(crate) fn kill(&self) {
        rustix::process::pidfd_send_signal(self.0.as_ref().expect("it lives"), Signal::KILL).unwrap();
    }
}

/// What a worker waits for by `read line <"$GATE"`.
pub(crate) struct Gate(PathBuf);

impl Gate {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("gate");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Lets one worker read `line`; waits until it does.
    pub(crate) fn open(&self, line: &str) {
        let (sender, receiver) = channel();
        let (path, line) = (self.0.clone(), format!("{line}\n"));
        std::thread::spawn(move || sender.send(std::fs::write(path, line)));
        receiver.recv_timeout(DEADLINE).expect("somebody waits at the gate").unwrap();
    }
}
