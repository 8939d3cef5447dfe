//! A thread that listens to the ranks on other hosts, lets them hear from this one, and ends the group the moment one
//! of them dies or falls silent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use super::notice::{FRAME_BYTES, Notice};
use super::peers::Peers;
use crate::rendezvous::wait_readable;

/// Looks at the clock in one limit of silence. A look that comes late counts as one, however late it is: a rank that
/// was stopped itself gives the others the whole limit before it calls them silent.
const LOOKS: u32 = 8;

/// A heartbeat goes out at every so manieth look.
const LOOKS_PER_BEAT: u32 = 2;

/// The running monitor; ends with its value.
#[derive(Debug)]
pub(super) struct Monitor {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(super) fn start(peers: Arc<Peers>, silence: Duration) -> io::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("muster-monitor".into())
            .spawn(move || monitor(&peers, silence, &stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Closing the pipe is the signal to stop.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One that is listened to.
struct Heard {
    rank: usize,
    /// The part of a frame that has come.
    bytes: Vec<u8>,
    /// Looks since the last byte.
    silent_for: u32,
}

fn monitor(peers: &Peers, silence: Duration, stopped: &OwnedFd) {
    let ranks = (0..peers.lines.len()).filter(|rank| peers.lines[*rank].is_some());
    let mut heard: Vec<Heard> =
        ranks.map(|rank| Heard { rank, bytes: Vec::with_capacity(FRAME_BYTES), silent_for: 0 }).collect();
    let interval = silence / LOOKS;
    let mut next_look = Instant::now() + interval;
    let mut looks = 0;
    // What has come together with the end of the handshake wakes nobody.
    heard.retain_mut(|peer| listen(peers, peer));
    loop {
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![stopped.as_fd()];
        descriptors.extend(heard.iter().filter_map(|peer| stream_of(peers, peer)));
        let left = next_look.saturating_duration_since(Instant::now());
        let ready = match wait_readable(&descriptors, left) {
            Ok(ready) => ready,
            Err(error) => {
                tracing::warn!(%error, "cannot listen to other hosts: a death there shows only at the deadline");
                return;
            }
        };
        if ready[0] {
            return;
        }
        let mut speaks = ready[1..].iter();
        heard.retain_mut(|peer| !speaks.next().copied().unwrap_or(false) || listen(peers, peer));
        if Instant::now() < next_look {
            continue;
        }
        next_look = Instant::now() + interval;
        looks += 1;
        if looks % LOOKS_PER_BEAT == 0 {
            peers.beat();
        }
        for peer in &mut heard {
            peer.silent_for += 1;
            if peer.silent_for == LOOKS {
                peers.fell_silent(peer.rank);
            }
        }
    }
}

fn stream_of<'a>(peers: &'a Peers, peer: &Heard) -> Option<BorrowedFd<'a>> {
    peers.lines[peer.rank].as_ref().map(|line| line.stream.as_fd())
}

/// Whether the way to the peer failed, as when a network is divided: it may live, and go on elsewhere. The system reports
/// a connection that timed out by what it last heard from the way, if it heard anything.
fn tells_nothing_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown)
}

/// Takes in what a peer says; false when there will be no more.
fn listen(peers: &Peers, peer: &mut Heard) -> bool {
    let Some(line) = &peers.lines[peer.rank] else { return false };
    peer.silent_for = 0;
    loop {
        let mut chunk = [0; FRAME_BYTES];
        let missing = FRAME_BYTES - peer.bytes.len();
        match line.stream.receive(&mut chunk[..missing], false) {
            Ok(count) if count > 0 => peer.bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if tells_nothing_of_the_peer(&error) => {
                peers.fell_silent(peer.rank);
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                peers.hear(peer.rank, None);
                return false;
            }
            Ok(_) | Err(_) => {
                peers.hung_up(peer.rank);
                return false;
            }
        }
        if let Ok(frame) = peer.bytes.as_slice().try_into() {
            peers.hear(peer.rank, Notice::decode(frame, peers.lines.len()));
            peer.bytes.clear();
            if peers.has_left(peer.rank) {
                // From now on its silence means nothing.
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_fails_is_not_the_death_of_the_peer() {
        use rustix::io::Errno;
        let of_kernel = |number: Errno| io::Error::from(number);
        for way in [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::NETDOWN] {
            assert!(tells_nothing_of_the_peer(&of_kernel(way)), "{way}");
        }
        for peer in [Errno::CONNRESET, Errno::PIPE] {
            assert!(!tells_nothing_of_the_peer(&of_kernel(peer)), "{peer}");
        }
    }
}
