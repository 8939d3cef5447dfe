//! The work on a share: what goes to the other hosts and what comes from them in which order, on one thread or two.

#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::mpsc;

use super::Remote;
use super::share::{Memory, partial};
use crate::call::Call;
use crate::element::{Element, Reduction};
use crate::error::Error;
use crate::kernels;
use crate::network::{Content, Incoming, Outgoing};
use crate::shared_memory::{SharedMemory, share};

/// A share to reduce. Each host reduces a piece of it, in rounds of a segment.
///
/// To each other host goes in turn a segment of what this host contributes to its piece, and the segment of the own
/// piece that was reduced some rounds before, which is the lag. So nobody waits for a result before it has sent what the
/// next ones need. A segment of another host's piece is written only with what came of it, which is after it was sent.
#[derive(Clone, Debug)]
pub(super) struct Work<'a, T> {
    pub(super) remote: &'a Remote,
    pub(super) local: &'a SharedMemory,
    pub(super) call: Call,
    pub(super) memory: Memory<'a, T>,
    pub(super) range: Range<usize>,
    pub(super) reduction: Reduction,
    /// Elements of a segment.
    pub(super) largest: usize,
    pub(super) rounds: usize,
    /// Rounds by which results come later than what they are made of; at least one, and on all hosts the same.
    pub(super) lag: usize,
}

impl<T: Element> Work<'_, T> {
    /// Segment `round` of the piece that a host reduces.
    fn segment(&self, host: usize, round: usize) -> Range<usize> {
        let piece = share(self.range.len(), host, self.remote.hosts.len());
        let (start, end) = (self.range.start + piece.start, self.range.start + piece.end);
        end.min(start + round * self.largest)..end.min(start + (round + 1) * self.largest)
    }

    /// The rank of a host that has the same share.
    fn peer(&self, host: usize) -> usize {
        self.remote.hosts[host][self.local.rank()]
    }

    /// # Safety
    /// As [`Remote::reduce_share`].
    pub(super) unsafe fn on_one_thread<W: Element<Accumulator = T::Accumulator>>(&self) -> Result<(), Error> {
        let mut contributions = vec![Vec::new(); self.remote.hosts.len()];
        let mut received = vec![Vec::new(); self.remote.hosts.len()];
        let mut own = Vec::new();
        for round in 0..self.rounds + self.lag {
            let late = round.checked_sub(self.lag);
            // SAFETY: the caller's promise; what goes out and what comes in are different segments.
            unsafe {
                let mut outgoing = self.contributions::<W>(round, &mut contributions);
                let mut incoming = self.places_for_contributions::<W>(round, &mut received);
                if let Some(late) = late {
                    outgoing.extend(self.results(late));
                    incoming.extend(self.places_for_results(late));
                }
                self.remote.exchange(self.local, self.call, &mut outgoing, &mut incoming)?;
                if let Some(late) = late {
                    self.take_results(late);
                }
                self.combine::<W>(round, &received, &mut own);
            }
        }
        Ok(())
    }

    /// As [`Self::on_one_thread`], but one thread sends while the other receives and reduces.
    ///
    /// # Safety
    /// As [`Remote::reduce_share`].
    pub(super) unsafe fn on_two_threads<W: Element<Accumulator = T::Accumulator>>(
        &self,
    ) -> Result<(), Error> {
        let (reduced, is_reduced) = mpsc::channel();
        std::thread::scope(|scope| {
            let sender =
                std::thread::Builder::new().name("muster-sender".into()).spawn_scoped(scope, move || {
                    // SAFETY: the caller's promise; see `Work` for what both threads touch when.
                    unsafe { self.send_all::<W>(&is_reduced) }
                });
            let sender = sender.map_err(Error::system("start the thread that sends to other hosts"))?;
            // SAFETY: as above.
            let received = unsafe { self.receive_all::<W>(reduced) };
            let sent = sender.join().unwrap_or_else(|_| {
                let broken = std::io::Error::other("it panicked");
                Err(Error::system("send to other hosts")(broken))
            });
            received.and(sent)
        })
    }

    /// # Safety
    /// As [`Remote::reduce_share`].
    unsafe fn send_all<W: Element<Accumulator = T::Accumulator>>(
        &self,
        is_reduced: &mpsc::Receiver<()>,
    ) -> Result<(), Error> {
        let mut contributions = vec![Vec::new(); self.remote.hosts.len()];
        for round in 0..self.rounds + self.lag {
            // SAFETY: the caller's promise.
            let mut outgoing = unsafe { self.contributions::<W>(round, &mut contributions) };
            self.remote.exchange(self.local, self.call, &mut outgoing, &mut [])?;
            let Some(late) = round.checked_sub(self.lag) else { continue };
            // Ends with the other thread, none of whose waits is without an end.
            if is_reduced.recv().is_err() {
                // It has failed, and tells why.
                return Ok(());
            }
            // SAFETY: the caller's promise; the segment is reduced.
            let mut outgoing: Vec<_> = unsafe { self.results(late) }.collect();
            self.remote.exchange(self.local, self.call, &mut outgoing, &mut [])?;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Remote::reduce_share`].
    unsafe fn receive_all<W: Element<Accumulator = T::Accumulator>>(
        &self,
        reduced: mpsc::Sender<()>,
    ) -> Result<(), Error> {
        let mut received = vec![Vec::new(); self.remote.hosts.len()];
        let mut own = Vec::new();
        for round in 0..self.rounds + self.lag {
            // SAFETY: the caller's promise.
            unsafe {
                let mut incoming = self.places_for_contributions::<W>(round, &mut received);
                self.remote.exchange(self.local, self.call, &mut [], &mut incoming)?;
                self.combine::<W>(round, &received, &mut own);
                // A sender that has failed has ended the group, which the next exchange notices.
                let _ = reduced.send(());
                if let Some(late) = round.checked_sub(self.lag) {
                    let mut incoming: Vec<_> = self.places_for_results(late).collect();
                    self.remote.exchange(self.local, self.call, &mut [], &mut incoming)?;
                    self.take_results(late);
                }
            }
        }
        Ok(())
    }

    /// What goes out in a round of what this host contributes.
    ///
    /// # Safety
    /// As [`Remote::reduce_share`].
    unsafe fn contributions<'a, W: Element<Accumulator = T::Accumulator>>(
        &'a self,
        round: usize,
        scratch: &'a mut [Vec<W>],
    ) -> Vec<Outgoing<'a>> {
        if round >= self.rounds {
            return Vec::new();
        }
        let others = scratch.iter_mut().enumerate().filter(|(host, _)| *host != self.remote.own_host);
        let outgoing = others.map(|(host, scratch)| {
            // SAFETY: the caller's promise; nothing was received for this segment yet.
            let data = unsafe { partial(self.memory, self.segment(host, round), self.reduction, scratch) };
            self.remote.network.outgoing(self.peer(host), self.call, Content::Contribution, data)
        });
        outgoing.collect()
    }

    /// Where the contributions of the other hosts to a round go.
    fn places_for_contributions<'a, W: Element>(
        &self,
        round: usize,
        received: &'a mut [Vec<W>],
    ) -> Vec<Incoming<'a>> {
        if round >= self.rounds {
            return Vec::new();
        }
        let count = self.segment(self.remote.own_host, round).len();
        let others = received.iter_mut().enumerate().filter(|(host, _)| *host != self.remote.own_host);
        let incoming = others.map(|(host, place)| {
            place.resize(count, W::default());
            Incoming::new(self.peer(host), Content::Contribution, place)
        });
        incoming.collect()
    }

    /// The own result of a round, on its way to the other hosts.
    ///
    /// # Safety
    /// As [`Remote::reduce_share`]; the round must have been combined.
    unsafe fn results(&self, round: usize) -> impl Iterator<Item = Outgoing<'_>> {
        let segment = self.segment(self.remote.own_host, round);
        // SAFETY: the caller's promise; the segment is not written any more.
        let data = unsafe {
            std::slice::from_raw_parts(self.memory.destinations[0].add(segment.start), segment.len())
        };
        let hosts = self.remote.other_hosts();
        hosts.map(|host| self.remote.network.outgoing(self.peer(host), self.call, Content::Result, data))
    }

    /// Where the other hosts' results of a round go.
    ///
    /// # Safety
    /// As [`Remote::reduce_share`].
    unsafe fn places_for_results(&self, round: usize) -> impl Iterator<Item = Incoming<'_>> {
        self.remote.other_hosts().map(move |host| {
            let segment = self.segment(host, round);
            let start = self.memory.destinations[0].wrapping_add(segment.start);
            // SAFETY: the caller's promise; this host sent what it has for the segment, or no result could come.
            let place = unsafe { std::slice::from_raw_parts_mut(start, segment.len()) };
            Incoming::new(self.peer(host), Content::Result, place)
        })
    }

    /// Copies the results of a round that have come from the first destination to the others.
    ///
    /// # Safety
    /// As [`Remote::reduce_share`].
    unsafe fn take_results(&self, round: usize) {
        let [first, others @ ..] = self.memory.destinations else { return };
        for segment in self.remote.other_hosts().map(|host| self.segment(host, round)) {
            for other in others {
                // SAFETY: the caller's promise; destinations are apart from each other.
                unsafe {
                    let (from, to) = (first.add(segment.start), other.add(segment.start));
                    std::ptr::copy_nonoverlapping(from, to, segment.len());
                }
            }
        }
    }

    /// Combines the contributions of all hosts to a round into all destinations.
    ///
    /// # Safety
    /// As [`Remote::reduce_share`].
    unsafe fn combine<W: Element<Accumulator = T::Accumulator>>(
        &self,
        round: usize,
        received: &[Vec<W>],
        scratch: &mut Vec<W>,
    ) {
        if round >= self.rounds {
            return;
        }
        let segment = self.segment(self.remote.own_host, round);
        let mut parts: Vec<*const W> = received.iter().map(Vec::as_ptr).collect();
        let destinations: Vec<*mut T> =
            self.memory.destinations.iter().map(|base| base.wrapping_add(segment.start)).collect();
        // SAFETY: the caller's promise; every part holds the segment, and a destination may be the own part itself.
        unsafe {
            let own = partial(self.memory, segment.clone(), self.reduction, scratch);
            parts[self.remote.own_host] = own.as_ptr();
            let ranks = self.remote.world_size();
            kernels::reduce_between(self.reduction, ranks, &parts, &destinations, segment.len());
        }
    }
}
