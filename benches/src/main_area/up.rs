//! `muster up`: how soon it is ready, and how much memory all its processes hold while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::area::Settings;
use crate::process::{Up, proportional_set_size};
use crate::statistics::quantile;

const STARTS: usize = 5;
/// How long a cluster settles before its memory is read.
const SETTLING: Duration = Duration::from_secs(3);
const MEGABYTE: f64 = 1_000_000.0;

pub(super) async fn measure(settings: &Settings) -> Result<Vec<f64>> {
    let mut starts = Vec::new();
    let mut memory = None;
    for _ in 0..STARTS {
        let up = Up::start(settings, &[]).await?;
        starts.push(up.ready_after);
        if memory.is_none() {
            tokio::time::sleep(SETTLING).await;
            memory = Some(proportional_set_size(up.pid()?)?);
        }
        up.stop().await?;
    }
    let median = quantile(&starts, 0.5).context("no start")?;
    Ok(vec![median.as_secs_f64(), memory.context("no start")? as f64 / MEGABYTE])
}
