//! The shared-memory transport: how ranks move in step. The collectives' phases are in the modules below.

mod failure;
mod gather;
mod messages;
mod parts;
mod phases;
mod rebuild;
mod reduce;
mod reduce_scatter;
mod scatter;
mod single_copy;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use parts::{Counts, Layout, copy_in, copy_out};
pub(crate) use reduce::{Places, share};

use crate::arena::{Arena, RegisteredBuffer, segment_length};
use crate::call::Call;
use crate::control::{self, Control, Failure};
use crate::element::Element;
use crate::error::Error;
use crate::large_pages::Regulars;
use crate::membership::Membership;
use crate::memory::{self, Mapping};
use crate::options::Options;
use crate::rendezvous;
use crate::signal::Signal;
use crate::watcher::Watcher;

/// Longest sleep between two looks at the abort word.
const NAP: Duration = Duration::from_millis(20);

/// Looks at a signal before the first pause: peers that run beside this rank mostly answer within them.
const GLANCES: u32 = 64;

/// How long a rank then looks with pauses while its peer runs on another processor. Going on to sleep costs as much;
/// yielding would hand a whole time slice to whoever else wants the processor.
const SPIN: Duration = Duration::from_micros(50);

/// How often a rank yields its processor before it sleeps, where its peer may need that very processor.
const YIELDS: u32 = 64;

/// A joined group.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    /// Among the ranks of this host, as all ranks in this module.
    rank: usize,
    membership: Membership,
    deadline: Duration,
    /// How much longer this rank waits for one of its host, which may itself wait for another host until the
    /// deadline and then tells who is missing.
    grace: Duration,
    control: Arc<Control>,
    pub(crate) arena: Arc<Arena>,
    /// Steps this rank has completed or begun; equal on all ranks when they meet.
    sequence: u32,
    /// Staging slots used so far.
    pub(crate) turn: usize,
    /// Messages exchanged with each rank.
    channels: Vec<messages::Progress>,
    /// Whether ranks read each other's memory.
    reading: single_copy::Reading,
    /// Private memory that they have read.
    regulars: Regulars,
    /// Whether ranks must share processors, so that spinning only keeps others from running.
    crowded: bool,
    /// Pauses that take as long as [`SPIN`].
    spins: u32,
    /// Dropped before the lifeline, so that leaving is not mistaken for dying.
    _watcher: Option<Watcher>,
    _lifeline: std::os::fd::OwnedFd,
}

impl SharedMemory {
    pub(crate) fn join(options: &Options) -> Result<Self, Error> {
        let group = rendezvous::form(options)?;
        let mut hosts = Vec::new();
        let mut segments = Vec::new();
        let mut lifelines = Vec::new();
        for (rank, peer) in group.peers.into_iter().enumerate() {
            let length = segment_length(peer.arena_bytes, options.world_size);
            memory::verify_file(&peer.segment, length)
                .map_err(Error::system("verify the memory of a peer"))?;
            segments.push(
                Mapping::new(&peer.segment, length).map_err(Error::system("map the memory of a peer"))?,
            );
            hosts.push(peer.host);
            if rank != options.rank {
                lifelines.push((rank, peer.lifeline));
            }
        }
        let length = control::length(options.world_size);
        memory::verify_file(&group.control, length).map_err(Error::system("verify the control segment"))?;
        let mapping =
            Mapping::new(&group.control, length).map_err(Error::system("map the control segment"))?;
        let control = Arc::new(Control::new(mapping, options.world_size));
        if options.rank == 0 {
            control.set_session(group.session);
        }
        let watcher = if lifelines.is_empty() {
            None
        } else {
            let watcher = Watcher::start(Arc::clone(&control), lifelines);
            Some(watcher.map_err(Error::system("start the thread that watches the peers"))?)
        };
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            rank: options.rank,
            membership: Membership::of_one_host(hosts),
            deadline: options.deadline,
            grace: Duration::ZERO,
            arena: Arc::new(Arena::new(options.rank, segments, options.arena_bytes)),
            control,
            sequence: 0,
            turn: 0,
            channels: vec![messages::Progress::default(); options.world_size],
            reading: single_copy::Reading::new(group.session, options.rank),
            regulars: Regulars::new(),
            crowded: options.world_size > processors,
            spins: pauses_in(SPIN),
            _watcher: watcher,
            _lifeline: group.lifeline,
        })
    }

    pub(crate) fn rank(&self) -> usize {
        self.rank
    }

    pub(crate) fn world_size(&self) -> usize {
        self.membership.members.len()
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Makes this the part of a larger group that lies on this host: errors then name ranks of the whole group.
    pub(crate) fn become_part(&mut self, membership: Membership, grace: Duration) {
        self.membership = membership;
        self.grace = grace;
    }

    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    pub(crate) fn session(&self) -> u64 {
        self.control.session()
    }

    pub(crate) fn allocate<T: Element>(&self, count: usize) -> Result<RegisteredBuffer<T>, Error> {
        self.arena.allocate(count)
    }

    pub(crate) fn barrier(&mut self, call: Call) -> Result<(), Error> {
        self.enter(call, 0)
    }

    /// Waits until every rank has come this far; what they wrote before is then visible.
    pub(crate) fn step(&mut self, call: Call) -> Result<(), Error> {
        self.check_failure(call)?;
        self.conclude(call)
    }

    /// As [`Self::step`], the last one of a call in which this rank has all it needs from other hosts: these may have
    /// gone on, so that a failure may be one of a later call.
    pub(crate) fn conclude(&mut self, call: Call) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        self.control.set_processor(self.rank, processor());
        self.control.step(self.rank).advance(self.sequence);
        let mut since = None;
        for peer in (0..self.world_size()).filter(|peer| *peer != self.rank) {
            self.wait(self.control.step(peer), self.sequence, peer, call, &mut since)?;
        }
        Ok(())
    }

    /// Waits until `peer` has brought its signal to `wanted`.
    #[inline]
    fn wait(
        &self,
        signal: &Signal,
        wanted: u32,
        peer: usize,
        call: Call,
        since: &mut Option<Instant>,
    ) -> Result<(), Error> {
        for _ in 0..GLANCES {
            if signal.has_reached(wanted) {
                return Ok(());
            }
        }
        self.wait_long(signal, wanted, peer, call, *since.get_or_insert_with(Instant::now))
    }

    #[cold]
    fn wait_long(
        &self,
        signal: &Signal,
        wanted: u32,
        peer: usize,
        call: Call,
        mut since: Instant,
    ) -> Result<(), Error> {
        let mut progress = self.control.progress(peer);
        let shares_processor = self.crowded || self.control.processor(peer) == processor();
        let (spins, mut yields) = if shares_processor { (0, YIELDS) } else { (self.spins, 0) };
        for _ in 0..spins {
            if signal.has_reached(wanted) {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        loop {
            // In this order: a rank that leaves has advanced before.
            let departed = self.control.has_departed(peer);
            if signal.has_reached(wanted) {
                return Ok(());
            }
            if departed {
                return Err(self.fail(Failure::Left { rank: peer }, call));
            }
            self.check_failure(call)?;
            if yields > 0 {
                yields -= 1;
                std::thread::yield_now();
                continue;
            }
            if progress != self.control.progress(peer) {
                progress = self.control.progress(peer);
                since = Instant::now();
            }
            let patience = self.deadline + self.grace;
            let Some(remaining) = patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(self.fail(Failure::TimedOut { rank: peer }, call));
            };
            signal.sleep(wanted, remaining.min(NAP), || self.control.failure().is_some());
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        self.control.mark_departed(self.rank);
    }
}

/// The processor on which this thread runs, for now.
fn processor() -> u32 {
    rustix::thread::sched_getcpu() as u32
}

/// How many pauses of this processor take so long; they differ tenfold between models.
fn pauses_in(time: Duration) -> u32 {
    const SAMPLE: u32 = 500;
    let began = Instant::now();
    (0..SAMPLE).for_each(|_| std::hint::spin_loop());
    let sample = began.elapsed().max(Duration::from_nanos(1));
    ((time.as_secs_f64() / sample.as_secs_f64() * f64::from(SAMPLE)) as u32).clamp(16, 10_000)
}
