//! Jobs whose nodes come and go while they run, as torchrun runs them.
//!
//! A rendezvous gives every node its place in a *round*, in which all workers start together and know how many they are.
//! A round ends when a worker fails, and when a node is gained or lost: then all workers of all nodes are stopped, and
//! the next round begins with the nodes that are there. Failures are counted, by the rendezvous and once for all nodes; nodes
//! that come and go are not, nor is what fails because of them. The job succeeds when all workers of a round do.

mod host;
mod round;
mod settings;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use muster_rendezvous::{Member, MemberError, MemberOptions, News, Placement, own_address};
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

pub(crate) use round::Round;
pub(crate) use settings::{Rendezvous, Settings};

use crate::environment::Restarts;
use crate::error::Error;
use crate::output::{Event, until};
use crate::plan;
use crate::report::Failure;
use crate::supervisor::{Outcome, Supervisor};
use crate::watch::reap_adopted;
use crate::world::{World, split_endpoint};
use host::{Host, addresses_of};

/// Pause before a name is looked up again that nobody knows yet.
const RETRY: Duration = Duration::from_millis(500);
/// How long others may be awaited at the end where the rendezvous does not answer; torchrun's exit barrier.
const EXIT_BARRIER: Duration = Duration::from_mins(5);

/// Why waiting for the others has come to an end.
enum Waited {
    Placed(Placement),
    /// Workers of this node are asked to stop, and there are none.
    Asked(Signal),
    Ended(MemberError),
}

/// What a look for this host's address has led to.
enum Found {
    Address(String),
    /// This node is asked to go.
    Asked(Signal),
}

/// Takes part in an elastic job with the workers of this node.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    supervisor: &'a Supervisor<'a>,
    settings: &'a Settings,
    most_restarts: u32,
    news: Event,
    host: Option<Host>,
}

impl<'a> Agent<'a> {
    pub(crate) fn new(
        supervisor: &'a Supervisor<'a>,
        settings: &'a Settings,
        most_restarts: u32,
    ) -> Result<Self, Error> {
        let news = Event::new().map_err(Error::Watch)?;
        Ok(Self { supervisor, settings, most_restarts, news, host: None })
    }

    /// Takes part until the job has ended, or this node was asked to go.
    pub(crate) fn run(mut self) -> Result<Outcome, Error> {
        let own = match self.own_address()? {
            Found::Address(own) => own,
            Found::Asked(signal) => return Ok(Outcome::Left(signal)),
        };
        let member = Member::attend(self.member_options(self.listens(&own)?))?;
        let outcome = self.take_part(&member, &own);
        drop(member);
        if let Some(host) = self.host.take()
            && !matches!(outcome, Ok(Outcome::Left(_)))
        {
            host.see_off();
        }
        outcome
    }

    fn take_part(&mut self, member: &Member, own: &str) -> Result<Outcome, Error> {
        let mut past = 0;
        let mut own_failure: Option<Failure> = None;
        loop {
            let waited = self.wait_for_place(member, past)?;
            if let Some(own) = own_failure.take() {
                if matches!(&waited, Waited::Ended(MemberError::Failed { report }) if *report == own.headline())
                {
                    self.note(&format!("no restart is left of {}", self.most_restarts));
                    return Ok(Outcome::Failed(Box::new(own)));
                }
                self.note(&own.text());
            }
            let placement = match waited {
                Waited::Placed(placement) => placement,
                Waited::Asked(signal) => return Ok(Outcome::Left(signal)),
                Waited::Ended(MemberError::Over) => return Ok(Outcome::Succeeded),
                Waited::Ended(error) => return Err(error.into()),
            };
            past = placement.epoch;
            let restarts = Restarts { count: placement.restarts, most: self.most_restarts };
            let world = self.world(placement)?;
            self.note(&format!(
                "round {past}: node {} of {}, restart {} of {}",
                world.node_rank, world.nodes, restarts.count, restarts.most
            ));
            let round = Round::new(member, past, &self.news, self.most_restarts);
            let ended = self.supervisor.attempt(&world, restarts, Some(&round))?;
            match (ended.failure, ended.asked) {
                (Some(failure), Some(_)) => return Ok(Outcome::Failed(Box::new(failure))),
                (None, Some(signal)) => return Ok(Outcome::Left(signal)),
                (Some(failure), None) => {
                    round.failed(&failure);
                    own_failure = Some(failure);
                }
                (None, None) if ended.is_cut_short => {}
                (None, None) => {
                    round.ended_well();
                    if let Some(outcome) = self.wait_for_others(&round, member)? {
                        return Ok(outcome);
                    }
                }
            }
            self.hold_rendezvous()?;
            member.ask(past, self.listens(own)?);
        }
    }

    fn note(&self, text: &str) {
        self.supervisor.sinks.stderr.note(text);
    }

    /// The address of this host for others, once the rendezvous has one and is held, if that is for this node to do.
    fn own_address(&mut self) -> Result<Found, Error> {
        let deadline = Instant::now() + self.settings.join_timeout;
        loop {
            // The name may become known between the two: whoever bears it must not miss that.
            let is_held = self.hold_rendezvous()?;
            let is_late = Instant::now() >= deadline;
            match own_address(&self.settings.rendezvous.addresses()) {
                Ok(own) if is_held || is_late => return Ok(Found::Address(own)),
                Err(error) if is_late => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
            if let Some(signal) = self.wait(deadline.min(Instant::now() + RETRY))? {
                return Ok(Found::Asked(signal));
            }
        }
    }

    /// Holds the rendezvous if that is for this node to do and nobody does: a node that held it may be gone. Whether it is
    /// known who holds it, as long as nobody knows its name it is not.
    fn hold_rendezvous(&mut self) -> Result<bool, Error> {
        let Rendezvous::Node { host, port, is_here, .. } = &self.settings.rendezvous else { return Ok(true) };
        if self.host.is_some() || *is_here == Some(false) {
            return Ok(true);
        }
        let Ok(addresses) = addresses_of(host, *port) else { return Ok(false) };
        self.host = Host::start(&addresses, self.supervisor.sinks).map_err(|error| MemberError::Setup {
            action: "hold the rendezvous",
            message: format!("{host}:{port}: {error}"),
        })?;
        Ok(true)
    }

    fn member_options(&self, listens: String) -> MemberOptions {
        let Settings { rendezvous, bounds, last_call, .. } = self.settings;
        let (authority, token_file, group) = match rendezvous {
            Rendezvous::Service { authority, token_file, .. } => {
                (authority.clone(), token_file.clone(), String::new())
            }
            Rendezvous::Node { job, .. } => (None, None, job.clone()),
        };
        let host = plan::host();
        let news = self.news.clone();
        MemberOptions {
            addresses: rendezvous.addresses(),
            authority,
            token_file,
            member: format!("{host}-{}-{:016x}", std::process::id(), rand::random::<u64>()),
            group,
            host,
            listens,
            bounds: *bounds,
            last_call: Some(*last_call),
            news: Some(News::new(move || news.tell())),
        }
    }

    /// Where rank 0 of the next round listens, should it be here.
    fn listens(&self, own: &str) -> Result<String, Error> {
        let port = match self.settings.master_port {
            0 => plan::free_port(own.trim_start_matches('[').trim_end_matches(']'))?,
            port => port,
        };
        Ok(format!("{own}:{port}"))
    }

    fn world(&self, placement: Placement) -> Result<World, Error> {
        let (address, port) = split_endpoint(&placement.leader);
        let unusable = || MemberError::Setup { action: "find rank 0", message: placement.leader.clone() };
        let master_port = port.and_then(|port| port.parse().ok()).ok_or_else(unusable)?;
        let master_address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(World {
            nodes: placement.world_size,
            node_rank: placement.rank,
            workers: self.settings.workers,
            master_address,
            master_port,
        })
    }

    /// Until this node has a place in a round after `past`.
    fn wait_for_place(&mut self, member: &Member, past: u64) -> Result<Waited, Error> {
        let mut deadline = Instant::now() + self.settings.join_timeout;
        loop {
            self.news.take();
            match member.placed(past) {
                Ok(Some(placement)) => return Ok(Waited::Placed(placement)),
                Err(end) => return Ok(Waited::Ended(end)),
                Ok(None) => {}
            }
            if Instant::now() >= deadline {
                let why = member.no_place(self.settings.join_timeout);
                if !matches!(why, MemberError::InReserve { .. }) {
                    return Ok(Waited::Ended(why));
                }
                self.note(&why.to_string());
                deadline = Instant::now() + self.settings.join_timeout;
            }
            // The name of who holds the rendezvous may have led to a pod that this one replaces.
            let mut until = deadline;
            if member.trouble().is_some() {
                self.hold_rendezvous()?;
                until = deadline.min(Instant::now() + RETRY);
            }
            if let Some(signal) = self.wait(until)? {
                return Ok(Waited::Asked(signal));
            }
        }
    }

    /// Until all workers of the round have ended well, or a new round is to begin: then there is no outcome yet.
    fn wait_for_others(&self, round: &Round<'_>, member: &Member) -> Result<Option<Outcome>, Error> {
        let mut deadline = Instant::now() + EXIT_BARRIER;
        loop {
            if round.ended().is_some() {
                // Which it was, the rendezvous says.
                return Ok(None);
            }
            match member.trouble() {
                None => deadline = Instant::now() + EXIT_BARRIER,
                Some(trouble) if Instant::now() >= deadline => {
                    self.note(&format!("ends without a word of the other nodes: {trouble}"));
                    return Ok(Some(Outcome::Succeeded));
                }
                Some(_) => {}
            }
            if let Some(signal) = self.wait(deadline)? {
                return Ok(Some(Outcome::Left(signal)));
            }
        }
    }

    /// Waits for news, a signal or the deadline; the signal, if it asks this node to go.
    fn wait(&self, deadline: Instant) -> Result<Option<Signal>, Error> {
        let signals = self.supervisor.signals;
        let mut ready =
            [PollFd::new(signals, PollFlags::IN), PollFd::from_borrowed_fd(self.news.as_fd(), PollFlags::IN)];
        match poll(&mut ready, until(Some(deadline)).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::Watch(error.into())),
        }
        let mut asked = None;
        while let Some(request) = signals.next() {
            asked = asked.or(request.stop());
        }
        reap_adopted(&[]);
        Ok(asked)
    }
}
