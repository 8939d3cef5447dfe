//! Who takes part in one training: pure, with time passed in.
//!
//! Members wait or work. When nobody works in an epoch any more and enough wait, those get their places in the next
//! one. Members of an epoch end it themselves, when they lose one of them or when they are asked to because others have
//! come; the group never guesses that one is dead. An epoch's number is given once, so messages about an earlier one
//! change nothing.
//!
//! Members whose programs do not survive the end of an epoch, as those of a launcher, say more: that their part of it
//! has failed, so that others end theirs too and a restart is counted ([`Outcome`]), or that it has ended well, so that
//! nobody disturbs those that are not done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::outcome::{Failure, Outcome, Verdict};

/// How long newcomers wait for others before the members at work are asked to end their epoch.
pub(crate) const SETTLES: Duration = Duration::from_millis(200);

/// How long the first epoch waits for the members that are expected, once there are enough.
pub(crate) const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// A connection of a member; a member that connects again has a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Connection(pub(crate) u64);

/// How many members a training may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// With fewer nothing begins.
    pub fewest: usize,
    /// So many are awaited, for a while, before the first epoch.
    pub expected: usize,
    /// More are kept in reserve.
    pub most: usize,
}

impl Bounds {
    /// Whether such numbers make sense: at least one, and in order.
    pub(crate) fn are_in_order(self) -> bool {
        1 <= self.fewest && self.fewest <= self.expected && self.expected <= self.most
    }
}

/// A rank of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) epoch: u64,
    pub(crate) rank: usize,
}

/// What a member says when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) member: String,
    /// What errors call its host.
    pub(crate) host: String,
    /// Where it listens if it becomes rank 0.
    pub(crate) address: String,
    pub(crate) bounds: Bounds,
    /// Its place now, or the last one it had.
    pub(crate) seat: Option<Seat>,
    /// It works at that place, and does not wait for another.
    pub(crate) works: bool,
    /// How long an epoch waits for the members that are expected, once there are enough; without it only the first does,
    /// for [`FIRST_PATIENCE`].
    pub(crate) last_call: Option<Duration>,
    /// How often failures had begun an epoch before its own.
    pub(crate) restarts: u32,
}

/// A member that is in its epoch no more. Others need not wait for it, if they still form the epoch's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The epoch.
    pub epoch: u64,
    /// Its rank there.
    pub rank: usize,
    /// How its host is called.
    pub host: String,
    /// It has gone from the training; else it waits for the next epoch.
    pub has_left: bool,
}

impl fmt::Display for Departure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, rank, host, has_left } = self;
        let what = if *has_left { "has left the training" } else { "has given the group up" };
        write!(formatter, "rank {rank} of epoch {epoch} on {host} {what}")
    }
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It takes part in an epoch.
    Place { epoch: u64, rank: usize, world_size: usize, leader: String, restarts: u32 },
    /// It should end its epoch at the next step.
    Change { epoch: u64 },
    /// The training has reached its end, by a failure if there is one.
    Over { failure: Option<String> },
    /// As many work as there may be: a place is free when one of them has gone.
    Reserve,
    /// One that had a place in its epoch is there no more.
    Departure(Departure),
}

#[derive(Debug)]
struct Member {
    connection: Connection,
    host: String,
    address: String,
    /// In the order of coming.
    number: u64,
    seat: Option<Seat>,
    /// Since when it waits; none while it works.
    waits: Option<Duration>,
    /// It has been told that it is in reserve.
    knows_reserve: bool,
    /// It has been told of the departure from its epoch.
    knows_departure: bool,
    /// Since when its part of its epoch has ended well, if it has.
    ended_well: Option<Duration>,
}

impl Member {
    /// Its departure from the epoch that it had a place in, if it had one and `has_left`, or has just begun to wait.
    fn departure(&self, has_left: bool) -> Option<Departure> {
        let Seat { epoch, rank } = self.seat.filter(|_| !has_left || self.waits.is_none())?;
        Some(Departure { epoch, rank, host: self.host.clone(), has_left })
    }
}

/// The members of one training.
#[derive(Debug)]
pub(crate) struct Group {
    /// Before then the group may be older than it seems: members that work have not come back yet.
    complete_at: Duration,
    /// The newest epoch that was heard of.
    epoch: u64,
    bounds: Bounds,
    members: BTreeMap<String, Member>,
    arrivals: u64,
    /// The members at work have been asked to end their epoch.
    asked: bool,
    /// The first one from the newest epoch that had any.
    departure: Option<Departure>,
    last_call: Option<Duration>,
    /// How the newest epoch ends.
    outcome: Outcome,
    is_over: bool,
}

impl Group {
    /// A group of which nothing is known before `complete_at` for sure.
    pub(crate) fn new(complete_at: Duration) -> Self {
        Self {
            complete_at,
            epoch: 0,
            bounds: Bounds { fewest: 1, expected: 1, most: 1 },
            members: BTreeMap::new(),
            arrivals: 0,
            asked: false,
            departure: None,
            last_call: None,
            outcome: Outcome::default(),
            is_over: false,
        }
    }

    /// Nobody takes part.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Members, whether they work or wait.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// A member has come, or come back; its earlier connection counts no more.
    pub(crate) fn arrive(&mut self, now: Duration, connection: Connection, arrival: Arrival) {
        let Arrival { member, host, address, bounds, seat, works, last_call, restarts } = arrival;
        self.bounds = bounds;
        self.last_call = last_call;
        if let Some(seat) = seat.filter(|seat| seat.epoch > self.epoch) {
            self.epoch = seat.epoch;
            self.outcome = Outcome::after(restarts);
        }
        self.outcome.remember(restarts);
        // It may not have heard what it was asked.
        self.asked &= !works;
        self.arrivals += 1;
        let number = self.members.get(&member).map_or(self.arrivals, |known| known.number);
        let waits = (!works || seat.is_none()).then_some(now);
        let known = Member {
            connection,
            host,
            address,
            number,
            seat,
            waits,
            knows_reserve: false,
            knows_departure: false,
            ended_well: None,
        };
        let departure = known.waits.and_then(|_| known.departure(false));
        self.members.insert(member, known);
        self.depart(departure);
    }

    /// A member is done with an epoch, and waits for the next, in which it listens at `address` if that is not empty.
    pub(crate) fn ready(&mut self, now: Duration, connection: Connection, epoch: u64, address: String) {
        let member = self.members.values_mut().find(|member| member.connection == connection);
        if let Some(member) = member
            && member.waits.is_none()
            && member.seat.is_none_or(|seat| seat.epoch <= epoch)
        {
            member.waits = Some(now);
            member.ended_well = None;
            if !address.is_empty() {
                member.address = address;
            }
            let departure = member.departure(false);
            self.depart(departure);
        }
    }

    /// A member's part of an epoch has failed; it ends it, as all others should.
    pub(crate) fn fail(
        &mut self,
        now: Duration,
        connection: Connection,
        epoch: u64,
        report: String,
        most_restarts: u32,
    ) {
        if self.works_in(connection, epoch).is_some() {
            self.outcome.fail(Failure { report, most_restarts, at: now });
        }
    }

    /// A member's part of an epoch has ended well.
    pub(crate) fn end_well(&mut self, now: Duration, connection: Connection, epoch: u64) {
        if let Some(member) = self.works_in(connection, epoch) {
            member.ended_well.get_or_insert(now);
            self.outcome.has_begun_to_end_well = true;
        }
    }

    /// The member, if it works in this epoch and the epoch is the newest.
    fn works_in(&mut self, connection: Connection, epoch: u64) -> Option<&mut Member> {
        let is_newest = epoch == self.epoch;
        let mut members = self.members.values_mut();
        let member = members.find(|member| member.connection == connection)?;
        (is_newest && member.waits.is_none() && member.seat.is_some_and(|seat| seat.epoch == epoch))
            .then_some(member)
    }

    /// A connection has ended, and with it the member if it has no other. One that `said_so` does not come back soon.
    pub(crate) fn leave(&mut self, connection: Connection, said_so: bool) {
        let name = self.members.iter().find(|(_, member)| member.connection == connection);
        let Some(name) = name.map(|(name, _)| name.clone()) else { return };
        let Some(member) = self.members.remove(&name) else { return };
        if said_so {
            self.bounds.expected = self.bounds.expected.saturating_sub(1).max(self.bounds.fewest);
        }
        let departure = member.departure(true).filter(|_| member.ended_well.is_none());
        self.outcome.has_lost |= departure.as_ref().is_some_and(|departure| departure.epoch == self.epoch);
        self.depart(departure);
    }

    fn depart(&mut self, departure: Option<Departure>) {
        let newest = self.departure.as_ref().map_or(0, |departure| departure.epoch);
        if let Some(departure) = departure.filter(|departure| departure.epoch > newest) {
            self.departure = Some(departure);
        }
    }

    /// The training has reached its end.
    pub(crate) fn finish(&mut self) {
        self.is_over = true;
    }

    /// What members are to be told now.
    pub(crate) fn advance(&mut self, now: Duration) -> Vec<(Connection, Order)> {
        if self.is_over {
            let waiting = self.members.values().filter(|member| member.waits.is_some());
            let over = || Order::Over { failure: None };
            let told: Vec<_> = waiting.map(|member| (member.connection, over())).collect();
            self.members.retain(|_, member| member.waits.is_none());
            return told;
        }
        // First, since what follows may be of another epoch.
        let mut told = self.tell_departure();
        told.extend(match self.next_change() {
            Some((at, Change::Ask)) if at <= now => self.ask(),
            Some((at, Change::Form)) if at <= now => self.form(),
            Some((at, Change::GiveUp)) if at <= now => self.give_up(),
            Some((at, Change::Finish)) if at <= now => {
                for member in self.members.values_mut().filter(|member| member.ended_well.is_some()) {
                    member.waits = member.ended_well;
                }
                self.finish();
                return self.advance(now);
            }
            _ => self.tell_reserve(),
        });
        told
    }

    /// When [`advance`](Self::advance) has something to say, if nothing happens before.
    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        if self.is_over {
            return self.members.values().find_map(|member| member.waits);
        }
        self.next_change().map(|(at, _)| at)
    }

    /// What follows if nothing else happens:
    ///
    /// | who works | who waits | what follows |
    /// |---|---|---|
    /// | members of different epochs, or at the same place | anybody | they are asked to end them, so that they come together |
    /// | some | one of their epoch | they are asked at once: it has ended |
    /// | some, of whom one has failed | anybody | they are asked at once, or told of the end if that was one failure too many |
    /// | members whose parts have all ended well | newcomers or nobody | that is the end |
    /// | some, of whom one has ended well | newcomers | nothing: the end is near |
    /// | fewer than may be | newcomers | they are asked, once the newcomers have settled |
    /// | as many as may be | newcomers | nothing: these are the reserve |
    /// | nobody | fewer than are needed | nothing |
    /// | nobody | enough | the next epoch begins; the first one waits for those that are expected |
    fn next_change(&self) -> Option<(Duration, Change)> {
        let verdict = self.outcome.verdict();
        if let Some(Verdict::Final { at }) = verdict {
            return Some((at, Change::GiveUp));
        }
        let waits: Vec<Duration> = self.members.values().filter_map(|member| member.waits).collect();
        let mut at_work = self.members.values().filter(|member| member.waits.is_none());
        if let Some(first) = at_work.next() {
            let seat = |member: &Member| member.seat.unwrap_or(Seat { epoch: 0, rank: 0 });
            let (epoch, mut ranks) = (seat(first).epoch, BTreeSet::from([seat(first).rank]));
            let (mut working, mut is_divided) = (1, false);
            for Seat { epoch: other, rank } in at_work.map(seat) {
                working += 1;
                // Services that did not know of each other may have given the same places.
                is_divided |= other != epoch || !ranks.insert(rank);
            }
            if self.asked {
                return None;
            }
            if is_divided || verdict.is_some() {
                return Some((Duration::ZERO, Change::Ask));
            }
            let mut waiting = self.members.values().filter(|member| member.waits.is_some());
            let has_ended = waiting.any(|member| self.is_current(member.seat));
            if self.outcome.has_begun_to_end_well && !has_ended {
                return self.all_ended_well().map(|at| (at, Change::Finish));
            }
            let last = *waits.iter().max()?;
            let is_full = working >= self.bounds.most;
            let at = if has_ended { last } else { last + SETTLES };
            return (has_ended || !is_full).then_some((at, Change::Ask));
        }
        let last = *waits.iter().max()?;
        if waits.len() < self.bounds.fewest {
            return None;
        }
        let all_have_come = waits.len() >= self.bounds.expected;
        // Who has had a place knows that the training began long ago.
        let is_first = self.members.values().all(|member| member.seat.is_none());
        let mut at = last;
        if let Some(Verdict::Counted { at: clear_at }) = verdict {
            at = at.max(clear_at);
        }
        if !all_have_come {
            let patience = self.last_call.or_else(|| is_first.then_some(FIRST_PATIENCE));
            at = (at + patience.unwrap_or_default()).max(self.complete_at);
        }
        Some((at, Change::Form))
    }

    /// Since when the parts of all members at work have ended well, unless one of them was lost.
    fn all_ended_well(&self) -> Option<Duration> {
        let at_work = self.members.values().filter(|member| member.waits.is_none());
        let all: Option<Vec<Duration>> = at_work.map(|member| member.ended_well).collect();
        let last = all?.into_iter().max()?;
        (!self.outcome.has_lost).then(|| last.max(self.complete_at))
    }

    fn is_current(&self, seat: Option<Seat>) -> bool {
        seat.is_some_and(|seat| seat.epoch == self.epoch)
    }

    /// Tells those at work in an epoch that one of its members is there no more.
    fn tell_departure(&mut self) -> Vec<(Connection, Order)> {
        let Some(departure) = &self.departure else { return Vec::new() };
        let is_left_behind = |member: &&mut Member| {
            member.waits.is_none() && member.seat.is_some_and(|seat| seat.epoch == departure.epoch)
        };
        let tell = |member: &mut Member| {
            let knew = std::mem::replace(&mut member.knows_departure, true);
            (!knew).then(|| (member.connection, Order::Departure(departure.clone())))
        };
        self.members.values_mut().filter(is_left_behind).filter_map(tell).collect()
    }

    /// Tells those that wait while as many work as may be.
    fn tell_reserve(&mut self) -> Vec<(Connection, Order)> {
        let working = self.members.values().filter(|member| member.waits.is_none()).count();
        if working < self.bounds.most || self.asked {
            return Vec::new();
        }
        let waiting = self.members.values_mut().filter(|member| member.waits.is_some());
        let tell = |member: &mut Member| {
            let knew = std::mem::replace(&mut member.knows_reserve, true);
            (!knew).then_some((member.connection, Order::Reserve))
        };
        waiting.filter_map(tell).collect()
    }

    fn ask(&mut self) -> Vec<(Connection, Order)> {
        self.asked = true;
        let working = self.members.values().filter(|member| member.waits.is_none());
        let told = working
            .filter_map(|member| Some((member.connection, Order::Change { epoch: member.seat?.epoch })));
        told.collect()
    }

    /// Tells all members that one of them has failed once too often. Whoever comes after that begins anew.
    fn give_up(&mut self) -> Vec<(Connection, Order)> {
        let failure = std::mem::take(&mut self.outcome).into_report();
        let members = std::mem::take(&mut self.members);
        self.asked = false;
        self.departure = None;
        members
            .into_values()
            .map(|member| (member.connection, Order::Over { failure: failure.clone() }))
            .collect()
    }

    /// Begins the next epoch with those who wait: first who had a place before, newest epoch first, in the order of their
    /// ranks, then who came first.
    fn form(&mut self) -> Vec<(Connection, Order)> {
        self.epoch += 1;
        // All that belong to it are known from now on.
        self.complete_at = Duration::ZERO;
        self.asked = false;
        self.outcome = self.outcome.next();
        let restarts = self.outcome.restarts();
        let mut members: Vec<&mut Member> = self.members.values_mut().collect();
        members.sort_by_key(|member| {
            let seat = member.seat.map_or((u64::MAX, 0), |seat| (u64::MAX - seat.epoch, seat.rank));
            (seat, member.number)
        });
        members.truncate(self.bounds.most);
        let (epoch, world_size) = (self.epoch, members.len());
        let leader = members.first().map(|member| member.address.clone()).unwrap_or_default();
        let place = |(rank, member): (usize, &mut Member)| {
            member.seat = Some(Seat { epoch, rank });
            member.waits = None;
            member.knows_reserve = false;
            member.knows_departure = false;
            member.ended_well = None;
            (member.connection, Order::Place { epoch, rank, world_size, leader: leader.clone(), restarts })
        };
        members.into_iter().enumerate().map(place).collect()
    }
}

/// What a group does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It asks its members to end their epoch.
    Ask,
    /// It begins an epoch.
    Form,
    /// It tells its members of the failure that ends the training.
    GiveUp,
    /// It tells its members that the training has reached its end.
    Finish,
}

#[cfg(test)]
mod tests;
