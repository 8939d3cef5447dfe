//! The training program as real processes, on the data of the example.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod engine;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WORLD_SIZE: usize = 4;

/// The example's training data, as a file.
fn digits(folder: &Path) -> PathBuf {
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

/// The ranks of one job; killed when dropped.
struct Job(Vec<Option<Child>>);

impl Job {
    fn start(peers: &Path, arguments: impl Fn(usize) -> Vec<String>) -> Self {
        Self::start_with(arguments, |command, _| {
            command.env("MASTER_ADDR", "digits-master-0").env("MUSTER_PEERS_DIR", peers);
        })
    }

    /// Each rank as if on a host of its own: no other sees its files, and all know only where rank 0 listens.
    fn start_on_hosts(folder: &Path, arguments: impl Fn(usize) -> Vec<String>) -> Self {
        // No other process has this number, and so none this address.
        let [_, first, second, third] = (std::process::id() << 1 | 1).to_be_bytes();
        let address = Ipv4Addr::new(127, first, second, third).to_string();
        Self::start_with(arguments, |command, rank| {
            let own = folder.join(format!("host-{rank}"));
            fs_err::create_dir_all(&own).unwrap();
            command.env("MASTER_ADDR", &address).env_remove("MUSTER_PEERS_DIR").env("TMPDIR", own);
        })
    }

    fn start_with(arguments: impl Fn(usize) -> Vec<String>, place: impl Fn(&mut Command, usize)) -> Self {
        let rank = |rank: usize| {
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
            command.spawn().unwrap()
        };
        Self((0..WORLD_SIZE).map(|number| Some(rank(number))).collect())
    }

    /// Waits until a rank has printed a line with `text`.
    fn wait_for(&mut self, rank: usize, text: &str) {
        let output = self.0[rank].as_mut().unwrap().stdout.as_mut().unwrap();
        let mut lines = BufReader::with_capacity(1, output).lines();
        assert!(lines.any(|line| line.unwrap().contains(text)), "rank {rank} never printed {text:?}");
    }

    fn signal(&self, rank: usize, signal: Signal) {
        let child = self.0[rank].as_ref().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    fn finish(&mut self, rank: usize) -> Output {
        self.0[rank].take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn arguments(data: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = vec![format!("--data={}", data.display())];
    arguments.extend(more.iter().map(ToString::to_string));
    arguments
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn four_ranks_learn_the_digits_and_two_runs_agree_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let mut models = Vec::new();
    for run in 0..2 {
        let peers = tempfile::tempdir().unwrap();
        let model = folder.path().join(format!("model-{run}"));
        let output = format!("--output={}", model.display());
        let more = ["--epochs=12", "--batch-size=16", "--hidden=64", "--seed=7", &output];
        let mut job = Job::start(peers.path(), |_| arguments(&data, &more));
        let outputs: Vec<Output> = (0..WORLD_SIZE).map(|rank| job.finish(rank)).collect();
        for output in &outputs {
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let result = text(&outputs[0].stdout).lines().last().unwrap().to_owned();
        let field = |name: &str| {
            let start = result.find(name).unwrap_or_else(|| panic!("{name} in {result}")) + name.len() + 1;
            result[start..].split(' ').next().unwrap().to_owned()
        };
        assert!(result.starts_with("result steps=276 "), "{result}");
        assert!(field("test_accuracy").parse::<f64>().unwrap() >= 0.95, "{result}");
        assert!(field("communication_seconds").parse::<f64>().unwrap() > 0.0);
        assert_eq!(field("model"), model.join("model.safetensors").display().to_string());
        assert_eq!(text(&outputs[2].stdout).lines().count(), 12, "a worker prints a line per epoch");
        assert_eq!(fs_err::read_dir(peers.path()).unwrap().count(), 0);
        models.push(fs_err::read(model.join("model.safetensors")).unwrap());
    }
    assert_eq!(models[0], models[1]);
}

#[test]
fn ranks_on_hosts_of_their_own_learn_what_ranks_of_one_host_learn_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let learn = |place: &str| {
        let model = folder.path().join(format!("model-{place}"));
        let output = format!("--output={}", model.display());
        let arguments = |_| arguments(&data, &["--epochs=2", "--seed=7", &output]);
        let mut job = match place {
            "hosts" => Job::start_on_hosts(folder.path(), arguments),
            _ => Job::start(folder.path(), arguments),
        };
        for rank in 0..WORLD_SIZE {
            let output = job.finish(rank);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        fs_err::read(model.join("model.safetensors")).unwrap()
    };
    assert!(learn("hosts") == learn("host"));
}

#[test]
fn a_killed_rank_is_named_by_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let mut job = Job::start(folder.path(), |_| arguments(&data, &["--epochs=100000"]));
    job.wait_for(0, "step=20 ");
    let killed = Instant::now();
    job.signal(2, Signal::SIGKILL);
    for rank in [0, 1, 3] {
        let output = job.finish(rank);
        assert_eq!(output.status.code(), Some(138), "{}", text(&output.stderr));
        let expected = format!("muster-train: rank {rank}: lost rank 2 on digits-2: its process ended");
        assert!(text(&output.stderr).starts_with(&expected), "{}", text(&output.stderr));
    }
    assert!(killed.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_signal_ends_all_ranks_between_two_steps() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let mut job = Job::start(folder.path(), |_| arguments(&data, &["--epochs=100000"]));
    job.wait_for(0, "step=20 ");
    job.signal(1, Signal::SIGTERM);
    for (rank, code, message) in [(1, 143, "stopped by SIGTERM"), (0, 138, "another rank was asked to stop")]
    {
        let output = job.finish(rank);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
    }
}

#[test]
fn ranks_with_other_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let seed = |rank: usize| if rank == 3 { "--seed=2" } else { "--seed=1" };
    let mut job = Job::start(folder.path(), |rank| arguments(&data, &[seed(rank)]));
    for rank in 0..WORLD_SIZE {
        let output = job.finish(rank);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("rank 3 was started with other settings than rank 0"));
    }
}

#[test]
fn bad_input_is_named_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.csv");
    fs_err::write(&file, "1,2,a\n1,two,b\n").unwrap();
    let alone = |arguments: &[String], environment: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_muster-train"))
            .args(arguments)
            .env_remove("WORLD_SIZE")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let (code, message) = alone(&arguments(&file, &[]), &[]);
    assert_eq!(code, Some(1));
    assert!(message.ends_with("bad.csv:2: column 2 is \"two\", not a number\n"), "{message}");

    let job = [("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_PORT", "1")];
    let (code, message) = alone(&arguments(&file, &[]), &job);
    assert_eq!(code, Some(2));
    assert!(message.contains("MASTER_ADDR is not set, but WORLD_SIZE is 2"), "{message}");
}
