//! This process at the rendezvous of an elastic training.

use std::path::PathBuf;
use std::time::Duration;

use muster_collectives::CallOff;
use muster_rendezvous::{Bounds, Member, MemberError, MemberOptions, own_address};

use crate::error::Error;
use crate::world::{Meeting, World};

/// Where the rendezvous is, and what it is told there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendezvous {
    /// `http://host:port` or `https://host:port`, tried in turn.
    pub(crate) addresses: Vec<String>,
    /// Certificate authority of the service, PEM.
    pub(crate) authority: Option<String>,
    /// A file with the token that says which pod this is.
    pub(crate) token_file: Option<PathBuf>,
    /// How many ranks the training may have.
    pub(crate) bounds: Bounds,
    /// Where this rank listens if it becomes rank 0.
    pub(crate) port: u16,
}

/// A process that takes part, or wants to.
#[derive(Debug)]
pub(crate) struct Attendance {
    member: Member,
    /// What is known before a place is given.
    base: World,
    epoch: u64,
}

impl Attendance {
    /// Goes to the rendezvous, if the training has one.
    pub(crate) fn begin(world: &World) -> Result<Option<Self>, Error> {
        let Some(rendezvous) = &world.rendezvous else { return Ok(None) };
        let listens = match world.meeting {
            Meeting::Directory(_) | Meeting::Alone => String::new(),
            Meeting::Address(_) => format!("{}:{}", own_address(&rendezvous.addresses)?, rendezvous.port),
        };
        let options = MemberOptions {
            addresses: rendezvous.addresses.clone(),
            authority: rendezvous.authority.clone(),
            token_file: rendezvous.token_file.clone(),
            member: format!("{}-{}-{:016x}", world.host, std::process::id(), rand::random::<u64>()),
            group: world.group.clone(),
            host: world.host.clone(),
            listens,
            bounds: rendezvous.bounds,
            last_call: None,
            news: None,
        };
        let member = Member::attend(options)?;
        Ok(Some(Self { member, base: world.clone(), epoch: 0 }))
    }

    /// Waits for a place in the next epoch.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<World, MemberError> {
        let placement = self.member.place(self.epoch, patience)?;
        self.epoch = placement.epoch;
        Ok(self.base.placed(placement))
    }

    /// Calls off the group that belongs to the last place, once the rendezvous knows that one of its ranks will not come.
    pub(crate) fn call_off(&self) -> CallOff {
        let watch = self.member.watch(self.epoch);
        CallOff::once(move || watch.departure().map(|departure| departure.to_string()))
    }

    /// Others want to join.
    pub(crate) fn is_change_wanted(&self) -> bool {
        self.member.is_change_wanted(self.epoch)
    }

    /// The training has reached its end.
    pub(crate) fn finish(self) {
        self.member.finish();
    }
}
