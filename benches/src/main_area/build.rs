//! A clean release build of the program.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::area::Settings;

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let target = tempfile::Builder::new().prefix("muster-bars-").tempdir()?;
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--package", "muster", "--locked"]).current_dir(&settings.project);
    command.env("CARGO_TARGET_DIR", target.path()).stdout(Stdio::null()).kill_on_drop(true);
    let began = Instant::now();
    let status = command.status().await.context("cannot start cargo")?;
    ensure!(status.success(), "the release does not build");
    Ok(vec![began.elapsed().as_secs_f64()])
}
