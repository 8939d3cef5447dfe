//! `muster shell`: interactive jobs, at a terminal and between pipes.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, interval};

use crate::harness::conversation::Conversation;
use crate::harness::program::{self, DEADLINE, muster_path, repository};
use crate::harness::{Cluster, Finished, Program};
use crate::mpi;

/// Runs a line of a shell in which `muster` is the program under test.
async fn line(cluster: &Cluster, line: &str) -> Finished {
    let mut command = cluster.home.command("sh");
    command.env("MUSTER_UNDER_TEST", muster_path());
    command.args(["-c", &format!("muster() {{ \"$MUSTER_UNDER_TEST\" \"$@\"; }}; {line}")]);
    program::run(command).await
}

/// Starts `muster` and leaves it to itself.
fn start(cluster: &Cluster, words: &[&str]) -> Program {
    Program::start(cluster.home.muster(words))
}

/// Waits for the end of a job, and says which it was, as the queue has it.
async fn end(cluster: &Cluster, job: u32) -> String {
    let deadline = Instant::now() + DEADLINE;
    let mut every = interval(Duration::from_millis(100));
    loop {
        every.tick().await;
        let queue = cluster.muster(&["queue", "-o", "json", &job.to_string()]).await.succeeded().stdout;
        let queue: Value = serde_json::from_str(&queue).expect("JSON");
        let state = queue["jobs"][0]["job_state"].as_str().unwrap_or_default().to_owned();
        if ["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"].contains(&state.as_str()) {
            return state;
        }
        assert!(Instant::now() < deadline, "job {job} does not end: {queue}");
    }
}

#[tokio::test]
async fn a_shell_reads_commands_and_ends_its_job() {
    let cluster = Cluster::start(&[]).await;
    let mut conversation = Conversation::in_home(&cluster.home);
    for typed in [
        "muster shell --help",
        "echo 'echo $SLURM_JOB_NAME $SLURM_JOB_ID has $SLURM_MEM_PER_NODE MiB; exit 3' | muster shell --mem 64",
        "echo piped | muster shell --quiet -J mine -- sh -c 'cat; echo $SLURM_JOB_NAME >&2; pwd'",
        "muster shell no-such-program",
        "muster shell --array 0-3",
        "muster shell --gpus 100 --immediate",
    ] {
        let finished = line(&cluster, typed).await;
        conversation.note(typed, &finished);
    }
    insta::assert_snapshot!(conversation.text());
    for (job, ended) in [(1, "FAILED"), (2, "COMPLETED"), (3, "FAILED"), (4, "CANCELLED")] {
        assert_eq!(end(&cluster, job).await, ended, "job {job}");
    }
    // What is typed is not lost on the way, and neither is what is printed.
    let large =
        line(&cluster, "seq 300000 | muster shell -Q -- cat | cksum; seq 300000 | cksum").await.succeeded();
    let sums: Vec<&str> = large.stdout.lines().collect();
    assert_eq!((sums.len(), sums[0]), (2, sums[1]), "{}", large.stderr);
    let cut = line(&cluster, "muster shell -Q -- yes | head -n 1").await.succeeded();
    assert_eq!((cut.stdout.as_str(), cut.stderr.as_str()), ("y\n", ""));
    assert_eq!(end(&cluster, 6).await, "FAILED");
    cluster.stop().await;
}

#[tokio::test]
async fn a_shell_that_waits_says_why_and_gives_up_when_told_to() {
    let cluster = Cluster::start(&["--nodes", "1", "--gpus-per-node", "1"]).await;
    cluster.home.write("job.sh", "#!/bin/sh\nsleep 1000\n");
    cluster.muster(&["batch", "--gpus", "1", "--time", "60", "job.sh"]).await.succeeded();
    cluster.wait_for("job/batch-1", "jsonpath={.status.ready}=1").await;
    let mut shell = start(&cluster, &["shell", "--gpus", "1", "--", "hostname"]);
    let why = shell.error_line_with("job 2 waits (Resources): ").await;
    assert!(why.contains("; it is expected to start at "), "{why}");
    shell.signal(Signal::INT);
    let ended = shell.finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (130, ""), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("muster: job 2 is cancelled\n"), "{}", ended.stderr);
    assert_eq!(end(&cluster, 2).await, "CANCELLED");
    // Another waits until there is room.
    let mut shell = start(&cluster, &["shell", "--gpus", "1", "--", "sh", "-c", "echo $SLURM_GPUS"]);
    shell.error_line_with("job 3 waits (Resources): ").await;
    cluster.muster(&["cancel", "1"]).await.succeeded();
    let ended = shell.finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "1\n"), "{}", ended.stderr);
    // One that somebody else cancels ends.
    cluster.muster(&["batch", "--gpus", "1", "job.sh"]).await.succeeded();
    cluster.wait_for("job/batch-4", "jsonpath={.status.ready}=1").await;
    let mut shell = start(&cluster, &["shell", "--gpus", "1"]);
    shell.error_line_with("job 5 waits (Resources): ").await;
    cluster.muster(&["cancel", "5"]).await.succeeded();
    let ended = shell.finish().await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("job 5 was cancelled before its shell began"), "{}", ended.stderr);
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_ends_with_its_command_however_that_ends() {
    let cluster = Cluster::start(&[]).await;
    let begin = async || {
        let mut shell = start(&cluster, &["shell", "--", "sh", "-c", "echo begun; exec sleep 1000"]);
        assert_eq!(shell.line().await.as_deref(), Some("begun"));
        shell
    };
    let shell = begin().await;
    shell.signal(Signal::KILL);
    shell.ended().await;
    assert_eq!(end(&cluster, 1).await, "FAILED");
    for (signal, code, job) in [(Signal::TERM, 143, 2), (Signal::INT, 130, 3), (Signal::HUP, 129, 4)] {
        let shell = begin().await;
        shell.signal(signal);
        assert_eq!(shell.finish().await.code, code);
        assert_eq!(end(&cluster, job).await, "CANCELLED");
    }
    let shell = begin().await;
    cluster.muster(&["cancel", "5"]).await.succeeded();
    let ended = shell.finish().await;
    assert_eq!(ended.code, 129, "{}", ended.stderr);
    assert!(ended.stderr.ends_with("muster: job 5 was cancelled\n"), "{}", ended.stderr);
    cluster.stop().await;
}

#[tokio::test]
async fn a_shell_is_told_before_its_time_is_over() {
    let cluster = Cluster::start(&[]).await;
    let shell = cluster.muster(&["shell", "--time", "0:40", "--", "sleep", "1000"]).await;
    assert_eq!((shell.code, shell.stdout.as_str()), (129, ""), "{}", shell.stderr);
    assert!(shell.stderr.contains("muster: the time of job 1 is over in 10 s\n"), "{}", shell.stderr);
    assert!(shell.stderr.ends_with("muster: the time of job 1 is over\n"), "{}", shell.stderr);
    assert_eq!(end(&cluster, 1).await, "TIMEOUT");
    cluster.stop().await;
}

#[tokio::test]
async fn a_shell_has_a_terminal_and_gives_it_back() {
    let cluster = Cluster::start(&[]).await;
    // The terminal is afterwards as it was before.
    let script = "before=$(stty -g); \"$MUSTER_UNDER_TEST\" shell; code=$?; [ \"$(stty -g)\" = \"$before\" ] || exit 9; exit $code";
    for (conversation, code) in [("exec", 5), ("terminated", 143)] {
        let mut command = cluster.home.command("python3");
        command.env("MUSTER_UNDER_TEST", muster_path()).env("TERM", "xterm").env("SHELL", "/bin/sh");
        command.arg(repository().join("tests/it/terminal.py")).args([conversation, "sh", "-c", script]);
        let ran = program::run(command).await;
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    }
    assert_eq!(
        (end(&cluster, 1).await, end(&cluster, 2).await),
        ("FAILED".to_owned(), "CANCELLED".to_owned())
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_shell_on_several_nodes_starts_processes_on_all_of_them() {
    if let Some(missing) = mpi::missing() {
        eprintln!("{missing}");
        return;
    }
    let cluster = Cluster::start(&["--nodes", "2"]).await;
    let typed = "echo 'mpirun.openmpi hostname; echo $SLURM_JOB_NODELIST' | muster shell -N 2";
    let ran = line(&cluster, typed).await.succeeded();
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["batch-1-worker-0", "batch-1-worker-1", "batch-1-worker-[0-1]"], "{}", ran.stderr);
    assert!(ran.stderr.contains("muster: job 1 runs on node-"), "{}", ran.stderr);
    assert_eq!(end(&cluster, 1).await, "COMPLETED");
    cluster.stop().await;
}
