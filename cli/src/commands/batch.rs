//! `muster batch`: submits a script, as `sbatch` does.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use muster_batch_core::board::progress;
use muster_batch_core::dependency::Progress;
use muster_batch_core::job::MOST_SCRIPT_BYTES;
use muster_batch_core::{Request, names};

use crate::batch::{self, Directives, Options};
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};
use crate::output;

/// Variables that a script gets unless something else is said: what it needs to find programs and files.
const EXPORTED: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ"];
/// The image that stands for the machine itself.
const HOST: &str = "host";

/// Submits a script as a batch job; its lines `#SBATCH` and `#MUSTER` are options, too
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster batch train.sh\n  muster batch --time 2:00:00 --gpus-per-node 1 --array 0-99%10 sweep.sh\n  muster batch --dependency afterok:17 evaluate.sh\n  muster batch --wait --parsable job.sh arguments\n\nIt becomes a Job, which every other client of the cluster sees. The script finds Slurm's variables, and the same as MUSTER_*."
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

/// Which cluster, without the short options that mean something else to Slurm's users.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
struct BatchCluster {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, else the embedded cluster]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace [default: the context's, else `default`]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// State of the embedded cluster [default: ~/.local/share/muster]
    #[arg(long, env = "MUSTER_HOME", value_name = "FOLDER")]
    home: Option<PathBuf>,
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
    let request = request(options.or(directives.options), &name, text, words.collect())?;
    let BatchCluster { kubeconfig, context, namespace, home } = cluster;
    let connection = ClusterArguments { kubeconfig, context, namespace, home }.connect().await?;
    for id in request.dependency.iter().flat_map(muster_batch_core::Dependency::ids) {
        batch::find(&connection, id).await?;
    }
    let id = batch::submit(&connection, &request).await?;
    output::print(&if parsable { format!("{id}\n") } else { format!("Submitted batch job {id}\n") })?;
    if wait { wait_for(&connection, id).await } else { Ok(ExitCode::SUCCESS) }
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

fn request(options: Options, name: &str, script: String, arguments: Vec<String>) -> Result<Request, Error> {
    let usage = |text: String| Error::new(text).with_code(USAGE);
    if options.nodes.is_some_and(|nodes| nodes > 1) {
        return Err(usage("--nodes: jobs over several nodes are not made yet".to_owned())
            .with_hint("an array runs on as many nodes as it has tasks at a time"));
    }
    let tasks = match (options.ntasks, options.ntasks_per_node) {
        (Some(all), Some(each)) if all > each => {
            return Err(usage(format!(
                "--ntasks {all} do not fit on one node with --ntasks-per-node {each}"
            )));
        }
        (all, each) => all.or(each).unwrap_or(1),
    };
    let on_host = options.image.is_none();
    let folder = match options.chdir {
        Some(folder) => Some(absolute(&folder)?),
        None if on_host => Some(absolute(".")?),
        None => None,
    };
    let default_output = || {
        let pattern = if options.array.is_some() { "slurm-%A_%a.out" } else { "slurm-%j.out" };
        on_host.then(|| pattern.to_owned())
    };
    let output = options.output.clone().or_else(default_output);
    let files = [output.as_deref(), options.error.as_deref()];
    let folders = if on_host { seen_by_pods(folder.as_deref(), &files) } else { Vec::new() };
    let file = Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned());
    let request = Request {
        script,
        arguments,
        name: options.job_name.or(file).unwrap_or_else(|| name.to_owned()),
        user: std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default(),
        image: options.image.unwrap_or_else(|| HOST.to_owned()),
        folder,
        folders,
        environment: exported(options.export.as_deref(), on_host)?,
        tasks,
        cpus_per_task: options.cpus_per_task.unwrap_or(1),
        gpus: options.gpus_per_node.unwrap_or(0),
        memory: options.mem.and_then(|memory| memory.0),
        time: options.time.and_then(|time| time.0),
        warning: options.signal,
        output,
        array: options.array,
        dependency: options.dependency,
        error: options.error,
        hold: options.hold,
        requeue: options.requeue && !options.no_requeue,
        queue: options.partition,
    };
    request.check().map_err(|error| usage(format!("{name}: {error}")))?;
    Ok(request)
}

/// The folders that a script on the machine itself reads and writes; all else that it changes is gone with its pod.
fn seen_by_pods(folder: Option<&str>, files: &[Option<&str>]) -> Vec<String> {
    let parent = |file: &str| Path::new(file).parent()?.to_str().map(str::to_owned);
    let far = files.iter().flatten().filter(|file| file.starts_with('/')).filter_map(|file| parent(file));
    let mut folders: Vec<String> = Vec::new();
    for folder in folder.map(str::to_owned).into_iter().chain(far.filter(|folder| !folder.contains('%'))) {
        if !folders.iter().any(|seen| Path::new(&folder).starts_with(seen)) {
            folders.push(folder);
        }
    }
    folders
}

fn absolute(folder: &str) -> Result<String, Error> {
    let path = fs_err::canonicalize(folder).map_err(|error| Error::from_source("--chdir", &error))?;
    Ok(path.to_string_lossy().into_owned())
}

/// The variables that `--export` names.
fn exported(wanted: Option<&str>, on_host: bool) -> Result<Vec<(String, String)>, Error> {
    let of_name = |name: &str| std::env::var(name).ok().map(|value| (name.to_owned(), value));
    let defaults = || EXPORTED.iter().filter_map(|name| of_name(name));
    let Some(wanted) = wanted else {
        return Ok(if on_host { defaults().collect() } else { Vec::new() });
    };
    let mut variables: Vec<(String, String)> = if on_host { defaults().collect() } else { Vec::new() };
    for word in wanted.split(',') {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => variables.push((name.to_owned(), value.to_owned())),
            Some(_) => return Err(Error::new(format!("--export: `{word}` has no name")).with_code(USAGE)),
            None if word == "NONE" => variables.clear(),
            None if word == "ALL" => variables.extend(std::env::vars_os().filter_map(handed_on)),
            None => variables.extend(of_name(word)),
        }
    }
    Ok(variables)
}

/// A variable of this environment that a job may have: one that is text under a name that Kubernetes takes, and does not
/// say of a job that runs this command what is not true of the next.
fn handed_on((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
    let of_job = ["SLURM_", "MUSTER_"].iter().any(|prefix| name.starts_with(prefix));
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_plain && name != "JOB_COMPLETION_INDEX" && (!of_job || name == "MUSTER_HOME"))
        .then_some((name, value))
}

/// Waits until the job has ended; the highest exit code of its pods is the answer.
async fn wait_for(connection: &Connection, id: u64) -> Result<ExitCode, Error> {
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
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
        match progress(&job) {
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
    let codes = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
    let highest = codes.map(|ended| ended.exit_code).max().unwrap_or(0);
    Ok(ExitCode::from(u8::try_from(highest).ok().filter(|code| *code > 0).unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_does_not_hand_on_what_is_its_own() {
        let kept = |name: &str| handed_on((name.into(), "value".into())).is_some();
        assert!(["PATH", "OMP_NUM_THREADS", "MUSTER_HOME"].into_iter().all(kept));
        let own =
            ["SLURM_ARRAY_TASK_ID", "MUSTER_ARRAY_RANGES", "JOB_COMPLETION_INDEX", "BASH_FUNC_module%%"];
        assert!(!own.into_iter().any(kept));
    }

    #[test]
    fn pods_see_the_folders_that_their_files_are_in() {
        let files = [Some("out/%j.log"), Some("/var/log/jobs/%j.err")];
        assert_eq!(seen_by_pods(Some("/scratch/eve"), &files), ["/scratch/eve", "/var/log/jobs"]);
        assert_eq!(
            seen_by_pods(Some("/scratch/eve"), &[Some("/scratch/eve/out/a"), Some("/srv/%x/a")]),
            ["/scratch/eve"]
        );
    }
}
