//! How the newest epoch of a training ends, as far as members say so: pure, with time passed in.

use std::time::Duration;

use crate::group::SETTLES;

/// A member's part has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Which rank, where and how.
    pub(crate) report: String,
    /// So many failures may begin an epoch; one more is the end of the training.
    pub(crate) most_restarts: u32,
    pub(crate) at: Duration,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next epoch is a restart, unless it turns out by `at` that a member was lost.
    Counted { at: Duration },
    /// The next epoch is none, since a member was lost: others fail then, and are not to blame.
    Free,
    /// There is no next epoch, unless it turns out by `at` that a member was lost.
    Final { at: Duration },
}

/// What is known of the end of the newest epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How often failures have begun an epoch, up to this one.
    restarts: u32,
    /// The first one of the epoch.
    failure: Option<Failure>,
    /// A member has gone whose part had not ended.
    pub(crate) has_lost: bool,
    /// The part of a member has ended well.
    pub(crate) has_begun_to_end_well: bool,
}

impl Outcome {
    /// Of an epoch that so many failures have led to.
    pub(crate) fn after(restarts: u32) -> Self {
        Self { restarts, ..Self::default() }
    }

    /// A member knows of so many.
    pub(crate) fn remember(&mut self, restarts: u32) {
        self.restarts = self.restarts.max(restarts);
    }

    /// How often failures have begun an epoch so far.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes a failure in; those that follow are its consequences.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// What the failure means, if there was one. The loss of a member and the failures that it causes come at about the
    /// same time, and in any order.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        let failure = self.failure.as_ref()?;
        let at = failure.at + SETTLES;
        Some(match (self.has_lost, self.restarts >= failure.most_restarts) {
            (true, _) => Verdict::Free,
            (false, true) => Verdict::Final { at },
            (false, false) => Verdict::Counted { at },
        })
    }

    /// That of the next epoch.
    pub(crate) fn next(&self) -> Self {
        let counts = matches!(self.verdict(), Some(Verdict::Counted { .. }));
        Self::after(self.restarts.saturating_add(counts.into()))
    }

    /// The report of the failure.
    pub(crate) fn into_report(self) -> Option<String> {
        self.failure.map(|failure| failure.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(restarts: u32, most_restarts: u32) -> Outcome {
        let mut outcome = Outcome::after(restarts);
        outcome.fail(Failure { report: "first".into(), most_restarts, at: Duration::from_secs(1) });
        outcome.fail(Failure { report: "second".into(), most_restarts: 99, at: Duration::from_secs(2) });
        outcome
    }

    #[test]
    fn the_first_failure_counts_unless_a_member_was_lost() {
        let at = Duration::from_secs(1) + SETTLES;
        assert_eq!(failed(1, 2).verdict(), Some(Verdict::Counted { at }));
        assert_eq!(failed(1, 2).next(), Outcome::after(2));
        assert_eq!(failed(2, 2).verdict(), Some(Verdict::Final { at }));
        assert_eq!(failed(2, 2).into_report(), Some("first".into()));
        let lost = Outcome { has_lost: true, ..failed(2, 2) };
        assert_eq!(lost.verdict(), Some(Verdict::Free));
        assert_eq!(lost.next(), Outcome::after(2));
        assert_eq!(Outcome { has_lost: true, ..Outcome::after(1) }.verdict(), None);
    }
}
