//! Starts the workers, watches them by their pidfds, passes signals on, and decides what an end means.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::arguments::{Arguments, OnFailure, Prefix};
use crate::child;
use crate::environment::{self, Restarts};
use crate::error::Error;
use crate::lines::{Framing, Lines};
use crate::memory::OutOfMemory;
use crate::output::{Event, Sinks, until};
use crate::plan::{self, Plan};
use crate::report::{self, Failure};
use crate::signals::{Request, Signals};
use crate::warden::Warden;
use crate::worker::{End, Start, Worker};

/// Who reads the output gets at least so long to take what is left of it.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(5);

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

/// How long workers may still live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// To their own end.
    Endless,
    /// They were told to stop.
    Until(Instant),
    /// They were killed.
    Over,
}

impl Patience {
    /// Ends after `grace`, unless that was said before.
    fn end_after(&mut self, grace: Duration) {
        if *self == Self::Endless {
            *self = Self::Until(Instant::now() + grace);
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Until(deadline) => Some(deadline),
            Self::Endless | Self::Over => None,
        }
    }
}

/// What happened while the workers ran.
#[derive(Debug, Default)]
struct Course {
    /// The worker that failed first.
    failed: Option<Failed>,
    /// The first signal that asked the workers to stop.
    asked: Option<Signal>,
}

#[derive(Debug)]
struct Failed {
    local_rank: usize,
    end: End,
    after: Duration,
    at: Timestamp,
    asked: Option<Signal>,
    out_of_memory: bool,
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
        let mut course = self.watch(&mut workers, &memory).map_err(Error::Watch)?;
        self.drain(2 * workers.len() as u64, &done, &mut course.asked).map_err(Error::Watch)?;
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

    /// Until no worker lives.
    fn watch(&self, workers: &mut [Worker<'_>], memory: &OutOfMemory) -> io::Result<Course> {
        let mut course = Course::default();
        let mut patience = Patience::Endless;
        while workers.iter().any(Worker::is_alive) {
            for index in self.wait(workers, patience.deadline())? {
                let end = workers[index].collect()?;
                if !end.is_success() && course.failed.is_none() {
                    let failed = Failed {
                        local_rank: workers[index].local_rank,
                        end,
                        after: workers[index].started.elapsed(),
                        at: Timestamp::now(),
                        asked: course.asked,
                        out_of_memory: end.is_by(Signal::SIGKILL) && memory.happened(),
                    };
                    self.after_failure(&failed, workers, &mut patience);
                    course.failed = Some(failed);
                }
            }
            while let Some(request) = self.signals.next() {
                match request {
                    Request::Reap => {}
                    Request::Forward(signal) => signal_all(workers, signal),
                    Request::Stop(signal) => {
                        signal_all(workers, signal);
                        patience.end_after(self.arguments.grace);
                        course.asked.get_or_insert(signal);
                    }
                }
            }
            reap_adopted(workers);
            if patience.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                patience = Patience::Over;
                self.kill(workers);
            }
        }
        Ok(course)
    }

    /// Waits for an end, a signal or the time to kill; the workers that ended.
    fn wait(&self, workers: &[Worker<'_>], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
        let alive: Vec<_> = (0..workers.len()).filter(|index| workers[*index].is_alive()).collect();
        let mut ready = vec![PollFd::new(self.signals, PollFlags::IN)];
        ready.extend(alive.iter().map(|index| PollFd::new(&workers[*index], PollFlags::IN)));
        match poll(&mut ready, until(deadline).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ended = alive.into_iter().zip(&ready[1..]).filter(|(_, ready)| !ready.revents().is_empty());
        Ok(ended.map(|(index, _)| index).collect())
    }

    fn after_failure(&self, failed: &Failed, workers: &[Worker<'_>], patience: &mut Patience) {
        let others = workers.iter().filter(|worker| worker.is_alive()).count();
        let goes_on = self.arguments.on_failure == OnFailure::Continue;
        if others == 0 || goes_on || *patience != Patience::Endless {
            return;
        }
        signal_all(workers, Signal::SIGTERM);
        patience.end_after(self.arguments.grace);
        let rank = self.plan.world.rank(failed.local_rank);
        let (end, grace) = (failed.end, self.arguments.grace);
        self.note(&format!("rank {rank} failed: {end}; {others} others get SIGTERM, and {grace:?} to end"));
    }

    fn kill(&self, workers: &mut [Worker<'_>]) {
        let late = workers.iter().filter(|worker| worker.is_alive());
        let ranks: Vec<_> = late.map(|worker| self.plan.world.rank(worker.local_rank).to_string()).collect();
        workers.iter().for_each(Worker::kill);
        if !ranks.is_empty() {
            let grace = self.arguments.grace;
            self.note(&format!(
                "killed after {grace:?} in which they did not end: rank {}",
                ranks.join(", ")
            ));
        }
    }

    /// Until everything that the workers wrote was passed on: as long as it goes on, or, when the workers were asked to
    /// stop, as long as they might have taken.
    fn drain(&self, streams: u64, done: &Event, asked: &mut Option<Signal>) -> io::Result<()> {
        let patience = self.arguments.grace.max(SHORTEST_PATIENCE);
        let written = || self.sinks.stdout.written() + self.sinks.stderr.written();
        let (mut left, mut before) = (streams, written());
        let mut give_up_at = Instant::now() + patience;
        while left > 0 {
            let mut ready = [PollFd::new(self.signals, PollFlags::IN), PollFd::new(done, PollFlags::IN)];
            match poll(&mut ready, until(Some(give_up_at)).as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            left = left.saturating_sub(done.take());
            while let Some(request) = self.signals.next() {
                if let (Request::Stop(signal), None) = (request, *asked) {
                    *asked = Some(signal);
                    give_up_at = Instant::now() + patience;
                }
            }
            if left > 0 && Instant::now() >= give_up_at {
                let now = written();
                if asked.is_some() || now == before {
                    self.note(&format!("nobody took the rest of the output for {patience:?}; it is lost"));
                    return Ok(());
                }
                before = now;
                give_up_at = Instant::now() + patience;
            }
        }
        Ok(())
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

fn signal_all(workers: &[Worker<'_>], signal: Signal) {
    for worker in workers {
        worker.signal(signal);
    }
}

/// The first process of a pod adopts those whose parents are gone.
fn reap_adopted(workers: &[Worker<'_>]) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, flags) {
        let Some(process) = status.pid() else { return };
        // The end of a worker is told by its descriptor.
        if workers.iter().any(|worker| worker.is_alive() && worker.is(process.as_raw())) {
            return;
        }
        if waitpid(process, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}
