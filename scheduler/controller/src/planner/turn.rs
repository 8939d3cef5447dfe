//! One decision: who stands in line, whose turn it is, and what the others are told.

use jiff::{SignedDuration, Timestamp};
use muster_scheduler_core::{GangDemand, Placement};
use muster_scheduler_queue::planner::{Preempt, Start};
use muster_scheduler_queue::time::Time;

use super::decision::{Decision, Decisions};
use super::pods::{GangKey, State};
use super::telling::EXPLAINED_AGAIN;
use super::{GangState, Planner};

impl Planner {
    /// What to do now. Places are taken on the ledger at once, so that nothing is planned twice.
    pub fn decide(&mut self, now: Timestamp) -> Decisions {
        let time = Time(now.as_millisecond());
        let mut decisions = Decisions::default();
        self.settle(time);
        for key in self.joined.clone() {
            self.join(&key, &mut decisions);
        }
        // Copies of the space share the map that is made here.
        self.ledger.space().map();
        let plan = self.line.cycle(time, self.ledger.space());
        for start in &plan.start {
            self.start(start, time, &mut decisions);
        }
        for preemption in &plan.preempt {
            self.evict(preemption, &mut decisions);
        }
        self.explain_waiting(now, &mut decisions);
        let waits = |state: &GangState| !state.running && state.asked.is_complete();
        if self.gangs.values().any(waits) {
            // What makes a job give way, its age above all, is not seen on any object.
            decisions.ask_again_in(EXPLAINED_AGAIN);
        }
        if let Some(at) = self.line.next_boundary(time) {
            decisions.ask_again_in(SignedDuration::from_millis(at.since(time).max(1)));
        }
        decisions
    }

    /// Brings the line up to date with what was seen.
    pub(super) fn settle(&mut self, time: Time) {
        self.follow_queues(time);
        for key in std::mem::take(&mut self.changed) {
            self.assess(&key, time);
            self.note_joined(key);
        }
    }

    /// Where queues have changed, everybody stands in line anew; what was learned of run times is kept.
    fn follow_queues(&mut self, time: Time) {
        match self.queues.changed_tree() {
            None => {}
            Some(Ok(tree)) => {
                let mut line = super::line(tree);
                *line.estimator() = self.line.estimator().clone();
                self.line = line;
                self.jobs.clear();
                for (key, state) in std::mem::take(&mut self.gangs) {
                    if state.evicting {
                        self.keep_place(&key, &state, time);
                    }
                    self.changed.insert(key);
                }
            }
            Some(Err(error)) => tracing::warn!(%error, "the queues are left as they were"),
        }
    }

    /// Brings the line up to date with the pods of a gang.
    fn assess(&mut self, key: &GangKey, time: Time) {
        let gang = self.pods.gang(key);
        let running = self.gangs.get(key).is_some_and(|state| state.running);
        let leaving = self.pods.any(key, |state| *state == State::Leaving);
        if running && gang.placed_on.is_empty() && !leaving {
            self.leave_line(key, time);
        } else if running {
            let placed = self.pods.any(key, |state| matches!(state, State::Placed(_)));
            if let Some(state) = self.gangs.get_mut(key) {
                state.has_run |= placed;
            }
            return;
        }
        if !gang.placed_on.is_empty() {
            self.adopt(key, gang, time);
        } else if gang.waiting.is_empty() {
            self.leave_line(key, time);
        } else {
            self.stand_in_line(key, gang, time);
        }
    }

    /// Whether pods of the gang join it while it runs, as far as its pods say.
    fn note_joined(&mut self, key: GangKey) {
        let running = self.gangs.get(&key).is_some_and(|state| state.running);
        let waiting = || self.pods.any(&key, |state| *state == State::Waiting);
        if running && self.pods.any(&key, State::has_place) && waiting() {
            self.joined.insert(key);
        } else {
            self.joined.remove(&key);
        }
    }

    /// Pods that join a gang that runs get their places at once, or are told why not.
    fn join(&mut self, key: &GangKey, decisions: &mut Decisions) {
        if self.gangs.get(key).is_none_or(|state| state.evicting) {
            return;
        }
        if let Some(held) = self.held(key) {
            self.tell(key, held.sentence(), decisions);
            return;
        }
        let gang = self.pods.gang(key);
        match self.ledger.place(&gang) {
            Ok(placement) => {
                self.bind(key, placement, decisions);
            }
            Err(reason) => self.tell(key, &reason.to_string(), decisions),
        }
    }

    fn bind(&mut self, key: &GangKey, placement: Placement, decisions: &mut Decisions) -> bool {
        if let Err(error) = self.ledger.take(&placement) {
            tracing::error!(%error, gang = %key, "the ledger refused its own plan");
            return false;
        }
        let binding = self.binding(key.namespace.clone(), key.name.clone(), placement);
        decisions.now.push(Decision::Bind(binding));
        true
    }

    pub(super) fn start(&mut self, start: &Start, time: Time, decisions: &mut Decisions) {
        let Some(key) = self.jobs.get(&start.job).cloned() else { return };
        let Some(state) = self.gangs.get(&key) else { return };
        let (gang, size) = (state.asked.gang.clone(), state.asked.sizes[start.form]);
        let Ok(demand) = GangDemand::new(self.ledger.space(), &gang, size) else { return };
        let placement = demand.placement(self.ledger.space(), &gang, &start.hold.slots);
        if self.bind(&key, placement, decisions) {
            if let Err(error) = self.line.started(start.job, &start.hold, time) {
                tracing::error!(%error, gang = %key, "the line does not know the gang that it started");
            }
            if let Some(state) = self.gangs.get_mut(&key) {
                state.running = true;
            }
        }
    }

    fn evict(&mut self, preemption: &Preempt, decisions: &mut Decisions) {
        let preemptor = self.jobs.get(&preemption.job).map_or_else(String::new, ToString::to_string);
        for victim in &preemption.victims {
            let Some(key) = self.jobs.get(victim).cloned() else { continue };
            if let Some(state) = self.gangs.get_mut(&key) {
                state.evicting = true;
            }
            let pods = self.pods.of(&key).filter(|(_, pod)| pod.state.has_place());
            let pods = pods.map(|(key, pod)| (key.clone(), pod.member.uid.clone())).collect();
            let message = format!("Preempted as a whole by gang {preemptor}; it keeps its place in line");
            decisions.now.push(Decision::Evict { pods, message });
        }
    }
}
