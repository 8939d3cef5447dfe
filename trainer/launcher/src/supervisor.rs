//! Starts the workers, starts them again, and decides what their ends mean.

use std::io;
use std::path::Path;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::arguments::{Arguments, Prefix};
use crate::child;
use crate::environment::{self, Restarts};
use crate::error::Error;
use crate::lines::{Framing, Lines};
use crate::memory::OutOfMemory;
use crate::output::{Event, Sinks};
use crate::plan::{self, Plan};
use crate::report::{self, Failure};
use crate::signals::Signals;
use crate::warden::Warden;
use crate::watch::{Failed, Watch};
use crate::worker::{Start, Worker};

/// How all workers together ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Succeeded,
    Failed(Box<Failure>),
}

/// Watches over the workers of a plan.
#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    arguments: &'a Arguments,
    plan: &'a Plan,
    signals: &'a Signals,
    sinks: &'a Sinks,
    host: String,
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
        Ok(Self { arguments, plan, signals, sinks, host: plan::host(), errors, warden })
    }

    /// Runs the workers until all succeeded, they were stopped, or they failed once more than they may start again.
    pub(crate) fn run(&self) -> Result<Outcome, Error> {
        let most = self.plan.restarts;
        let mut count = 0;
        loop {
            let (failure, asked) = self.attempt(Restarts { count, most })?;
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

    /// Runs the workers once; a failure if one failed, and the signal that asked them to stop.
    fn attempt(&self, restarts: Restarts) -> Result<(Option<Failure>, Option<Signal>), Error> {
        let memory = OutOfMemory::watch(Path::new("/"));
        let done = Event::new().map_err(Error::Watch)?;
        let mut workers = Vec::new();
        for local_rank in 0..self.plan.world.workers.get() {
            let start = self.start(local_rank, restarts);
            let worker = Worker::start(start, self.sinks, &self.warden, &done);
            workers.push(worker.map_err(|source| Error::Start { local_rank, source })?);
        }
        let watch = Watch {
            arguments: self.arguments,
            world: &self.plan.world,
            signals: self.signals,
            sinks: self.sinks,
            memory: &memory,
        };
        let mut course = watch.until_all_ended(&mut workers).map_err(Error::Watch)?;
        watch.until_all_is_passed_on(&workers, &done, &mut course.asked).map_err(Error::Watch)?;
        let failure = course.failed.map(|failed| self.failure(failed, &workers));
        Ok((failure, course.asked))
    }

    fn start(&self, local_rank: usize, restarts: Restarts) -> Start {
        let Plan { world, cores, command, .. } = self.plan;
        let name = format!("{}-{local_rank}.json", restarts.count);
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

    fn failure(&self, failed: Failed, workers: &[Worker<'_>]) -> Failure {
        let Failed { local_rank, end, after, at, asked, out_of_memory } = failed;
        let worker = &workers[local_rank];
        // One that did as it was told has nothing to explain.
        let is_obedient = asked.is_some_and(|signal| end.is_by(signal));
        Failure {
            rank: self.plan.world.rank(local_rank),
            local_rank,
            host: self.host.clone(),
            end,
            after,
            at,
            asked,
            out_of_memory,
            description: worker.error_file.as_deref().and_then(report::description),
            last_lines: if is_obedient { Vec::new() } else { worker.tail.lock().lines() },
        }
    }
}
