//! The command line of the launcher.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  muster exec-worker -- python train.py                          # as many workers as PET_NPROC_PER_NODE says
  muster exec-worker --nproc-per-node gpu -- python train.py     # one for each GPU that the pod was given
  muster exec-worker --nproc-per-node 4 --max-restarts 3 -- ./train --epochs 10
  muster exec-worker --nnodes 2 --node-rank 1 --master-addr node-0 --nproc-per-node 8 -- python train.py
  muster exec-worker --nnodes 1:4 --rdzv-endpoint node-0:29400 --max-restarts 3 -- python train.py

Exit codes: 0 when all workers succeeded, else that of the worker that failed first (128 plus the number of a signal);
127 when the command does not exist, 126 when it cannot be executed, 2 when options or variables make no sense. Of a job
whose number of nodes may change: 0 when the workers of all nodes succeeded, 1 when those of another node failed.";

/// Starts the workers of a training pod with torchrun's environment, and watches over them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// How often all workers start again after one failed; for jobs of one node and those with a rendezvous, since the
    /// job's controller restarts the pods of others [default: PET_MAX_RESTARTS, else 0]
    #[arg(long, alias = "max_restarts", value_name = "TIMES")]
    pub(crate) max_restarts: Option<u32>,
    /// What happens to the other workers when one fails
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) on_failure: OnFailure,
    /// How long workers may take to stop before they are killed; less than the pod's terminationGracePeriodSeconds leaves
    /// time to report it
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub(crate) grace: Duration,
    /// Whether each worker gets processor cores of its own
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) pin: Pin,
    /// Whether lines of output begin with the rank
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) prefix: Prefix,
    /// How many of the last lines of a failed worker's standard error are reported
    #[arg(long, default_value_t = 20, value_name = "LINES")]
    pub(crate) last_lines: usize,
    /// File for a short report of a failure, which the pod's status shows [default: /dev/termination-log if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) termination_log: Option<PathBuf>,
    /// The program of a worker, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Which workers of which job start here. What is not given comes from the variables of a PyTorchJob's pod.
#[derive(Debug, Default, Args)]
pub(crate) struct PlaceArguments {
    /// How many workers start: a number, `gpu` for one a GPU, `cpu` for one a processor that the pod may use, or `auto`
    /// for `gpu` where there are any, else `cpu` [default: PET_NPROC_PER_NODE, else 1]
    #[arg(long, alias = "nproc_per_node", value_name = "N|auto|cpu|gpu")]
    pub(crate) nproc_per_node: Option<WorkerCount>,
    /// How many nodes (pods) the job has, or the fewest and the most, which a rendezvous then brings together
    /// [default: PET_NNODES, else from WORLD_SIZE, else 1]
    #[arg(long, value_name = "N|FEWEST:MOST")]
    pub(crate) nnodes: Option<String>,
    /// Which of the nodes this is, from 0 [default: PET_NODE_RANK, else RANK]
    #[arg(long, alias = "node_rank", value_name = "RANK")]
    pub(crate) node_rank: Option<usize>,
    /// Host of rank 0 [default: PET_MASTER_ADDR, else MASTER_ADDR, else 127.0.0.1 for one node]
    #[arg(long, alias = "master_addr", value_name = "HOST")]
    pub(crate) master_addr: Option<String>,
    /// Port where rank 0 listens; 0 for any that is free, with one node or a rendezvous
    /// [default: PET_MASTER_PORT, else MASTER_PORT, else 29500; with a rendezvous 0]
    #[arg(long, alias = "master_port", value_name = "PORT")]
    pub(crate) master_port: Option<u16>,
    /// Where the nodes meet that say by a rendezvous who takes part; the node that has this address holds it, without
    /// encryption [default: the service that MUSTER_RENDEZVOUS names, else PET_RDZV_ENDPOINT]
    #[arg(long, alias = "rdzv_endpoint", value_name = "HOST[:PORT]")]
    pub(crate) rdzv_endpoint: Option<String>,
    /// Name of the job at the rendezvous [default: PET_RDZV_ID]
    #[arg(long, alias = "rdzv_id", value_name = "ID")]
    pub(crate) rdzv_id: Option<String>,
    /// Settings of the rendezvous, in seconds: join_timeout (600), in which there must be enough nodes, and
    /// last_call_timeout (30; 10 where the job says how many it has), in which more may come [default: PET_RDZV_CONF]
    #[arg(long, alias = "rdzv_conf", value_name = "KEY=VALUE,...")]
    pub(crate) rdzv_conf: Option<String>,
}

/// How many workers a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerCount {
    Number(NonZeroUsize),
    Auto,
    Cpu,
    Gpu,
}

impl FromStr for WorkerCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.trim() {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            number => Self::Number(
                number.parse().map_err(|_| "expected a number from 1, auto, cpu or gpu".to_owned())?,
            ),
        })
    }
}

/// What a failure means for the other workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFailure {
    /// They are stopped
    #[default]
    Stop,
    /// They go on to their own end
    Continue,
}

/// Whether workers are bound to cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pin {
    /// Whole cores, within one NUMA node where they fit, near the worker's GPU
    #[default]
    Auto,
    /// The system's scheduler decides
    None,
}

/// When lines of output are marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Prefix {
    /// With more than one worker
    #[default]
    Auto,
    /// Also with one
    Always,
    /// Not at all
    Never,
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|_| "a duration cannot be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_counts_are_numbers_or_words() {
        assert_eq!("4".parse(), Ok(WorkerCount::Number(NonZeroUsize::new(4).unwrap())));
        assert_eq!("gpu".parse(), Ok(WorkerCount::Gpu));
        for wrong in ["0", "-1", "", "many"] {
            assert!(wrong.parse::<WorkerCount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_carry_a_unit() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["-1s", "5", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
