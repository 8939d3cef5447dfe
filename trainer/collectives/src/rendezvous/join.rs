//! The other ranks' side of the rendezvous.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::message::{Answer, Member, receive, send};
use super::{Group, Patience, Peer, address, wait_readable};
use crate::error::Error;
use crate::options::Options;

/// How long to wait before looking for rank 0 again.
const RETRY: Duration = Duration::from_millis(10);

/// How an attempt ended that formed no group.
enum Attempt {
    /// Worth another try.
    Again(String),
    /// Not worth one.
    Refused(String),
    /// Rank 0 gave the group up.
    GaveUp(String),
}

pub(super) fn join(
    options: &Options,
    path: &Path,
    patience: Patience<'_>,
    member: &Member,
    own: &Peer,
    lifeline: OwnedFd,
) -> Result<Group, Error> {
    loop {
        let cause = match attempt(options, path, patience, member, own) {
            Ok((session, control, peers)) => return Ok(Group { session, control, peers, lifeline }),
            Err(Attempt::Refused(reason)) => return Err(Error::Refused { rank: options.rank, reason }),
            Err(Attempt::GaveUp(reason)) => return Err(Error::NotFormed { rank: options.rank, reason }),
            Err(Attempt::Again(cause)) => cause,
        };
        let remaining = patience.remaining().unwrap_or_default();
        wait_readable(&[], RETRY.min(remaining)).map_err(Error::system("wait for rank 0"))?;
        // An attempt after the deadline would only hide the cause.
        if patience.remaining().is_none() {
            return Err(Error::NoRendezvous {
                rank: options.rank,
                place: path.display().to_string(),
                after: patience.limit,
                cause,
            });
        }
    }
}

type Welcome = (u64, OwnedFd, Vec<Peer>);

fn attempt(
    options: &Options,
    path: &Path,
    patience: Patience<'_>,
    member: &Member,
    own: &Peer,
) -> Result<Welcome, Attempt> {
    let again = |error: io::Error| Attempt::Again(error.to_string());
    let socket = reach(path).map_err(|error| Attempt::Again(format!("rank 0 is not there: {error}")))?;
    send(&socket, &member.encode(), &[own.segment.as_fd(), own.lifeline.as_fd()]).map_err(again)?;
    let mut control = None;
    let mut session = 0;
    let mut peers: Vec<Peer> = Vec::with_capacity(options.world_size);
    while peers.len() < options.world_size {
        let Some(remaining) = patience.for_rank_0().remaining() else {
            return Err(Attempt::Again("rank 0 waits for other ranks".into()));
        };
        if !wait_readable(&[socket.as_fd()], remaining).map_err(again)?[0] {
            continue;
        }
        let (bytes, descriptors) = receive(&socket).map_err(again)?;
        let member = match Answer::decode(&bytes).map_err(Attempt::Again)? {
            Answer::Member(member) => member,
            Answer::Refused { again: true, reason } => return Err(Attempt::Again(reason)),
            Answer::Refused { again: false, reason } => return Err(Attempt::Refused(reason)),
            Answer::GaveUp { reason } => return Err(Attempt::GaveUp(reason)),
        };
        let mut descriptors = descriptors.into_iter();
        let (Some(segment), Some(lifeline)) = (descriptors.next(), descriptors.next()) else {
            return Err(Attempt::Again("rank 0 did not pass the memory of a peer".into()));
        };
        control = control.or(descriptors.next());
        session = member.session;
        peers.push(Peer { host: member.host, arena_bytes: member.arena_bytes as usize, segment, lifeline });
    }
    let control = control.ok_or_else(|| Attempt::Again("rank 0 did not pass the control segment".into()))?;
    Ok((session, control, peers))
}

fn reach(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (address, _directory) = address(path)?;
    connect(&socket, &address)?;
    Ok(socket)
}
