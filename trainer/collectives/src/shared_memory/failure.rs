//! What ends a group, as an error of one rank.

use crate::call::Call;
use crate::channel::Channel;
use crate::control::Failure;
use crate::error::{Error, LossCause};
use crate::membership::Membership;
use crate::report::Report;

use super::SharedMemory;

impl SharedMemory {
    /// The error of an earlier failure, if the group has failed.
    #[inline]
    pub(crate) fn check_failure(&self, call: Call) -> Result<(), Error> {
        self.control.failure().map_or(Ok(()), |failure| Err(self.error(failure, call)))
    }

    /// Ends the group, unless it has ended, and gives the error of the failure that counts.
    pub(super) fn fail(&self, failure: Failure, call: Call) -> Error {
        self.error(self.control.abort(failure), call)
    }

    /// Ends the group because the parts of a call do not fit.
    pub(super) fn fail_parts(
        &self,
        from: usize,
        to: usize,
        sent: usize,
        expected: usize,
        call: Call,
    ) -> Error {
        self.control.keep_parts(self.rank, sent, expected);
        self.fail(Failure::Parts { from, to, witness: self.rank }, call)
    }

    #[cold]
    fn error(&self, failure: Failure, call: Call) -> Error {
        let Membership { members, hosts } = &self.membership;
        let lost = |rank: usize, cause| {
            let rank = members[rank];
            Error::PeerLost { rank, host: hosts[rank].clone(), cause }
        };
        match failure {
            Failure::Died { rank } => lost(rank, LossCause::Died),
            Failure::Left { rank } => lost(rank, LossCause::Left),
            Failure::Unreadable { rank } => lost(rank, LossCause::Unreadable),
            Failure::TimedOut { rank } => {
                let mut waiting_for: Vec<usize> = (0..self.world_size())
                    .filter(|peer| *peer == rank || !self.control.step(*peer).has_reached(self.sequence))
                    .collect();
                if waiting_for.contains(&self.rank) {
                    waiting_for = vec![rank];
                }
                let waiting_for = waiting_for.into_iter().map(|rank| members[rank]).collect();
                Error::Timeout { waiting_for, call, after: self.deadline }
            }
            Failure::Mismatch { rank, other, slot } => {
                let announced = |rank| self.control.announced_call(rank, slot).unwrap_or(call);
                Error::Mismatch {
                    rank: members[rank],
                    call: announced(rank),
                    other_rank: members[other],
                    other_call: announced(other),
                }
            }
            Failure::Message { from, to, slot } => {
                let channel: Channel<'_> = self.arena.channel(from, to);
                let announced = |words| Call::from_words(words).unwrap_or(call);
                Error::Mismatch {
                    rank: members[from],
                    call: announced(channel.announced_send(slot as u32)),
                    other_rank: members[to],
                    other_call: announced(channel.announced_receive(slot as u32)),
                }
            }
            Failure::Parts { from, to, witness } => {
                let (sent, expected) = self.control.kept_parts(witness);
                Error::Parts { from: members[from], to: members[to], sent, expected, call }
            }
            Failure::Aborted { rank } => Error::Aborted { rank: members[rank] },
            Failure::Elsewhere { witness } => {
                let report = Report::from_words(self.control.kept_report(witness), hosts.len());
                report
                    .and_then(|report| report.to_error(hosts))
                    .unwrap_or(Error::Aborted { rank: members[witness] })
            }
        }
    }
}
