//! Moving data between ranks of different hosts: any number of transfers at once, on one thread, straight from and to
//! where the data lies.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Network;
use super::header::{Content, HEADER_BYTES, Header};
use super::stream::Stream;
use crate::call::{Call, Operation};
use crate::control::Control;
use crate::element::Element;
use crate::error::{Error, LossCause};

/// Longest sleep between two looks at the abort word.
pub(super) const NAP: Duration = Duration::from_millis(20);

/// Tries before a sleep where little is to be moved: a peer that is just as far answers within them.
const GLANCES: u32 = 32;
const LITTLE: usize = 64 << 10;

/// Bytes for which it is worth waking a thread that waits for more: being woken costs as much as copying some ten
/// kilobytes.
const LOW_WATER: usize = 256 << 10;

/// Which of the connections with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Collectives,
    Messages,
}

/// Data on its way to another rank.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    peer: usize,
    header: [u8; HEADER_BYTES],
    body: &'a [u8],
    done: usize,
}

/// The place for data from another rank.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    peer: usize,
    content: Content,
    width: u16,
    header: [u8; HEADER_BYTES],
    body: &'a mut [u8],
    done: usize,
}

impl<'a> Incoming<'a> {
    /// A place for elements that `peer` sends.
    pub(crate) fn new<T: Element>(peer: usize, content: Content, place: &'a mut [T]) -> Self {
        Self {
            peer,
            content,
            width: size_of::<T>() as u16,
            header: [0; HEADER_BYTES],
            body: bytemuck::cast_slice_mut(place),
            done: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.done == HEADER_BYTES + self.body.len()
    }
}

impl Outgoing<'_> {
    fn is_done(&self) -> bool {
        self.done == HEADER_BYTES + self.body.len()
    }
}

impl Network {
    /// Elements for `peer`, in `call`.
    pub(crate) fn outgoing<'a, T: Element>(
        &self,
        peer: usize,
        call: Call,
        content: Content,
        data: &'a [T],
    ) -> Outgoing<'a> {
        let body: &[u8] = bytemuck::cast_slice(data);
        let header = Header {
            session: self.session,
            call: call.to_words(),
            content,
            width: size_of::<T>() as u16,
            bytes: body.len() as u64,
        };
        Outgoing { peer, header: header.encode(), body, done: 0 }
    }

    /// Makes all transfers, those with one peer in the order in which they stand. Ends early when the group fails,
    /// and when a peer that is waited for neither sends nor takes anything until the deadline.
    ///
    /// An error here is that of this rank; the caller ends the group with it.
    pub(crate) fn exchange(
        &self,
        control: &Control,
        local_rank: usize,
        call: Call,
        lane: Lane,
        outgoing: &mut [Outgoing<'_>],
        incoming: &mut [Incoming<'_>],
    ) -> Result<Ended, Error> {
        let mut since = Instant::now();
        let bytes = outgoing.iter().map(|transfer| transfer.body.len()).sum::<usize>()
            + incoming.iter().map(|transfer| transfer.body.len()).sum::<usize>();
        // Whether one transfer is left, for which this thread can wait inside the kernel.
        let mut is_alone = false;
        let mut glances = if bytes <= LITTLE { GLANCES } else { 0 };
        loop {
            let mut waits = Waits::default();
            let mut moved = false;
            let alone = std::mem::take(&mut is_alone);
            // Looked at first: what came before the news of a failure counts.
            let has_failed = control.failure().is_some();
            for transfer in outgoing.iter_mut().filter(|transfer| !transfer.is_done()) {
                if !waits.to_write.contains(&transfer.peer) {
                    moved |= self.push(lane, transfer, alone)?;
                    waits.to_write.extend((!transfer.is_done()).then_some(transfer.peer));
                }
            }
            for transfer in incoming.iter_mut().filter(|transfer| !transfer.is_done()) {
                if !waits.to_read.contains(&transfer.peer) {
                    moved |= self.pull(lane, call, transfer, alone)?;
                    waits.to_read.extend((!transfer.is_done()).then_some(transfer.peer));
                }
            }
            if waits.is_empty() {
                return Ok(Ended::Well);
            }
            if has_failed {
                return Ok(Ended::Failed);
            }
            if moved {
                control.make_progress(local_rank);
                since = Instant::now();
                continue;
            }
            if glances > 0 {
                glances -= 1;
                std::hint::spin_loop();
                continue;
            }
            let Some(remaining) = self.deadline.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
            else {
                return Err(Error::Timeout { waiting_for: waits.peers(), call, after: self.deadline });
            };
            if waits.to_read.len() + waits.to_write.len() == 1 && outgoing.len() + incoming.len() == 1 {
                is_alone = true;
            } else {
                self.sleep(lane, &waits, remaining.min(NAP))?;
            }
        }
    }

    fn stream(&self, lane: Lane, peer: usize) -> Result<&Stream, Error> {
        let stream = self.streams[peer].as_ref().map(|streams| &streams[lane as usize]);
        stream.ok_or_else(|| Error::InvalidArgument(format!("rank {peer} is on this host")))
    }

    /// Sends what the kernel takes, or, if `waits`, all of it unless it takes nothing for a [`NAP`]; tells whether it
    /// took something.
    fn push(&self, lane: Lane, transfer: &mut Outgoing<'_>, waits: bool) -> Result<bool, Error> {
        let stream = self.stream(lane, transfer.peer)?;
        let mut moved = false;
        while !transfer.is_done() {
            let head = &transfer.header[transfer.done.min(HEADER_BYTES)..];
            let body = &transfer.body[transfer.done.saturating_sub(HEADER_BYTES)..];
            match stream.send(head, body, waits) {
                Ok(count) => transfer.done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(transfer.peer, &error)),
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Takes what has come, or, if `waits`, all of it unless nothing comes for a [`NAP`]; tells whether something had.
    fn pull(&self, lane: Lane, call: Call, transfer: &mut Incoming<'_>, waits: bool) -> Result<bool, Error> {
        let stream = self.stream(lane, transfer.peer)?;
        let mut moved = false;
        if waits && transfer.done >= HEADER_BYTES {
            let missing = HEADER_BYTES + transfer.body.len() - transfer.done;
            stream.wake_at(missing.min(LOW_WATER));
        }
        while !transfer.is_done() {
            let place = match transfer.done.checked_sub(HEADER_BYTES) {
                None => &mut transfer.header[transfer.done..],
                Some(done) => &mut transfer.body[done..],
            };
            match stream.receive(place, waits) {
                Ok(0) => return Err(self.cut_off(transfer.peer)),
                Ok(count) => transfer.done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(transfer.peer, &error)),
            }
            moved = true;
            if transfer.done == HEADER_BYTES {
                self.check(call, transfer)?;
            }
        }
        if waits {
            stream.wake_at(1);
        }
        Ok(moved)
    }

    /// Checks that what comes is what this rank's call expects.
    fn check(&self, call: Call, transfer: &Incoming<'_>) -> Result<(), Error> {
        let peer = transfer.peer;
        let garbled = || lost(peer, LossCause::Garbled);
        let header = Header::decode(&transfer.header).filter(|header| header.session == self.session);
        let header = header.ok_or_else(garbled)?;
        let fits = if call.operation == Operation::Receive {
            call.receives(header.call)
        } else {
            call.fits(header.call)
        };
        let expected = transfer.body.len() as u64;
        if !fits {
            let theirs = Call::from_words(header.call).ok_or_else(garbled)?;
            let (ours, theirs) = ((self.rank, call), (peer, theirs));
            // A message names its sender first, as on one host; a collective the lower rank.
            let sender_first = call.operation == Operation::Receive;
            let ((rank, call), (other_rank, other_call)) =
                if sender_first || peer < self.rank { (theirs, ours) } else { (ours, theirs) };
            return Err(Error::Mismatch { rank, call, other_rank, other_call });
        }
        if header.content != transfer.content || header.width != transfer.width {
            return Err(garbled());
        }
        if header.bytes != expected {
            let elements = |bytes: u64| (bytes / u64::from(transfer.width.max(1))) as usize;
            let (sent, expected) = (elements(header.bytes), elements(expected));
            return Err(Error::Parts { from: peer, to: self.rank, sent, expected, call });
        }
        Ok(())
    }

    /// The error of a connection that cannot be used any more.
    fn broken(&self, peer: usize, error: &io::Error) -> Error {
        match error.kind() {
            // What came cannot be opened: nobody of this group has sealed it.
            io::ErrorKind::InvalidData => lost(peer, LossCause::Garbled),
            _ => self.cut_off(peer),
        }
    }

    /// The error of a connection that ended. Its other side may just have left, which it said on another one.
    fn cut_off(&self, peer: usize) -> Error {
        let began = Instant::now();
        while began.elapsed() < self.silence {
            if self.peers.has_left(peer) {
                return lost(peer, LossCause::Left);
            }
            if self.peers.is_gone(peer) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        lost(peer, if self.peers.has_left(peer) { LossCause::Left } else { LossCause::Died })
    }

    /// Sleeps until something can move.
    fn sleep(&self, lane: Lane, waits: &Waits, longest: Duration) -> Result<(), Error> {
        let mut polled = Vec::with_capacity(waits.to_read.len() + waits.to_write.len());
        for (peers, flags) in [(&waits.to_read, PollFlags::IN), (&waits.to_write, PollFlags::OUT)] {
            for peer in peers {
                polled.push(PollFd::from_borrowed_fd(self.stream(lane, *peer)?.as_fd(), flags));
            }
        }
        let timeout =
            Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Error::system("wait for another host")(error.into())),
        }
    }
}

/// The loss of a rank, whose host is named where the error is told.
fn lost(rank: usize, cause: LossCause) -> Error {
    Error::PeerLost { rank, host: String::new(), cause }
}

/// How an exchange ended that found no fault itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// The group failed meanwhile.
    Failed,
}

/// Whom an exchange waits for.
#[derive(Debug, Default)]
struct Waits {
    to_read: Vec<usize>,
    to_write: Vec<usize>,
}

impl Waits {
    fn is_empty(&self) -> bool {
        self.to_read.is_empty() && self.to_write.is_empty()
    }

    fn peers(&self) -> Vec<usize> {
        let mut peers = [self.to_read.as_slice(), self.to_write.as_slice()].concat();
        peers.sort_unstable();
        peers.dedup();
        peers
    }
}
