//! Bindings that are refused again and again are tried again later and later, and the pods are told why.

use muster_scheduler_queue::time::{Milliseconds, Time};

use super::decision::{Decisions, Outcome};
use super::pods::GangKey;
use super::{Planner, Stage};

/// Pause after the second refusal in a row; the first is tried again at once.
const FIRST_PAUSE: Milliseconds = 1_000;
/// Longest pause.
const LONGEST_PAUSE: Milliseconds = 60_000;

/// What the API server refused a gang, and when it is asked again.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// In a row.
    times: u32,
    why: String,
    pause: Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// With the next decision.
    Begins,
    Until(Time),
    Over,
}

impl Refusal {
    /// How long the gang waits before it is tried again.
    fn length(&self) -> Milliseconds {
        FIRST_PAUSE.saturating_mul(1 << self.times.saturating_sub(2).min(10)).min(LONGEST_PAUSE)
    }
}

impl Planner {
    /// Counts what was refused to a gang, or forgets it when all is bound.
    pub(super) fn count_refusals(&mut self, key: &GangKey, outcome: &Outcome) {
        match &outcome.why {
            _ if outcome.refused.is_empty() => {
                self.refusals.remove(key);
            }
            Some(why) => {
                let times = self.refusals.get(key).map_or(1, |before| before.times + 1);
                let pause = if times == 1 { Pause::Over } else { Pause::Begins };
                self.refusals.insert(key.clone(), Refusal { times, why: why.clone(), pause });
            }
            // Its pods went, or were bound by others.
            None => {}
        }
    }

    /// Begins and ends pauses.
    pub(super) fn follow_refusals(&mut self, time: Time) {
        for (key, refusal) in &mut self.refusals {
            match refusal.pause {
                Pause::Begins => refusal.pause = Pause::Until(time + refusal.length()),
                Pause::Until(end) if end <= time => refusal.pause = Pause::Over,
                Pause::Until(_) | Pause::Over => continue,
            }
            self.changed.insert(key.clone());
        }
    }

    /// Asks for the decision that ends the next pause.
    pub(super) fn await_pauses(&self, time: Time, decisions: &mut Decisions) {
        for refusal in self.refusals.values() {
            if let Pause::Until(end) = refusal.pause {
                decisions.ask_again_in(jiff::SignedDuration::from_millis(end.since(time).max(1)));
            }
        }
    }

    /// Why the gang is not tried now, after it was refused.
    pub(super) fn pauses_because(&self, key: &GangKey) -> Option<String> {
        let refusal = self.refusals.get(key).filter(|refusal| refusal.pause != Pause::Over)?;
        Some(format!("its binding was refused, and is tried again from time to time: {}", refusal.why))
    }

    /// Gangs whose eviction came to nothing run on.
    pub(super) fn follow_failed_evictions(&mut self, time: Time) {
        for key in std::mem::take(&mut self.not_evicted) {
            let Some(state) = self.gangs.get_mut(&key).filter(|state| state.stage == Stage::Evicting) else {
                continue;
            };
            state.stage = Stage::Running;
            if let Err(error) = self.line.not_evicted(state.job, time) {
                tracing::error!(%error, gang = %key, "the line does not evict the gang");
            }
            self.changed.insert(key);
        }
    }
}
