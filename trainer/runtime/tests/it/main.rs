//! The training program as real processes, on the data of the example.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod checkpoints;
mod elastic;
mod engine;
mod job;
mod operations;
mod recovery;
mod reporting;
#[path = "../../../rendezvous/tests/it/running.rs"]
mod running;
#[path = "../shared/mod.rs"]
mod shared;
mod watching;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::job::{Job, WORLD_SIZE, arguments, digits, field, text};

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
        let field = |name: &str| field(&result, name);
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
fn samples_in_a_file_teach_what_samples_in_memory_teach_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let learn = |memory: &str| {
        let (model, peers) = (folder.path().join(memory), tempfile::tempdir().unwrap());
        let output = format!("--output={}", model.display());
        let memory = format!("--data-memory={memory}");
        let mut job =
            Job::start(peers.path(), |_| arguments(&data, &["--epochs=2", "--seed=7", &output, &memory]));
        for rank in 0..WORLD_SIZE {
            let output = job.finish(rank);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        fs_err::read(model.join("model.safetensors")).unwrap()
    };
    assert!(learn("0") == learn("64"));
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

    let (code, message) = alone(&arguments(&file, &["--device=gpu"]), &[]);
    assert_eq!(code, Some(2));
    assert!(message.contains("--device gpu needs --library libtorch"), "{message}");

    let job = [("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_PORT", "1")];
    let (code, message) = alone(&arguments(&file, &[]), &job);
    assert_eq!(code, Some(2));
    assert!(message.contains("MASTER_ADDR is not set, but there are 2 ranks"), "{message}");
}

#[cfg(not(feature = "libtorch"))]
#[test]
fn a_build_without_libtorch_says_how_to_get_one() {
    let words = ["--library=libtorch", "--data=digits.csv"];
    let output = Command::new(env!("CARGO_BIN_EXE_muster-train")).args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(
        message.contains("`cargo xtask libtorch`") && message.contains("--features libtorch"),
        "{message}"
    );
}
