//! The connections between the ranks of different hosts: of each pair the higher rank calls on the lower one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::call_on::{Attempt, introduce};
use super::credentials::Credentials;
use super::door::{Door, Reception};
use super::handshake::{Answer, Hello, Purpose, Roster};
use super::meeting::{Meeting, own_hello};
use super::sockets;
use super::stream::Stream;
use crate::error::{Error, HungUp};
use crate::options::{NetworkOptions, Options};
use crate::rendezvous::{Patience, wait_readable};

const RETRY: Duration = Duration::from_millis(10);

/// The connections with one rank of another host.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) control: Stream,
    pub(super) collectives: Stream,
    pub(super) messages: Stream,
}

/// Connects this rank with every rank of another host; gives the connections by rank.
pub(super) fn weave(
    options: &Options,
    network: &NetworkOptions,
    credentials: &Credentials,
    meeting: &Meeting,
    patience: Patience<'_>,
) -> Result<Vec<Option<Connections>>, Error> {
    let Meeting { roster, door } = meeting;
    let own = &roster.seats[options.rank].identity;
    let is_remote = |rank: &usize| roster.seats[*rank].identity != *own;
    let mut streams: Vec<[Option<Stream>; 3]> = (0..options.world_size).map(|_| [None, None, None]).collect();
    for rank in (0..options.rank).filter(is_remote) {
        let Some(address) = roster.seats[rank].address else { continue };
        for (place, purpose) in streams[rank].iter_mut().zip(Purpose::OF_MEMBERS) {
            let hello = own_hello(options, purpose, roster.session, own, door.port());
            *place = Some(call(options, credentials, roster, rank, address, &hello, patience)?);
        }
    }
    let later: Vec<usize> = (options.rank + 1..options.world_size).filter(is_remote).collect();
    receive(options, credentials, roster, door, &later, &mut streams, patience)?;
    let silence = network.silence;
    let connect = |[control, collectives, messages]: [Option<Stream>; 3]| {
        let (Some(control), Some(collectives), Some(messages)) = (control, collectives, messages) else {
            return Ok(None);
        };
        sockets::configure(control.socket(), silence, true)?;
        sockets::configure(collectives.socket(), silence, false)?;
        sockets::configure(messages.socket(), silence, false)?;
        Ok(Some(Connections { control, collectives, messages }))
    };
    let connections: io::Result<Vec<_>> = streams.into_iter().map(connect).collect();
    connections.map_err(Error::system("prepare a connection to another host"))
}

/// A connection to `rank`, which listens at `address`.
fn call(
    options: &Options,
    credentials: &Credentials,
    roster: &Roster,
    rank: usize,
    address: SocketAddr,
    hello: &Hello,
    patience: Patience<'_>,
) -> Result<Stream, Error> {
    loop {
        let attempt = || {
            let socket = sockets::connect(&address.to_string(), patience)?;
            introduce(socket, hello.clone(), credentials, patience)
        };
        let cause = match attempt() {
            Ok(stream) => return Ok(stream),
            Err(Attempt::Again(cause)) => cause,
            Err(Attempt::Refused(reason) | Attempt::GaveUp(reason)) => {
                let reason = format!("rank {rank} at {address} does not let it in: {reason}");
                return Err(Error::Refused { rank: options.rank, reason });
            }
            Err(Attempt::Untrusted(reason)) => {
                let peer = format!("rank {rank} on {} at {address}", roster.seats[rank].host);
                return Err(Error::Untrusted { rank: options.rank, peer, reason });
            }
        };
        let remaining = patience.remaining().unwrap_or_default();
        wait_readable(&[], RETRY.min(remaining)).map_err(Error::system("wait for another rank"))?;
        // An attempt after the deadline would only hide the cause.
        if patience.remaining().is_none() {
            return Err(Error::NotJoined {
                missing: vec![rank],
                world_size: options.world_size,
                place: address.to_string(),
                after: patience.limit,
                hung_up: [seated(roster, rank)].into(),
                refused: Some(cause),
            });
        }
    }
}

/// A rank that has joined, but cannot be reached any more.
fn seated(roster: &Roster, rank: usize) -> HungUp {
    let seat = &roster.seats[rank];
    HungUp { rank, process: seat.process, host: seat.host.clone() }
}

/// Lets the ranks in that call on this one.
fn receive(
    options: &Options,
    credentials: &Credentials,
    roster: &Roster,
    door: &Door,
    expected: &[usize],
    streams: &mut [[Option<Stream>; 3]],
    patience: Patience<'_>,
) -> Result<(), Error> {
    let mut reception = Reception::new(door, credentials);
    let mut refused = None;
    loop {
        let is_missing = |rank: &usize| streams[*rank].iter().any(Option::is_none);
        let missing: Vec<usize> = expected.iter().copied().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let Some(remaining) = patience.remaining() else {
            return Err(Error::NotJoined {
                hung_up: missing.iter().map(|rank| seated(roster, *rank)).collect(),
                missing,
                world_size: options.world_size,
                place: format!("port {} of rank {}", door.port(), options.rank),
                after: patience.limit,
                refused: refused.or(reception.turned_away),
            });
        };
        let (arrivals, _) =
            reception.wait(&[], remaining).map_err(Error::system("wait for ranks of other hosts"))?;
        for arrival in arrivals {
            let Hello { purpose, rank, session, .. } = arrival.hello;
            let kind = Purpose::OF_MEMBERS.iter().position(|kind| *kind == purpose);
            let place = kind
                .filter(|_| session == roster.session && expected.contains(&rank))
                .map(|kind| &mut streams[rank][kind]);
            // A connection that is there already may be one that the other side has given up.
            let answer = if place.is_some() {
                Answer::Welcome
            } else {
                let reason = format!("rank {} forms another group just now", options.rank);
                refused = Some(format!("rank {rank} of group {} called", arrival.hello.group));
                Answer::Refused { again: true, reason }
            };
            match (arrival.answer(&answer, &[], &credentials.token), place) {
                (Ok(()), Some(place)) => *place = Some(arrival.stream),
                (Ok(()), None) => {}
                (Err(error), _) => tracing::debug!(rank, %error, "a rank hung up while it was let in"),
            }
        }
    }
}
