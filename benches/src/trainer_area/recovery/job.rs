//! A training job of a few processes whose lines are read with the time at which they came.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::area::Settings;

/// Ranks of a job.
pub(super) const RANKS: usize = 4;

/// No line takes longer than this to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A line that a rank printed.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) rank: usize,
    pub(super) at: Instant,
    pub(super) text: String,
}

impl Line {
    /// The value of one of its pairs.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.text.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }
}

/// The processes of a job, which end with this value.
pub(super) struct Job<'a> {
    settings: &'a Settings,
    folder: TempDir,
    words: Vec<String>,
    processes: Vec<Option<Child>>,
    lines: mpsc::UnboundedReceiver<Line>,
    sender: mpsc::UnboundedSender<Line>,
}

impl<'a> Job<'a> {
    /// Starts `muster train` with these words on all ranks.
    pub(super) fn start(settings: &'a Settings, words: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
        let words = words.iter().map(ToString::to_string).collect();
        let (sender, lines) = mpsc::unbounded_channel();
        let mut job = Self { settings, folder, words, processes: Vec::new(), lines, sender };
        job.processes.resize_with(RANKS, || None);
        for rank in 0..RANKS {
            job.start_rank(rank)?;
        }
        Ok(job)
    }

    /// Starts a rank, in place of one that has ended.
    pub(super) fn start_rank(&mut self, rank: usize) -> Result<()> {
        let mut command = Command::new(&self.settings.muster);
        command.arg("train").args(&self.words);
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", RANKS.to_string());
        command.env("MASTER_ADDR", "bars-master-0").env("MASTER_PORT", "23456");
        command.env("HOSTNAME", format!("bars-{rank}")).env("MUSTER_PEERS_DIR", self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a rank")?;
        let output = child.stdout.take().context("a rank without output")?;
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(text)) = output.next_line().await {
                // Whoever lost interest has dropped the job.
                let _heard = sender.send(Line { rank, at: Instant::now(), text });
            }
        });
        self.processes[rank] = Some(child);
        Ok(())
    }

    /// The next line of any rank.
    pub(super) async fn line(&mut self) -> Result<Line> {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        line.context("the job is silent")?.context("the job has ended")
    }

    /// Reads lines up to the first that `wanted` takes.
    pub(super) async fn line_with(&mut self, wanted: impl Fn(&Line) -> bool) -> Result<Line> {
        loop {
            let line = self.line().await?;
            if wanted(&line) {
                return Ok(line);
            }
        }
    }

    /// The process of a rank.
    pub(super) fn process(&self, rank: usize) -> Option<u32> {
        self.processes[rank].as_ref()?.id()
    }

    /// Kills a rank; when.
    pub(super) async fn kill(&mut self, rank: usize) -> Result<Instant> {
        let mut child = self.processes[rank].take().context("the rank does not run")?;
        let process =
            child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the rank has ended")?;
        let at = Instant::now();
        kill_process(process, Signal::KILL)?;
        child.wait().await?;
        Ok(at)
    }

    /// Waits until the ranks that still run have ended well.
    pub(super) async fn finish(mut self) -> Result<()> {
        for (rank, child) in self.processes.iter_mut().enumerate() {
            if let Some(child) = child {
                let status = timeout(PATIENCE, child.wait()).await;
                let status = status.with_context(|| format!("rank {rank} does not end"))??;
                ensure!(status.success(), "rank {rank} ended with {status}");
            }
        }
        let left = fs_err::read_dir(self.folder.path())?.count();
        if left > 0 {
            bail!("the ranks left {left} files where they met");
        }
        Ok(())
    }
}

/// Writes a table of numbers that a small network can learn.
pub(super) fn write_data(path: &Path) -> Result<()> {
    let mut lines = Vec::new();
    for row in 0..4000_u32 {
        let value = |column: u32| {
            f64::from((row * 31 + column * 17) % 101) / 101.0 + f64::from(row * column % 7) * 0.1
        };
        let values: Vec<String> = (0..16).map(|column| format!("{:.3}", value(column))).collect();
        // Five classes by the size of the first value.
        lines.push(format!("{},{}", values.join(","), row * 31 % 101 * 5 / 101));
    }
    Ok(fs_err::write(path, lines.join("\n"))?)
}
