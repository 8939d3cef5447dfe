//! A training step of a GPT of 3.7 million parameters, a thread a rank: candle beside libtorch, and two ranks on libtorch
//! beside two of PyTorch's DDP over gloo with the same model. What is compared takes turns, so that a busy moment of the
//! machine strikes both.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::install::{self, Torch};
use crate::area::Settings;
use crate::statistics::median;

/// A ratio is the median over the rounds of the ratios in one round.
const ROUNDS: usize = 5;

/// Steps of one round.
const STEPS: &str = "15";

const TORCH_PROGRAM: &str = include_str!("peers/ddp_step_torch.py");

/// What a program says of its steps.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    /// Milliseconds of the fastest step.
    fastest: f64,
    /// Share of the time in which the rank that came last did nothing but wait for data; not a number where it is not
    /// told. What other ranks wait for that one is no communication.
    exposed: f64,
    /// Of the last step, in nats.
    loss: f64,
}

/// How much longer a step takes on candle than on libtorch.
pub(super) async fn of_libraries(settings: &Settings) -> Result<Vec<f64>> {
    let program = install::with_libtorch(settings, "gpt_step").await?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let candle = ours(&program, "candle", 1).await?;
        let libtorch = ours(&program, "libtorch", 1).await?;
        agree(candle, libtorch)?;
        rounds.push([candle, libtorch]);
    }
    tell("step on candle and libtorch, ms", &rounds);
    Ok(vec![ratio(&rounds)])
}

/// How much longer a step of ours takes than one of PyTorch, and which share of ours is communication.
pub(super) async fn beside_torch(settings: &Settings) -> Result<Vec<f64>> {
    let program = install::with_libtorch(settings, "gpt_step").await?;
    let torch = Torch::of_packages(settings).await?;
    let script = torch.program("ddp_step.py", TORCH_PROGRAM)?;
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let ours = ours(&program, "libtorch", 2).await?;
        let mut command = torch.python();
        command.args(["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]);
        command.arg(&script).arg(STEPS).env("OMP_NUM_THREADS", "1");
        command.env("TORCH_DEVICE_BACKEND_AUTOLOAD", "0");
        let theirs = told(command, "steps of PyTorch").await?;
        rounds.push([ours, theirs]);
    }
    tell("DDP step of ours and of PyTorch, ms", &rounds);
    Ok(vec![ratio(&rounds), median(rounds.iter().map(|[ours, _]| ours.exposed))])
}

async fn ours(program: &Path, library: &str, ranks: usize) -> Result<Told> {
    let mut command = Command::new(program);
    let words = ["--library", library, "--steps", STEPS, "--ranks"];
    command.args(words.map(OsString::from)).arg(ranks.to_string());
    told(command, &format!("steps on {library}")).await
}

async fn told(mut command: Command, purpose: &str) -> Result<Told> {
    let output = command.kill_on_drop(true).output().await.with_context(|| purpose.to_owned())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{purpose} ended with {}: {}", output.status, errors.trim());
    parsed(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("{purpose} told no times"))
}

/// Reads a line such as `min_ms=215.3 exposed=0.01 loss=6.95->6.91`.
fn parsed(output: &str) -> Option<Told> {
    let line = output.lines().find(|line| line.contains("min_ms="))?;
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
    let number = |text: &str| text.parse::<f64>().ok();
    let (_, loss) = field("loss=")?.split_once("->")?;
    Some(Told {
        fastest: number(field("min_ms=")?)?,
        exposed: field("exposed=").map_or(Some(f64::NAN), number)?,
        loss: number(loss)?,
    })
}

/// Both libraries must have learned the same, or their times say nothing.
fn agree(left: Told, right: Told) -> Result<()> {
    let (left, right) = (left.loss, right.loss);
    ensure!((left - right).abs() < 0.01, "the losses of the libraries differ: {left} and {right}");
    Ok(())
}

fn tell(what: &str, rounds: &[[Told; 2]]) {
    let fastest = |side: usize| median(rounds.iter().map(|round| round[side].fastest));
    crate::note(&format!("{what}: {:.1} {:.1}", fastest(0), fastest(1)));
}

fn ratio(rounds: &[[Told; 2]]) -> f64 {
    median(rounds.iter().map(|[left, right]| left.fastest / right.fastest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say_is_read() {
        let told =
            parsed("a word before\nlibrary=Candle min_ms=215.3 exposed=0.010 loss=6.95->6.91\n").unwrap();
        assert_eq!(told, Told { fastest: 215.3, exposed: 0.01, loss: 6.91 });
        let told = parsed("min_ms=215.3 loss=6.95->6.91\n").unwrap();
        assert!(told.exposed.is_nan());
        assert_eq!(parsed("min_ms=much loss=6.95->6.91\n"), None);
        assert_eq!(parsed("min_ms=1\n"), None);
    }

    #[test]
    fn ratios_are_medians_of_rounds_and_need_equal_losses() {
        let told = |fastest, loss| Told { fastest, exposed: 0.0, loss };
        let rounds = [200.0, 300.0, 900.0].map(|ours| [told(ours, 1.0), told(100.0, 1.0)]);
        assert_eq!(ratio(&rounds).to_bits(), 3.0_f64.to_bits());
        assert!(agree(told(1.0, 6.91), told(1.0, 6.915)).is_ok());
        assert!(agree(told(1.0, 6.91), told(1.0, 6.95)).is_err());
        assert!(agree(told(1.0, 6.91), told(1.0, f64::NAN)).is_err());
    }
}
