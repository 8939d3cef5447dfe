//! `cargo xtask bars`: builds what ships and measures it.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::workspace::{Workspace, succeeds};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The part of the project [default: all]
    #[arg(value_enum)]
    area: Option<Area>,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Only the figures with these names
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Time a clean release build too, which takes minutes
    #[arg(long)]
    with_build: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Area {
    /// The main job and the embedded cluster below it
    Main,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// `area name figure bar holds|short`, one line each
    #[default]
    Text,
    /// One JSON array
    Json,
}

/// Measures; false when a figure is short of its bar.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<bool> {
    let build = ["build", "--quiet", "--release", "--package", "muster", "--package", "muster-benches"];
    ensure!(succeeds(&mut workspace.cargo(build))?, "the release does not build");
    let released = workspace.target.join("release");
    let areas = arguments.area.map_or_else(|| Area::value_variants().to_vec(), |area| vec![area]);
    let mut all_hold = true;
    for area in areas {
        let mut command = workspace.command(released.join("muster-bars"));
        command.arg(name(area)).arg("--muster").arg(released.join("muster"));
        command.arg("--output").arg(name(arguments.output));
        if !arguments.only.is_empty() {
            command.arg("--only").arg(arguments.only.join(","));
        }
        if arguments.with_build {
            command.arg("--with-build");
        }
        all_hold &= succeeds(&mut command)?;
    }
    Ok(all_hold)
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
