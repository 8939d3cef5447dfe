//! `muster run`: one command, one distributed training job.

use std::collections::BTreeSet;

use fs_err as fs;
use regex::Regex;
use rustix::process::Signal;

use crate::harness::manifests::ShellJob;
use crate::harness::normalise::normalise;
use crate::harness::program::repository;
use crate::harness::{Cluster, Conversation, Home, Program};

/// Least test accuracy of the digits.
const ACCURACY: f64 = 0.95;

pub(crate) fn digits() -> String {
    repository().join("examples/digits/pytorchjob.yaml").display().to_string()
}

/// The lines of a run without what depends on timing: of the pods only where they ran, in order, and one line
/// for all steps.
fn story(errors: &str) -> String {
    let pod = Regex::new(r"^digits-(master|worker)-\d ").expect("pattern");
    let gpu = Regex::new(r"GPU \d").expect("pattern");
    let step = Regex::new(r"^step \d+/(\d+) loss <loss>$").expect("pattern");
    let mut lines: Vec<String> = Vec::new();
    let mut running = BTreeSet::new();
    for line in errors.lines() {
        if pod.is_match(line) {
            if line.contains(" Running ") {
                running.insert(gpu.replace_all(line, "GPU <slot>").into_owned());
            }
            continue;
        }
        if step.is_match(line) {
            lines.extend(std::mem::take(&mut running));
        }
        let line = step.replace(line, "step <step>/$1 loss <loss>").into_owned();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines.extend(running);
    lines.join("\n")
}

fn summary(output: &str) -> String {
    let volatile = [
        (r"GPU \d", "GPU <slot>"),
        (r"(test accuracy +)\S+", "$1<accuracy>"),
        (r"\(\d+ % of <seconds> s", "(<share> % of <seconds> s"),
    ];
    volatile.iter().fold(output.to_owned(), |text, (pattern, shown)| {
        Regex::new(pattern).expect("pattern").replace_all(&text, *shown).into_owned()
    })
}

fn value<'a>(output: &'a str, name: &str) -> &'a str {
    let line = output.lines().find_map(|line| line.trim().strip_prefix(name)).expect("a line of the summary");
    line.trim()
}

/// A safetensors file: the length of a JSON header, the header, the tensors it describes.
fn assert_safetensors(path: &str) {
    let bytes = fs::read(path).expect("the model");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("the length of the header");
    let length = usize::try_from(u64::from_le_bytes(*length)).expect("a length");
    let header: serde_json::Value = serde_json::from_slice(&rest[..length]).expect("a JSON header");
    let tensors = header.as_object().expect("tensors").iter().filter(|(name, _)| *name != "__metadata__");
    let ends = tensors.map(|(_, tensor)| tensor["data_offsets"][1].as_u64().expect("an offset"));
    assert_eq!(ends.max(), Some((rest.len() - length) as u64), "the tensors fill the file");
}

#[tokio::test]
async fn one_command_trains_the_digits() {
    let home = Home::new();
    let run = home.run_muster(&["run", &digits()]).await.succeeded();
    let accuracy: f64 = value(&run.stdout, "test accuracy").parse().expect("a number");
    assert!(accuracy >= ACCURACY, "test accuracy {accuracy}");
    let slots: BTreeSet<&str> =
        Regex::new(r"GPU \d").expect("pattern").find_iter(&run.stdout).map(|found| found.as_str()).collect();
    assert_eq!(slots.len(), 4, "a slot was handed out twice: {}", run.stdout);
    assert_safetensors(value(&run.stdout, "model "));
    insta::assert_snapshot!(format!(
        "{}\n{}",
        story(&normalise(&run.stderr, &home)),
        summary(&normalise(&run.stdout, &home))
    ));
    home.assert_nothing_left().await;
}

#[tokio::test]
async fn a_job_that_fails_says_why() {
    let home = Home::new();
    let job = ShellJob {
        script: "echo the data is missing; exit 3",
        workers: 0,
        restart_policy: "Never",
        ..ShellJob::default()
    };
    home.write("fails.yaml", &job.yaml());
    let run = home.run_muster(&["run", "fails.yaml"]).await;
    assert_eq!(run.code, 1);
    let errors = normalise(&run.stderr, &home);
    let (_, cause) = errors.split_once("error: ").expect("an error");
    insta::assert_snapshot!(cause);
    home.assert_nothing_left().await;
}

#[tokio::test]
async fn ctrl_c_ends_the_job_and_its_cluster() {
    let home = Home::new();
    let mut run = Program::start(home.muster(&["run", &digits()]));
    run.error_line_with("step ").await;
    run.signal(Signal::INT);
    let run = run.finish().await;
    assert_eq!(run.code, 130, "{}", run.stderr);
    home.assert_nothing_left().await;
}

#[tokio::test]
async fn ctrl_c_leaves_a_cluster_that_was_there_without_the_job() {
    let cluster = Cluster::start(&[]).await;
    let job = ShellJob { script: "sleep 600", ..ShellJob::default() };
    cluster.home.write("sleeps.yaml", &job.yaml());
    let mut run = Program::start(cluster.home.muster(&["run", "sleeps.yaml"]));
    run.error_line_with("Running").await;
    run.signal(Signal::INT);
    let run = run.finish().await;
    assert_eq!(run.code, 130, "{}", run.stderr);
    let left = cluster.kubectl(&["get", "pytorchjobs,pods,gangreservations", "-o", "name"]).await.succeeded();
    assert_eq!(left.stdout, "");
    cluster.stop().await;
}

#[tokio::test]
async fn a_finished_job_gives_way_to_the_next_run() {
    let home = Home::new();
    home.write("job.yaml", &ShellJob::default().yaml());
    home.run_muster(&["run", "job.yaml"]).await.succeeded();
    let again = home.run_muster(&["run", "job.yaml"]).await.succeeded();
    assert!(
        again.stderr.contains("pytorchjob.kubeflow.org/job of an earlier run gives way"),
        "{}",
        again.stderr
    );
    home.assert_nothing_left().await;
}

#[tokio::test]
async fn a_running_job_does_not_give_way() {
    let cluster = Cluster::start(&[]).await;
    let job = ShellJob { script: "sleep 600", workers: 0, ..ShellJob::default() };
    cluster.home.write("job.yaml", &job.yaml());
    cluster.muster(&["submit", "job.yaml"]).await.succeeded();
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("muster run job.yaml").await;
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn bad_manifests_name_the_place_and_leave_nothing() {
    let cluster = Cluster::start(&[]).await;
    let good = ShellJob { workers: 0, ..ShellJob::default() }.yaml();
    for (name, from, to) in [
        ("unknown-field.yaml", "restartPolicy", "restartPolice"),
        ("wrong-type.yaml", "replicas: 1", "replicas: one"),
        ("wrong-value.yaml", "OnFailure", "Sometimes"),
        ("broken.yaml", "    Master:", "    Master: ["),
        ("no-kind.yaml", "kind: PyTorchJob\n", ""),
        ("unknown-kind.yaml", "kind: PyTorchJob", "kind: PytorchJob"),
    ] {
        cluster.home.write(name, &good.replace(from, to));
    }
    let mut talk = Conversation::in_home(&cluster.home);
    for name in ["unknown-field", "wrong-type", "wrong-value", "broken", "no-kind", "unknown-kind"] {
        let answer = talk.types(&format!("muster run {name}.yaml")).await;
        assert_eq!(answer.code, 1, "{}", answer.stderr);
    }
    talk.types("muster get pytorchjobs").await;
    talk.types("muster get pods").await;
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}
