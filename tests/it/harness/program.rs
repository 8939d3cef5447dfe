//! Programs that are started, read line by line, and that must end in time.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// No wait of these tests is longer, on a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// The program under test: `MUSTER_BIN`, else the one that was built beside these tests.
pub(crate) fn muster_path() -> PathBuf {
    if let Some(named) = std::env::var_os("MUSTER_BIN") {
        return PathBuf::from(named);
    }
    let tests = std::env::current_exe().expect("the path of the tests");
    let profile = tests.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    let program = profile.join("muster");
    assert!(program.is_file(), "{} is not there: run `cargo build -p muster` first", program.display());
    program
}

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the repository")
}

/// How a program ended.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// Exit code; 128 + signal when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The same, if the program succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// A program that runs.
pub(crate) struct Program {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Read all the time: a program whose errors nobody reads comes to a stop.
    stderr: mpsc::UnboundedReceiver<String>,
    /// The lines of the error output that were read while waiting for one of them.
    seen: String,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let stderr = lines_of(child.stderr.take().expect("stderr"));
        Self { child, stdout, stderr, seen: String::new() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("the program runs")
    }

    /// The next line of the output, `None` at its end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        timeout(DEADLINE, self.stdout.next_line()).await.expect("no output in time").expect("output")
    }

    /// Reads the error output up to a line with `text`.
    pub(crate) async fn error_line_with(&mut self, text: &str) -> String {
        loop {
            let line = timeout(DEADLINE, self.stderr.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("no line with `{text}` in time after:\n{}", self.seen));
            let line = line.unwrap_or_else(|| panic!("ended without a line with `{text}`:\n{}", self.seen));
            self.seen.push_str(&line);
            self.seen.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// Checks that it has not ended by itself.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("the state of a child") {
            let mut stderr = std::mem::take(&mut self.seen);
            while let Ok(line) = self.stderr.try_recv() {
                stderr.push_str(&line);
                stderr.push('\n');
            }
            panic!("ended with {status}:\n{stderr}");
        }
    }

    /// Waits for its end, whoever still holds its output open.
    pub(crate) async fn ended(mut self) {
        timeout(DEADLINE, self.child.wait()).await.expect("does not end").expect("the end of a child");
    }

    /// Waits for its end.
    pub(crate) async fn finish(mut self) -> Finished {
        let (mut stdout, mut stderr) = (String::new(), self.seen);
        let end = async {
            let mut output = self.stdout.into_inner();
            let errors = async {
                while let Some(line) = self.stderr.recv().await {
                    stderr.push_str(&line);
                    stderr.push('\n');
                }
            };
            let (read, ()) = tokio::join!(output.read_to_string(&mut stdout), errors);
            read.expect("output is text");
            self.child.wait().await.expect("the end of a child")
        };
        let status = timeout(DEADLINE, end).await;
        let Ok(status) = status else { panic!("does not end; stdout: {stdout}\nstderr: {stderr}") };
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = status.code().or(signal.map(|signal| 128 + signal)).expect("an end");
        Finished { code, stdout, stderr }
    }
}

/// The lines of a program's error output, as they come.
fn lines_of(output: ChildStderr) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next_line().await.expect("error output is text") {
            // Whoever lost interest has dropped the receiver; the program goes on.
            let _heard = sender.send(line);
        }
    });
    receiver
}

/// Runs a command to its end.
pub(crate) async fn run(command: Command) -> Finished {
    Program::start(command).finish().await
}

/// A command with the environment of a plain terminal.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Sends a signal to a process.
pub(crate) fn send(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(process, signal).expect("the process is there");
}
