//! `muster batch`: submits a script, as `sbatch` does.

use std::fmt::Debug;
use std::io::Read as _;
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use muster_batch_core::dependency::Progress;
use muster_batch_core::job::{MOST_SCRIPT_BYTES, SCRIPT};
use muster_batch_core::{Work, names};
use muster_trainer_api::MpiJob;
use serde::de::DeserializeOwned;

use crate::batch::{self, BatchCluster, Directives, Nodes, Options};
use crate::connect::Connection;
use crate::error::Error;
use crate::output;

/// Submits a script as a batch job; its lines `#SBATCH` and `#MUSTER` are options, too
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster batch train.sh\n  muster batch --time 2:00:00 --gpus-per-node 1 --array 0-99%10 sweep.sh\n  muster batch --dependency afterok:17 evaluate.sh\n  muster batch --nodes 4 --ntasks-per-node 8 simulate.sh   # which calls mpirun\n  muster batch --wait --parsable job.sh arguments\n\nIt becomes a Job, over several nodes an MPIJob, which every other client of the cluster sees. The script finds Slurm's variables, and the same as MUSTER_*."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Wait until the job has ended; its exit code becomes the command's
    #[arg(long, short = 'W')]
    wait: bool,
    /// Print the number of the job alone
    #[arg(long)]
    parsable: bool,
    #[command(flatten)]
    cluster: BatchCluster,
    /// The script, and its arguments; standard input when absent
    #[arg(value_name = "SCRIPT", trailing_var_arg = true)]
    script: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    let Arguments { options, wait, parsable, cluster, script } = arguments;
    let mut words = script.into_iter();
    let (name, text) = read(words.next())?;
    let directives = Directives::read(&name, &text)?;
    for (line, option) in &directives.unsupported {
        output::note(&format!("{name}:{line}: {option} is not supported and left out"));
    }
    if let Some(line) = calls_srun(&text) {
        output::note(&format!(
            "{name}:{line}: srun is no program of Muster's; unless the image has one, call mpirun"
        ));
    }
    let connection = cluster.connect().await?;
    let nodes = Nodes::read(&connection).await;
    let request = batch::request(options.or(directives.options), &name, text, words.collect(), &nodes)?;
    for id in request.dependency.iter().flat_map(muster_batch_core::Dependency::ids) {
        batch::find(&connection, id).await?;
    }
    let id = batch::submit(&connection, &request).await?;
    output::print(&if parsable { format!("{id}\n") } else { format!("Submitted batch job {id}\n") })?;
    if !wait {
        Ok(ExitCode::SUCCESS)
    } else if request.layout.nodes() > 1 {
        wait_for::<MpiJob>(&connection, id).await
    } else {
        wait_for::<Job>(&connection, id).await
    }
}

/// The first line of a script that starts processes by `srun`.
fn calls_srun(script: &str) -> Option<usize> {
    let calls = |line: &str| line.split_whitespace().find(|word| *word != "exec") == Some("srun");
    script.lines().position(calls).map(|line| line + 1)
}

/// The script and what to call it.
fn read(path: Option<String>) -> Result<(String, String), Error> {
    let Some(path) = path.filter(|path| path != "-") else {
        let mut text = String::new();
        std::io::stdin().lock().take(MOST_SCRIPT_BYTES as u64 + 1).read_to_string(&mut text)?;
        return Ok(("batch".to_owned(), text));
    };
    let text = fs_err::read_to_string(&path)
        .map_err(|error| Error::from_source("cannot read the script", &error))?;
    Ok((path, text))
}

/// Waits until the job has ended; the highest exit code of its pods is the answer.
async fn wait_for<K>(connection: &Connection, id: u64) -> Result<ExitCode, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Into<Work> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let jobs: Api<K> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let name = names::job_name(id);
    let own = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = std::pin::pin!(watcher(jobs, own).default_backoff());
    let deleted = || Error::new(format!("job {id} was deleted before it ended"));
    let mut is_there = false;
    while let Some(event) = changes.next().await {
        let job = match event {
            Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) => job,
            Ok(watcher::Event::Init) => {
                is_there = false;
                continue;
            }
            Ok(watcher::Event::InitDone) if is_there => continue,
            Ok(watcher::Event::Delete(_) | watcher::Event::InitDone) => return Err(deleted()),
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if is_refused(&status) => {
                return Err(kube::Error::Api(status).into());
            }
            // Any other failure may pass.
            Err(_) => continue,
        };
        is_there = true;
        match job.into().progress() {
            Progress::Succeeded => return Ok(ExitCode::SUCCESS),
            Progress::Failed => return exit_code(connection, id).await,
            _ => {}
        }
    }
    Err(Error::new(format!("the watch of job {id} ended")))
}

fn is_refused(status: &kube::core::Status) -> bool {
    matches!(status.code, 401 | 403)
}

async fn exit_code(connection: &Connection, id: u64) -> Result<ExitCode, Error> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let pods = pods.list(&ListParams::default().labels(&format!("{}={id}", names::ID))).await?;
    let containers = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
    let codes = containers
        .filter(|container| container.name == SCRIPT)
        .filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    let highest = codes.map(|ended| ended.exit_code).max().unwrap_or(0);
    Ok(ExitCode::from(u8::try_from(highest).ok().filter(|code| *code > 0).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_counts_on_srun_is_told_where() {
        assert_eq!(
            calls_srun("#!/bin/sh\n# srun a\necho srun\n  exec srun -n 2 hostname\nsrun b\n"),
            Some(4)
        );
        assert_eq!(calls_srun("#!/bin/sh\nmpirun hostname\n"), None);
    }
}
