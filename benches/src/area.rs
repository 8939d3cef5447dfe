//! The parts of the project and what is measured of them.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::figure::{Bar, Figure};
use crate::{hpc_area, main_area, scheduler_area, trainer_area};

/// A part of the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Area {
    /// The main job and the embedded cluster below it
    Main,
    /// The scheduler: placement, time, scale and faults; some of it takes minutes
    Scheduler,
    /// Batch runs, MPI, and what people do around them
    Hpc,
    /// The trainer: all-reduce beside Open MPI and gloo, which it installs; takes about half an hour
    Trainer,
}

/// What a measurement works with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The program to measure.
    pub(crate) muster: PathBuf,
    /// The project's folder.
    pub(crate) project: PathBuf,
    /// Time a clean release build too.
    pub(crate) with_build: bool,
}

/// The values of a measurement's bars, in their order.
pub(crate) type Values<'a> = Pin<Box<dyn Future<Output = Result<Vec<f64>>> + 'a>>;

/// One experiment, which may give several figures.
pub(crate) struct Measurement {
    /// What it gives.
    pub(crate) bars: &'static [Bar],
    /// The longest it may take.
    pub(crate) deadline: Duration,
    /// Does it.
    pub(crate) run: fn(&Settings) -> Values<'_>,
    /// Whether it is asked for.
    pub(crate) is_wanted: fn(&Settings) -> bool,
}

impl Measurement {
    /// Does it, within its deadline.
    pub(crate) async fn take(&self, settings: &Settings) -> Vec<Figure> {
        if !(self.is_wanted)(settings) {
            return Vec::new();
        }
        let values = match tokio::time::timeout(self.deadline, (self.run)(settings)).await {
            Ok(Ok(values)) => values.into_iter().map(Ok).collect(),
            Ok(Err(error)) => vec![Err(format!("{error:#}")); self.bars.len()],
            Err(_) => vec![Err(format!("not done after {} s", self.deadline.as_secs())); self.bars.len()],
        };
        self.bars.iter().zip(values).map(|(bar, value)| Figure { bar: *bar, value }).collect()
    }
}

impl Area {
    /// What is measured.
    pub(crate) fn measurements(self) -> &'static [Measurement] {
        match self {
            Self::Main => main_area::MEASUREMENTS,
            Self::Hpc => hpc_area::MEASUREMENTS,
            Self::Scheduler => scheduler_area::MEASUREMENTS,
            Self::Trainer => trainer_area::MEASUREMENTS,
        }
    }

    /// The names of its figures.
    pub(crate) fn names(self) -> Vec<&'static str> {
        self.measurements().iter().flat_map(|measurement| measurement.bars).map(|bar| bar.name).collect()
    }
}
