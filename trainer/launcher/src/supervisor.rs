//! Starts the workers, starts them again, and decides what their ends mean.

use std::cell::Cell;
use std::io;
use std::path::Path;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::arguments::{Arguments, Prefix};
use crate::child;
use crate::elastic::{Agent, Round};
use crate::environment::{self, Restarts};
use crate::error::Error;
use crate::lines::{Framing, Lines};
use crate::memory::OutOfMemory;
use crate::output::{Event, Sinks};
use crate::plan::{self, Place, Plan};
use crate::report::{self, Failure};
use crate::signals::Signals;
use crate::warden::Warden;
use crate::watch::Watch;
use crate::worker::{Start, Worker};
use crate::world::World;

/// How all workers together ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Succeeded,
    Failed(Box<Failure>),
    /// This node was asked to leave a job that goes on without it, and none of its workers failed by that. No success:
    /// of an elastic job, one worker that ends well may stand for all.
    Left(Signal),
}

/// How the workers of one start ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The worker that failed first, if the round was not cut short before.
    pub(crate) failure: Option<Failure>,
    /// The signal that asked them to stop.
    pub(crate) asked: Option<Signal>,
    /// The round has ended before them.
    pub(crate) is_cut_short: bool,
}

/// Watches over the workers of a plan.
#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    arguments: &'a Arguments,
    plan: &'a Plan,
    pub(crate) signals: &'a Signals,
    pub(crate) sinks: &'a Sinks,
    host: String,
    /// So often workers were started.
    attempts: Cell<usize>,
    /// Where workers may describe a failure, if there is such a place. Goes before the warden, which looks after it.
    errors: Option<TempDir>,
    warden: Warden,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        arguments: &'a Arguments,
        plan: &'a Plan,
        signals: &'a Signals,
        sinks: &'a Sinks,
    ) -> io::Result<Self> {
        // Without such a place workers train all the same.
        let errors = TempDir::with_prefix("muster-exec-worker-").ok();
        let warden = Warden::start(errors.as_ref().map(TempDir::path))?;
        let host = plan::host();
        Ok(Self { arguments, plan, signals, sinks, host, attempts: Cell::default(), errors, warden })
    }

    /// Runs the workers until all succeeded, they were stopped, or they failed once more than they may start again.
    pub(crate) fn run(&self) -> Result<Outcome, Error> {
        let most = self.plan.restarts;
        let world = match &self.plan.place {
            Place::Fixed(world) => world,
            Place::Elastic(settings) => return Agent::new(self, settings, most)?.run(),
        };
        let mut count = 0;
        loop {
            let Ended { failure, asked, .. } = self.attempt(world, Restarts { count, most }, None)?;
            match failure {
                None => return Ok(Outcome::Succeeded),
                Some(failure) if asked.is_some() || count == most => {
                    return Ok(Outcome::Failed(Box::new(failure)));
                }
                Some(failure) => {
                    count += 1;
                    self.note(&failure.text());
                    self.note(&format!("all workers start again (restart {count} of {most})"));
                }
            }
        }
    }

    fn note(&self, text: &str) {
        self.sinks.stderr.note(text);
    }

    /// Runs the workers once, to their end or that of the round.
    pub(crate) fn attempt(
        &self,
        world: &World,
        restarts: Restarts,
        round: Option<&Round<'_>>,
    ) -> Result<Ended, Error> {
        let memory = OutOfMemory::watch(Path::new("/"));
        let done = Event::new().map_err(Error::Watch)?;
        self.attempts.set(self.attempts.get() + 1);
        let mut workers = Vec::new();
        for local_rank in 0..world.workers.get() {
            let start = self.start(world, local_rank, restarts);
            let worker = Worker::start(start, self.sinks, &self.warden, &done);
            workers.push(worker.map_err(|source| Error::Start { local_rank, source })?);
        }
        let watch = Watch {
            arguments: self.arguments,
            world,
            host: &self.host,
            round,
            signals: self.signals,
            sinks: self.sinks,
            memory: &memory,
        };
        let mut course = watch.until_all_ended(&mut workers).map_err(Error::Watch)?;
        watch.until_all_is_passed_on(&workers, &done, &mut course.asked).map_err(Error::Watch)?;
        let failure = course.failed.map(|failure| explained(failure, &workers));
        Ok(Ended { failure, asked: course.asked, is_cut_short: course.is_cut_short })
    }

    fn start(&self, world: &World, local_rank: usize, restarts: Restarts) -> Start {
        let Plan { cores, command, .. } = self.plan;
        let name = format!("{}-{local_rank}.json", self.attempts.get());
        let error_file = self.errors.as_ref().map(|folder| folder.path().join(name));
        let cores = &cores[local_rank];
        let variables = environment::variables(
            world,
            local_rank,
            restarts,
            cores.cores,
            error_file.as_deref(),
            plan::inherited,
        );
        let alone = world.workers.get() == 1;
        let framing = || match self.arguments.prefix {
            Prefix::Auto | Prefix::Never if alone => Framing::AsItComes,
            Prefix::Never => Framing::Lines(Lines::new("")),
            Prefix::Auto | Prefix::Always => {
                Framing::Lines(Lines::new(format!("[{}] ", world.rank(local_rank))))
            }
        };
        Start {
            local_rank,
            words: child::words(&cores.cpus, command),
            variables,
            error_file,
            framing: [framing(), framing()],
            last_lines: self.arguments.last_lines,
        }
    }
}

/// A failure with what the worker itself says of it.
fn explained(failure: Failure, workers: &[Worker<'_>]) -> Failure {
    let worker = &workers[failure.local_rank];
    // One that did as it was told has nothing to explain.
    let is_obedient = failure.asked.is_some_and(|signal| failure.end.is_by(signal));
    Failure {
        description: worker.error_file.as_deref().and_then(report::description),
        last_lines: if is_obedient { Vec::new() } else { worker.tail.lock().lines() },
        ..failure
    }
}
