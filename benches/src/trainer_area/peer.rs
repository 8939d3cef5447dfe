//! A peer that measures on request. Its ranks sleep in a read while others are measured.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a peer may take for one size, or to come up.
const PATIENCE: Duration = Duration::from_mins(5);

/// The pipes through which the ranks of a peer take requests, one a rank.
pub(super) struct Requests {
    folder: TempDir,
    pipes: Vec<pipe::Sender>,
}

impl Requests {
    pub(super) fn new(ranks: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
        let open = |rank: usize| -> Result<pipe::Sender> {
            let path = folder.path().join(rank.to_string());
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            // Opened for reading too, so that it need not wait for the rank.
            Ok(pipe::OpenOptions::new().read_write(true).open_sender(path)?)
        };
        let pipes = (0..ranks).map(open).collect::<Result<_>>()?;
        Ok(Self { folder, pipes })
    }

    /// Where the pipes are, each called like its rank.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// A running peer.
pub(super) struct Peer {
    requests: Requests,
    answers: Lines<BufReader<ChildStdout>>,
    processes: Vec<Child>,
}

impl Peer {
    /// Starts its processes, of which the first answers.
    pub(super) fn start(requests: Requests, commands: Vec<Command>) -> Result<Self> {
        let mut processes = Vec::new();
        for mut command in commands {
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
            processes.push(command.spawn().context("cannot start a peer")?);
        }
        let first = processes.first_mut().and_then(|process| process.stdout.take());
        let answers = BufReader::new(first.context("a peer has no output")?).lines();
        Ok(Self { requests, answers, processes })
    }

    /// Seconds of one all-reduce.
    pub(super) async fn measure(&mut self, bytes: usize, repetitions: usize) -> Result<f64> {
        let request = format!("{bytes} {repetitions}\n");
        for pipe in &mut self.requests.pipes {
            pipe.write_all(request.as_bytes()).await?;
        }
        let answer =
            timeout(PATIENCE, self.answers.next_line()).await.context("a peer does not answer")??;
        match answer.as_deref() {
            None => bail!("a peer ended"),
            Some(answer) => answer.trim().parse().with_context(|| format!("a peer answers {answer:?}")),
        }
    }

    /// Lets its processes end.
    pub(super) async fn finish(self) {
        let Self { requests, processes, .. } = self;
        drop(requests);
        for mut process in processes {
            // Whatever does not end by itself is killed as it is dropped.
            let _ended = timeout(Duration::from_secs(10), process.wait()).await;
        }
    }
}
