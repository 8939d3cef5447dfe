//! One decision: who stands in line, whose turn it is, and who must make room.

use jiff::{SignedDuration, Timestamp};
use muster_scheduler_api::DEFAULT_QUEUE;
use muster_scheduler_core::{Demand, Gang, GangDemand, Placement, PodKey, Slots, Waiting};
use muster_scheduler_queue::explain::Reason;
use muster_scheduler_queue::job::Gate;
use muster_scheduler_queue::join::{Joining, Purpose};
use muster_scheduler_queue::planner::{Preempt, Start};
use muster_scheduler_queue::time::Time;

use super::decision::{Decision, Decisions, Eviction};
use super::pods::{Census, GangKey, Kind};
use super::standing::sizes;
use super::{GangState, Planner, Stage, telling};

/// What makes a job give way, its age above all, is looked at so often although nothing was seen.
const LOOKED_AT_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// What keeps pods back that are to join a gang that runs.
enum Hindrance {
    /// They cannot have what they ask for.
    Closed(String),
    /// The line has no room for them now.
    Waits(Reason),
}

impl Planner {
    /// What to do now. Places are taken on the ledger at once, so that nothing is planned twice.
    pub fn decide(&mut self, now: Timestamp) -> Decisions {
        let time = Time(now.as_millisecond());
        let mut decisions = Decisions::default();
        let changed: Vec<GangKey> = self.changed.iter().cloned().collect();
        self.settle(time);
        self.give_idle_claims_back(&mut decisions);
        for key in changed {
            self.discard(&key, &mut decisions);
        }
        // Whose binding was refused has given its room back just now; who has lost a pod or a node needs other room anyway.
        let broken = |key: &GangKey| self.gangs.get(key).map(|state| state.stage) == Some(Stage::Broken);
        let mut joined: Vec<GangKey> = self.joined.iter().cloned().collect();
        joined.sort_by_key(|key| (!self.gave_back.contains(key), broken(key)));
        let mut kept = Vec::new();
        for key in joined {
            self.join(&key, Purpose::Repair, now, &mut decisions);
            kept.extend(self.keep_room(&key, time));
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
        for key in self.joined.clone() {
            self.join(&key, Purpose::Growth, now, &mut decisions);
        }
        for (demand, slots) in kept {
            self.ledger.space().give_back_slots(&demand, &slots);
        }
        self.gained = false;
        decisions.steps = self.measured_steps();
        if !self.put_off.is_empty() {
            decisions.ask_again_in(LOOKED_AT_AGAIN);
        }
        self.give_up_misled(now, &mut decisions);
        self.tell_incomplete(now, &mut decisions);
        self.await_pauses(time, &mut decisions);
        let waits = |state: &GangState| state.stage.is_in_line() && state.asked.is_complete();
        if self.gangs.values().any(waits) {
            decisions.ask_again_in(LOOKED_AT_AGAIN);
        }
        if let Some(at) = self.line.next_boundary(time) {
            decisions.ask_again_in(SignedDuration::from_millis(at.since(time).max(1)));
        }
        decisions
    }

    /// Brings the line up to date with what was seen.
    pub(super) fn settle(&mut self, time: Time) {
        self.follow_claims();
        self.follow_queues(time);
        self.follow_windows(time);
        self.follow_refusals(time);
        self.follow_failed_evictions(time);
        for key in std::mem::take(&mut self.changed) {
            self.assess(&key, time);
            self.note_joined(key);
        }
        self.forget_those_who_stay_away(time);
    }

    /// Jobs keep their queues by name; those whose queue is gone or new are asked again.
    fn follow_queues(&mut self, time: Time) {
        let Some(tree) = self.queues.changed_tree() else { return };
        if let Err(error) = self.line.set_tree(tree, DEFAULT_QUEUE, time) {
            tracing::error!(%error, "the queues are left as they were");
            return;
        }
        self.gained = true;
        let in_line = self.gangs.iter().filter(|(_, state)| state.stage.is_in_line());
        self.changed.extend(in_line.map(|(key, _)| key.clone()));
    }

    /// Brings the line up to date with the pods of a gang.
    fn assess(&mut self, key: &GangKey, time: Time) {
        let census = self.pods.census(key);
        match self.gangs.get(key).map(|state| state.stage) {
            None | Some(Stage::Waiting | Stage::Returning { .. }) if census.with_place() > 0 => {
                self.adopt(key, time);
            }
            None | Some(Stage::Waiting | Stage::Returning { .. }) if census.waiting > 0 => {
                self.stand_in_line(key, time);
            }
            None => {}
            Some(Stage::Waiting) => self.withdraw(key),
            Some(Stage::Returning { .. }) => self.hold_place(key),
            Some(_) if census.with_room() == 0 => self.comes_to_an_end(key, time),
            Some(Stage::Starting) if census.placed == 0 => self.rehold(key, time),
            Some(Stage::Starting | Stage::Running | Stage::Broken) => {
                self.set_stage(key, self.how_it_runs(key, census));
                self.rehold(key, time);
            }
            Some(Stage::Evicting) => self.rehold(key, time),
        }
    }

    /// Whether a gang that runs has all that it needs.
    fn how_it_runs(&self, key: &GangKey, census: Census) -> Stage {
        let Some(state) = self.gangs.get(key) else { return Stage::Running };
        let lost = |node: &str| self.ledger.node(node).is_none_or(|node| !node.schedulable);
        let mut pods = self.pods.of(key).filter_map(|(pod, _)| self.ledger.assignment(pod));
        let incomplete = census.with_place() < self.pods.least(key);
        let broken = state.stage == Stage::Broken && incomplete || pods.any(|place| lost(&place.node));
        if broken { Stage::Broken } else { Stage::Running }
    }

    /// Takes the plan of a gang away that has no pods any more.
    fn discard(&mut self, key: &GangKey, decisions: &mut Decisions) {
        if self.under_way.contains(key) || self.pods.census(key) != Census::default() {
            return;
        }
        self.begun.remove(key);
        self.refusals.remove(key);
        self.gave_back.remove(key);
        if let Some(written) = self.written.get(key).cloned() {
            self.under_way.insert(key.clone());
            let (namespace, gang) = (key.namespace.clone(), key.name.clone());
            decisions.now.push(Decision::Discard { namespace, gang, written });
        }
    }

    /// Whether pods of the gang join it while it runs, as far as its pods say.
    fn note_joined(&mut self, key: GangKey) {
        self.put_off.remove(&key);
        let stage = self.gangs.get(&key).map(|state| state.stage);
        let census = self.pods.census(&key);
        let runs = matches!(stage, Some(Stage::Starting | Stage::Running | Stage::Broken));
        if runs && census.with_place() > 0 && census.waiting > 0 {
            self.joined.insert(key);
        } else {
            self.joined.remove(&key);
        }
    }

    /// Pods that join a gang that runs get their places at once, or are told why not. Those that it cannot do
    /// without (`Purpose::Repair`) are asked for before others start, all others afterwards.
    fn join(&mut self, key: &GangKey, purpose: Purpose, now: Timestamp, decisions: &mut Decisions) {
        // To look into the future for each of them takes long.
        let just_now = |at: &Timestamp| now.duration_since(*at) < LOOKED_AT_AGAIN;
        if self.under_way.contains(key) || !self.gained && self.put_off.get(key).is_some_and(just_now) {
            return;
        }
        let gang = self.gang_on_its_nodes(key);
        let lacks = gang.min_available.saturating_sub(gang.placed_on.len());
        // A gang that never was whole has no turn to come back to: somebody gave places to some of its pods.
        let due = if lacks > 0 && self.begun.contains(key) { Purpose::Repair } else { Purpose::Growth };
        if due != purpose {
            return;
        }
        if let Some(refused) = self.pauses_because(key) {
            self.tell(key, Kind::Gate, &refused, now, decisions);
            return;
        }
        if let Some(held) = self.held(key) {
            self.tell(key, Kind::Gate, held.sentence(), now, decisions);
            return;
        }
        if gang.present() < gang.min_available {
            let message = Waiting::ForMembers { present: gang.present(), needed: gang.min_available };
            self.tell(key, Kind::Members, &message.to_string(), now, decisions);
            return;
        }
        let time = Time(now.as_millisecond());
        let has_spares = self.ledger.spares(&key.namespace, &key.name).next().is_some();
        if purpose == Purpose::Repair
            && has_spares
            && let Ok(placement) = self.ledger.repair(&gang)
        {
            self.bind_taken(key, placement, decisions);
            self.rehold(key, time);
            return;
        }
        self.join_by_the_line(key, &gang, purpose, now, decisions);
    }

    /// The gang; whoever was on a node that is gone runs no more.
    fn gang_on_its_nodes(&self, key: &GangKey) -> Gang {
        let mut gang = self.pods.gang(key);
        gang.placed_on.retain(|node| self.ledger.node(node).is_some());
        gang
    }

    fn join_by_the_line(
        &mut self,
        key: &GangKey,
        gang: &Gang,
        purpose: Purpose,
        now: Timestamp,
        decisions: &mut Decisions,
    ) {
        let time = Time(now.as_millisecond());
        match self.room_to_join(key, gang, purpose, time) {
            None => {}
            Some(Err(Hindrance::Closed(reason))) => self.tell(key, Kind::Gate, &reason, now, decisions),
            Some(Ok((demand, slots))) => {
                let placement = demand.placement(self.ledger.space(), gang, &slots);
                if self.bind(key, placement, decisions) {
                    self.rehold(key, time);
                }
            }
            Some(Err(Hindrance::Waits(reason))) => {
                self.put_off.insert(key.clone(), now);
                self.pods.resolve_gang_again(key);
                let message = telling::sentence(&self.line, self.ledger.space(), gang, &reason);
                self.tell(key, Kind::of(&reason), &message, now, decisions);
            }
        }
    }

    /// Where pods that join a gang that runs have room now, or what keeps them back.
    fn room_to_join(
        &mut self,
        key: &GangKey,
        gang: &Gang,
        purpose: Purpose,
        time: Time,
    ) -> Option<Result<(GangDemand, Slots), Hindrance>> {
        let job = self.gangs.get(key)?.job;
        let sizes = sizes(gang.waiting.len(), gang.min_available.saturating_sub(gang.placed_on.len()));
        let (mut forms, gate) = self.forms(gang, &sizes);
        if let Gate::Closed(reason) = gate {
            return Some(Err(Hindrance::Closed(reason)));
        }
        if purpose == Purpose::Repair {
            self.charge_no_kept_quota(key, &mut forms);
        }
        match self.line.join(job, &forms, purpose, time, self.ledger.space()) {
            Ok(Joining::Start(start)) => {
                let demand = GangDemand::new(self.ledger.space(), gang, sizes[start.form]).ok()?;
                Some(Ok((demand, start.hold.slots.clone())))
            }
            Ok(Joining::Wait(reason)) => Some(Err(Hindrance::Waits(reason))),
            Err(error) => {
                tracing::error!(%error, gang = %key, "the line does not know the gang that runs");
                None
            }
        }
    }

    /// Takes the room of pods that a gang cannot do without and that are kept from it for a moment, because the plan
    /// before is still being carried out, their binding was refused or their claims are being written: whoever took it
    /// meanwhile would leave the gang in part. It is given back when the turn is over, and found anew in the next.
    fn keep_room(&mut self, key: &GangKey, time: Time) -> Option<(Demand, Slots)> {
        let is_hindered =
            self.under_way.contains(key) || self.pauses_because(key).is_some() || self.held(key).is_some();
        if !self.begun.contains(key) || !is_hindered {
            return None;
        }
        let mut gang = self.gang_on_its_nodes(key);
        // What the others' claims have already stays with them.
        gang.waiting.retain(|member| {
            let view = self.pods.get(&PodKey::new(&key.namespace, &member.name));
            view.is_some_and(|view| view.claims_hold().is_none())
        });
        gang.waiting.truncate(gang.min_available.saturating_sub(gang.placed_on.len()));
        if gang.waiting.is_empty() {
            return None;
        }
        let gang = Gang { shape: None, ..gang };
        let (GangDemand { demand, .. }, slots) =
            self.room_to_join(key, &gang, Purpose::Repair, time)?.ok()?;
        self.ledger.space().take_slots(&demand, &slots);
        Some((demand, slots))
    }

    fn bind(&mut self, key: &GangKey, placement: Placement, decisions: &mut Decisions) -> bool {
        if let Err(error) = self.ledger.take(&placement) {
            tracing::error!(%error, gang = %key, "the ledger refused its own plan");
            return false;
        }
        self.bind_taken(key, placement, decisions);
        true
    }

    fn bind_taken(&mut self, key: &GangKey, placement: Placement, decisions: &mut Decisions) {
        let binding = self.binding(key, placement);
        decisions.now.push(Decision::Bind(binding));
    }

    pub(super) fn start(&mut self, start: &Start, time: Time, decisions: &mut Decisions) {
        let Some(key) = self.jobs.get(&start.job).cloned() else { return };
        let Some(state) = self.gangs.get(&key) else { return };
        let (gang, size) = (state.asked.gang.clone(), state.asked.sizes[start.form]);
        let Ok(demand) = GangDemand::new(self.ledger.space(), &gang, size) else { return };
        let placement = demand.placement(self.ledger.space(), &gang, &start.hold.slots);
        if self.bind(&key, placement, decisions) {
            let since = self
                .line
                .waiting(start.job)
                .map(|job| SignedDuration::from_millis(time.since(job.submitted)));
            self.listen_to(&key);
            if let Some(Decision::Bind(binding)) = decisions.now.last_mut() {
                binding.waited = since;
                binding.predicted = self.ledger.predicted(&(&key).into());
            }
            if let Err(error) = self.line.started(start.job, &start.hold, time) {
                tracing::error!(%error, gang = %key, "the line does not know the gang that it started");
            }
            if let Some(state) = self.gangs.get_mut(&key) {
                state.stage = Stage::Starting;
                state.charge.clone_from(&start.hold.form.charge);
            }
            self.begun.insert(key);
        }
    }

    fn evict(&mut self, preemption: &Preempt, decisions: &mut Decisions) {
        let preemptor = self.jobs.get(&preemption.job).map_or_else(String::new, ToString::to_string);
        for victim in &preemption.victims {
            let Some(key) = self.jobs.get(victim).cloned() else { continue };
            self.set_stage(&key, Stage::Evicting);
            let pods = self.pods.of(&key).filter(|(_, pod)| pod.state.has_place());
            let foreign =
                self.pods.of(&key).all(|(_, pod)| !self.scheduler_names.contains(&pod.scheduler_name));
            let pods = pods.map(|(key, pod)| (key.clone(), pod.member.uid.clone())).collect();
            let message = format!("Preempted as a whole by gang {preemptor}; it keeps its place in line");
            decisions.now.push(Decision::Evict { pods, why: Eviction::Preempted, foreign, message });
        }
    }
}
