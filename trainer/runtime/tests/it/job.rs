//! Jobs of several processes.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const WORLD_SIZE: usize = 4;

/// An address of this machine that no other process uses, since none has this process's number.
pub(crate) fn own_address() -> Ipv4Addr {
    let [_, first, second, third] = (std::process::id() << 1 | 1).to_be_bytes();
    Ipv4Addr::new(127, first, second, third)
}

/// The example's training data, as a file.
pub(crate) fn digits(folder: &Path) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/pytorchjob.yaml");
    let manifest = fs_err::read_to_string(manifest).unwrap();
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&manifest).unwrap();
    let data = documents.iter().find(|document| document["kind"] == "ConfigMap").unwrap();
    let encoded = data["binaryData"]["digits.csv.gz"].as_str().unwrap();
    let path = folder.join("digits.csv.gz");
    fs_err::write(&path, base64::Engine::decode(&base64::prelude::BASE64_STANDARD, encoded).unwrap())
        .unwrap();
    path
}

/// A rank that runs. What it prints is read at once, so that it never waits for whoever looks at another.
struct Rank {
    child: Child,
    lines: Receiver<String>,
    errors: JoinHandle<Vec<u8>>,
}

impl Rank {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // The receiver goes with the rank.
            output.lines().map(Result::unwrap).try_for_each(|line| sender.send(line))
        });
        let mut errors = child.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            errors.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Self { child, lines, errors }
    }
}

/// The ranks of one job; killed when dropped.
pub(crate) struct Job<'a> {
    ranks: Vec<Option<Rank>>,
    command: Box<dyn Fn(usize) -> Command + 'a>,
}

impl<'a> Job<'a> {
    pub(crate) fn start(peers: &'a Path, arguments: impl Fn(usize) -> Vec<String> + 'a) -> Self {
        Self::start_with(arguments, move |command, _| {
            command.env("MASTER_ADDR", "digits-master-0").env("MUSTER_PEERS_DIR", peers);
        })
    }

    /// Each rank as if on a host of its own: no other sees its files, and all know only where rank 0 listens.
    pub(crate) fn start_on_hosts(folder: &'a Path, arguments: impl Fn(usize) -> Vec<String> + 'a) -> Self {
        let address = own_address().to_string();
        Self::start_with(arguments, move |command, rank| {
            let own = folder.join(format!("host-{rank}"));
            fs_err::create_dir_all(&own).unwrap();
            command.env("MASTER_ADDR", &address).env_remove("MUSTER_PEERS_DIR").env("TMPDIR", own);
        })
    }

    fn start_with(
        arguments: impl Fn(usize) -> Vec<String> + 'a,
        place: impl Fn(&mut Command, usize) + 'a,
    ) -> Self {
        let mut job = Self::prepare(arguments, place);
        (0..WORLD_SIZE).for_each(|rank| job.start_rank(rank));
        job
    }

    /// No rank has been started yet.
    pub(crate) fn prepare(
        arguments: impl Fn(usize) -> Vec<String> + 'a,
        place: impl Fn(&mut Command, usize) + 'a,
    ) -> Self {
        let command = move |rank: usize| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_muster-train"));
            command
                .args(arguments(rank))
                .env("RANK", rank.to_string())
                .env("WORLD_SIZE", WORLD_SIZE.to_string())
                .env("MASTER_PORT", "23456")
                .env("HOSTNAME", format!("digits-{rank}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            place(&mut command, rank);
            command
        };
        let mut job = Self { ranks: Vec::new(), command: Box::new(command) };
        job.ranks.resize_with(WORLD_SIZE, || None);
        job
    }

    /// Starts a rank, which must not run.
    pub(crate) fn start_rank(&mut self, rank: usize) {
        assert!(self.ranks[rank].is_none());
        self.ranks[rank] = Some(Rank::start(&mut (self.command)(rank)));
    }

    /// Waits until a rank has printed a line with `text`, and gives it.
    pub(crate) fn wait_for(&mut self, rank: usize, text: &str) -> String {
        let line = self.ranks[rank].as_ref().unwrap().lines.iter().find(|line| line.contains(text));
        line.unwrap_or_else(|| {
            let said = self.finish(rank).stderr;
            panic!("rank {rank} never printed {text:?}; {}", String::from_utf8_lossy(&said))
        })
    }

    pub(crate) fn signal(&self, rank: usize, signal: Signal) {
        let Rank { child, .. } = self.ranks[rank].as_ref().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end of a rank, and gives what it printed beside what was waited for.
    pub(crate) fn finish(&mut self, rank: usize) -> Output {
        let Rank { mut child, lines, errors } = self.ranks[rank].take().unwrap();
        let stdout: String = lines.iter().map(|line| line + "\n").collect();
        let stderr = errors.join().unwrap();
        Output { status: child.wait().unwrap(), stdout: stdout.into_bytes(), stderr }
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        for Rank { child, .. } in self.ranks.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn arguments(data: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec![format!("--data={}", data.display())];
    arguments.extend(more.iter().map(ToString::to_string));
    arguments
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The value of a field in a line of pairs.
pub(crate) fn field(line: &str, name: &str) -> String {
    let start = line.find(&format!("{name}=")).unwrap_or_else(|| panic!("{name} in {line}")) + name.len() + 1;
    line[start..].split(' ').next().unwrap().to_owned()
}
