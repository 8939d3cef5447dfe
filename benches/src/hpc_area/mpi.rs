//! Debian's `mpirun` as an `MPIJob`: how soon its processes have said where they run, and how quick Open MPI's all-reduce
//! is in pods. Rounds with an SSH server in the workers and with Muster's own agent take turns.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, LogParams, Patch, PatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::area::Settings;
use crate::cluster::{self, Change, NAMESPACE};
use crate::process::Up;
use crate::statistics::{median, quantile};

const ROUNDS: usize = 9;
const PROCESSES: usize = 8;
const WORKERS: usize = 4;
const ROUND_DEADLINE: Duration = Duration::from_mins(1);

/// What the all-reduce sums, and how often.
const ALL_REDUCE_BYTES: usize = 64 << 20;
const REPETITIONS: usize = 15;
const ALL_REDUCE_ROUNDS: usize = 5;
const ALL_REDUCE: &str = include_str!("../trainer_area/peers/all_reduce_mpi.c");

/// How processes are started on the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    /// By `ssh`, as the MPI operator has it.
    Server,
    /// By Muster's agent, through the API server.
    Agent,
}

/// Seconds from the apply of a job until eight processes have told the names of their hosts: by SSH, and by the agent.
pub(super) async fn hostname(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &[]).await?;
    let runs = Runs::new(&up).await?;
    let mut events = cluster::watch_pods(&runs.client).await?;
    let mut times = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        for (times, shell) in times.iter_mut().zip([Shell::Server, Shell::Agent]) {
            let name = format!("{shell:?}-{round}").to_lowercase();
            let command =
                json!(["mpirun.openmpi", "--allow-run-as-root", "-np", PROCESSES.to_string(), "hostname"]);
            let job = job(&name, shell, WORKERS, PROCESSES / WORKERS, &command, None);
            let (took, output) = runs.run(&mut events, &name, &job).await?;
            let told = output.lines().filter(|line| line.contains("-worker-")).count();
            ensure!(told == PROCESSES, "{told} of {PROCESSES} processes told their host:\n{output}");
            times.push(took);
        }
    }
    up.stop().await?;
    times.iter().map(|times| Ok(quantile(times, 0.5).context("no rounds")?.as_secs_f64())).collect()
}

/// The bandwidth of Open MPI's all-reduce between two pods, as a share of that between two processes that `mpirun` starts
/// without Muster. Pods are hosts to Open MPI, which talk over TCP, so the others do, too.
pub(super) async fn all_reduce(settings: &Settings) -> Result<Vec<f64>> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("all_reduce.c");
    fs::write(&source, ALL_REDUCE)?;
    let program = folder.path().join("all_reduce");
    let mut compiler = Command::new("mpicc.openmpi");
    compiler.arg("-O3").arg("-o").arg(&program).arg(&source);
    let status = compiler.status().await.context("mpicc.openmpi: install libopenmpi-dev")?;
    ensure!(status.success(), "the program does not compile");
    for rank in ["0", "1"] {
        fs::write(folder.path().join(rank), format!("{ALL_REDUCE_BYTES} {REPETITIONS}\n"))?;
    }
    let up = Up::start(settings, &[]).await?;
    let runs = Runs::new(&up).await?;
    let mut events = cluster::watch_pods(&runs.client).await?;
    let words = |command: &Path| {
        let (program, folder) = (command.display().to_string(), folder.path().display().to_string());
        let words = ["--allow-run-as-root", "-np", "2", "--mca", "btl", "tcp,self", &program, &folder];
        words.map(str::to_owned)
    };
    let mut shares = Vec::new();
    for round in 0..ALL_REDUCE_ROUNDS {
        let mut bare = Command::new("mpirun.openmpi");
        bare.args(words(&program)).stderr(Stdio::inherit());
        let output = bare.output().await.context("mpirun.openmpi: install openmpi-bin")?;
        let bare = seconds(&String::from_utf8_lossy(&output.stdout))?;
        let name = format!("reduce-{round}");
        let command: Vec<String> =
            std::iter::once("mpirun.openmpi".to_owned()).chain(words(&program)).collect();
        let job = job(&name, Shell::Agent, 2, 1, &json!(command), Some(folder.path()));
        let inside = seconds(&runs.run(&mut events, &name, &job).await?.1)?;
        crate::note(&format!("64 MiB between two processes: {bare:.4} s, between two pods: {inside:.4} s"));
        shares.push(bare / inside);
    }
    up.stop().await?;
    Ok(vec![median(shares.into_iter())])
}

/// The one number that the program prints.
fn seconds(output: &str) -> Result<f64> {
    let found = output.lines().find_map(|line| line.trim().parse().ok());
    found.with_context(|| format!("no time among what the program printed: {output}"))
}

/// Jobs that run one after the other.
struct Runs {
    client: Client,
    jobs: Api<DynamicObject>,
}

impl Runs {
    async fn new(up: &Up) -> Result<Self> {
        let client = cluster::client(&up.kubeconfig()).await?;
        let kind = GroupVersionKind::gvk("kubeflow.org", "v2beta1", "MPIJob");
        let kind = ApiResource::from_gvk_with_plural(&kind, "mpijobs");
        Ok(Self { jobs: Api::namespaced_with(client.clone(), NAMESPACE, &kind), client })
    }

    /// Applies a job and deletes it when its launcher has ended; how long that took, and what it printed.
    async fn run(
        &self,
        events: &mut (impl Stream<Item = Result<(Change, Pod)>> + Unpin),
        name: &str,
        job: &Value,
    ) -> Result<(Duration, String)> {
        let one = timeout(ROUND_DEADLINE, self.run_for_ever(events, name, job)).await;
        one.with_context(|| format!("{name} did not end"))?
    }

    async fn run_for_ever(
        &self,
        events: &mut (impl Stream<Item = Result<(Change, Pod)>> + Unpin),
        name: &str,
        job: &Value,
    ) -> Result<(Duration, String)> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let launcher = format!("{name}-launcher");
        let began = Instant::now();
        self.jobs.patch(name, &PatchParams::apply("muster-bars"), &Patch::Apply(job)).await?;
        let mut all = std::collections::BTreeSet::new();
        let (took, output) = loop {
            let (change, pod) = events.try_next().await?.context("the watch ended")?;
            let found = pod.name_any();
            if !found.starts_with(name) {
                continue;
            }
            match change {
                Change::Seen => all.insert(found.clone()),
                Change::Gone => all.remove(&found),
            };
            if found.starts_with(&launcher) && matches!(cluster::phase(&pod), "Succeeded" | "Failed") {
                let took = began.elapsed();
                let output = pods.logs(&found, &LogParams::default()).await?;
                if cluster::phase(&pod) == "Failed" {
                    bail!("the launcher of {name} failed:\n{output}");
                }
                break (took, output);
            }
        };
        self.jobs.delete(name, &DeleteParams::background()).await?;
        while !all.is_empty() {
            let (change, pod) = events.try_next().await?.context("the watch ended")?;
            if change == Change::Gone {
                all.remove(&pod.name_any());
            }
        }
        Ok((took, output))
    }
}

fn job(
    name: &str,
    shell: Shell,
    workers: usize,
    slots: usize,
    command: &Value,
    folder: Option<&Path>,
) -> Value {
    let pod = |command: Option<&Value>| {
        let mut container = json!({"name": "mpi", "image": "muster.dev/mpi:0.1"});
        let mut pod = json!({"terminationGracePeriodSeconds": 0});
        if let Some(command) = command {
            container["command"] = command.clone();
        }
        if let Some(folder) = folder {
            container["volumeMounts"] = json!([{"name": "program", "mountPath": folder}]);
            pod["volumes"] = json!([{"name": "program", "hostPath": {"path": folder}}]);
        }
        pod["containers"] = json!([container]);
        json!({"spec": pod})
    };
    let server = json!(["sh", "-c", "mkdir -p /run/sshd && exec /usr/sbin/sshd -De"]);
    let (annotation, server) = match shell {
        Shell::Server => ("sshd", Some(&server)),
        Shell::Agent => ("agent", None),
    };
    json!({
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"name": name, "annotations": {"muster.dev/remote-shell": annotation}},
        "spec": {
            "slotsPerWorker": slots,
            "mpiReplicaSpecs": {
                "Launcher": {"replicas": 1, "template": pod(Some(command))},
                "Worker": {"replicas": workers, "template": pod(server)},
            },
        },
    })
}
