//! The command line of `muster-train`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::computing::Computing;
use crate::observe::Observing;
use crate::optimizer::AdamW;
use crate::parallel::{GradientType, Options, Sharding};
use crate::schedule::Decay;

/// Train a model on the ranks of a training job.
///
/// Every process is one rank; RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which, as a PyTorchJob sets
/// them. Without them the process trains alone. On several hosts, MUSTER_GROUP_TOKEN_FILE names a file with a secret
/// that ranks prove to each other that they know, and MUSTER_GROUP_CA_FILE, MUSTER_GROUP_CERT_FILE and
/// MUSTER_GROUP_KEY_FILE the files in PEM with which all connections between them are under TLS.
///
/// With MUSTER_RENDEZVOUS, as an elastic PyTorchJob sets it, ranks may come and go while the training goes on.
///
/// Exit codes: 0 trained; 1 failed, and would fail again (bad data, no place for the model, a loss that is not
/// finite); 2 wrong usage or environment; 130 and 143 stopped by SIGINT and SIGTERM; 138 lost another rank, so
/// a restart of the job can help.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "muster-train",
    version,
    args_override_self = true,
    after_help = "Examples:\n  muster-train --data digits.csv.gz\n  muster-train --model cnn --data mnist --channels 16,32 --epochs 3\n  muster-train --model gpt --data shakespeare.txt --context 128 --width 256 --depth 4 --warmup 100 --clip-norm 1\n  muster-train --data digits.csv.gz --tensorboard runs/digits --metrics-listen 9404 --profile trace.json\n  muster-train --config train.toml --sharding parameters    # model = \"gpt\" and so on, as the options are called"
)]
pub struct Arguments {
    /// Options from a TOML file, named as here; those of the command line come first.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The kind of model.
    #[arg(long, value_enum, default_value_t = ModelKind::Mlp)]
    pub model: ModelKind,
    /// Training data, a file or a folder of files: .csv or .csv.gz with the label in the last column; .parquet, whose
    /// lists of numbers are laid flat; IDX images with their labels; for gpt .txt, or .bin with 16-bit tokens.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Parquet: the column with the label, text or whole numbers [default: the last].
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// Samples of tables that take more memory than this, in MiB, are kept in a file in TMPDIR and read as they are
    /// needed. Text and tokens are never in memory as a whole.
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub data_memory: usize,
    #[command(flatten)]
    pub(crate) shape: Shape,
    #[command(flatten)]
    pub(crate) learning: Learning,
    #[command(flatten)]
    pub(crate) division: Division,
    #[command(flatten)]
    pub(crate) computing: Computing,
    #[command(flatten)]
    pub(crate) recovery: Recovery,
    #[command(flatten)]
    pub(crate) checkpointing: Checkpointing,
    #[command(flatten)]
    pub(crate) observing: Observing,
    /// Seed of the split, the initial parameters and the order of the samples.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Share of the data held out to measure accuracy.
    #[arg(long, default_value_t = 0.2, value_parser = parse_fraction)]
    pub test_fraction: f64,
    /// Folder for the trained model (model.safetensors); without it the model is not kept.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Steps between two lines of metrics.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub log_every: u64,
    /// How long a step may wait for the other ranks, such as 60s or 2m.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub deadline: Duration,
    /// How long the ranks may take to come together, such as 5m.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub join_deadline: Duration,
}

/// The shape of the model.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct Shape {
    /// mlp: sizes of the hidden layers, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "SIZES", default_value = "64,32")]
    pub(crate) hidden: Vec<usize>,
    /// cnn: channels after each stage, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "SIZES", default_value = "16,32")]
    pub(crate) channels: Vec<usize>,
    /// cnn, vit: channels, height and width of an image, such as 1x28x28 [default: what IDX files say].
    #[arg(long, value_name = "SHAPE", value_parser = parse_image)]
    pub(crate) image: Option<[usize; 3]>,
    /// vit: side of a patch.
    #[arg(long, default_value_t = 4, value_parser = parse_positive)]
    pub(crate) patch: usize,
    /// gpt, vit: size of the residual stream.
    #[arg(long, default_value_t = 128, value_parser = parse_positive)]
    pub(crate) width: usize,
    /// gpt, vit: transformer blocks.
    #[arg(long, default_value_t = 4, value_parser = parse_positive)]
    pub(crate) depth: usize,
    /// gpt, vit: heads of the attention; divides the width.
    #[arg(long, default_value_t = 4, value_parser = parse_positive)]
    pub(crate) heads: usize,
    /// gpt: tokens of a sequence.
    #[arg(long, default_value_t = 128, value_parser = parse_positive)]
    pub(crate) context: usize,
    /// gpt: number of different tokens [default: 256 for text].
    #[arg(long, value_parser = parse_positive)]
    pub(crate) vocabulary: Option<usize>,
}

/// How the model learns.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Learning")]
#[expect(clippy::struct_field_names, reason = "`learning_rate` is what everybody calls it")]
pub(crate) struct Learning {
    /// Passes over the training data.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epochs: u32,
    /// Steps at most, whatever the epochs.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_steps: Option<u64>,
    /// Samples each rank takes at once.
    #[arg(long, default_value_t = 32, value_parser = parse_positive)]
    pub(crate) batch_size: usize,
    /// Batches whose gradients are added up to one step.
    #[arg(long, default_value_t = 1, value_parser = parse_positive)]
    pub(crate) accumulate: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 0.003, value_parser = parse_rate)]
    pub(crate) learning_rate: f32,
    /// Steps over which the learning rate rises.
    #[arg(long, default_value_t = 0)]
    pub(crate) warmup: u64,
    /// How the learning rate falls afterwards.
    #[arg(long, value_enum, default_value_t = Decay::Cosine)]
    pub(crate) decay: Decay,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = 0.01, value_parser = parse_rate)]
    pub(crate) weight_decay: f32,
    /// Norm to which larger gradients are scaled down.
    #[arg(long, value_parser = parse_rate)]
    pub(crate) clip_norm: Option<f32>,
    /// Epochs between two evaluations on the held-out data; without it only the last one is evaluated.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) evaluate_every: Option<u32>,
    /// Stops after so many evaluations without a lower loss.
    #[arg(long, requires = "evaluate_every", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) patience: Option<u32>,
}

/// How ranks share the work.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Several ranks")]
pub(crate) struct Division {
    /// What of the model's state each rank holds only its share of (ZeRO 1, 2, 3).
    #[arg(long, value_enum, default_value_t = Sharding::None)]
    pub(crate) sharding: Sharding,
    /// Consecutive ranks that share between them, as many as a host has; other hosts hold copies [default: all].
    #[arg(long, value_parser = parse_positive)]
    pub(crate) shard_ranks: Option<usize>,
    /// How gradients travel.
    #[arg(long, value_enum, default_value_t = GradientType::F32)]
    pub(crate) gradient_type: GradientType,
    /// Smallest number of parameters that travel together.
    #[arg(long, default_value_t = 1 << 18)]
    pub(crate) unit: usize,
    /// Keeps only what enters a block, and computes it anew for the gradients: less memory for more time.
    #[arg(long)]
    pub(crate) recompute: bool,
}

/// What is kept of the training while it goes on.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Checkpoints")]
pub(crate) struct Checkpointing {
    /// Where checkpoints are, a folder or a URL such as s3://bucket/run; training goes on from the newest.
    #[arg(long, value_name = "PLACE")]
    pub(crate) checkpoint: Option<String>,
    /// Steps between two checkpoints; one more is kept at the end, and when the job is told to stop.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_every: u64,
    /// How many of the newest checkpoints stay.
    #[arg(long, default_value_t = 3, value_parser = parse_positive)]
    pub(crate) keep_checkpoints: usize,
}

/// What happens when a rank is lost.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "When a rank is lost")]
pub(crate) struct Recovery {
    /// What the other ranks do [default: exit, and continue in an elastic training].
    #[arg(long, value_enum)]
    on_loss: Option<OnLoss>,
    /// continue: how many ranks must be left.
    #[arg(long, default_value_t = 1, value_parser = parse_positive)]
    pub(crate) min_ranks: usize,
}

impl Recovery {
    /// What ranks do when another is lost.
    pub(crate) fn on_loss(&self, is_elastic: bool) -> OnLoss {
        self.on_loss.unwrap_or(if is_elastic { OnLoss::Continue } else { OnLoss::Exit })
    }
}

/// What ranks do when another is lost. At most the step under way is lost with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLoss {
    /// They end with code 138, so that all are started again.
    Exit,
    /// They wait until the lost rank is started again, and give it what it needs to go on with them.
    Wait,
    /// They go on without it.
    Continue,
}

/// The kinds of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelKind {
    /// Multilayer perceptron: linear layers with ReLU between them.
    Mlp,
    /// Convolutional network on images.
    Cnn,
    /// Vision transformer.
    Vit,
    /// Decoder-only transformer on tokens.
    Gpt,
}

impl Arguments {
    /// How the ranks share the work; those of an elastic training come and go.
    pub(crate) fn options(&self, is_elastic: bool) -> Options {
        let Division { sharding, shard_ranks, gradient_type, unit, recompute } = self.division;
        Options {
            sharding,
            shard_ranks,
            gradient_type,
            smallest_unit: unit,
            recompute,
            clip_norm: self.learning.clip_norm,
            mirror: (is_elastic || self.recovery.on_loss(false) != OnLoss::Exit) && shard_ranks.is_none(),
            optimizer: AdamW { weight_decay: self.learning.weight_decay, ..AdamW::default() },
        }
    }
}

fn parse_image(text: &str) -> Result<[usize; 3], String> {
    let sizes: Result<Vec<usize>, String> = text.split('x').map(parse_positive).collect();
    sizes?.try_into().map_err(|_| "expected channels, height and width, such as 1x28x28".into())
}

pub(crate) fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn parse_rate(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        Ok(_) => Err("must be a finite number, zero or more".into()),
        Err(error) => Err(format!("{error}")),
    }
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..1.0).contains(&fraction) => Ok(fraction),
        Ok(_) => Err("must be at least 0 and below 1".into()),
        Err(error) => Err(format!("{error}")),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = units.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| seconds);
    match (number.parse::<f64>(), seconds) {
        (Ok(number), Some(seconds)) => Duration::try_from_secs_f64(number * seconds)
            .ok()
            .filter(|duration| !duration.is_zero())
            .ok_or_else(|| "must be longer than nothing and finite".into()),
        _ => Err("expected a number with a unit, such as 500ms, 60s or 2m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["60", "s", "0s", "-1s", "5 days", ""] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_parses() {
        let arguments =
            Arguments::try_parse_from(["muster-train", "--data", "digits.csv.gz", "--hidden", "64,32"])
                .unwrap();
        assert_eq!(arguments.shape.hidden, [64, 32]);
        assert!(Arguments::try_parse_from(["muster-train", "--data", "x", "--test-fraction", "1"]).is_err());
        assert!(Arguments::try_parse_from(["muster-train", "--data", "x", "--batch-size", "0"]).is_err());
    }
}
