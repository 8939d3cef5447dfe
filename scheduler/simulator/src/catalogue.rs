//! Workloads by name or file, and reports into a folder: what a command line needs.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::generate::gangs::{GangMix, LeafSpine, like_openb};
use crate::generate::{gangs, gavel, kueue, mixed};
use crate::openb::{self, ReadError};
use crate::report::{PlotError, Report, bars_svg, classes_csv, curves_csv, curves_svg, json, summary_csv};
use crate::workload::Workload;

/// Workloads that need no file.
pub const SYNTHETIC: [&str; 2] = ["gangs", "mixed"];
/// GPU work over capacity of a Gavel trace.
const LOAD: f64 = 0.9;

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither a name nor a kind of file.
    #[error(
        "trace {trace:?} is none of {} and no file that ends in .trace (Gavel), .yaml (Kueue) or .csv (openb)",
        SYNTHETIC.join(", ")
    )]
    Unknown {
        /// What was asked for.
        trace: String,
    },
    /// A file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A Gavel trace.
    #[error("{path}: {source}")]
    Gavel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: gavel::TraceError,
    },
    /// A Kueue generator.
    #[error("{path}: {source}")]
    Kueue {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kueue::GeneratorError,
    },
    /// An openb list.
    #[error("{path}: {source}")]
    Openb {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
}

/// A workload by name ([`SYNTHETIC`]) or from a file: a Gavel trace, a Kueue generator, or an openb list of pods with
/// `openb_node_list_gpu_node.csv` beside it. Jobs declare `estimate` times their run time where the trace says nothing.
///
/// # Errors
/// [`LoadError`].
pub fn load(trace: &str, seed: u64, estimate: Option<f64>) -> Result<Workload, LoadError> {
    match trace {
        "gangs" => {
            let mix = GangMix { estimate, ..GangMix::default() };
            return Ok(gangs::workload(LeafSpine::default().over(like_openb(400)), &mix, seed));
        }
        "mixed" => {
            let mix = mixed::HugeGangs { estimate, ..mixed::HugeGangs::default() };
            return Ok(mixed::workload(trace, mixed::small_jobs(2_000, seed), &mix, seed));
        }
        _ => {}
    }
    let path = PathBuf::from(trace);
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("trace") => {
            let read = gavel::workload(&name, &fs::read_to_string(&path)?, estimate, LOAD);
            read.map_err(|source| LoadError::Gavel { path, source })
        }
        Some("yaml" | "yml") => {
            let read = kueue::workload(&name, &fs::read_to_string(&path)?);
            read.map_err(|source| LoadError::Kueue { path, source })
        }
        Some("csv") => {
            let nodes = path.with_file_name("openb_node_list_gpu_node.csv");
            let mut read = openb::machines(fs::File::open(&nodes)?)
                .map_err(|source| LoadError::Openb { path: nodes, source })?;
            read.pods = openb::pods(fs::File::open(&path)?, &read.models)
                .map_err(|source| LoadError::Openb { path, source })?;
            Ok(openb::workload(&name, &read))
        }
        _ => Err(LoadError::Unknown { trace: trace.to_owned() }),
    }
}

/// Why the reports were not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A picture.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// JSON.
    #[error("the reports do not make JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes everything about `reports` into `folder`, which is made if need be: `summary.csv`, `classes.csv`,
/// `curves.csv`, `reports.json`, `curves.svg`, `bars.svg`. The paths of the files.
///
/// # Errors
/// [`WriteError`].
pub fn write(reports: &[Report], folder: &Path) -> Result<Vec<PathBuf>, WriteError> {
    fs::create_dir_all(folder)?;
    let files = [
        ("summary.csv", summary_csv(reports)),
        ("classes.csv", classes_csv(reports)),
        ("curves.csv", curves_csv(reports)),
        ("reports.json", json(reports)?),
        ("curves.svg", curves_svg(reports)?),
        ("bars.svg", bars_svg(reports)?),
    ];
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text)?;
        paths.push(path);
    }
    Ok(paths)
}
