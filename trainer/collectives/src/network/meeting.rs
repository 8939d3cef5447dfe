//! How ranks of several hosts find each other: rank 0 listens at the address all of them know, and tells everyone who
//! the others are and where they listen.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::call_on::{Attempt, introduce};
use super::credentials::Credentials;
use super::door::{Arrival, Door, Reception};
use super::handshake::{Answer, Hello, LONGEST_ROSTER, Nonce, Purpose, Roster, Seat};
use super::sockets;
use crate::error::{Error, HungUp};
use crate::options::{NetworkOptions, Options};
use crate::rendezvous::{Patience, new_session, wait_readable};

/// How long to wait before trying again what did not work.
const RETRY: Duration = Duration::from_millis(10);

/// A group whose ranks know of each other.
#[derive(Debug)]
pub(super) struct Meeting {
    pub(super) roster: Roster,
    pub(super) door: Arc<Door>,
}

/// What tells the host of this process from others: ranks share one where they run on the same machine and see the
/// same directory, through which they pass each other their memory.
pub(super) fn identity(directory: &Path) -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let metadata = fs::metadata(directory)?;
    Ok(format!("{}:{:x}:{:x}", boot.trim(), metadata.dev(), metadata.ino()))
}

/// What this rank says of itself.
pub(super) fn own_hello(
    options: &Options,
    purpose: Purpose,
    session: u64,
    identity: &str,
    port: u16,
) -> Hello {
    Hello {
        purpose,
        rank: options.rank,
        process: std::process::id(),
        world_size: options.world_size,
        generation: options.generation,
        session,
        port,
        group: options.group.clone(),
        host: options.host.clone(),
        identity: identity.to_owned(),
        nonce: Nonce::default(),
    }
}

/// Rank 0's side.
pub(super) fn lead(
    options: &Options,
    network: &NetworkOptions,
    credentials: &Credentials,
    patience: Patience<'_>,
    door: Option<Arc<Door>>,
    identity: &str,
) -> Result<Meeting, Error> {
    let door = door.map_or_else(|| open_door(&network.address, patience), Ok)?;
    let arrivals = gather(options, network, credentials, &door, patience)?;
    let own = Seat {
        host: options.host.clone(),
        process: std::process::id(),
        identity: identity.to_owned(),
        address: None,
    };
    let others = arrivals.iter().map(|Arrival { hello, from, .. }| Seat {
        host: hello.host.clone(),
        process: hello.process,
        identity: hello.identity.clone(),
        address: Some(SocketAddr::new(from.ip().to_canonical(), hello.port)),
    });
    let roster = Roster { session: new_session(), seats: std::iter::once(own).chain(others).collect() };
    let encoded = roster.encode();
    let more = [&(encoded.len() as u32).to_le_bytes()[..], &encoded].concat();
    for arrival in &arrivals {
        // One that died meanwhile is missed by everyone when the ranks connect.
        if let Err(error) = arrival.answer(&Answer::Welcome, &more, &credentials.token) {
            tracing::debug!(rank = arrival.hello.rank, %error, "a rank did not take its welcome");
        }
    }
    Ok(Meeting { roster, door })
}

fn open_door(address: &str, patience: Patience<'_>) -> Result<Arc<Door>, Error> {
    loop {
        match sockets::listening_address(address).and_then(Door::open) {
            Ok(door) => return Ok(Arc::new(door)),
            // An earlier group may be about to leave.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && patience.remaining().is_some() => {
                wait_readable(&[], RETRY).map_err(Error::system("wait for an address"))?;
            }
            Err(error) => return Err(Error::system(format!("listen at {address}"))(error)),
        }
    }
}

/// Waits until every other rank has come; gives them in rank order.
fn gather(
    options: &Options,
    network: &NetworkOptions,
    credentials: &Credentials,
    door: &Door,
    patience: Patience<'_>,
) -> Result<Vec<Arrival>, Error> {
    let mut reception = Reception::new(door, credentials);
    let mut seats: Vec<Option<Arrival>> = (1..options.world_size).map(|_| None).collect();
    // By seat, the last one who left it.
    let mut hung_up: Vec<Option<HungUp>> = vec![None; seats.len()];
    let mut refused = None;
    while seats.iter().any(Option::is_none) {
        let Some(remaining) = patience.remaining() else {
            let is_missing = |rank: &usize| seats[rank - 1].is_none();
            let error = Error::NotJoined {
                missing: (1..options.world_size).filter(is_missing).collect(),
                world_size: options.world_size,
                place: network.address.clone(),
                after: patience.limit,
                hung_up: hung_up.into_iter().flatten().filter(|gone| is_missing(&gone.rank)).collect(),
                refused: refused.or(reception.turned_away),
            };
            let answer =
                Answer::GaveUp { reason: patience.called_off().unwrap_or_else(|| error.to_string()) };
            for arrival in seats.iter().flatten() {
                // One that is gone needs no answer.
                let _ = arrival.answer(&answer, &[], &credentials.token);
            }
            return Err(error);
        };
        let seated: Vec<usize> = (0..seats.len()).filter(|seat| seats[*seat].is_some()).collect();
        let watched: Vec<BorrowedFd<'_>> =
            seats.iter().flatten().map(|arrival| arrival.stream.as_fd()).collect();
        let (arrivals, ready) =
            reception.wait(&watched, remaining).map_err(Error::system("wait for the other ranks"))?;
        // A seated rank has nothing to say, so a readable socket means that it hung up: its seat is free again.
        for (seat, _) in seated.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            tracing::debug!(rank = seat + 1, "a rank went away before the group was complete");
            hung_up[seat] = seats[seat].take().map(|Arrival { hello, .. }| HungUp {
                rank: seat + 1,
                process: hello.process,
                host: hello.host,
            });
        }
        for arrival in arrivals {
            match unfit(options, &seats, &arrival.hello) {
                None => {
                    let seat = arrival.hello.rank - 1;
                    seats[seat] = Some(arrival);
                }
                Some(answer) => {
                    if let Answer::Refused { reason, .. } = &answer {
                        tracing::debug!(reason, "refused a rank");
                        refused = Some(reason.clone());
                    }
                    let _ = arrival.answer(&answer, &[], &credentials.token);
                }
            }
        }
    }
    Ok(seats.into_iter().flatten().collect())
}

/// Why a rank cannot have its seat, if it cannot.
fn unfit(options: &Options, seats: &[Option<Arrival>], hello: &Hello) -> Option<Answer> {
    let refuse = |again, reason| Some(Answer::Refused { again, reason });
    let rank = hello.rank;
    if hello.purpose != Purpose::Join || hello.group != options.group {
        return refuse(true, format!("rank {rank} looks for group {}, not {}", hello.group, options.group));
    }
    if hello.generation != options.generation {
        let (theirs, ours) = (hello.generation, options.generation);
        let reason = format!("rank {rank} belongs to generation {theirs} of the group, rank 0 to {ours}");
        return refuse(theirs > ours, reason);
    }
    if hello.world_size != options.world_size {
        let (theirs, ours) = (hello.world_size, options.world_size);
        return refuse(false, format!("rank {rank} expects {theirs} ranks, rank 0 expects {ours}"));
    }
    match rank.checked_sub(1).and_then(|seat| seats.get(seat)) {
        None => refuse(false, format!("there is no rank {rank} in a group of {}", options.world_size)),
        Some(Some(taken)) => {
            let (process, host) = (taken.hello.process, &taken.hello.host);
            refuse(true, format!("rank {rank} is taken by process {process} on {host} at {}", taken.from))
        }
        Some(None) => None,
    }
}

/// The other ranks' side.
pub(super) fn join(
    options: &Options,
    network: &NetworkOptions,
    credentials: &Credentials,
    patience: Patience<'_>,
    mut door: Option<Arc<Door>>,
    identity: &str,
) -> Result<Meeting, Error> {
    loop {
        let cause = match attempt(options, network, credentials, patience, &mut door, identity) {
            Ok(meeting) => return Ok(meeting),
            Err(Attempt::Refused(reason)) => return Err(Error::Refused { rank: options.rank, reason }),
            Err(Attempt::GaveUp(reason)) => return Err(Error::NotFormed { rank: options.rank, reason }),
            Err(Attempt::Untrusted(reason)) => {
                let peer = format!("rank 0 at {}", network.address);
                return Err(Error::Untrusted { rank: options.rank, peer, reason });
            }
            Err(Attempt::Again(cause)) => cause,
        };
        let remaining = patience.remaining().unwrap_or_default();
        wait_readable(&[], RETRY.min(remaining)).map_err(Error::system("wait for rank 0"))?;
        // An attempt after the deadline would only hide the cause.
        if patience.remaining().is_none() {
            return Err(Error::NoRendezvous {
                rank: options.rank,
                place: network.address.clone(),
                after: patience.limit,
                cause,
            });
        }
    }
}

fn attempt(
    options: &Options,
    network: &NetworkOptions,
    credentials: &Credentials,
    patience: Patience<'_>,
    door: &mut Option<Arc<Door>>,
    identity: &str,
) -> Result<Meeting, Attempt> {
    let socket = sockets::connect(&network.address, patience)
        .map_err(|error| Attempt::Again(format!("rank 0 is not there: {error}")))?;
    // Others reach this rank where rank 0 sees it.
    let door = match door {
        Some(door) => door,
        None => door.insert(Arc::new(Door::open(SocketAddr::new(socket.local_addr()?.ip(), 0))?)),
    };
    let hello = own_hello(options, Purpose::Join, 0, identity, door.port());
    let stream = introduce(socket, hello, credentials, patience)?;
    let patience = patience.for_rank_0();
    let mut length = [0; 4];
    stream.read_exactly(&mut length, patience)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_ROSTER {
        return Err(Attempt::Again(format!("rank 0 announces a list of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exactly(&mut bytes, patience)?;
    let mut roster = Roster::decode(&bytes)
        .filter(|roster| roster.seats.len() == options.world_size)
        .ok_or_else(|| Attempt::Again("the list of rank 0 is cut short".into()))?;
    let reached = stream.socket().peer_addr()?;
    let reached = SocketAddr::new(reached.ip().to_canonical(), reached.port());
    for seat in &mut roster.seats {
        seat.address = Some(seat.address.map_or(reached, |address| seen_from_here(address, reached.ip())));
    }
    Ok(Meeting { roster, door: Arc::clone(door) })
}

/// An address that rank 0 knows: its own machine is elsewhere for ranks of other machines.
fn seen_from_here(address: SocketAddr, rank_0: IpAddr) -> SocketAddr {
    if address.ip().is_loopback() && !rank_0.is_loopback() {
        SocketAddr::new(rank_0, address.port())
    } else {
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_rank_0_are_where_rank_0_is() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let seen = |text: &str, rank_0: &str| seen_from_here(address(text), rank_0.parse().unwrap());
        assert_eq!(seen("127.0.0.1:5", "10.0.0.7"), address("10.0.0.7:5"));
        assert_eq!(seen("127.0.0.2:5", "127.0.0.1"), address("127.0.0.2:5"));
        assert_eq!(seen("10.0.0.8:5", "10.0.0.7"), address("10.0.0.8:5"));
    }

    #[test]
    fn a_directory_is_the_same_host_for_all_who_see_it_and_for_nobody_else() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = other.path().join("link");
        std::os::unix::fs::symlink(one.path(), &link).unwrap();
        assert_eq!(identity(one.path()).unwrap(), identity(&link).unwrap());
        assert_ne!(identity(one.path()).unwrap(), identity(other.path()).unwrap());
    }
}
