//! The project's own chores: `cargo xtask test`, `tidy`, `crds`, `bars`, `libtorch`, `kubernetes-schema`.

mod bars;
mod crds;
mod deny;
mod kubernetes_schema;
mod libtorch;
mod report;
mod skips;
mod test;
mod test_runner;
mod tidy;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The project's own chores
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Everything that must hold before a change is shared: format, lints, rules of the tree, tests
    Test(test::Arguments),
    /// The rules of the tree that no compiler checks
    Tidy,
    /// Writes deploy/crds from what `muster crds` prints
    Crds {
        /// Change nothing; fail when a file is not current
        #[arg(long)]
        check: bool,
        /// The `muster` to ask [default: the tree's own, built first]
        #[arg(long, value_name = "FILE")]
        muster: Option<PathBuf>,
    },
    /// Measures the project's figures and compares them with their bars
    Bars(bars::Arguments),
    /// Gets what the feature `libtorch` of the trainer runtime is built with: 540 MB to download, 490 MB on disk
    Libtorch(libtorch::Arguments),
    /// Generates the catalogue of built-in kinds, local/schema/data/kubernetes-1.36.jsonl.gz
    KubernetesSchema {
        /// `_definitions.json` of the Python package kubernetes-validate
        definitions: PathBuf,
        /// The folder `src` of the crate k8s-pb
        protobuf_source: PathBuf,
        /// The file to write
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Does the chore; false when it found something wrong and has said what.
fn run(chore: Chore) -> anyhow::Result<bool> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Test(arguments) => test::run(&workspace, &arguments),
        Chore::Tidy => tidy::run(&workspace),
        Chore::Crds { check, muster } => {
            let program = muster.map_or_else(|| workspace.build_program(), Ok)?;
            if check {
                crds::check(&workspace, &program)
            } else {
                crds::write(&workspace, &program).map(|()| true)
            }
        }
        Chore::Bars(arguments) => bars::run(&workspace, &arguments),
        Chore::Libtorch(arguments) => libtorch::run(&workspace, &arguments).map(|()| true),
        Chore::KubernetesSchema { definitions, protobuf_source, output } => {
            kubernetes_schema::run(&definitions, &protobuf_source, &output).map(|()| true)
        }
    }
}
