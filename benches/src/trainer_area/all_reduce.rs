//! All-reduce of `f32` between processes: registered and staged memory, Open MPI and gloo, one after the other for
//! every size, and all of that several times, so that a busy moment of the machine strikes all alike.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::install;
use super::peer::Peer;
use crate::area::Settings;
use crate::statistics::median;

/// A ratio is the median over the rounds of the ratios in one round.
const ROUNDS: usize = 3;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 10] =
    [KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB];

/// Seconds of one all-reduce of one size in one round; not a number where there was nothing to measure.
#[derive(Debug, Clone, Copy)]
struct Times {
    registered: f64,
    staged: f64,
    bound: f64,
    open_mpi: f64,
    gloo: f64,
}

/// What was measured of one size.
struct Size {
    bytes: usize,
    rounds: Vec<Times>,
}

impl Size {
    fn median(&self, value: impl Fn(&Times) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }
}

/// The least of the medians over the sizes in a range; not a number when one of them is not.
fn worst(
    sizes: &[Size],
    range: std::ops::RangeInclusive<usize>,
    value: impl Fn(&Times) -> f64 + Copy,
) -> f64 {
    let values = sizes.iter().filter(|size| range.contains(&size.bytes)).map(|size| size.median(value));
    values.fold(f64::INFINITY, |least, value| if value.is_nan() { value } else { value.min(least) })
}

/// The bars of two ranks, in their order.
pub(super) async fn between_two(settings: &Settings) -> Result<Vec<f64>> {
    let sizes = measure(settings, 2).await?;
    Ok(vec![
        worst(&sizes, 16 * KIB..=256 * MIB, |times| times.open_mpi / times.registered),
        worst(&sizes, 16 * KIB..=64 * MIB, |times| times.gloo / times.registered),
        worst(&sizes, 256 * MIB..=256 * MIB, |times| times.gloo / times.registered),
        worst(&sizes, KIB..=256 * MIB, |times| times.open_mpi / times.staged),
        worst(&sizes, MIB..=16 * MIB, |times| times.open_mpi / times.staged),
        worst(&sizes, 64 * MIB..=256 * MIB, |times| times.open_mpi / times.staged),
        worst(&sizes, KIB..=256 * MIB, |times| times.gloo / times.staged),
        worst(&sizes, 64 * MIB..=64 * MIB, |times| times.bound / times.registered),
        worst(&sizes, KIB..=KIB, |times| times.registered) * 1e6,
    ])
}

/// The bars of four ranks, in their order.
pub(super) async fn between_four(settings: &Settings) -> Result<Vec<f64>> {
    let sizes = measure(settings, 4).await?;
    Ok(vec![
        worst(&sizes, 16 * KIB..=256 * MIB, |times| times.open_mpi / times.registered),
        worst(&sizes, 16 * KIB..=64 * MIB, |times| times.gloo / times.registered),
        worst(&sizes, 256 * MIB..=256 * MIB, |times| times.gloo / times.registered),
        worst(&sizes, KIB..=256 * MIB, |times| times.open_mpi / times.staged),
        worst(&sizes, 16 * KIB..=256 * MIB, |times| times.open_mpi / times.staged),
        worst(&sizes, KIB..=256 * MIB, |times| times.gloo / times.staged),
        worst(&sizes, 64 * MIB..=64 * MIB, |times| times.bound / times.registered),
    ])
}

async fn measure(settings: &Settings, ranks: usize) -> Result<Vec<Size>> {
    let mut open_mpi = available("Open MPI", install::open_mpi(settings, ranks).await);
    let mut gloo = available("gloo", install::gloo(settings, ranks).await);
    let mut sizes: Vec<Size> = SIZES.iter().map(|bytes| Size { bytes: *bytes, rounds: vec![] }).collect();
    for _ in 0..ROUNDS {
        for size in &mut sizes {
            let [staged, registered, bound] = own(settings, ranks, size.bytes).await?;
            size.rounds.push(Times {
                registered,
                staged,
                bound,
                open_mpi: ask(&mut open_mpi, size.bytes).await,
                gloo: ask(&mut gloo, size.bytes).await,
            });
        }
    }
    for peer in [open_mpi, gloo].into_iter().flatten() {
        peer.finish().await;
    }
    crate::note(&format!("{ranks} ranks, us: bytes registered staged open-mpi gloo bound"));
    for size in &sizes {
        let us = |value: fn(&Times) -> f64| size.median(value) * 1e6;
        crate::note(&format!(
            "{:>10} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
            size.bytes,
            us(|times| times.registered),
            us(|times| times.staged),
            us(|times| times.open_mpi),
            us(|times| times.gloo),
            us(|times| times.bound)
        ));
    }
    Ok(sizes)
}

/// The peer, or a word on why its figures fall short.
fn available(name: &str, peer: Result<Peer>) -> Option<Peer> {
    peer.map_err(|error| crate::note(&format!("nothing is compared with {name}: {error:#}"))).ok()
}

/// The seconds of a peer, which is given up once it fails.
async fn ask(peer: &mut Option<Peer>, bytes: usize) -> f64 {
    let Some(running) = peer else { return f64::NAN };
    // Fewer than of ours for small sizes, where a peer may need milliseconds.
    let repetitions = ((64 * MIB) / bytes).clamp(7, 201);
    match running.measure(bytes, repetitions).await {
        Ok(seconds) => seconds,
        Err(error) => {
            crate::note(&format!("{bytes} bytes: {error:#}"));
            *peer = None;
            f64::NAN
        }
    }
}

/// Seconds of `muster bench allreduce`: staged, registered, and the memory's bound.
async fn own(settings: &Settings, ranks: usize, bytes: usize) -> Result<[f64; 3]> {
    let mut command = Command::new(&settings.muster);
    command.args(["bench", "allreduce", "--ranks", &ranks.to_string(), "--sizes", &bytes.to_string()]);
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.context("muster bench allreduce")?;
    ensure!(output.status.success(), "muster bench allreduce ended with {}", output.status);
    row(&String::from_utf8_lossy(&output.stdout)).context("muster bench allreduce printed no table")
}

/// The times in the one row of a table in the form of nccl-tests; nothing when a result is wrong.
pub(super) fn row(table: &str) -> Option<[f64; 3]> {
    let line = table.lines().find(|line| !line.starts_with('#'))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let seconds = |column: usize| Some(words.get(column)?.parse::<f64>().ok()? / 1e6);
    let is_right = |column: usize| words.get(column) == Some(&"0");
    (is_right(8) && is_right(12)).then_some([seconds(5)?, seconds(9)?, seconds(13)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_unless_a_result_is_wrong() {
        let row_of = |wrong: usize| {
            let line = format!("1024 256 float sum -1 1.50 0.6 0.6 0 0.50 2.0 2.0 {wrong} 0.25");
            row(&format!("# size\n  {line}\n# Out of bounds values : 0 OK\n"))
        };
        assert_eq!(row_of(0), Some([1.5e-6, 0.5e-6, 0.25e-6]));
        assert_eq!(row_of(1), None);
        assert_eq!(row("# nothing\n"), None);
    }

    #[test]
    fn the_worst_size_counts_and_a_peer_that_is_missing_is_never_good() {
        let size = |bytes, gloo: [f64; 3]| Size {
            bytes,
            rounds: gloo
                .map(|gloo| Times { registered: 1.0, staged: 2.0, bound: 1.0, open_mpi: 5.0, gloo })
                .to_vec(),
        };
        let ratio = |times: &Times| times.gloo / times.registered;
        let sizes = [size(1, [30.0, 20.0, 10.0]), size(2, [9.0, 8.0, 70.0]), size(3, [f64::NAN; 3])];
        assert_eq!(worst(&sizes, 1..=2, ratio).to_bits(), 9.0_f64.to_bits());
        assert!(worst(&sizes, 1..=3, ratio).is_nan());
    }
}
