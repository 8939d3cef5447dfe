//! Trainings that end and go on from a checkpoint.

use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::Signal;

use crate::job::{Job, WORLD_SIZE, arguments, digits, field, text};

/// A folder for a job's data, checkpoints and models.
struct Place {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = digits(folder.path());
        Self { folder, data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The words of a job that writes its model to `model`, and its checkpoints, if at all, to `kept`.
    fn words(&self, model: &str, kept: Option<&str>, more: &[&str]) -> Vec<String> {
        let mut words =
            arguments(&self.data, &["--epochs=60", "--seed=7", "--checkpoint-every=5", "--log-every=1"]);
        words.push(format!("--output={}", self.path(model).display()));
        words.extend(kept.map(|kept| format!("--checkpoint={}", self.path(kept).display())));
        words.extend(more.iter().map(ToString::to_string));
        words
    }

    fn model(&self, model: &str) -> Vec<u8> {
        fs_err::read(self.path(model).join("model.safetensors")).unwrap()
    }
}

fn finish(job: &mut Job<'_>) -> Vec<Output> {
    (0..WORLD_SIZE).map(|rank| job.finish(rank)).collect()
}

/// Runs a job to its good end; what rank 0 printed.
fn succeeds(folder: &Path, words: &[String]) -> String {
    let outputs = finish(&mut Job::start(folder, |_| words.to_vec()));
    for output in &outputs {
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    text(&outputs[0].stdout).to_owned()
}

fn step_of(printed: &str, event: &str) -> u64 {
    let line =
        printed.lines().find(|line| line.starts_with(event)).unwrap_or_else(|| panic!("{event}: {printed}"));
    field(line, "step").parse().unwrap()
}

#[test]
fn a_job_that_was_stopped_or_killed_goes_on_and_the_model_is_the_same_to_the_bit() {
    for sharding in ["none", "optimizer", "parameters"] {
        let place = Place::new();
        let more = [&*format!("--sharding={sharding}")];
        succeeds(place.folder.path(), &place.words("undisturbed", None, &more));
        let words = place.words("model", Some("kept"), &more);
        let mut job = Job::start(place.folder.path(), |_| words.clone());
        job.wait_for(0, "event=checkpoint step=5");
        job.signal(2, Signal::SIGTERM);
        let stopped = finish(&mut job);
        assert_eq!(stopped[2].status.code(), Some(143), "{}", text(&stopped[2].stderr));
        let last = step_of(text(&stopped[0].stdout).lines().last().unwrap(), "event=checkpoint ");
        let stopped = text(&stopped[0].stdout)
            .lines()
            .rfind(|line| line.starts_with("step="))
            .map(|line| field(line, "step"));
        assert_eq!(stopped, Some(last.to_string()), "the job keeps what it has when it is told to stop");

        let mut job = Job::start(place.folder.path(), |_| words.clone());
        job.wait_for(0, &format!("event=resumed rank=0 step={last}"));
        job.wait_for(0, "event=checkpoint ");
        (0..WORLD_SIZE).for_each(|rank| job.signal(rank, Signal::SIGKILL));
        drop(finish(&mut job));

        let printed = succeeds(place.folder.path(), &words);
        assert!(step_of(&printed, "event=resumed ") > last, "{printed}");
        assert!(place.model("model") == place.model("undisturbed"), "{sharding}");
        let steps = fs_err::read_dir(place.path("kept")).unwrap().count();
        assert_eq!(steps, 3, "the newest three checkpoints stay");
        // Once more: nothing is left to do.
        let printed = succeeds(place.folder.path(), &words);
        assert_eq!(printed.lines().count(), 2, "{printed}");
        assert!(place.model("model") == place.model("undisturbed"));
    }
}

#[test]
fn another_number_of_ranks_goes_on_with_another_sharding() {
    let place = Place::new();
    let words = place.words("model", Some("kept"), &["--sharding=parameters", "--max-steps=20"]);
    succeeds(place.folder.path(), &words);
    let words = place.words("model", Some("kept"), &["--sharding=none", "--epochs=70"]);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_muster-train"))
        .args(words)
        .env_remove("WORLD_SIZE")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert_eq!(step_of(printed, "event=resumed "), 20);
    let result = printed.lines().last().unwrap();
    assert!(field(result, "test_accuracy").parse::<f64>().unwrap() > 0.9, "{result}");
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_taken() {
    let place = Place::new();
    let words = place.words("model", Some("kept"), &[]);
    succeeds(place.folder.path(), &words);
    let model = place.model("model");
    let mut steps: Vec<PathBuf> =
        fs_err::read_dir(place.path("kept")).unwrap().map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    let newest = steps.last().unwrap();
    let shard = fs_err::read_dir(newest)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("shard-00002"))
        .unwrap();
    let mut bytes = fs_err::read(&shard).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&shard, bytes).unwrap();
    let printed = succeeds(place.folder.path(), &words);
    let damaged = printed.lines().find(|line| line.starts_with("event=checkpoint-damaged ")).unwrap();
    assert!(damaged.contains("shard-00002"), "{damaged}");
    assert!(step_of(&printed, "event=resumed ") < step_of(damaged, "event="));
    assert!(place.model("model") == model);
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let place = Place::new();
    succeeds(place.folder.path(), &place.words("model", Some("kept"), &["--max-steps=6"]));
    let words = place.words("model", Some("kept"), &["--hidden=7"]);
    for output in finish(&mut Job::start(place.folder.path(), |_| words.clone())) {
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(message.contains("the checkpoint of step 6 is of another model"), "{message}");
    }
}
