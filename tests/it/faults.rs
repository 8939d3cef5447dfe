//! What breaks on a machine, and what must hold all the same.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, interval};

use crate::harness::home::processes;
use crate::harness::manifests::ShellJob;
use crate::harness::program::{DEADLINE, send};
use crate::harness::{Cluster, Conversation, Home};

/// How often the gang of a job was restarted.
async fn restarts(cluster: &Cluster, job: &str) -> u64 {
    let job = cluster.object(&format!("pytorchjob/{job}")).await;
    let count = &job["metadata"]["annotations"]["muster.dev/restart-count"];
    count.as_str().map_or(0, |count| count.parse().expect("a number"))
}

/// The shell that runs `script` with `RANK=2`; a pod's processes see none of this home's paths.
async fn second_worker(script: &str) -> u32 {
    let deadline = Instant::now() + DEADLINE;
    let mut every = interval(Duration::from_millis(20));
    loop {
        every.tick().await;
        for process in processes() {
            let read = |name: &str| std::fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
            let words = read("cmdline");
            let is_shell = String::from_utf8_lossy(&words).ends_with(&format!("-c\0{script}\0"));
            if is_shell && read("environ").split(|byte| *byte == 0).any(|pair| pair == b"RANK=2") {
                return process;
            }
        }
        assert!(Instant::now() < deadline, "no worker runs `{script}`");
    }
}

/// A job whose containers run until a file is there, so that a test decides when it ends.
fn gated(home: &Home, name: &str) -> (String, std::path::PathBuf) {
    let gate = home.work().join(format!("{name}-gate"));
    let script = format!("while [ ! -e /gate/{name}-gate ]; do sleep 0.05; done; echo done");
    let yaml = ShellJob { name, script: &script, workers: 2, gpus: 1, ..ShellJob::default() }.yaml();
    let mount = "              volumeMounts:\n                - {name: gate, mountPath: /gate}\n";
    let volume = format!(
        "          volumes:\n            - {{name: gate, hostPath: {{path: {}}}}}\n",
        home.work().display()
    );
    let limits = "                  nvidia.com/gpu: 1\n";
    (yaml.replace(limits, &format!("{limits}{mount}{volume}")), gate)
}

async fn assert_ended_well(cluster: &Cluster, job: &str) {
    cluster.wait_for(&format!("pytorchjob/{job}"), "condition=Succeeded").await;
    assert!(restarts(cluster, job).await <= 1, "restarted more than once");
    let pods = cluster.kubectl(&["get", "pods", "-o", "name"]).await.succeeded().stdout;
    let mut names: Vec<&str> = pods.lines().collect();
    names.dedup();
    assert!(names.len() <= 3, "pods were made twice: {pods}");
}

/// When the cluster is killed.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The job is written, nothing more.
    Pending,
    /// Its pods are there.
    Starting,
    /// All of them run.
    Running,
    /// Their programs end.
    Finishing,
}

async fn kill_the_cluster_in(phase: Phase) {
    let cluster = Cluster::start(&[]).await;
    let (yaml, gate) = gated(&cluster.home, "job");
    cluster.home.write("job.yaml", &yaml);
    cluster.muster(&["submit", "job.yaml"]).await.succeeded();
    match phase {
        Phase::Pending => {}
        Phase::Starting => cluster.wait_for("pod/job-worker-1", "condition=PodScheduled").await,
        Phase::Running | Phase::Finishing => {
            cluster.wait_for("pytorchjob/job", "condition=Running").await;
            for pod in ["pod/job-master-0", "pod/job-worker-0", "pod/job-worker-1"] {
                cluster.wait_for(pod, "condition=Ready").await;
            }
        }
    }
    if matches!(phase, Phase::Finishing) {
        fs_err::write(&gate, "").expect("the gate");
    }
    let home = cluster.kill().await;
    let cluster = Cluster::start_in(home, &[]).await;
    fs_err::write(&gate, "").expect("the gate");
    assert_ended_well(&cluster, "job").await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_waits() {
    kill_the_cluster_in(Phase::Pending).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_starts() {
    kill_the_cluster_in(Phase::Starting).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_runs() {
    kill_the_cluster_in(Phase::Running).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_finishes() {
    kill_the_cluster_in(Phase::Finishing).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_the_digits_are_trained() {
    let cluster = Cluster::start(&[]).await;
    cluster.muster(&["submit", &crate::main_job::digits()]).await.succeeded();
    cluster.wait_for("pytorchjob/digits", "condition=Running").await;
    let home = cluster.kill().await;
    let cluster = Cluster::start_in(home, &[]).await;
    cluster.wait_for("pytorchjob/digits", "condition=Succeeded").await;
    assert!(restarts(&cluster, "digits").await <= 1, "restarted more than once");
    let model = cluster.home.path().join("volumes/default/digits-model/model.safetensors");
    assert!(model.is_file(), "the model is written");
    cluster.stop().await;
}

#[tokio::test]
async fn a_stopped_cluster_goes_on_with_its_job() {
    let home = Home::new();
    home.run_muster(&["up", "--detach"]).await.succeeded();
    let (yaml, gate) = gated(&home, "job");
    home.write("job.yaml", &yaml);
    home.run_muster(&["submit", "job.yaml"]).await.succeeded();
    let waits = ["wait", "--for=condition=Running", "pytorchjob/job", "--timeout=60s"];
    home.run_kubectl(&waits).await.succeeded();
    home.run_muster(&["down"]).await.succeeded();
    home.assert_nothing_left().await;
    let cluster = Cluster::start_in(home, &[]).await;
    fs_err::write(&gate, "").expect("the gate");
    assert_ended_well(&cluster, "job").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_killed_worker_restarts_the_gang_once() {
    let cluster = Cluster::start(&[]).await;
    // No other test's workers sleep as long.
    let script = format!("sleep {}; true", 100_000 + std::process::id());
    let yaml =
        ShellJob { script: &script, workers: 2, restart_policy: "OnFailure", ..ShellJob::default() }.yaml();
    cluster.home.write("job.yaml", &yaml);
    cluster.muster(&["submit", "job.yaml"]).await.succeeded();
    cluster.wait_for("pod/job-worker-1", "condition=Ready").await;
    let before = cluster.object("pod/job-worker-1").await;
    let victim = second_worker(&script).await;
    send(victim, Signal::KILL);
    let counted = r"jsonpath={.metadata.annotations.muster\.dev/restart-count}=1";
    cluster.wait_for("pytorchjob/job", counted).await;
    for pod in ["job-master-0", "job-worker-0", "job-worker-1"] {
        cluster.wait_for(&format!("pod/{pod}"), "condition=Ready").await;
    }
    let after = cluster.object("pod/job-worker-1").await;
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"], "a new gang");
    assert_eq!(restarts(&cluster, "job").await, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_taken_port_a_taken_home_and_a_closed_folder_are_told() {
    let cluster = Cluster::start(&[]).await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let other = Home::new();
    let mut talk = Conversation::in_home(&cluster.home);
    let mut elsewhere = Conversation::in_home(&other);
    assert_eq!(talk.types("muster up").await.code, 1);
    assert_eq!(elsewhere.types(&format!("muster up --listen {address}")).await.code, 1);
    let closed = other.work().join("closed");
    fs_err::write(&closed, "a file, not a folder").expect("a file");
    fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o400)).expect("its mode");
    assert_eq!(elsewhere.types("muster up --home closed/home").await.code, 1);
    let told = format!("{}{}", talk.text(), elsewhere.text());
    insta::assert_snapshot!(told);
    other.assert_nothing_left().await;
    cluster.stop().await;
}
