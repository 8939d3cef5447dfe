//! The main job as a newcomer runs it: one command, from nothing to a trained model.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::area::Settings;
use crate::process::Home;

const MANIFEST: &str = "examples/digits/pytorchjob.yaml";

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let home = Home::new(settings)?;
    let manifest = settings.project.join(MANIFEST);
    let mut command = home.command(["run".as_ref(), manifest.as_os_str()])?;
    let began = Instant::now();
    let output = command.output().await.context("cannot start muster")?;
    let took = began.elapsed();
    if !output.status.success() {
        bail!("muster run ended with {}: {}", output.status, home.last_words());
    }
    let accuracy = accuracy(&String::from_utf8_lossy(&output.stdout))?;
    Ok(vec![took.as_secs_f64(), accuracy])
}

/// The line `test accuracy  0.97` of the summary.
fn accuracy(summary: &str) -> Result<f64> {
    let value = summary.lines().find_map(|line| line.trim().strip_prefix("test accuracy"));
    let value = value.with_context(|| format!("the summary has no test accuracy:\n{summary}"))?.trim();
    value.parse().with_context(|| format!("{value} is not an accuracy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accuracy_stands_in_the_summary() {
        let summary = "digits succeeded in 3.0 s
  steps          600
  test accuracy  0.972
";
        assert!((accuracy(summary).unwrap() - 0.972).abs() < 1e-9);
        assert!(accuracy("digits succeeded in 3.0 s\n").is_err());
    }
}
