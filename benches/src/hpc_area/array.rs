//! An array of a hundred tasks that end at once, as `muster batch` runs it: from the command to its end.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::area::Settings;
use crate::process::Up;
use crate::statistics::median;

const ROUNDS: usize = 5;
const SCRIPT: &str = "#!/bin/sh\n#SBATCH --array=0-99\n#SBATCH --output=/dev/null\n/bin/true\n";

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let up = Up::start(settings, &[]).await?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("true.sh");
    fs::write(&script, SCRIPT)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let mut command = up.home().command(["batch".as_ref(), "--wait".as_ref(), script.as_os_str()])?;
        command.current_dir(folder.path());
        let began = Instant::now();
        let output = command.output().await.context("cannot start muster")?;
        times.push(began.elapsed().as_secs_f64());
        ensure!(
            output.status.success(),
            "muster batch ended with {}: {}",
            output.status,
            up.home().last_words()
        );
    }
    up.stop().await?;
    Ok(vec![median(times.into_iter())])
}
