//! What people see of a training: lines on standard output are the report's; here are a line on a terminal, files for
//! TensorBoard, metrics for Prometheus, reports to Kubeflow's trainer, and traces.

mod events;
mod gauges;
mod live;
mod options;
mod profile;
mod status;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Error;
use crate::report::{Evaluation, Progress};
use crate::world::World;
use events::EventFile;
use live::Live;
pub(crate) use options::Observing;
pub(crate) use profile::{Detail, Process, Recorder, Track};
use status::StatusReports;

/// Everything but the lines.
#[derive(Debug, Default)]
pub(crate) struct Observers {
    live: Option<Live>,
    /// A terminal shows the line of rank 0, and lines of other ranks would tear it.
    is_terminal: bool,
    events: Option<EventFile>,
    /// Where metrics are served.
    served: Option<SocketAddr>,
    /// To the server of Kubeflow's trainer.
    reports: Option<StatusReports>,
}

impl Observers {
    /// Begins what the options ask of this rank. Once a process.
    pub(crate) fn start(options: &Observing, world: &World) -> Result<Self, Error> {
        let events = match &options.tensorboard {
            Some(folder) if world.rank == 0 => {
                let created = EventFile::create(folder, &world.host);
                Some(created.map_err(|source| Error::Events { folder: folder.clone(), source })?)
            }
            _ => None,
        };
        let served = options.metrics_listen.map(|address| {
            gauges::serve(address, world.size - 1, world.rank)
                .map_err(|error| Error::Metrics { address, message: error.to_string() })
        });
        let served = served.transpose()?;
        let is_terminal = io::stdout().is_terminal();
        let live = if world.rank == 0 && is_terminal { Live::on_terminal() } else { None };
        let reports = if world.rank == 0 { StatusReports::start() } else { None };
        Ok(Self { live, is_terminal, events, served, reports })
    }

    /// The recorder that the options ask for.
    pub(crate) fn recorder(options: &Observing, world: &World) -> Result<Recorder, Error> {
        let Some(path) = &options.profile else { return Ok(Recorder::default()) };
        let process = Process { rank: world.rank, world_size: world.size, host: world.host.clone() };
        let recorder = Recorder::new(path, process, options.profile_skip, options.profile_steps);
        recorder.map_err(|source| Error::Profile { path: path.clone(), source })
    }

    pub(crate) fn served(&self) -> Option<SocketAddr> {
        self.served
    }

    /// Whether the lines of progress are to be left out, since a terminal shows another.
    pub(crate) fn replaces_lines(&self, rank: usize) -> bool {
        if rank == 0 { self.live.is_some() } else { self.is_terminal }
    }

    /// Writes to standard output without tearing what is there.
    pub(crate) fn above<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.live {
            Some(live) => live.above(write),
            None => write(),
        }
    }

    /// After every step.
    pub(crate) fn step(&mut self, progress: &Progress) {
        if self.served.is_some() {
            gauges::progress(progress);
        }
        if let Some(live) = &mut self.live {
            live.show(progress);
        }
        if let Some(reports) = &mut self.reports {
            reports.step(progress);
        }
    }

    /// Why reports of progress are not taken, once.
    pub(crate) fn report_trouble(&self) -> Option<String> {
        self.reports.as_ref()?.take_trouble()
    }

    /// After a step of which a line is written.
    pub(crate) fn progress(&mut self, progress: &Progress) -> Result<(), Trouble> {
        let mut scalars = vec![
            ("loss", f64::from(progress.loss)),
            ("accuracy", f64::from(progress.train_accuracy)),
            ("learning_rate", f64::from(progress.learning_rate)),
            ("samples_per_second", progress.samples_per_second),
        ];
        scalars.extend(progress.gradient_norm.map(|norm| ("gradient_norm", f64::from(norm))));
        self.write(|events| events.scalars(progress.step, &scalars))
    }

    pub(crate) fn evaluation(&mut self, step: u64, evaluation: &Evaluation) -> Result<(), Trouble> {
        if self.served.is_some() {
            gauges::evaluation(evaluation);
        }
        if let Some(reports) = &mut self.reports {
            reports.evaluation(evaluation);
        }
        let Evaluation { loss, accuracy } = *evaluation;
        self.write(|events| events.scalars(step, &[("test_loss", loss), ("test_accuracy", accuracy)]))
    }

    /// The training goes on after a step that it had taken before.
    pub(crate) fn resumed(&mut self, step: u64) -> Result<(), Trouble> {
        self.write(|events| events.goes_on_after(step))
    }

    pub(crate) fn checkpoint(&mut self, step: u64) {
        if self.served.is_some() {
            gauges::checkpoint(step);
        }
    }

    /// The training is over.
    pub(crate) fn end(&mut self) {
        if let Some(live) = self.live.take() {
            live.end();
        }
        self.reports = None;
    }

    /// Training is worth more than a file of its curves: that is given up when it cannot be written.
    fn write(&mut self, work: impl FnOnce(&mut EventFile) -> io::Result<()>) -> Result<(), Trouble> {
        let Some(events) = &mut self.events else { return Ok(()) };
        let path = events.path().to_owned();
        work(events).map_err(|source| {
            self.events = None;
            Trouble { path, source }
        })
    }
}

/// A file that is not written any more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(crate) struct Trouble {
    path: PathBuf,
    source: io::Error,
}
