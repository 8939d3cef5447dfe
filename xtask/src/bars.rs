//! `cargo xtask bars`: builds what ships and measures it.

use anyhow::{Result, ensure};
use clap::Args;

use crate::workspace::{Workspace, succeeds};

/// What to measure.
#[derive(Debug, Args)]
#[command(override_usage = "cargo xtask bars [AREA] [OPTIONS]")]
pub(crate) struct Arguments {
    /// A part of the project, such as `main` [default: all], and options of the measuring program:
    /// --only NAMES, --with-build, --output text|json
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "AREA AND OPTIONS")]
    words: Vec<String>,
}

/// Measures; false when a figure is short of its bar. Which areas there are only the measuring program knows.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<bool> {
    let build = ["build", "--quiet", "--release", "--package", "muster", "--package", "muster-benches"];
    ensure!(succeeds(&mut workspace.cargo(build))?, "the release does not build");
    let released = workspace.target.join("release");
    let mut command = workspace.command(released.join("muster-bars"));
    command.arg("--muster").arg(released.join("muster"));
    succeeds(command.args(&arguments.words))
}
