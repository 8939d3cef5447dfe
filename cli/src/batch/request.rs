//! Options and a script as what they ask for.

use std::ffi::OsString;
use std::path::Path;

use muster_batch_core::gpus::Wish;
use muster_batch_core::{Layout, Request, shell};

use super::nodes::{IMAGE, Nodes};
use super::options::{Allocation, Options};
use crate::error::{Error, USAGE};
use crate::output;

/// Variables that a script gets unless something else is said: what it needs to find programs and files.
const EXPORTED: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ"];
/// The image that stands for the machine itself.
const HOST: &str = "host";

fn usage(error: impl std::fmt::Display) -> Error {
    Error::new(error.to_string()).with_code(USAGE)
}

/// What the options of a script ask for; `name` is its file.
///
/// # Errors
/// What the options contradict, and what the cluster has not.
pub(crate) fn request(
    mut options: Options,
    name: &str,
    script: String,
    arguments: Vec<String>,
    nodes: &Nodes,
) -> Result<Request, Error> {
    options.allocation.image = image(options.allocation.image.take());
    let on_host = options.allocation.image.is_none();
    let default_output = || {
        let pattern = if options.array.is_some() { "slurm-%A_%a.out" } else { "slurm-%j.out" };
        on_host.then(|| pattern.to_owned())
    };
    let output = options.output.clone().or_else(default_output);
    let files = [output.as_deref(), options.error.as_deref()];
    let file = Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned());
    let allocated = allocated(options.allocation, &file.unwrap_or_else(|| name.to_owned()), &files, nodes)?;
    let requeue = options.requeue && !options.no_requeue;
    if allocated.layout.nodes() > 1 && options.no_requeue {
        return Err(usage("--no-requeue: a job of several nodes starts again when one of them is lost"));
    }
    let request = Request {
        script,
        arguments,
        warning: options.signal,
        output,
        array: options.array,
        dependency: options.dependency,
        kill_on_invalid_dependency: options.kill_on_invalid_dep == Some(true),
        error: options.error,
        hold: options.hold,
        requeue,
        ..allocated
    };
    request.check().map_err(|error| usage(format!("{name}: {error}")))?;
    Ok(request)
}

/// What somebody asks for who wants to work in the job, by a shell or this command.
///
/// # Errors
/// What the options contradict, and what the cluster has not.
pub(crate) fn interactive(
    mut allocation: Allocation,
    command: &[String],
    nodes: &Nodes,
) -> Result<Request, Error> {
    allocation.image = image(allocation.image.take());
    let program = command.first().and_then(|program| Path::new(program).file_name());
    let name = program.map_or_else(|| "interactive".into(), |program| program.to_string_lossy());
    let request = Request {
        script: shell::KEEPER.to_owned(),
        interactive: true,
        ..allocated(allocation, &name, &[], nodes)?
    };
    request.check().map_err(usage)?;
    Ok(request)
}

/// The image that an option names, or else the environment.
fn image(named: Option<String>) -> Option<String> {
    named.or_else(|| std::env::var(IMAGE).ok().filter(|image| !image.is_empty()))
}

/// A request for an allocation that runs nothing yet: it is called `name` unless it has one, and sees the folders of
/// `files`.
fn allocated(
    allocation: Allocation,
    name: &str,
    files: &[Option<&str>],
    nodes: &Nodes,
) -> Result<Request, Error> {
    nodes.check_image(allocation.image.as_ref())?;
    let layout = layout(&allocation)?;
    let (gpus, gpu_models) = gpus(&allocation, layout, nodes)?;
    let on_host = allocation.image.is_none();
    let folder = match allocation.chdir {
        Some(folder) => Some(absolute(&folder)?),
        None if on_host => Some(absolute(".")?),
        None => None,
    };
    let folders = if on_host { seen_by_pods(folder.as_deref(), files) } else { Vec::new() };
    let host = fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(Request {
        script: String::new(),
        arguments: Vec::new(),
        name: allocation.job_name.unwrap_or_else(|| name.to_owned()),
        user: std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default(),
        image: allocation.image.unwrap_or_else(|| HOST.to_owned()),
        folder,
        folders,
        environment: exported(allocation.export.as_deref(), on_host)?,
        submit_host: host.trim().to_owned(),
        layout,
        cpus_per_task: allocation.cpus_per_task.unwrap_or(1),
        gpus,
        gpu_models,
        memory: allocation.mem.and_then(|memory| memory.0),
        time: allocation.time.and_then(|time| time.0),
        warning: None,
        output: None,
        array: None,
        dependency: None,
        kill_on_invalid_dependency: false,
        error: None,
        hold: false,
        requeue: false,
        interactive: false,
        queue: allocation.partition,
    })
}

fn layout(options: &Allocation) -> Result<Layout, Error> {
    let layout = Layout::new(options.nodes, options.ntasks, options.ntasks_per_node).map_err(usage)?;
    if options.nodes.is_some_and(|nodes| nodes > layout.nodes()) {
        let (tasks, nodes) = (layout.tasks(), options.nodes.unwrap_or_default());
        output::note(&format!("--ntasks {tasks} cannot run on --nodes {nodes}; the job has {tasks} nodes"));
    }
    Ok(layout)
}

/// The GPUs on each node, and of which models they may be.
fn gpus(options: &Allocation, layout: Layout, nodes: &Nodes) -> Result<(u32, Vec<String>), Error> {
    for other in options.gres.iter().flat_map(|gres| &gres.others) {
        output::note(&format!("--gres={other} is not supported and left out"));
    }
    let wish = Wish {
        per_node: options.gpus_per_node.as_ref(),
        gres: options.gres.as_ref().and_then(|gres| gres.gpus.as_ref()),
        total: options.gpus.as_ref(),
        per_task: options.gpus_per_task.as_ref(),
    };
    let gpus = wish.on_each(layout).map_err(usage)?;
    let models = match &gpus.type_ {
        Some(type_) if gpus.count > 0 => nodes.models(type_)?,
        _ => Vec::new(),
    };
    Ok((gpus.count, models))
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
