//! How the ranks of one host find each other: rank 0 listens on a unix socket in a directory all of them see,
//! gathers the others, and hands everyone the descriptors of everyone's memory.

mod join;
mod lead;
mod message;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::SocketAddrUnix;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::arena::segment_length;
use crate::call_off::{CallOff, LOOK};
use crate::error::Error;
use crate::memory;
use crate::options::Options;
use message::Member;

/// A complete group, from the view of one rank.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) session: u64,
    pub(crate) control: OwnedFd,
    /// In rank order.
    pub(crate) peers: Vec<Peer>,
    /// The writing end of this rank's lifeline; closed by the kernel when the process ends.
    pub(crate) lifeline: OwnedFd,
}

/// What a rank holds of another one, or of itself.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) host: String,
    pub(crate) arena_bytes: usize,
    pub(crate) segment: OwnedFd,
    /// The reading end of the rank's lifeline: hangs up when its process ends.
    pub(crate) lifeline: OwnedFd,
}

/// Forms the group that `options` describe, or fails before its deadline has passed by much.
pub(crate) fn form(options: &Options) -> Result<Group, Error> {
    let segment =
        memory::create_file("muster-segment", segment_length(options.arena_bytes, options.world_size))
            .map_err(Error::system("create shared memory"))?;
    let (lifeline_end, lifeline) =
        pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).map_err(Error::system("create a pipe"))?;
    let member = Member {
        rank: options.rank as u32,
        world_size: options.world_size as u32,
        process: std::process::id(),
        generation: options.generation,
        arena_bytes: options.arena_bytes as u64,
        session: 0,
        host: options.host.clone(),
    };
    let own = Peer {
        host: options.host.clone(),
        arena_bytes: options.arena_bytes,
        segment,
        lifeline: lifeline_end,
    };
    let path = options.directory.join(format!("{}.sock", options.group));
    let patience = Patience::to_form(options);
    if options.rank == 0 {
        lead::lead(options, &path, patience, member, own, lifeline)
    } else {
        join::join(options, &path, patience, &member, &own, lifeline)
    }
}

/// How much later than another rank rank 0 may begin and still be heard, at most.
const MOST_LATE: Duration = Duration::from_secs(5);

/// A deadline that remembers how long it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience<'a> {
    since: Instant,
    pub(crate) limit: Duration,
    call_off: Option<&'a CallOff>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { since: Instant::now(), limit, call_off: None }
    }

    /// That with which a group forms; it is over as soon as the group is called off.
    pub(crate) fn to_form(options: &'a Options) -> Self {
        Self { call_off: options.call_off.as_ref(), ..Self::new(options.join_deadline) }
    }

    /// That of a rank which waits for rank 0's word: rank 0 may have begun a little later, and at its own deadline it
    /// says who is missing.
    pub(crate) fn for_rank_0(self) -> Self {
        Self { limit: self.limit + (self.limit / 4).min(MOST_LATE), ..self }
    }

    /// The time that is left, if any is.
    pub(crate) fn left(self) -> Option<Duration> {
        let left = self.limit.checked_sub(self.since.elapsed()).filter(|left| !left.is_zero());
        left.filter(|_| self.called_off().is_none())
    }

    /// How long to wait before asking again; none when nothing is left.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.left().map(|left| if self.call_off.is_some() { left.min(LOOK) } else { left })
    }

    /// Why the group was called off, if it was.
    pub(crate) fn called_off(self) -> Option<String> {
        self.call_off.and_then(CallOff::reason)
    }
}

/// Waits until one of the descriptors is readable or hung up, for at most `timeout`.
pub(crate) fn wait_readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => Ok(polled.iter().map(|entry| !entry.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; descriptors.len()]),
        Err(error) => Err(error.into()),
    }
}

/// The address of a socket file. A path longer than the 107 bytes an address can hold goes through the
/// descriptor of its directory, which must stay open while the address is used.
fn address(path: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    if path.as_os_str().len() <= 107 {
        return Ok((SocketAddrUnix::new(path)?, None));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let directory = open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short =
        PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory.as_fd())))
            .join(name);
    Ok((SocketAddrUnix::new(short)?, Some(directory)))
}

/// A number that tells a group from earlier ones at the same place.
pub(crate) fn new_session() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish() | 1
}
