//! The command line of `muster-train`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Train a model on the ranks of a training job.
///
/// Every process is one rank; RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which, as a PyTorchJob sets
/// them. Without them the process trains alone.
///
/// Exit codes: 0 trained; 1 failed, and would fail again (bad data, no place for the model, a loss that is not
/// finite); 2 wrong usage or environment; 130 and 143 stopped by SIGINT and SIGTERM; 138 lost another rank, so
/// a restart of the job can help.
#[derive(Clone, Debug, Parser)]
#[command(name = "muster-train", version)]
pub struct Arguments {
    /// The kind of model.
    #[arg(long, value_enum, default_value_t = ModelKind::Mlp)]
    pub model: ModelKind,
    /// Training data: a .csv or .csv.gz file whose last column is the label, or a folder of such files.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,
    /// Sizes of the hidden layers, comma-separated.
    #[arg(long, value_delimiter = ',', value_name = "SIZES", default_value = "64,32")]
    pub hidden: Vec<usize>,
    /// Passes over the training data.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,
    /// Samples each rank takes per step.
    #[arg(long, default_value_t = 32, value_parser = parse_positive)]
    pub batch_size: usize,
    /// Learning rate at the start; it falls to zero along a cosine.
    #[arg(long, default_value_t = 0.003, value_parser = parse_rate)]
    pub learning_rate: f32,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = 0.01, value_parser = parse_rate)]
    pub weight_decay: f32,
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
    /// Compute threads of this rank [default: the processors divided by the ranks].
    #[arg(long, value_parser = parse_positive)]
    pub threads: Option<usize>,
}

/// The kinds of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelKind {
    /// Multilayer perceptron: linear layers with ReLU between them.
    Mlp,
}

fn parse_positive(text: &str) -> Result<usize, String> {
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
        assert_eq!(arguments.hidden, [64, 32]);
        assert!(Arguments::try_parse_from(["muster-train", "--data", "x", "--test-fraction", "1"]).is_err());
        assert!(Arguments::try_parse_from(["muster-train", "--data", "x", "--batch-size", "0"]).is_err());
    }
}
