//! The options of `muster batch`, which scripts give in lines `#SBATCH` or `#MUSTER`, too.

use clap::Args;
use muster_batch_core::gpus::{Gpus, Gres};
use muster_batch_core::limits::{self, Warning};
use muster_batch_core::{Array, Dependency};

/// What a job gets, in Slurm's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Job")]
pub(crate) struct Allocation {
    /// Name of the job [default: that of the script's file, or of the command]
    #[arg(long, short = 'J', value_name = "NAME")]
    pub(crate) job_name: Option<String>,
    /// Nodes; processes are started on all of them by `mpirun`
    #[arg(long, short = 'N', value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) nodes: Option<u32>,
    /// Processes that are to be started, on all nodes together
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) ntasks: Option<u32>,
    /// The same for each node
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) ntasks_per_node: Option<u32>,
    /// Cores for each process [default: 1]
    #[arg(long, short = 'c', value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) cpus_per_task: Option<u32>,
    /// GPUs on each node; TYPE is a model such as a100, as the nodes' label nvidia.com/gpu.product names it
    #[arg(long, value_name = "[TYPE:]NUMBER")]
    pub(crate) gpus_per_node: Option<Gpus>,
    /// GPUs in all, the same number on each node
    #[arg(long, short = 'G', value_name = "[TYPE:]NUMBER")]
    pub(crate) gpus: Option<Gpus>,
    /// GPUs for each process
    #[arg(long, value_name = "[TYPE:]NUMBER")]
    pub(crate) gpus_per_task: Option<Gpus>,
    /// GPUs on each node, as gpu:NUMBER or gpu:TYPE:NUMBER
    #[arg(long, value_name = "LIST")]
    pub(crate) gres: Option<Gres>,
    /// Memory on each node: MiB, or a number with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = parsed(limits::memory))]
    pub(crate) mem: Option<Limit<String>>,
    /// Longest time that it runs: MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS ...
    #[arg(long, short = 't', value_name = "TIME", value_parser = parsed(limits::time))]
    pub(crate) time: Option<Limit<u32>>,
    /// Queue
    #[arg(long, short = 'p', value_name = "QUEUE")]
    pub(crate) partition: Option<String>,
    /// Folder in which it starts [default: this one, with --image the image's]
    #[arg(long, short = 'D', value_name = "FOLDER")]
    pub(crate) chdir: Option<String>,
    /// Variables that it gets: NAME, NAME=VALUE, ALL, NONE [default: PATH, HOME, USER, LANG; with --image NONE]
    #[arg(long, value_name = "VARIABLES")]
    pub(crate) export: Option<String>,
    /// Container image [default: $MUSTER_BATCH_IMAGE, else on the embedded cluster the machine itself]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
}

/// How a batch job runs, in Slurm's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Job")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) allocation: Allocation,
    /// Signal that the script gets some seconds before its time is over, such as USR1@60
    #[arg(long, value_name = "SIGNAL@SECONDS", value_parser = limits::warning)]
    pub(crate) signal: Option<Warning>,
    /// Tasks of an array, such as 0-99%10: the script once for each, ten at a time
    #[arg(long, short = 'a', value_name = "TASKS")]
    pub(crate) array: Option<Array>,
    /// Start when other jobs have started or ended, such as afterok:17
    #[arg(long, short = 'd', value_name = "CONDITION")]
    pub(crate) dependency: Option<Dependency>,
    /// Cancel the job when what it waits for cannot come any more, rather than let it wait for a person
    #[arg(long, value_name = "YES|NO", value_parser = yes_or_no)]
    pub(crate) kill_on_invalid_dep: Option<bool>,
    /// File for the output, with %j, %A, %a, %x, %u, %N [default: slurm-%j.out, with --image the pod's log]
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<String>,
    /// File for the errors [default: where the output goes]
    #[arg(long, short = 'e', value_name = "FILE")]
    pub(crate) error: Option<String>,
    /// Wait for `muster release`
    #[arg(long, short = 'H')]
    pub(crate) hold: bool,
    /// Start again when the node is lost or others displace it
    #[arg(long, overrides_with = "no_requeue")]
    pub(crate) requeue: bool,
    /// Do not
    #[arg(long, overrides_with = "requeue")]
    pub(crate) no_requeue: bool,
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("write yes or no".to_owned()),
    }
}

/// A limit, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit<T>(pub(crate) Option<T>);

/// A parser whose value may be that there is no limit.
fn parsed<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<Option<T>, limits::LimitError>,
) -> impl Fn(&str) -> Result<Limit<T>, limits::LimitError> + Clone {
    move |text| parse(text).map(Limit)
}

impl Allocation {
    /// These options, and what they do not say from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            job_name: self.job_name.or(other.job_name),
            nodes: self.nodes.or(other.nodes),
            ntasks: self.ntasks.or(other.ntasks),
            ntasks_per_node: self.ntasks_per_node.or(other.ntasks_per_node),
            cpus_per_task: self.cpus_per_task.or(other.cpus_per_task),
            gpus_per_node: self.gpus_per_node.or(other.gpus_per_node),
            gpus: self.gpus.or(other.gpus),
            gpus_per_task: self.gpus_per_task.or(other.gpus_per_task),
            gres: self.gres.or(other.gres),
            mem: self.mem.or(other.mem),
            time: self.time.or(other.time),
            partition: self.partition.or(other.partition),
            chdir: self.chdir.or(other.chdir),
            export: self.export.or(other.export),
            image: self.image.or(other.image),
        }
    }
}

impl Options {
    /// These options, and what they do not say from `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        let requeue_said = self.requeue || self.no_requeue;
        Self {
            allocation: self.allocation.or(other.allocation),
            signal: self.signal.or(other.signal),
            array: self.array.or(other.array),
            dependency: self.dependency.or(other.dependency),
            kill_on_invalid_dep: self.kill_on_invalid_dep.or(other.kill_on_invalid_dep),
            output: self.output.or(other.output),
            error: self.error.or(other.error),
            hold: self.hold || other.hold,
            requeue: if requeue_said { self.requeue } else { other.requeue },
            no_requeue: if requeue_said { self.no_requeue } else { other.no_requeue },
        }
    }
}
