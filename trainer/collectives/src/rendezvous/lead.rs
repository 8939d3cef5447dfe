//! Rank 0's side of the rendezvous.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, chmod};
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, bind, listen, socket_with};

use super::message::{Answer, Member, receive, send};
use super::{Group, Patience, Peer, address, new_session, wait_readable};
use crate::arena::segment_length;
use crate::control::{self, MAXIMUM_RANKS};
use crate::error::{Error, HungUp};
use crate::memory;
use crate::options::Options;

/// A rank that has come and waits for the rest.
struct Joined {
    socket: OwnedFd,
    member: Member,
    peer: Peer,
}

pub(super) fn lead(
    options: &Options,
    path: &Path,
    patience: Patience<'_>,
    own_member: Member,
    own: Peer,
    lifeline: OwnedFd,
) -> Result<Group, Error> {
    let control = memory::create_file("muster-control", control::length(options.world_size))
        .map_err(Error::system("create shared memory"))?;
    let joined = if options.world_size == 1 {
        Vec::new()
    } else {
        let door = Door::open(path).map_err(Error::system(format!("listen at {}", path.display())))?;
        gather(options, &door, patience)?
    };
    let session = new_session();
    let mut members = vec![own_member];
    members.extend(joined.iter().map(|joined| joined.member.clone()));
    for newcomer in &joined {
        for (rank, member) in members.iter().enumerate() {
            let peer = if rank == 0 { &own } else { &joined[rank - 1].peer };
            let answer = Answer::Member(Member { session, ..member.clone() }).encode();
            let mut descriptors = vec![peer.segment.as_fd(), peer.lifeline.as_fd()];
            if rank == 0 {
                descriptors.push(control.as_fd());
            }
            // A newcomer that died meanwhile is noticed by everyone through its lifeline.
            if let Err(error) = send(&newcomer.socket, &answer, &descriptors) {
                tracing::debug!(rank = newcomer.member.rank, %error, "a rank did not take its welcome");
                break;
            }
        }
    }
    let peers = std::iter::once(own).chain(joined.into_iter().map(|joined| joined.peer)).collect();
    Ok(Group { session, control, peers, lifeline })
}

/// Waits until every other rank has come; gives them in rank order.
fn gather(options: &Options, door: &Door, patience: Patience<'_>) -> Result<Vec<Joined>, Error> {
    let mut seats: Vec<Option<Joined>> = (1..options.world_size).map(|_| None).collect();
    let mut arriving: Vec<OwnedFd> = Vec::new();
    // By seat, the last one who left it.
    let mut hung_up: Vec<Option<HungUp>> = vec![None; seats.len()];
    let mut refused = None;
    while seats.iter().any(Option::is_none) {
        let Some(remaining) = patience.remaining() else {
            let is_missing = |rank: &usize| seats[rank - 1].is_none();
            let error = Error::NotJoined {
                missing: (1..options.world_size).filter(is_missing).collect(),
                world_size: options.world_size,
                place: door.path.display().to_string(),
                after: patience.limit,
                hung_up: hung_up.into_iter().flatten().filter(|gone| is_missing(&gone.rank)).collect(),
                refused,
            };
            let answer =
                Answer::GaveUp { reason: patience.called_off().unwrap_or_else(|| error.to_string()) }
                    .encode();
            for joined in seats.iter().flatten() {
                // One that is gone needs no answer.
                let _ = send(&joined.socket, &answer, &[]);
            }
            return Err(error);
        };
        let seated: Vec<usize> = (0..seats.len()).filter(|seat| seats[*seat].is_some()).collect();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![door.socket.as_fd()];
        descriptors.extend(seats.iter().flatten().map(|joined| joined.socket.as_fd()));
        descriptors.extend(arriving.iter().map(AsFd::as_fd));
        let ready =
            wait_readable(&descriptors, remaining).map_err(Error::system("wait for the other ranks"))?;

        // A seated rank has nothing to say, so a readable socket means that it hung up: its seat is free again.
        for (seat, _) in seated.iter().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            tracing::debug!(rank = seat + 1, "a rank went away before the group was complete");
            hung_up[*seat] = seats[*seat].take().map(|Joined { member, .. }| HungUp {
                rank: seat + 1,
                process: member.process,
                host: member.host,
            });
        }
        let mut flags = ready[1 + seated.len()..].iter();
        let (speaking, silent): (Vec<_>, Vec<_>) =
            arriving.drain(..).partition(|_| flags.next().copied().unwrap_or(false));
        arriving = silent;
        for socket in speaking {
            if let Err(answer) = seat(options, &mut seats, &socket) {
                if let Answer::Refused { reason, .. } = &answer {
                    tracing::debug!(reason, "refused a rank");
                    refused = Some(reason.clone());
                }
                let _ = send(&socket, &answer.encode(), &[]);
            }
        }
        if ready[0] {
            arriving.extend(door.accept());
            arriving.truncate(2 * MAXIMUM_RANKS);
        }
    }
    Ok(seats.into_iter().flatten().collect())
}

/// Takes the greeting from a socket and gives the newcomer its seat, or says why not.
fn seat(options: &Options, seats: &mut [Option<Joined>], socket: &OwnedFd) -> Result<(), Answer> {
    let refuse = |reason: String| Answer::Refused { again: false, reason };
    let (bytes, descriptors) = receive(socket).map_err(|error| refuse(error.to_string()))?;
    let member = Member::decode(&bytes).map_err(refuse)?;
    let rank = member.rank as usize;
    if member.world_size as usize != options.world_size {
        return Err(refuse(format!(
            "rank {rank} expects {} ranks, rank 0 expects {}",
            member.world_size, options.world_size
        )));
    }
    if member.generation != options.generation {
        return Err(Answer::Refused {
            again: member.generation > options.generation,
            reason: format!(
                "rank {rank} belongs to generation {} of the group, rank 0 to {}",
                member.generation, options.generation
            ),
        });
    }
    let Some(place) = rank.checked_sub(1).and_then(|seat| seats.get_mut(seat)) else {
        return Err(refuse(format!("there is no rank {rank} in a group of {}", options.world_size)));
    };
    if let Some(taken) = place {
        let reason =
            format!("rank {rank} is taken by process {} on {}", taken.member.process, taken.member.host);
        return Err(Answer::Refused { again: true, reason });
    }
    let (Ok([segment, lifeline]), Ok(arena_bytes)) =
        (<[OwnedFd; 2]>::try_from(descriptors), usize::try_from(member.arena_bytes))
    else {
        return Err(refuse(format!("rank {rank} did not pass its memory")));
    };
    memory::verify_file(&segment, segment_length(arena_bytes, options.world_size))
        .map_err(|error| refuse(error.to_string()))?;
    let socket = socket.try_clone().map_err(|error| refuse(error.to_string()))?;
    let peer = Peer { host: member.host.clone(), arena_bytes, segment, lifeline };
    *place = Some(Joined { socket, member, peer });
    Ok(())
}

/// The listening socket. It appears under its name in one step, over whatever an earlier group left there, and
/// goes when the group is complete or given up.
struct Door {
    socket: OwnedFd,
    path: PathBuf,
    inode: u64,
}

impl Door {
    fn open(path: &Path) -> io::Result<Self> {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let (address, _directory) = address(&temporary)?;
        bind(&socket, &address)?;
        let published = chmod(&temporary, Mode::RUSR | Mode::WUSR)
            .and_then(|()| listen(&socket, MAXIMUM_RANKS as i32))
            .map_err(io::Error::from)
            .and_then(|()| fs::metadata(&temporary))
            .and_then(|metadata| fs::rename(&temporary, path).map(|()| metadata.ino()));
        match published {
            Ok(inode) => Ok(Self { socket, path: path.to_owned(), inode }),
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    fn accept(&self) -> Option<OwnedFd> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::debug!(%error, "a rank hung up while it was let in");
                None
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Not if a later group already put its own socket there.
        if fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
