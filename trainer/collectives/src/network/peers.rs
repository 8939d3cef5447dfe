//! What this rank knows of the ranks on other hosts, and tells them.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};

use super::notice::Notice;
use super::stream::Stream;
use crate::control::{Control, Failure};
use crate::error::{Error, LossCause};
use crate::report::{Report, ranks};

/// Notices that a peer has not taken yet are kept up to this many bytes; nobody who listens comes near.
const MOST_UNSENT: usize = 64 << 10;

/// The connection on which two ranks hear of each other, and what is known of the other one.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: Stream,
    unsent: Mutex<Vec<u8>>,
    /// It said that it leaves.
    has_left: AtomicBool,
    /// Its process ended, or it left.
    is_gone: AtomicBool,
    /// It was given up, though nobody knows what became of it.
    is_silent: AtomicBool,
    goes_on: AtomicBool,
}

impl Line {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            unsent: Mutex::new(Vec::new()),
            has_left: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            goes_on: AtomicBool::new(false),
        }
    }

    /// Sends a notice without waiting; the rest of one that does not fit goes with the next.
    fn post(&self, notice: Notice) {
        let mut unsent = self.unsent.lock().unwrap_or_else(PoisonError::into_inner);
        if unsent.len() < MOST_UNSENT {
            unsent.extend(notice.encode());
        }
        while !unsent.is_empty() {
            match self.stream.send(&[], &unsent, false) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever reads from the connection learns what became of it.
                Err(_) => unsent.clear(),
            }
        }
    }
}

/// The ranks on other hosts.
#[derive(Debug)]
pub(crate) struct Peers {
    /// By rank; none for the ranks of this host.
    pub(super) lines: Vec<Option<Line>>,
    /// This process's rank on its host.
    local_rank: usize,
    control: Arc<Control>,
    /// Whether the failure that ended the group was told to the other hosts.
    told: Mutex<bool>,
}

impl Peers {
    pub(super) fn new(lines: Vec<Option<Line>>, local_rank: usize, control: Arc<Control>) -> Self {
        Self { lines, local_rank, control, told: Mutex::new(false) }
    }

    fn world_size(&self) -> usize {
        self.lines.len()
    }

    fn line(&self, rank: usize) -> Option<&Line> {
        self.lines.get(rank)?.as_ref()
    }

    fn post(&self, notice: Notice) {
        self.lines.iter().flatten().for_each(|line| line.post(notice));
    }

    pub(super) fn beat(&self) {
        self.post(Notice::Heartbeat);
    }

    pub(super) fn leave(&self) {
        self.post(Notice::Leaving);
    }

    /// Ends the group because of something that this rank found out about another host, unless it ended before.
    pub(crate) fn fail(&self, report: Report) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if self.control.failure().is_some() {
            return;
        }
        self.control.keep_report(self.local_rank, &report);
        let failure = Failure::Elsewhere { witness: self.local_rank };
        if self.control.abort(failure) == failure && !*told {
            *told = true;
            self.post(Notice::Failed(report));
        }
    }

    /// Tells the other hosts the error with which a call of this rank ended, once.
    pub(crate) fn tell(&self, error: &Error) {
        let Some(report) = Report::of(error) else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !*told {
            *told = true;
            self.post(Notice::Failed(report));
        }
    }

    /// Takes in what `rank` says; false if no rank says such a thing.
    pub(super) fn hear(&self, rank: usize, notice: Option<Notice>) {
        let Some(line) = self.line(rank) else { return };
        match notice {
            Some(Notice::Heartbeat) => {}
            Some(Notice::Leaving) => line.has_left.store(true, SeqCst),
            Some(Notice::Failed(report)) => self.fail(report),
            Some(Notice::GoesOn) => line.goes_on.store(true, SeqCst),
            Some(Notice::Decided(members)) => {
                self.settle(&ranks(&members, self.world_size()));
            }
            None => self.fail(Report::lost(rank, LossCause::Garbled)),
        }
    }

    /// Takes in that `rank` hung up.
    pub(super) fn hung_up(&self, rank: usize) {
        let Some(line) = self.line(rank) else { return };
        line.is_gone.store(true, SeqCst);
        if !self.has_left(rank) {
            self.fail(Report::lost(rank, LossCause::Died));
        }
    }

    /// Takes in that nothing is heard of `rank`.
    pub(super) fn fell_silent(&self, rank: usize) {
        let Some(line) = self.line(rank) else { return };
        line.is_silent.store(true, SeqCst);
        self.fail(Report::lost(rank, LossCause::Silent));
    }

    pub(super) fn has_left(&self, rank: usize) -> bool {
        self.line(rank).is_some_and(|line| line.has_left.load(SeqCst))
    }

    /// Tells everyone that this rank wants to go on after the failure.
    pub(crate) fn go_on(&self) {
        self.post(Notice::GoesOn);
    }

    /// Makes it everybody's decision who goes on, unless one was made.
    pub(crate) fn decide(&self, members: &[usize]) -> Vec<usize> {
        let decided = self.settle(members);
        self.post(Notice::Decided(crate::report::mask(&decided)));
        decided
    }

    /// Makes it this host's decision, unless there is one.
    fn settle(&self, members: &[usize]) -> Vec<usize> {
        // One thread at a time writes the words of this rank.
        let _told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        self.control.decide(self.local_rank, members, self.world_size())
    }

    /// Whether a rank of another host wants to go on.
    pub(crate) fn goes_on(&self, rank: usize) -> bool {
        self.line(rank).is_some_and(|line| line.goes_on.load(SeqCst))
    }

    /// Whether a rank of another host can surely never again take part.
    pub(crate) fn is_gone(&self, rank: usize) -> bool {
        self.line(rank).is_some_and(|line| line.is_gone.load(SeqCst) || line.has_left.load(SeqCst))
    }

    /// Whether a rank of another host was given up without knowing what became of it.
    pub(crate) fn is_silent(&self, rank: usize) -> bool {
        self.line(rank).is_some_and(|line| line.is_silent.load(SeqCst) && !self.is_gone(rank))
    }
}
