//! What gangs that wait are told, and how often.

use jiff::{SignedDuration, Timestamp};
use muster_scheduler_core::{Gang, PodKey, Waiting};
use muster_scheduler_queue::explain::{Explanation, Reason, Told};
use muster_scheduler_queue::forecast::Expected;
use muster_scheduler_queue::time::Time;

use super::Planner;
use super::decision::{Decision, Decisions};
use super::pods::{GangKey, State};
use super::report::minute;
use super::standing::Held;

/// How long a gang may be incomplete before its pods are told so: its controller is creating them one by one.
const PATIENCE: SignedDuration = SignedDuration::from_secs(2);
/// Gangs that are told why they wait in one decision; the others have to wait for that too.
const EXPLAINED_AT_ONCE: usize = 32;
/// A gang that was told why it waits is looked at again after this long.
pub(super) const EXPLAINED_AGAIN: SignedDuration = SignedDuration::from_secs(5);

impl Planner {
    /// Tells gangs that wait why, those first that were not told for the longest time.
    pub(super) fn explain_waiting(&mut self, now: Timestamp, decisions: &mut Decisions) {
        let mut due: Vec<(Option<Timestamp>, GangKey)> = self
            .gangs
            .iter()
            .filter(|(_, state)| !state.running)
            .filter(|(_, state)| state.explained.is_none_or(|at| now.duration_since(at) >= EXPLAINED_AGAIN))
            .map(|(key, state)| (state.explained, key.clone()))
            .collect();
        due.sort_unstable();
        if due.len() > EXPLAINED_AT_ONCE {
            due.truncate(EXPLAINED_AT_ONCE);
            decisions.ask_again_in(SignedDuration::from_millis(200));
        }
        for (_, key) in due {
            self.explain(&key, now, decisions);
        }
    }

    fn explain(&mut self, key: &GangKey, now: Timestamp, decisions: &mut Decisions) {
        let Some(state) = self.gangs.get(key) else { return };
        let (gang, job) = (state.asked.gang.clone(), state.job);
        let incomplete = state.asked.held.is_none() && !state.asked.is_complete();
        if incomplete || matches!(state.asked.held, Some(Held::Missing(_))) {
            let left = self.patience_left(key, now);
            if left > SignedDuration::ZERO {
                decisions.ask_again_in(left);
                return;
            }
        }
        let message = if incomplete {
            Waiting::ForMembers { present: gang.present(), needed: gang.min_available }.to_string()
        } else {
            let explanation = self.line.explain(job, Time(now.as_millisecond()), self.ledger.space());
            let Ok(explanation) = explanation else { return };
            self.sentence(&gang, &explanation)
        };
        if let Some(state) = self.gangs.get_mut(key) {
            state.explained = Some(now);
        }
        self.tell(key, &message, decisions);
    }

    /// How long the gang's pods are still spared the news that others are missing.
    fn patience_left(&self, key: &GangKey, now: Timestamp) -> SignedDuration {
        let newest = self.pods.of(key).map(|(_, pod)| pod.created).max().unwrap_or(0);
        // Creation times are whole seconds.
        SignedDuration::from_secs(newest + 1) + PATIENCE - now.duration_since(Timestamp::UNIX_EPOCH)
    }

    /// The reason; where the line has nothing better to say than that there is no room, the ledger says of what.
    pub(super) fn reason(&mut self, gang: &Gang, explanation: &Explanation) -> String {
        let reason = match &explanation.reason {
            Reason::Room { .. } | Reason::Scattered => self.ledger.place(gang).err(),
            // What is free now does not matter to it.
            Reason::NeverFits => {
                self.ledger.place(gang).err().filter(|waiting| !matches!(waiting, Waiting::ForRoom { .. }))
            }
            _ => None,
        };
        reason
            .map_or_else(|| Told(&self.line, &explanation.reason).to_string(), |waiting| waiting.to_string())
    }

    /// The reason, the place in line and the expected start.
    fn sentence(&mut self, gang: &Gang, explanation: &Explanation) -> String {
        let mut sentence = self.reason(gang, explanation);
        let at = explanation.expected.as_ref().and_then(Expected::known);
        if let Some(at) = at.and_then(|at| Timestamp::from_millisecond(at.0).ok()) {
            let (place, at) = (explanation.place, minute(at));
            sentence = format!("{sentence}; place {place} in line, expected to start at {at}");
        }
        sentence
    }

    /// Tells the gang's waiting pods, unless they know it.
    pub(super) fn tell(&mut self, key: &GangKey, message: &str, decisions: &mut Decisions) {
        let waiting: Vec<PodKey> = self
            .pods
            .of(key)
            .filter(|(_, pod)| pod.state == State::Waiting)
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in waiting {
            if let Some(view) = self.pods.get_mut(&pod)
                && view.told.as_deref() != Some(message)
            {
                view.told = Some(message.to_owned());
                let uid = view.member.uid.clone();
                decisions.now.push(Decision::Explain { pod, uid, message: message.to_owned() });
            }
        }
    }
}
