//! Ranks are killed at random steps, and the others go on.
//!
//! `MUSTER_SEEDS` sets how many random kills are tried (50 for a long run).

use std::path::Path;

use nix::sys::signal::Signal;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::job::{Job, WORLD_SIZE, arguments, digits, field, text};

/// Random kills of a short run.
const SEEDS: u64 = 4;

/// Ways to share the state, one seed after the other.
fn sharding(seed: u64) -> &'static str {
    ["--sharding=none", "--sharding=parameters", "--sharding=gradients", "--sharding=optimizer"]
        [(seed % 4) as usize]
}

fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("MUSTER_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap())
}

/// Kills a rank at a random step; whom.
fn kill_someone(job: &mut Job<'_>, seed: u64) -> usize {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (victim, step) = (random.random_range(0..WORLD_SIZE), random.random_range(1..40));
    job.wait_for(0, &format!("step={step} "));
    job.signal(victim, Signal::SIGKILL);
    assert!(!job.finish(victim).status.success());
    victim
}

/// The model that a job wrote, once all its ranks have succeeded; and what the others than `victim` printed.
fn finish(job: &mut Job<'_>, model: &Path, ranks: impl Iterator<Item = usize>) -> (Vec<u8>, Vec<String>) {
    let mut printed = Vec::new();
    for rank in ranks {
        let output = job.finish(rank);
        assert!(output.status.success(), "rank {rank}: {}", text(&output.stderr));
        printed.push(text(&output.stdout).to_owned());
    }
    (fs_err::read(model.join("model.safetensors")).unwrap(), printed)
}

fn options<'a>(output: &'a str, sharding: &'a str) -> [&'a str; 7] {
    ["--on-loss=wait", output, sharding, "--epochs=4", "--seed=7", "--log-every=1", "--join-deadline=60s"]
}

#[test]
fn a_rank_that_is_started_again_goes_on_and_the_model_is_the_same_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let model = folder.path().join("undisturbed");
    let output = format!("--output={}", model.display());
    let mut job = Job::start(folder.path(), |_| arguments(&data, &options(&output, sharding(0))));
    let (undisturbed, _) = finish(&mut job, &model, 0..WORLD_SIZE);
    for seed in seeds() {
        let model = folder.path().join(format!("model-{seed}"));
        let output = format!("--output={}", model.display());
        let peers = tempfile::tempdir().unwrap();
        let mut job = Job::start(peers.path(), |_| arguments(&data, &options(&output, sharding(seed))));
        let victim = kill_someone(&mut job, seed);
        job.start_rank(victim);
        let (disturbed, printed) = finish(&mut job, &model, 0..WORLD_SIZE);
        assert!(disturbed == undisturbed, "seed {seed}: rank {victim} was killed, and the model is another");
        for (rank, printed) in printed.iter().enumerate().filter(|(rank, _)| *rank != victim) {
            let line = |event: &str| {
                printed.lines().find(|line| line.starts_with(event)).unwrap_or_else(|| panic!("{printed}"))
            };
            let step = |line: &str| field(line, "step").parse::<u64>().unwrap();
            let (loss, regrouped) = (line("event=loss "), line("event=regrouped "));
            assert!(loss.contains(&format!("lost rank {victim} on digits-{victim}")), "rank {rank}: {loss}");
            assert_eq!(field(regrouped, "world_size"), WORLD_SIZE.to_string());
            // A rank may be one step behind another that had finished it, and copies one step behind both.
            assert!(step(regrouped).abs_diff(step(loss)) <= 1, "{loss} then {regrouped}");
        }
    }
}

#[test]
fn a_rank_that_is_lost_after_the_last_step_does_not_end_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    // One sample a batch: measuring the accuracy takes far longer than the steps.
    let more = ["--max-steps=5", "--batch-size=1", "--hidden=2048", "--test-fraction=0.9"];
    for (seed, on_loss) in ["--on-loss=wait", "--on-loss=continue"].into_iter().enumerate() {
        let model = folder.path().join(on_loss);
        let output = format!("--output={}", model.display());
        let checkpoints = format!("--checkpoint={}", folder.path().join(format!("kept-{seed}")).display());
        let words = [&more[..], &[on_loss, sharding(seed as u64), &output, &checkpoints]].concat();
        let peers = tempfile::tempdir().unwrap();
        let mut job = Job::start(peers.path(), |_| arguments(&data, &words));
        job.wait_for(0, "step=5 ");
        job.signal(2, Signal::SIGKILL);
        assert!(!job.finish(2).status.success(), "{on_loss}: it was killed too late");
        let mut left = vec![0, 1, 3];
        if on_loss == "--on-loss=wait" {
            job.start_rank(2);
            left.push(2);
        }
        let (_, printed) = finish(&mut job, &model, left.into_iter());
        let last = printed[0].lines().last().unwrap();
        assert_eq!(field(last, "steps"), "5", "{last}");
        for printed in &printed[..3] {
            let regrouped = printed.lines().find(|line| line.starts_with("event=regrouped ")).unwrap();
            // Copies of shares may be of the step before, which is then taken again.
            assert!(matches!(&*field(regrouped, "step"), "4" | "5"), "{on_loss}: {printed}");
        }
    }
}

#[test]
fn ranks_go_on_without_a_lost_one_and_learn() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    for seed in seeds() {
        let model = folder.path().join(format!("model-{seed}"));
        let output = format!("--output={}", model.display());
        let peers = tempfile::tempdir().unwrap();
        let more = [
            "--on-loss=continue",
            sharding(seed),
            &output,
            "--epochs=12",
            "--batch-size=16",
            "--hidden=64",
            "--seed=7",
            "--log-every=1",
        ];
        let mut job = Job::start(peers.path(), |_| arguments(&data, &more));
        let victim = kill_someone(&mut job, seed);
        let left: Vec<usize> = (0..WORLD_SIZE).filter(|rank| *rank != victim).collect();
        let (_, printed) = finish(&mut job, &model, left.iter().copied());
        let last = printed[0].lines().last().unwrap();
        assert!(last.starts_with("result "), "the lowest rank that is left reports: {last}");
        assert!(field(last, "test_accuracy").parse::<f64>().unwrap() >= 0.95, "{last}");
        for (new_rank, printed) in printed.iter().enumerate() {
            let regrouped = printed.lines().find(|line| line.starts_with("event=regrouped ")).unwrap();
            assert_eq!(
                (field(regrouped, "rank"), field(regrouped, "world_size")),
                (new_rank.to_string(), "3".into())
            );
        }
    }
}

#[test]
fn ranks_that_wait_for_another_still_hear_signals() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let more = ["--on-loss=wait", "--epochs=100000", "--log-every=1"];
    let mut job = Job::start(folder.path(), |_| arguments(&data, &more));
    let victim = kill_someone(&mut job, 3);
    let left: Vec<usize> = (0..WORLD_SIZE).filter(|rank| *rank != victim).collect();
    for rank in &left {
        job.wait_for(*rank, "event=loss ");
        job.signal(*rank, Signal::SIGTERM);
    }
    for rank in left {
        let output = job.finish(rank);
        assert_eq!(output.status.code(), Some(143), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("stopped by SIGTERM"), "{}", text(&output.stderr));
    }
}

#[test]
fn too_few_ranks_do_not_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let more = ["--on-loss=continue", "--min-ranks=4", "--epochs=100000", "--log-every=1"];
    let mut job = Job::start(folder.path(), |_| arguments(&data, &more));
    let victim = kill_someone(&mut job, 1);
    for rank in (0..WORLD_SIZE).filter(|rank| *rank != victim) {
        let output = job.finish(rank);
        assert_eq!(output.status.code(), Some(138), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(&format!("lost rank {victim} ")), "{}", text(&output.stderr));
    }
}

#[test]
fn shares_that_are_lost_with_their_copies_are_gone_and_the_job_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let more = ["--on-loss=continue", "--sharding=gradients", "--epochs=100000", "--log-every=1"];
    let mut job = Job::start(folder.path(), |_| arguments(&data, &more));
    job.wait_for(0, "step=5 ");
    for rank in [1, 2] {
        job.signal(rank, Signal::SIGSTOP);
    }
    for rank in [1, 2] {
        job.signal(rank, Signal::SIGKILL);
    }
    for rank in [0, 3] {
        let output = job.finish(rank);
        assert_eq!(output.status.code(), Some(138), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("error=\"rank "), "{}", text(&output.stdout));
        assert!(
            text(&output.stderr).contains("share of the training state is gone"),
            "{}",
            text(&output.stderr)
        );
    }
}
