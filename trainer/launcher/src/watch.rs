//! Watches workers by their pidfds, passes signals on, and stops those that are left when one fails.

use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::arguments::{Arguments, OnFailure};
use crate::elastic::Round;
use crate::memory::OutOfMemory;
use crate::output::{Event, Sinks, until};
use crate::report::Failure;
use crate::signals::{Request, Signals};
use crate::worker::{End, Worker};
use crate::world::World;

/// Who reads the output gets at least so long to take what is left of it.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(5);

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
pub(crate) struct Course {
    /// The worker that failed first.
    pub(crate) failed: Option<Failure>,
    /// The first signal that asked the workers to stop.
    pub(crate) asked: Option<Signal>,
    /// The round has ended before the workers, and before one of them failed.
    pub(crate) is_cut_short: bool,
}

/// What it takes to watch the workers of one start.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) world: &'a World,
    /// What errors call this host.
    pub(crate) host: &'a str,
    /// The workers are part of it, if they are of several nodes that come and go.
    pub(crate) round: Option<&'a Round<'a>>,
    pub(crate) signals: &'a Signals,
    pub(crate) sinks: &'a Sinks,
    /// Since that start.
    pub(crate) memory: &'a OutOfMemory,
}

impl Watch<'_> {
    /// Until no worker lives.
    pub(crate) fn until_all_ended(&self, workers: &mut [Worker<'_>]) -> io::Result<Course> {
        let mut course = Course::default();
        let mut patience = Patience::Endless;
        while workers.iter().any(Worker::is_alive) {
            let ended = self.wait(workers, patience.deadline())?;
            // First, for what a lost node lets fail here is no failure.
            self.stop_with_the_round(workers, &mut course, &mut patience);
            for index in ended {
                let end = workers[index].collect()?;
                if !end.is_success() && course.failed.is_none() && !course.is_cut_short {
                    let failure = self.failure(&workers[index], end, course.asked);
                    self.after_failure(&failure, workers, &mut patience);
                    course.failed = Some(failure);
                }
            }
            while let Some(request) = self.signals.next() {
                match request {
                    Request::Reap => {}
                    Request::Forward(signal) => signal_all(workers, signal),
                    Request::Stop(signal) => {
                        if let Some(round) = self.round {
                            round.leave();
                        }
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

    fn failure(&self, worker: &Worker<'_>, end: End, asked: Option<Signal>) -> Failure {
        Failure {
            rank: self.world.rank(worker.local_rank),
            local_rank: worker.local_rank,
            host: self.host.to_owned(),
            end,
            after: worker.started.elapsed(),
            at: Timestamp::now(),
            asked,
            out_of_memory: end.is_by(Signal::SIGKILL) && self.memory.happened(),
            description: None,
            last_lines: Vec::new(),
        }
    }

    /// Asks the workers to stop if their round has ended before them.
    fn stop_with_the_round(&self, workers: &[Worker<'_>], course: &mut Course, patience: &mut Patience) {
        let has_another_reason = course.is_cut_short || course.failed.is_some() || course.asked.is_some();
        let Some(why) = self.round.filter(|_| !has_another_reason).and_then(Round::ended) else { return };
        course.is_cut_short = true;
        signal_all(workers, Signal::SIGTERM);
        patience.end_after(self.arguments.grace);
        let grace = self.arguments.grace;
        self.sinks.stderr.note(&format!("{why}; the workers get SIGTERM, and {grace:?} to end"));
    }

    /// Waits for an end, a signal or the time to kill; the workers that ended.
    fn wait(&self, workers: &[Worker<'_>], deadline: Option<Instant>) -> io::Result<Vec<usize>> {
        let alive: Vec<_> = (0..workers.len()).filter(|index| workers[*index].is_alive()).collect();
        let mut ready: Vec<_> =
            alive.iter().map(|index| PollFd::new(&workers[*index], PollFlags::IN)).collect();
        ready.push(PollFd::new(self.signals, PollFlags::IN));
        ready.extend(self.round.map(|round| PollFd::new(round, PollFlags::IN)));
        match poll(&mut ready, until(deadline).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ended = alive.into_iter().zip(&ready).filter(|(_, ready)| !ready.revents().is_empty());
        Ok(ended.map(|(index, _)| index).collect())
    }

    fn after_failure(&self, failed: &Failure, workers: &[Worker<'_>], patience: &mut Patience) {
        let is_last = !workers.iter().any(Worker::is_alive);
        let goes_on = self.arguments.on_failure == OnFailure::Continue;
        if is_last || goes_on || *patience != Patience::Endless {
            return;
        }
        if let Some(round) = self.round {
            round.failed(failed);
        }
        signal_all(workers, Signal::SIGTERM);
        patience.end_after(self.arguments.grace);
        let (rank, end, grace) = (failed.rank, failed.end, self.arguments.grace);
        self.sinks
            .stderr
            .note(&format!("rank {rank} failed: {end}; the others get SIGTERM, and {grace:?} to end"));
    }

    fn kill(&self, workers: &mut [Worker<'_>]) {
        let late = workers.iter().filter(|worker| worker.is_alive());
        let ranks: Vec<_> = late.map(|worker| self.world.rank(worker.local_rank).to_string()).collect();
        workers.iter().for_each(Worker::kill);
        if !ranks.is_empty() {
            let grace = self.arguments.grace;
            self.sinks.stderr.note(&format!(
                "killed after {grace:?} in which they did not end: rank {}",
                ranks.join(", ")
            ));
        }
    }

    /// Until everything that the workers wrote was passed on: as long as it goes on, or, when the workers were asked to
    /// stop, as long as they might have taken.
    pub(crate) fn until_all_is_passed_on(
        &self,
        workers: &[Worker<'_>],
        done: &Event,
        asked: &mut Option<Signal>,
    ) -> io::Result<()> {
        let patience = self.arguments.grace.max(SHORTEST_PATIENCE);
        let written = || self.sinks.stdout.written() + self.sinks.stderr.written();
        // Of each worker, two streams.
        let (mut left, mut before) = (2 * workers.len() as u64, written());
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
                    self.sinks
                        .stderr
                        .note(&format!("nobody took the rest of the output for {patience:?}; it is lost"));
                    return Ok(());
                }
                before = now;
                give_up_at = Instant::now() + patience;
            }
        }
        Ok(())
    }
}

fn signal_all(workers: &[Worker<'_>], signal: Signal) {
    for worker in workers {
        worker.signal(signal);
    }
}

/// The first process of a pod adopts those whose parents are gone.
pub(crate) fn reap_adopted(workers: &[Worker<'_>]) {
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
