//! One round of an elastic job, as those see it who watch its workers.

use std::os::fd::{AsFd, BorrowedFd};

use muster_rendezvous::{Member, Watch};

use crate::output::Event;
use crate::report::Failure;

/// The workers of all nodes from their common start to their common end.
#[derive(Debug)]
pub(crate) struct Round<'a> {
    member: &'a Member,
    watch: Watch,
    epoch: u64,
    /// Told whenever the member hears something.
    news: &'a Event,
    most_restarts: u32,
}

impl<'a> Round<'a> {
    pub(crate) fn new(member: &'a Member, epoch: u64, news: &'a Event, most_restarts: u32) -> Self {
        Self { member, watch: member.watch(epoch), epoch, news, most_restarts }
    }

    /// Why the workers of this node must stop, if they must.
    pub(crate) fn ended(&self) -> Option<String> {
        self.news.take();
        if let Err(end) = self.member.placed(self.epoch) {
            return Some(end.to_string());
        }
        if let Some(departure) = self.watch.departure() {
            return Some(departure.to_string());
        }
        let change = "another node has joined, or a worker of another node has failed";
        self.member.is_change_wanted(self.epoch).then(|| change.to_owned())
    }

    /// A worker of this node has failed.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.member.fail(self.epoch, failure.headline(), self.most_restarts);
    }

    /// All workers of this node have succeeded.
    pub(crate) fn ended_well(&self) {
        self.member.end_well(self.epoch);
    }

    /// This node is asked to go, which others should know before they miss its workers.
    pub(crate) fn leave(&self) {
        self.member.leave();
    }
}

impl AsFd for Round<'_> {
    /// Readable when there may be a reason to stop.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}
