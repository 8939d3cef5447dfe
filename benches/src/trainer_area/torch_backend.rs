//! `muster-torch` as it ships: all-reduce of torch.distributed beside gloo, in the same script and the same environment,
//! and whether a script learns the same over both.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::install::{self, Torch};
use crate::area::Settings;
use crate::statistics::median;

/// The ratio of a size is the median over the rounds of the ratios in one round.
const ROUNDS: usize = 5;

const RANKS: usize = 2;

const MIB: usize = 1 << 20;
const SIZES: [usize; 6] = [MIB / 16, MIB / 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB];

/// How many times faster than gloo, for the worst size.
pub(super) async fn beside_gloo(settings: &Settings) -> Result<Vec<f64>> {
    let torch = Torch::with_muster(settings).await?;
    let mut gloo = torch.all_reduce("gloo", RANKS)?;
    let mut muster = torch.all_reduce("muster", RANKS)?;
    let mut rounds = vec![Vec::with_capacity(ROUNDS); SIZES.len()];
    for _ in 0..ROUNDS {
        for (bytes, rounds) in SIZES.iter().zip(&mut rounds) {
            let repetitions = (64 * MIB / bytes).clamp(7, 201);
            let theirs = gloo.measure(*bytes, repetitions).await.context("gloo")?;
            let ours = muster.measure(*bytes, repetitions).await.context("muster")?;
            rounds.push([theirs, ours]);
        }
    }
    gloo.finish().await;
    muster.finish().await;
    crate::note(&format!("{RANKS} ranks of torch, us: bytes gloo muster"));
    let mut worst = f64::INFINITY;
    for (bytes, rounds) in SIZES.iter().zip(&rounds) {
        let [theirs, ours] = [0, 1].map(|peer| median(rounds.iter().map(|times| times[peer])) * 1e6);
        crate::note(&format!("{bytes:>10} {theirs:>10.1} {ours:>10.1}"));
        worst = worst.min(median(rounds.iter().map(|[theirs, ours]| theirs / ours)));
    }
    Ok(vec![worst])
}

/// The largest difference between the losses of an epoch over gloo and over muster, as a share of the loss, and 1 if
/// every collective gives what torch promises.
pub(super) async fn results(settings: &Settings) -> Result<Vec<f64>> {
    let torch = Torch::with_muster(settings).await?;
    let (theirs, ours) = (losses(settings, &torch, "gloo").await?, losses(settings, &torch, "muster").await?);
    let difference = difference(&theirs, &ours)?;
    let mut tests = torch.python();
    tests.arg(settings.project.join("trainer/torch/tests/collectives.py"));
    let hold = install::run(tests, "show that every collective holds").await;
    if let Err(error) = &hold {
        crate::note(&format!("{error:#}"));
    }
    Ok(vec![difference, f64::from(u8::from(hold.is_ok()))])
}

/// What the example prints, an epoch each.
async fn losses(settings: &Settings, torch: &Torch, backend: &str) -> Result<Vec<f64>> {
    let mut command: Command = torch.python();
    command.args(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", &RANKS.to_string()]);
    command.arg(settings.project.join("examples/torch-ddp/train.py"));
    command.env("BACKEND", backend).env("OMP_NUM_THREADS", "1").kill_on_drop(true);
    let output = command.output().await.context("torchrun")?;
    ensure!(
        output.status.success(),
        "training over {backend} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    parsed(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("training over {backend} told no losses"))
}

/// The numbers in lines such as `epoch 3 loss 0.25`.
fn parsed(output: &str) -> Option<Vec<f64>> {
    let losses = output.lines().filter_map(|line| line.split_once(" loss "));
    let losses: Vec<f64> = losses.map(|(_, loss)| loss.trim().parse()).collect::<Result<_, _>>().ok()?;
    (!losses.is_empty()).then_some(losses)
}

fn difference(theirs: &[f64], ours: &[f64]) -> Result<f64> {
    ensure!(theirs.len() == ours.len(), "gloo told {} losses, muster {}", theirs.len(), ours.len());
    let shares = theirs.iter().zip(ours).map(|(theirs, ours)| (theirs - ours).abs() / theirs.abs());
    // Not a number is worse than any.
    Ok(shares.fold(0.0, |most, share| if share <= most { most } else { share }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_and_the_largest_difference_counts() {
        let told = parsed("a word before\nepoch 0 loss 0.5\nepoch 1 loss 0.25\n");
        assert_eq!(told, Some(vec![0.5, 0.25]));
        assert_eq!(parsed("nothing\n"), None);
        assert_eq!(parsed("epoch 0 loss much\n"), None);
        assert!((difference(&[0.5, 0.25], &[0.5, 0.2]).unwrap() - 0.2).abs() < 1e-12);
        assert!(difference(&[0.5], &[f64::NAN]).unwrap().is_nan());
        assert!(difference(&[0.5], &[]).is_err());
    }
}
