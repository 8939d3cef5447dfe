//! The shell of an interactive job, at the terminal of the command or between its pipes.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use futures::SinkExt as _;
use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess};
use kube::runtime::wait::await_condition;
use muster_batch_core::job::SCRIPT;
use muster_batch_core::shell;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::notes::Notes;
use super::presence::Presence;
use super::terminal::{self, RawTerminal};
use crate::error::Error;
use crate::remote::{copy, exit_code};

/// What is read or written at once.
const BUFFER: usize = 64 << 10;
/// How long before the end of its time a job is announced to end, in seconds.
const WARNINGS: [u64; 3] = [300, 60, 10];
/// How long the last words of a shell may take whose pod has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The exit code of programs that write to who has gone away.
const NOBODY_READS: u8 = 141;

/// A job that has started, and who works in it.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// The pods of the namespace.
    pub(crate) pods: &'a Api<Pod>,
    /// The pod of the shell.
    pub(crate) pod: &'a str,
    /// The job's number.
    pub(crate) id: u64,
    /// What runs in place of a shell; a shell if it is empty.
    pub(crate) command: &'a [String],
    /// For what is to be told.
    pub(crate) notes: &'a Notes,
}

/// How a shell has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code, or why it has none.
    pub(crate) code: Result<u8, Error>,
    /// Whether the job had no time left.
    pub(crate) out_of_time: bool,
}

impl Session<'_> {
    /// Runs the shell to its end.
    ///
    /// # Errors
    /// It has not begun.
    pub(crate) async fn run(&self) -> Result<Ended, Error> {
        let mut presence = Presence::begin(self.pods, self.pod).await?;
        let end = presence.left().map(|left| Instant::now() + left);
        let terminal = RawTerminal::enter(self.notes)?;
        let code = tokio::select! {
            code = self.shell(terminal.is_some()) => code,
            error = presence.keep() => Err(error),
            error = self.pod_has_ended() => Err(error),
            never = self.tell_time(end) => match never {},
        };
        drop(terminal);
        presence.leave().await;
        // The node's clock has whole seconds.
        let out_of_time = end.is_some_and(|end| Instant::now() + Duration::from_secs(1) >= end);
        Ok(Ended { code, out_of_time })
    }

    async fn shell(&self, on_terminal: bool) -> Result<u8, Error> {
        let kind = on_terminal.then(|| std::env::var("TERM").unwrap_or_default());
        let parameters = AttachParams {
            container: Some(SCRIPT.to_owned()),
            stdin: true,
            stdout: true,
            stderr: !on_terminal,
            tty: on_terminal,
            max_stdin_buf_size: Some(BUFFER),
            max_stdout_buf_size: Some(BUFFER),
            max_stderr_buf_size: Some(BUFFER),
        };
        let words = shell::session(kind.as_deref(), self.command);
        let mut process = self.pods.exec(self.pod, words, &parameters).await?;
        if let Some(input) = process.stdin() {
            // It ends with the command, not before: whoever calls may leave the input open for ever.
            tokio::spawn(copy(tokio::io::stdin(), input));
        }
        let status = process.take_status();
        let (output, errors) = (process.stdout(), process.stderr());
        let shown =
            async { tokio::try_join!(show(output, tokio::io::stdout()), show(errors, tokio::io::stderr())) };
        let shown = tokio::select! {
            shown = shown => shown,
            never = follow_size(&mut process) => match never {},
        };
        // As one that writes to a pipe whose reader has gone; the keeper sees to what still runs.
        if shown.is_err() {
            return Ok(NOBODY_READS);
        }
        match OptionFuture::from(status).await.flatten() {
            Some(status) => exit_code(&status),
            None => Err(Error::new(format!("the connection to the shell of job {} broke", self.id))),
        }
    }

    /// Returns when the pod is over, or gone, and its shell has had time to say so itself.
    async fn pod_has_ended(&self) -> Error {
        let over = |pod: Option<&Pod>| {
            let phase = pod.map(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()));
            phase.is_none_or(|phase| matches!(phase, Some("Succeeded" | "Failed")))
        };
        // Whether it has ended is not known while the server does not answer.
        while await_condition(self.pods.clone(), self.pod, over).await.is_err() {
            sleep(LAST_WORDS).await;
        }
        sleep(LAST_WORDS).await;
        Error::new(format!("the pod of job {} has ended", self.id))
    }

    /// Says some times before the end that it comes.
    async fn tell_time(&self, end: Option<Instant>) -> Infallible {
        for seconds in WARNINGS {
            let time = end.and_then(|end| end.checked_sub(Duration::from_secs(seconds)));
            let Some(time) = time.filter(|time| *time >= Instant::now()) else { continue };
            sleep_until(time).await;
            let rest = if seconds < 60 { format!("{seconds} s") } else { format!("{} min", seconds / 60) };
            self.notes.tell(&format!("the time of job {} is over in {rest}", self.id));
        }
        pending().await
    }
}

/// Shows what comes, if anything does; an error if it cannot be written.
async fn show(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    if let Some(mut from) = from {
        tokio::io::copy(&mut from, &mut to).await?;
    }
    to.flush().await
}

/// Tells the shell's terminal how large this one is, now and whenever that changes.
async fn follow_size(process: &mut AttachedProcess) -> Infallible {
    if let (Some(mut sizes), Ok(mut changes)) = (process.terminal_size(), signal(SignalKind::window_change()))
    {
        loop {
            if let Some(size) = terminal::size()
                && sizes.send(size).await.is_err()
            {
                break;
            }
            changes.recv().await;
        }
    }
    pending().await
}
