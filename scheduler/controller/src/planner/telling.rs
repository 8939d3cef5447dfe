//! What gangs that wait are told, and how often. To work out why takes long, so it is done elsewhere on copies: a
//! [`Question`] goes out, [`Answers`] come in, and nothing else waits for them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use muster_scheduler_core::{Gang, Ledger, PodKey, Space, Waiting};
use muster_scheduler_queue::explain::{self, Reason};
use muster_scheduler_queue::forecast::Expected;
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::planner::Planner as Line;
use muster_scheduler_queue::time::Time;

use super::decision::{Decision, Decisions};
use super::pods::{GangKey, Kind, State, Told};
use super::report::minute;
use super::standing::{Asked, Held};
use super::{GangState, Planner};

/// How long a gang may be incomplete before its pods are told so: its controller is creating them one by one.
const PATIENCE: SignedDuration = SignedDuration::from_secs(2);
/// Gangs that are asked about at once; the others are asked about the next time.
const ASKED_AT_ONCE: usize = 256;
/// A gang that was asked about is asked about again after this long.
const ASKED_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// New numbers for a reason of the same kind are told after this long.
const NEW_NUMBERS: SignedDuration = SignedDuration::from_mins(1);

/// Why these gangs wait, to be answered by whoever has the time.
#[derive(Debug)]
pub struct Question {
    line: Line,
    space: Space,
    now: Time,
    gangs: Vec<(GangKey, JobId, Gang)>,
}

/// Why gangs wait.
#[derive(Debug)]
pub struct Answers(Vec<(GangKey, JobId, Kind, String)>);

impl Question {
    /// Works it out, as long as `goes_on`; one look into the future answers for all of them.
    pub fn answer(mut self, goes_on: impl Fn() -> bool) -> Answers {
        let mut outlook = self.line.outlook(self.now, &self.space);
        let mut answers = Vec::new();
        for (key, job, gang) in self.gangs {
            if !goes_on() {
                break;
            }
            let Ok(found) = outlook.in_line(job) else { continue };
            if found.reason == Reason::Starts {
                continue;
            }
            let mut message = sentence(&self.line, &mut self.space, &gang, &found.reason);
            let at = found.expected.as_ref().and_then(Expected::known);
            if let Some(at) = at.and_then(|at| Timestamp::from_millisecond(at.0).ok()) {
                let (place, at) = (found.place, minute(at));
                message = format!("{message}; place {place} in line, expected to start at {at}");
            }
            answers.push((key, job, Kind::of(&found.reason), message));
        }
        Answers(answers)
    }
}

/// The reason; where the line has nothing better to say than that there is no room, the ledger says of what.
pub(super) fn sentence(line: &Line, space: &mut Space, gang: &Gang, reason: &Reason) -> String {
    let of_room = matches!(reason, Reason::Room { .. } | Reason::NeverFits | Reason::Scattered);
    let waiting = of_room.then(|| {
        let mut ledger = Ledger::default();
        *ledger.space() = std::mem::take(space);
        let waiting = ledger.place(gang).err();
        *space = std::mem::take(ledger.space());
        waiting
    });
    // What is free now does not matter to whom it never fits.
    let never =
        |waiting: &Waiting| *reason == Reason::NeverFits && matches!(waiting, Waiting::ForRoom { .. });
    waiting
        .flatten()
        .filter(|waiting| !never(waiting))
        .map_or_else(|| explain::Told(line, reason).to_string(), |waiting| waiting.to_string())
}

impl Kind {
    /// Whether the words are the same every time, and only numbers and names in them change.
    fn has_numbers(self) -> bool {
        !matches!(self, Self::Gate | Self::NeverQuota | Self::NeverFits)
    }

    pub(super) fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Starts => Self::Starts,
            Reason::Gate(_) | Reason::Leaving => Self::Gate,
            Reason::Members { .. } => Self::Members,
            Reason::Quota(_) => Self::Quota,
            Reason::NeverQuota(_) => Self::NeverQuota,
            Reason::NeverFits => Self::NeverFits,
            Reason::Room { .. } | Reason::Scattered => Self::Room,
            Reason::Nearer(_) => Self::Nearer,
            Reason::Promised { .. } | Reason::SetAside => Self::Promised,
            Reason::Behind(_) => Self::Behind,
        }
    }
}

impl GangState {
    /// What is not there yet, and may be on its way.
    fn missing(&self) -> Option<(Kind, String)> {
        let Asked { gang, held, .. } = &self.asked;
        match held {
            Some(Held::Problem(_)) => None,
            Some(Held::Missing(what)) => Some((Kind::Gate, format!("held back: {what}"))),
            None if self.asked.is_complete() => None,
            None => {
                let (present, needed) = (gang.present(), gang.min_available);
                Some((Kind::Members, Waiting::ForMembers { present, needed }.to_string()))
            }
        }
    }
}

/// What an earlier run of the scheduler told a pod.
pub(super) fn told_before(pod: &core::Pod) -> Option<Told> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let told = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    // What the API server writes on every pod with a gate tells nothing of why its gang waits.
    if told.message.as_deref().is_some_and(|message| message.starts_with("Scheduling is blocked")) {
        return None;
    }
    let at = told.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some(Told { kind: None, message: told.message.clone()?, at })
}

impl Planner {
    /// What is to be worked out about gangs that wait; those first that nobody asked about for the longest time.
    pub fn question(&mut self, now: Timestamp) -> Option<Question> {
        let mut due: Vec<(Option<Timestamp>, GangKey)> = self
            .gangs
            .iter()
            .filter(|(_, state)| state.stage.is_in_line())
            .filter(|(_, state)| state.missing().is_none())
            .filter(|(_, state)| state.explained.is_none_or(|at| now.duration_since(at) >= ASKED_AGAIN))
            .map(|(key, state)| (state.explained, key.clone()))
            .collect();
        if due.is_empty() {
            return None;
        }
        due.sort_unstable();
        due.truncate(ASKED_AT_ONCE);
        let mut gangs = Vec::new();
        for (_, key) in due {
            let Some(state) = self.gangs.get_mut(&key) else { continue };
            state.explained = Some(now);
            gangs.push((key, state.job, state.asked.gang.clone()));
        }
        let (line, space) = (self.line.clone(), self.ledger.space().clone());
        Some(Question { line, space, now: Time(now.as_millisecond()), gangs })
    }

    /// Tells the pods of gangs that still wait what was found.
    pub fn answered(&mut self, answers: Answers, now: Timestamp) -> Vec<Decision> {
        let mut decisions = Decisions::default();
        for (key, job, kind, message) in answers.0 {
            let waits = |state: &GangState| state.job == job && state.stage.is_in_line();
            if self.gangs.get(&key).is_some_and(waits) {
                self.tell(&key, kind, &message, now, &mut decisions);
            }
        }
        decisions.now
    }

    /// Tells gangs of which pods, or the object that describes them, are missing, once that has lasted.
    pub(super) fn tell_incomplete(&mut self, now: Timestamp, decisions: &mut Decisions) {
        let in_line = self.gangs.iter().filter(|(_, state)| state.stage.is_in_line());
        let incomplete = in_line
            .filter(|(key, _)| !self.expected_back.contains(key))
            .filter_map(|(key, state)| Some((key.clone(), state.missing()?)));
        for (key, (kind, message)) in incomplete.collect::<Vec<_>>() {
            let left = self.patience_left(&key, now);
            if left > SignedDuration::ZERO {
                decisions.ask_again_in(left);
            } else {
                self.tell(&key, kind, &message, now, decisions);
            }
        }
    }

    /// How long the gang's pods are still spared the news that others are missing.
    fn patience_left(&self, key: &GangKey, now: Timestamp) -> SignedDuration {
        let newest = self.pods.of(key).map(|(_, pod)| pod.created).max().unwrap_or(0);
        // Creation times are whole seconds.
        SignedDuration::from_secs(newest + 1) + PATIENCE - now.duration_since(Timestamp::UNIX_EPOCH)
    }

    /// Tells the gang's waiting pods, unless they know it or were told the same with other numbers just now.
    pub(super) fn tell(
        &mut self,
        key: &GangKey,
        kind: Kind,
        message: &str,
        now: Timestamp,
        decisions: &mut Decisions,
    ) {
        let waiting: Vec<PodKey> = self
            .pods
            .of(key)
            .filter(|(_, pod)| pod.state == State::Waiting)
            .map(|(pod, _)| pod.clone())
            .collect();
        for pod in waiting {
            let Some(view) = self.pods.get_mut(&pod) else { continue };
            let mut news = true;
            if let Some(told) = &mut view.told {
                if told.message == message {
                    told.kind = Some(kind);
                    continue;
                }
                news = told.kind.is_some_and(|known| known != kind || !kind.has_numbers());
                if !news && now.duration_since(told.at) < NEW_NUMBERS {
                    continue;
                }
            }
            view.told = Some(Told { kind: Some(kind), message: message.to_owned(), at: now });
            let (uid, gate) = (view.member.uid.clone(), view.gate);
            decisions.now.push(Decision::Explain { pod, uid, message: message.to_owned(), news, gate });
        }
    }
}
