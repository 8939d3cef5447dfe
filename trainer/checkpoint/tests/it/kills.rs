//! A trainer that is killed at any moment, again and again, and one without room on its disk.

use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use muster_checkpoint::{Checkpoint, Checkpoints, DataType, Place, Retention, Shard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::samples::{PATIENCE, Sample, evenly, options};

const ROLE: &str = "kills::role_of_a_trainer";
const RANKS: usize = 2;
const KILLS: usize = 40;

fn samples(step: u64) -> [Sample; 2] {
    [
        Sample::new("weights", DataType::F32, &[300, 100], step),
        Sample::new("moments", DataType::F64, &[20_000], step + 1),
    ]
}

fn check(checkpoint: &Checkpoint) {
    checkpoint.verify().unwrap();
    assert_eq!(checkpoint.state(), &json!({ "step": checkpoint.step() }));
    for sample in samples(checkpoint.step()) {
        let all = 0..sample.tensor.elements();
        assert!(checkpoint.read(sample.tensor.name(), all).unwrap() == sample.bytes);
    }
}

/// Not a test by itself: trains until it is killed, and says what it has committed.
#[test]
fn role_of_a_trainer() {
    let Ok(folder) = std::env::var("MUSTER_TEST_FOLDER") else { return };
    let checkpoints = Checkpoints::open(&folder).unwrap();
    checkpoints.clean().unwrap();
    let latest = checkpoints.latest().unwrap();
    if let Some(checkpoint) = &latest {
        check(checkpoint);
    }
    let mut savers: Vec<_> = (0..RANKS)
        .map(|rank| checkpoints.saver(Place { rank, world_size: RANKS }, options()).unwrap())
        .collect();
    let retention = Retention { newest: NonZeroUsize::new(2).unwrap(), every: None };
    for step in latest.map_or(0, |checkpoint| checkpoint.step()) + 1.. {
        let samples = samples(step);
        let held = evenly(&samples, RANKS);
        let saves: Vec<_> = savers
            .iter_mut()
            .zip(&held)
            .map(|(saver, held)| {
                let mut shard = Shard::new();
                for (index, range) in held {
                    shard.add(&samples[*index].tensor, range.clone(), samples[*index].part(range)).unwrap();
                }
                saver.begin(step, &shard).unwrap()
            })
            .collect();
        let receipts: Vec<_> = saves.iter().map(|save| save.wait(PATIENCE).unwrap()).collect();
        checkpoints.commit(&receipts, json!({ "step": step })).unwrap();
        println!("committed {step}");
        checkpoints.retain(&retention).unwrap();
    }
}

/// The trainer's process, which does not outlive this.
struct Trainer {
    child: Child,
    committed: Receiver<u64>,
}

impl Trainer {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ROLE, "--nocapture", "--test-threads=1"])
            .env("MUSTER_TEST_FOLDER", folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, committed) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let step = line.split_once("committed ").and_then(|(_, step)| step.parse().ok());
                if step.is_some_and(|step| say.send(step).is_err()) {
                    return;
                }
            }
        });
        Self { child, committed }
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        // SIGKILL.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn killed_at_any_moment_nothing_that_was_committed_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(7);
    let mut last = 0;
    for _ in 0..KILLS {
        let trainer = Trainer::start(folder.path());
        // It gets a few steps on, and dies somewhere in the next one.
        for _ in 0..random.random_range(1..4) {
            last = trainer.committed.recv_timeout(PATIENCE).unwrap();
        }
        let moment = Duration::from_micros(random.random_range(0..20_000));
        loop {
            match trainer.committed.recv_timeout(moment) {
                Ok(step) => last = step,
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => panic!("the trainer ended"),
            }
            if random.random() {
                break;
            }
        }
        drop(trainer);

        let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
        let steps = checkpoints.steps().unwrap();
        assert!(steps[0] >= last, "{last} was committed, and {steps:?} are there");
        for step in steps {
            check(&checkpoints.checkpoint(step).unwrap());
        }
    }
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    checkpoints.clean().unwrap();
    let steps = checkpoints.steps().unwrap();
    let files = fs_err::read_dir(folder.path())
        .unwrap()
        .map(|folder| fs_err::read_dir(folder.unwrap().path()).unwrap().count());
    assert_eq!(files.sum::<usize>(), steps.len() * (1 + RANKS), "a manifest and the shards of each");
    assert!(last >= KILLS as u64);
}

/// Not a test by itself: saves where files may have 64 or 128 KiB at most.
#[test]
fn role_of_a_writer_without_room() {
    let Ok(folder) = std::env::var("MUSTER_TEST_CRAMPED_FOLDER") else { return };
    let checkpoints = Checkpoints::open(&folder).unwrap();
    let mut saver = checkpoints.saver(Place { rank: 0, world_size: 1 }, options()).unwrap();
    for (step, length) in [(1, 50_000), (2, 200_000), (3, 50_000)] {
        let sample = Sample::new("a", DataType::U8, &[length], step);
        let mut shard = Shard::new();
        shard.add_whole(&sample.tensor, &sample.bytes).unwrap();
        match saver.begin(step, &shard).unwrap().wait(PATIENCE) {
            Ok(receipt) => drop(checkpoints.commit(&[receipt], json!(step)).unwrap()),
            Err(error) => println!("refused: {error}"),
        }
    }
    saver.finish(PATIENCE).unwrap();
}

#[test]
fn a_shard_for_which_there_is_no_room_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        // Files end at 128 blocks, of 512 bytes or of 1024 by the shell, and the signal that says so is ignored: writes fail.
        .args(["-c", r#"trap '' XFSZ; ulimit -f 128; exec "$0" "$@""#])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "kills::role_of_a_writer_without_room", "--nocapture", "--test-threads=1"])
        .env("MUSTER_TEST_CRAMPED_FOLDER", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("refused: saving step 2 failed: cannot write step-00000000000000000002/"),
        "{said}"
    );
    let checkpoints = Checkpoints::open(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [3, 1]);
    assert!(checkpoints.latest_intact().unwrap().damaged.is_empty());
    assert!(checkpoints.clean().unwrap().is_empty());
}
