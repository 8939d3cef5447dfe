//! B1: GPUs handed out on the openb traces.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::openb::{self, Baseline, Pod, ReadError, Trace, VARIANTS};

/// The load of the published runs.
const LOAD: f64 = 1.3;
/// Their first seed.
const FIRST_SEED: u64 = 42;
/// The seed of variants that are made here.
const VARIANT_SEED: u64 = 1;

/// Why the traces could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenbError {
    /// A file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is in it.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The published figures.
    #[error("{path}: {source}")]
    Published {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: csv::Error,
    },
}

/// One list of pods.
#[derive(Debug, Clone)]
struct List {
    name: &'static str,
    /// Made here from the default list, because the published one is not at hand.
    made: bool,
    trace: Trace,
}

#[derive(Debug, Clone, Deserialize)]
struct Published {
    metric: String,
    workload: String,
    policy: String,
    arrived_pct: u32,
    mean: f64,
}

/// The traces of a folder, and what was published about them.
#[derive(Debug, Clone)]
pub struct Openb {
    lists: Vec<List>,
    published: Vec<Published>,
}

/// A policy on a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllocationRow {
    /// The trace.
    pub trace: String,
    /// Whether its pods were sampled here by the paper's recipe instead of being the published list.
    pub made: bool,
    /// The policy.
    pub policy: String,
    /// Mean GPU allocation when 100 % of the GPUs had been asked for, in per cent.
    pub at_100: f64,
    /// The same at 130 %.
    pub at_130: f64,
    /// Standard deviation over the seeds at 130 %.
    pub deviation: f64,
    /// What the paper's authors published for this policy at 130 %; for ours, what they published for theirs.
    pub published: Option<f64>,
    /// What no policy can exceed at 130 %, for the first seed.
    pub bound: f64,
    /// Mean time of a decision.
    pub decision: Duration,
}

impl Openb {
    /// Reads `openb_node_list_gpu_node.csv`, all `openb_pod_list_*.csv` that there are, and
    /// `fgd_expected_summary.csv` if it is there; makes the missing lists.
    ///
    /// # Errors
    /// [`OpenbError`].
    pub fn read(folder: &Path) -> Result<Self, OpenbError> {
        let path = folder.join("openb_node_list_gpu_node.csv");
        let empty =
            openb::machines(fs::File::open(&path)?).map_err(|source| OpenbError::Read { path, source })?;
        let pods = |name: &str| -> Result<Option<Vec<Pod>>, OpenbError> {
            let path = folder.join(format!("openb_pod_list_{name}.csv"));
            match fs::File::open(&path) {
                Ok(file) => {
                    let pods = openb::pods(file, &empty.models);
                    pods.map(Some).map_err(|source| OpenbError::Read { path, source })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && name != "default" => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let base = Trace { pods: pods("default")?.unwrap_or_default(), ..empty.clone() };
        let mut lists = Vec::new();
        for (name, variant) in VARIANTS {
            let found = pods(name)?;
            let made = found.is_none();
            let pods = found.unwrap_or_else(|| openb::variant(&base, variant, VARIANT_SEED));
            lists.push(List { name, made, trace: Trace { pods, ..empty.clone() } });
        }
        Ok(Self { lists, published: published(&folder.join("fgd_expected_summary.csv"))? })
    }

    /// The trace of a name.
    pub fn trace(&self, name: &str) -> Option<&Trace> {
        self.lists.iter().find(|list| list.name == name).map(|list| &list.trace)
    }

    fn published(&self, trace: &str, policy: &str) -> Option<f64> {
        let paper = match policy {
            "random" => "01-Random",
            "dot-product" => "02-DotProd",
            "gpu-clustering" => "03-GpuClustering",
            "gpu-packing" => "04-GpuPacking",
            "best-fit" => "05-BestFit",
            _ => "06-FGD",
        };
        let workload = format!("openb_pod_list_{trace}");
        let is = |row: &&Published| {
            row.metric == "gpu_alloc_pct"
                && row.workload == workload
                && row.policy == paper
                && row.arrived_pct == 130
        };
        self.published.iter().find(is).map(|row| row.mean)
    }
}

fn published(path: &Path) -> Result<Vec<Published>, OpenbError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let rows: Result<Vec<Published>, csv::Error> =
        csv::Reader::from_reader(file).into_deserialize().collect();
    rows.map_err(|source| OpenbError::Published { path: path.to_owned(), source })
}

/// Runs `policies` (names of [`openb::POLICIES`]) on the traces named, or on all, with `seeds` seeds each.
/// Unknown names are left out.
pub fn b1(openb: &Openb, traces: &[&str], policies: &[&str], seeds: u64) -> Vec<AllocationRow> {
    let mut rows = Vec::new();
    for list in openb.lists.iter().filter(|list| traces.is_empty() || traces.contains(&list.name)) {
        let bound = openb::upper_bound(&list.trace, &openb::arrivals(&list.trace, LOAD, FIRST_SEED));
        for policy in policies.iter().filter(|policy| openb::POLICIES.contains(policy)) {
            let (mut at_100, mut at_130) = (Vec::new(), Vec::new());
            let (mut deciding, mut pods) = (Duration::ZERO, 0_u32);
            for seed in FIRST_SEED..FIRST_SEED + seeds {
                let arrivals = openb::arrivals(&list.trace, LOAD, seed);
                let run = openb::run(&list.trace, &arrivals, Baseline::named(policy), seed);
                at_100.push(run.given_at(100.0));
                at_130.push(run.given_at(130.0));
                deciding += run.deciding;
                pods += run.pods as u32;
            }
            let (mean, deviation) = mean_and_deviation(&at_130);
            rows.push(AllocationRow {
                trace: list.name.to_owned(),
                made: list.made,
                policy: (*policy).to_owned(),
                at_100: mean_and_deviation(&at_100).0,
                at_130: mean,
                deviation,
                published: openb.published(list.name, policy),
                bound,
                decision: deciding / pods.max(1),
            });
        }
    }
    rows
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}
