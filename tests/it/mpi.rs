//! MPI jobs: Debian's Open MPI and MPICH over pods with networks of their own.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use crate::harness::program::{self, repository};
use crate::harness::{Cluster, Home};

/// How `mpirun` starts processes on the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    Sshd,
    Agent,
}

/// An MPI implementation as Debian has it.
#[derive(Debug, Clone, Copy)]
struct Mpi {
    /// `spec.mpiImplementation`.
    name: &'static str,
    compiler: &'static str,
    run: &'static [&'static str],
}

const OPEN_MPI: Mpi = Mpi {
    name: "OpenMPI",
    compiler: "mpicc.openmpi",
    run: &["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe"],
};
const MPICH: Mpi = Mpi { name: "MPICH", compiler: "mpicc.mpich", run: &["mpirun.mpich"] };

/// What is not installed of what these tests need.
fn missing() -> Option<String> {
    let programs = ["mpirun.openmpi", "mpicc.openmpi", "mpirun.mpich", "mpicc.mpich", "sshd"];
    let folders = std::env::var("PATH").expect("PATH") + ":/usr/sbin";
    let is_there =
        |program: &&&str| folders.split(':').any(|folder| Path::new(folder).join(program).exists());
    let missing: Vec<&str> = programs.iter().filter(|program| !is_there(program)).copied().collect();
    (!missing.is_empty()).then(|| {
        format!(
            "skipped: there is no {}; Debian's openmpi-bin, libopenmpi-dev, mpich, libmpich-dev and openssh-server have them",
            missing.join(", no ")
        )
    })
}

/// Ends a test where MPI is not installed.
macro_rules! need_mpi {
    () => {
        if let Some(missing) = missing() {
            eprintln!("{missing}");
            return;
        }
    };
}

/// A job of this many workers with two slots each, whose launcher runs `program` by `mpirun`.
fn job(name: &str, mpi: Mpi, shell: Shell, workers: usize, program: &[&str]) -> Value {
    let ranks = (2 * workers).to_string();
    let command: Vec<&str> = [mpi.run, &["-np", &ranks], program].concat();
    let mut worker = json!({"name": "mpi", "image": "host"});
    if shell == Shell::Sshd {
        worker["command"] = json!(["sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -De"]);
    }
    let launcher = json!({"name": "mpi", "image": "host", "command": command});
    json!({
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {
            "name": name,
            "annotations": {"muster.dev/remote-shell": if shell == Shell::Sshd { "sshd" } else { "agent" }},
        },
        "spec": {
            "mpiImplementation": mpi.name,
            "slotsPerWorker": 2,
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": 2},
            "mpiReplicaSpecs": {
                "Launcher": {"template": {"spec": {"containers": [launcher]}}},
                "Worker": {"replicas": workers, "template": {"spec": {"containers": [worker]}}},
            },
        },
    })
}

async fn apply(cluster: &Cluster, job: &Value) {
    let name = job["metadata"]["name"].as_str().expect("a name");
    let file = cluster.home.write(&format!("{name}.json"), &job.to_string());
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]).await.succeeded();
}

/// Runs a job to its good end; what its launcher printed.
async fn run(cluster: &Cluster, job: &Value) -> String {
    apply(cluster, job).await;
    let name = job["metadata"]["name"].as_str().expect("a name");
    cluster.wait_for(&format!("mpijob/{name}"), "condition=Succeeded").await;
    cluster.kubectl(&["logs", &format!("job/{name}-launcher")]).await.succeeded().stdout
}

/// Builds the example with this implementation's compiler, where pods see it.
async fn all_reduce(home: &Home, mpi: Mpi) -> String {
    let program = home.work().join(format!("allreduce-{}", mpi.name));
    let mut compile = program::command(mpi.compiler);
    compile.arg("-O2").arg("-o").arg(&program).arg(repository().join("examples/mpi/allreduce.c"));
    program::run(compile).await.succeeded();
    program.display().to_string()
}

/// The hosts that `hostname` printed, sorted.
fn hosts(output: &str) -> Vec<&str> {
    let mut hosts: Vec<&str> = output.lines().collect();
    hosts.sort_unstable();
    hosts
}

async fn sums(cluster: &Cluster, mpi: Mpi, shell: Shell) {
    let program = all_reduce(&cluster.home, mpi).await;
    let name = format!("sums-{}-{shell:?}", mpi.name).to_lowercase();
    let printed = run(cluster, &job(&name, mpi, shell, 2, &[&program])).await;
    let mut lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("rank ")).collect();
    lines.sort_unstable();
    let expected: Vec<String> = (0..4)
        .map(|rank| format!("rank {rank} of 4 on {name}-worker-{}: 100 sums, 0 wrong numbers", rank / 2))
        .collect();
    assert_eq!(lines, expected, "{printed}");
}

#[tokio::test]
async fn both_implementations_start_processes_over_sshd() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    let printed = run(&cluster, &job("names", OPEN_MPI, Shell::Sshd, 4, &["hostname"])).await;
    let expected: Vec<String> = (0..8).map(|rank| format!("names-worker-{}", rank / 2)).collect();
    assert_eq!(hosts(&printed), expected);
    let printed = run(&cluster, &job("more-names", MPICH, Shell::Sshd, 2, &["hostname"])).await;
    let expected: Vec<String> = (0..4).map(|rank| format!("more-names-worker-{}", rank / 2)).collect();
    assert_eq!(hosts(&printed), expected);
    sums(&cluster, OPEN_MPI, Shell::Sshd).await;
    sums(&cluster, MPICH, Shell::Sshd).await;
    let key = cluster.object("secret/names-ssh").await;
    assert_eq!(key["type"], "kubernetes.io/ssh-auth");
    cluster.stop().await;
}

/// What the controller has written down of the hosts.
async fn discovered(cluster: &Cluster, name: &str) -> String {
    let map = cluster.object(&format!("configmap/{name}-config")).await;
    map["data"]["discover_hosts.sh"].as_str().expect("a script").to_owned()
}

#[tokio::test]
async fn a_job_is_resized_suspended_and_resumed_and_restarts_when_a_worker_is_lost() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    let flag = fs::canonicalize(cluster.home.work()).expect("a folder").join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done; hostname", flag.display());
    let mut waiting = job("waits", OPEN_MPI, Shell::Sshd, 2, &["sh", "-c", &wait]);
    waiting["spec"]["runPolicy"]["backoffLimit"] = json!(0);
    apply(&cluster, &waiting).await;
    cluster.wait_for("mpijob/waits", "condition=Running").await;
    assert_eq!(discovered(&cluster, "waits").await.lines().count(), 3);

    let workers =
        |count: usize| json!({"spec": {"mpiReplicaSpecs": {"Worker": {"replicas": count}}}}).to_string();
    cluster.kubectl(&["patch", "mpijob/waits", "--type=merge", "-p", &workers(3)]).await.succeeded();
    cluster.wait_for("pod/waits-worker-2", "condition=Ready").await;
    cluster.kubectl(&["patch", "mpijob/waits", "--type=merge", "-p", &workers(2)]).await.succeeded();
    cluster.wait_for("pod/waits-worker-2", "delete").await;

    cluster.kubectl(&["delete", "pod/waits-worker-1"]).await.succeeded();
    cluster.wait_for("mpijob/waits", "condition=Restarting").await;
    cluster.wait_for("mpijob/waits", "condition=Running").await;
    let annotations = cluster.object("mpijob/waits").await["metadata"]["annotations"].clone();
    assert_eq!(annotations["muster.dev/infrastructure-restart-count"], "1", "{annotations}");

    let suspend = |value: bool| json!({"spec": {"runPolicy": {"suspend": value}}}).to_string();
    cluster.kubectl(&["patch", "mpijob/waits", "--type=merge", "-p", &suspend(true)]).await.succeeded();
    cluster.wait_for("mpijob/waits", "condition=Suspended").await;
    cluster.wait_for("pod/waits-worker-0", "delete").await;
    cluster.kubectl(&["patch", "mpijob/waits", "--type=merge", "-p", &suspend(false)]).await.succeeded();
    cluster.wait_for("mpijob/waits", "condition=Running").await;
    assert_eq!(discovered(&cluster, "waits").await.lines().count(), 3);

    fs::write(flag, "").expect("the flag");
    cluster.wait_for("mpijob/waits", "condition=Succeeded").await;
    let printed = cluster.kubectl(&["logs", "job/waits-launcher"]).await.succeeded().stdout;
    assert_eq!(hosts(&printed), ["waits-worker-0", "waits-worker-0", "waits-worker-1", "waits-worker-1"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_launcher_that_fails_is_tried_again_and_the_reason_of_its_end_is_told() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    let mut fails = job("fails", OPEN_MPI, Shell::Sshd, 1, &["false"]);
    fails["spec"]["runPolicy"]["backoffLimit"] = json!(1);
    fails["spec"]["mpiReplicaSpecs"]["Launcher"]["restartPolicy"] = json!("Never");
    apply(&cluster, &fails).await;
    cluster.wait_for("mpijob/fails", "condition=Failed").await;
    let status = cluster.object("mpijob/fails").await["status"].clone();
    let failed = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Failed");
    assert_eq!(failed.expect("a condition")["reason"], "BackoffLimitExceeded", "{status}");
    assert_eq!(status["replicaStatuses"]["Launcher"]["failed"], 2, "{status}");
    cluster.stop().await;
}

#[tokio::test]
async fn the_training_client_runs_a_job_of_the_older_version() {
    need_mpi!();
    let Some(python) = std::env::var_os("MUSTER_PYTHON") else {
        eprintln!("skipped: MUSTER_PYTHON names no Python with kubernetes and kubeflow-training==1.9.4");
        return;
    };
    let cluster = Cluster::start(&[]).await;
    let mut older = job("sdk", OPEN_MPI, Shell::Sshd, 2, &["hostname"]);
    older["apiVersion"] = json!("kubeflow.org/v1");
    let spec = older["spec"].as_object_mut().expect("a spec");
    spec.remove("mpiImplementation");
    spec["runPolicy"] = json!({"cleanPodPolicy": "None"});
    let file = cluster.home.write("sdk.json", &older.to_string());
    let mut script = cluster.home.command(python);
    script.arg(repository().join("tests/it/mpi_conversation.py")).arg(file);
    let told = program::run(script).await.succeeded();
    let expected = [
        "created, waited for, succeeded",
        "the launcher printed sdk-worker-0, sdk-worker-0, sdk-worker-1, sdk-worker-1",
        "workers sdk-worker-0, sdk-worker-1",
        "deleted",
    ];
    assert_eq!(told.stdout.lines().collect::<Vec<_>>(), expected);
    cluster.stop().await;
}
