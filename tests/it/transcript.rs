//! Types the recorded `kubectl` commands of a real Kubernetes 1.36 and compares what is printed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use regex::Regex;
use similar::{ChangeTag, TextDiff};

use crate::harness::normalise::normalise;
use crate::harness::{Cluster, Finished, Home};
use crate::transcript_differences::MEANT;

const NAMESPACE: &str = "talk";

/// A command and what a real cluster answered.
struct Recorded {
    command: String,
    answer: Finished,
}

fn parse(text: &str) -> Vec<Recorded> {
    let mut recorded: Vec<Recorded> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let answer = Finished { code: 0, stdout: String::new(), stderr: String::new() };
            recorded.push(Recorded { command: command.to_owned(), answer });
            continue;
        }
        let Some(last) = recorded.last_mut() else { continue };
        if let Some(code) = line.strip_prefix("exit: ") {
            last.answer.code = code.parse().expect("an exit code");
        } else if let Some(error) = line.strip_prefix("err: ") {
            last.answer.stderr.extend([error, "\n"]);
        } else if let Some(output) = line.strip_prefix("out: ") {
            // Output without a line's end stands before the exit code.
            let (output, code) = output.split_once("exit: ").unwrap_or((output, "0"));
            last.answer.code = code.parse().expect("an exit code");
            last.answer.stdout.extend([output, "\n"]);
        }
    }
    recorded
}

/// What the recording waited for after a command, before it went on.
const SETTLED: &[(&str, &[&str])] = &[
    ("kubectl apply -f pod.yaml", &["wait --for=condition=Ready pod/web --timeout=60s"]),
    ("kubectl rollout restart deploy/api", &["rollout status deploy/api --timeout=60s"]),
    ("kubectl rollout undo deploy/api", &["rollout status deploy/api --timeout=60s"]),
];

/// A cluster as it was recorded: two nodes with eight slots, the two definitions, the namespace.
async fn recorded_cluster(folder: &Path, definitions: &Path) -> Cluster {
    let home = Home::new();
    let node = |name: &str, rack: &str| {
        format!("  - {{name: {name}, labels: {{rack: {rack}}}, gpus: 8, cpus: \"96\", memory: 1Ti}}\n")
    };
    home.write("topology.yaml", &format!("nodes:\n{}{}", node("n0", "r0"), node("n1", "r1")));
    for file in fs::read_dir(folder).expect("the recording").flatten() {
        let text = fs::read_to_string(file.path()).expect("a manifest");
        // The recorded nodes ran nothing; a program needs a command, since no image brings one.
        let text = text.replace("image: \"img:1\",", "image: \"img:1\", command: [sleep, \"3600\"],");
        home.write(&file.file_name().to_string_lossy(), &text);
    }
    let cluster = Cluster::start_in(home, &["--topology", "topology.yaml", "--image", "*=host"]).await;
    for file in fs::read_dir(definitions).expect("the definitions").flatten() {
        if file.path().extension().is_some_and(|extension| extension == "yaml") {
            let path = file.path().display().to_string();
            cluster.kubectl(&["apply", "--server-side", "-f", &path]).await;
        }
    }
    cluster.kubectl(&["create", "namespace", NAMESPACE]).await.succeeded();
    cluster.kubectl(&["config", "set-context", "--current", "--namespace", NAMESPACE]).await.succeeded();
    cluster
}

fn shown(answer: &Finished, home: &Home) -> String {
    let mut text = String::new();
    for (mark, output) in [("out: ", &answer.stdout), ("err: ", &answer.stderr)] {
        for line in normalise(output, home).lines() {
            let _infallible = writeln!(text, "{mark}{line}");
        }
    }
    let text = text.replace("127.0.0.1", "<ip>");
    // How long a rollout takes is nobody's promise; and here a controller makes pods of the job.
    let passing = ["out: Waiting for", "out: digits-master", "out: digits-worker", "out: pod \"digits-"];
    let mut lines: Vec<&str> =
        text.lines().filter(|line| !passing.iter().any(|start| line.starts_with(start))).collect();
    // Which event of an instant comes first is nobody's promise either.
    let event = |line: &&str| line.starts_with("out:   Normal");
    if let Some(first) = lines.iter().position(event) {
        let events = lines[first..].iter().take_while(|line| event(line)).count();
        lines[first..first + events].sort_unstable();
    }
    let text = lines.join("\n");
    format!("{text}\nexit: {}\n", answer.code)
}

/// The lines that differ, with `-` for the real answer and `+` for ours.
fn differences(real: &str, ours: &str) -> Vec<String> {
    let diff = TextDiff::from_lines(real, ours);
    let changes = diff.iter_all_changes().filter(|change| change.tag() != ChangeTag::Equal);
    changes.map(|change| format!("{}{}", change.tag(), change.value().trim_end())).collect()
}

#[tokio::test]
async fn kubectl_prints_what_a_real_cluster_makes_it_print() {
    let Some(shared) = std::env::var_os("MUSTER_SHARED").map(PathBuf::from) else {
        eprintln!("skipped: MUSTER_SHARED names no folder with the recording of a real cluster");
        return;
    };
    let folder = shared.join("upstream/kube-1.36/kubectl");
    let recorded = parse(&fs::read_to_string(folder.join("transcript.txt")).expect("the transcript"));
    assert!(recorded.len() >= 66, "{} commands", recorded.len());
    let cluster = recorded_cluster(&folder, &shared.join("upstream/crds/mpi-operator-v2beta1")).await;
    let patterns: Vec<Regex> =
        MEANT.iter().map(|meant| Regex::new(meant.lines).expect("a pattern")).collect();
    let mut used = BTreeSet::new();
    let mut report = String::new();
    for Recorded { command, answer } in &recorded {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let ours = cluster.kubectl(&words).await;
        let found = differences(&shown(answer, &cluster.home), &shown(&ours, &cluster.home));
        let unmeant: Vec<&String> = found
            .iter()
            .filter(|line| {
                let mut matching = (0..MEANT.len()).filter(|index| {
                    command.starts_with(MEANT[*index].command) && patterns[*index].is_match(line)
                });
                let first = matching.next();
                used.extend(first);
                first.is_none()
            })
            .collect();
        if !unmeant.is_empty() {
            let _infallible = writeln!(report, "$ {command}");
            for line in unmeant {
                let _infallible = writeln!(report, "  {line}");
            }
        }
        for (_, settle) in SETTLED.iter().filter(|(after, _)| after == command) {
            for line in *settle {
                let words: Vec<&str> = line.split_whitespace().collect();
                cluster.kubectl(&words).await.succeeded();
            }
        }
    }
    for (index, meant) in MEANT.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
        let _infallible = writeln!(report, "stale: difference {index} ({} {})", meant.command, meant.lines);
    }
    assert!(report.is_empty(), "- is the real cluster, + is ours:\n{report}");
    cluster.stop().await;
}
