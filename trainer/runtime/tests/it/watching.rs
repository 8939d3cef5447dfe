//! What people see of a training, beside the lines that ranks print.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::job::{Job, WORLD_SIZE, arguments, digits, own_address, text};

/// What an HTTP server at `address` answers.
fn get(address: &str) -> String {
    let (place, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(place).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a metric in Prometheus' text form.
fn metric(answer: &str, name: &str, rank: usize) -> f64 {
    let start = format!("{name}{{rank=\"{rank}\"}} ");
    let line = answer.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{start} in {answer}")).parse().unwrap()
}

/// Start and end of the spans on a thread whose name begins so, in microseconds.
fn spans(trace: &[Value], thread: u64, name: &str) -> Vec<(f64, f64)> {
    let found = trace.iter().filter(|event| {
        event["ph"] == "X" && event["tid"] == thread && event["name"].as_str().unwrap().starts_with(name)
    });
    let time = |event: &Value, field: &str| event[field].as_f64().unwrap();
    found.map(|event| (time(event, "ts"), time(event, "ts") + time(event, "dur"))).collect()
}

#[test]
fn every_rank_serves_metrics_and_writes_a_trace_and_rank_0_writes_curves() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let runs = folder.path().join("runs");
    let options = [
        "--epochs=100000".to_owned(),
        "--evaluate-every=1".to_owned(),
        "--clip-norm=1".to_owned(),
        "--sharding=parameters".to_owned(),
        "--hidden=64,32".to_owned(),
        "--unit=1".to_owned(),
        format!("--checkpoint={}", folder.path().join("checkpoints").display()),
        "--checkpoint-every=4".to_owned(),
        format!("--tensorboard={}", runs.display()),
        format!("--metrics-listen={}:9404", own_address()),
        format!("--profile={}", folder.path().join("traces/trace.json").display()),
        "--profile-skip=2".to_owned(),
        "--profile-steps=4".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut job = Job::start(folder.path(), |_| arguments(&data, &options));
    for rank in 0..WORLD_SIZE {
        let served = job.wait_for(rank, "event=metrics ");
        let profiled = job.wait_for(rank, "event=profile ");
        let file = folder.path().join(format!("traces/trace-rank{rank}.json"));
        assert_eq!(profiled, format!("event=profile rank={rank} file={}", file.display()));
        let answer = get(served.rsplit_once("address=").unwrap().1);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(metric(&answer, "muster_train_step", rank) >= 6.0);
        assert!(metric(&answer, "muster_train_epoch", rank) >= 1.0);
        assert!(metric(&answer, "muster_train_loss", rank) > 0.0);
        assert!(metric(&answer, "muster_train_samples_per_second", rank) > 0.0);
        assert!(metric(&answer, "muster_train_exposed_communication_seconds", rank) > 0.0);
        assert!(metric(&answer, "muster_train_gradient_norm", rank) > 0.0);
        if rank == 0 {
            job.wait_for(0, "event=checkpoint ");
            job.wait_for(0, " test_loss=");
            let answer = get(served.rsplit_once("address=").unwrap().1);
            assert!(metric(&answer, "muster_train_checkpoint_step", 0) >= 4.0);
            assert!(metric(&answer, "muster_train_test_accuracy", 0) > 0.0);
        }
        let trace: Vec<Value> = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
        assert!(trace.iter().all(|event| event["pid"] == rank));
        let steps = spans(&trace, 1, "step ");
        assert_eq!(steps.len(), 4);
        for name in
            ["forward layers.0", "forward layers.2", "backward layers.1", "load data", "optimizer step"]
        {
            let within = |step: &(f64, f64)| {
                spans(&trace, 1, name).iter().any(|span| step.0 <= span.0 && span.1 <= step.1 + 1.0)
            };
            assert!(steps.iter().all(within), "{name} in every step");
        }
        assert_eq!(spans(&trace, 1, "copy checkpoint").len(), 1);
        for name in ["reduce gradients", "gather parameters", "average metrics"] {
            assert!(spans(&trace, 2, name).len() >= 4, "{name}");
        }
    }
    job.signal(0, Signal::SIGTERM);
    (0..WORLD_SIZE).for_each(|rank| drop(job.finish(rank)));
    let files: Vec<_> = fs_err::read_dir(&runs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "only rank 0 writes curves: {files:?}");
    let content = fs_err::read(&files[0]).unwrap();
    for tag in [
        "brain.Event:2",
        "loss",
        "accuracy",
        "learning_rate",
        "gradient_norm",
        "samples_per_second",
        "test_loss",
        "test_accuracy",
    ] {
        assert!(content.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()), "{tag}");
    }
}

#[test]
fn a_terminal_shows_one_line_and_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let size = Winsize { ws_row: 24, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-train"));
    command.args(arguments(&data, &["--epochs=3", "--evaluate-every=2"]));
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("WORLD_SIZE");
    let mut child = command.stdout(terminal.slave).stdin(Stdio::null()).spawn().unwrap();
    // Else the terminal stays open at its other end.
    drop(command);
    let mut shown = Vec::new();
    // The end of a terminal is an error of Linux.
    let _ = File::from(terminal.master).read_to_end(&mut shown);
    assert!(child.wait().unwrap().success());
    let shown = text(&shown);
    assert!(shown.contains("epoch 1") && shown.contains("  loss "), "{shown:?}");
    assert!(shown.contains("\u{1b}["), "{shown:?}");
    assert!(!shown.contains("train_accuracy="), "{shown:?}");
    assert!(shown.contains("epoch=2 test_loss="), "{shown:?}");
    let last = shown.trim_end().lines().last().unwrap();
    assert!(last.contains("result steps="), "{shown:?}");
}

#[test]
fn places_that_cannot_be_written_or_taken_are_named_before_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = digits(folder.path());
    let address = format!("{}:9500", own_address());
    let _taken = std::net::TcpListener::bind(&address).unwrap();
    let file = folder.path().join("file");
    fs_err::write(&file, "").unwrap();
    let below = |path: &Path| path.join("below").display().to_string();
    for (option, value) in
        [("--tensorboard", below(&file)), ("--profile", below(&file)), ("--metrics-listen", address.clone())]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_muster-train"))
            .args(arguments(&data, &[option, &value]))
            .env_remove("WORLD_SIZE")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}");
        let message = text(&output.stderr);
        assert!(message.starts_with(&format!("muster-train: {option} {value}: ")), "{message}");
        assert_eq!(text(&output.stdout), "");
    }
}
