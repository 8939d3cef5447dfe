//! One decision: who stands in line, whose turn it is, and what the others are told.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use muster_scheduler_core::{Gang, GangDemand, Placement, PodKey, Resources, Waiting};
use muster_scheduler_queue::explain::{Explanation, Reason, Told};
use muster_scheduler_queue::job::{Form, Gate, Hold, Job, JobId, Restart};
use muster_scheduler_queue::planner::{Preempt, Start};
use muster_scheduler_queue::time::{Milliseconds, Time};
use muster_scheduler_queue::tree::{FlavorResource, QueueId};

use super::decision::{Decision, Decisions};
use super::pods::{GangKey, PodView, State};
use super::{GangState, Place, Planner};

/// How long a gang may be incomplete before its pods are told so: its controller is creating them one by one.
const PATIENCE: SignedDuration = SignedDuration::from_secs(2);
/// Sizes of an elastic gang that are tried.
const SIZES: usize = 8;
/// Gangs that are told why they wait in one decision; the others have to wait for that too.
const EXPLAINED_AT_ONCE: usize = 32;
/// A gang that was told why it waits is looked at again after this long.
const EXPLAINED_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// A gang that was evicted and has not come back after this long has lost its place in line.
const KEPT_PLACE: Milliseconds = 3_600_000;

/// What a gang stands in line with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    gang: Gang,
    /// Pods of each form of the job.
    sizes: Vec<usize>,
    priority: i32,
    queue: String,
    user: String,
    limit: Option<Milliseconds>,
    reservation: Option<String>,
    created: i64,
}

impl Asked {
    fn submitted(&self) -> Time {
        Time(self.created.saturating_mul(1000))
    }
}

impl Planner {
    /// What to do now. Places are taken on the ledger at once, so that nothing is planned twice.
    pub fn decide(&mut self, now: Timestamp) -> Decisions {
        let time = Time(now.as_millisecond());
        let mut decisions = Decisions::default();
        self.follow_queues(time);
        let mut joining = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            self.assess(&key, time);
        }
        for (key, state) in &self.gangs {
            let any = |wanted: fn(&State) -> bool| self.pods.of(key).any(|(_, pod)| wanted(&pod.state));
            let placed = any(|state| matches!(state, State::Placed(_) | State::Binding(_)));
            if state.running && !state.evicting && placed && any(|state| *state == State::Waiting) {
                joining.push(key.clone());
            }
        }
        for key in &joining {
            self.join(key, &mut decisions);
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
        let waits = |state: &GangState| {
            !state.running && state.asked.gang.present() >= state.asked.gang.min_available
        };
        if self.gangs.values().any(waits) {
            // What makes a job give way, its age above all, is not seen on any object.
            decisions.ask_again_in(EXPLAINED_AGAIN);
        }
        if let Some(at) = self.line.next_boundary(time) {
            decisions.ask_again_in(SignedDuration::from_millis(at.since(time).max(1)));
        }
        decisions
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
        let leaving = self.pods.of(key).any(|(_, pod)| pod.state == State::Leaving);
        if running && gang.placed_on.is_empty() && !leaving {
            self.leave_line(key, time);
        } else if running {
            let placed = self.pods.of(key).any(|(_, pod)| matches!(pod.state, State::Placed(_)));
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

    /// Takes a gang out of the line, as ended when it ran.
    fn leave_line(&mut self, key: &GangKey, time: Time) {
        let Some(state) = self.gangs.remove(key) else { return };
        self.jobs.remove(&state.job);
        let left = if !state.running {
            self.line.withdraw(state.job)
        } else if state.has_run && !state.evicting {
            self.line.ended(state.job, time)
        } else {
            // It comes back under a number of its own, at its old place.
            self.keep_place(key, &state, time);
            self.line.evicted(state.job, time).and_then(|()| self.line.withdraw(state.job))
        };
        if let Err(error) = left {
            tracing::error!(%error, gang = %key, "the line does not know the gang that leaves it");
        }
    }

    /// Keeps the place in line of a gang that was evicted, for as long as it may take its owner to bring it back.
    fn keep_place(&mut self, key: &GangKey, state: &GangState, time: Time) {
        self.returning.retain(|_, place| time.since(place.evicted) < KEPT_PLACE);
        self.returning.insert(key.clone(), Place { submitted: state.asked.submitted(), evicted: time });
    }

    fn asked(&self, key: &GangKey, gang: Gang) -> Option<Asked> {
        let created = self.pods.of(key).map(|(_, pod)| pod.created).min()?;
        let priority = self.pods.of(key).map(|(_, pod)| pod.priority).max()?;
        let limit = self.pods.of(key).filter_map(|(_, pod)| pod.limit).max();
        let (_, first) = self.pods.of(key).next()?;
        let all = gang.waiting.len();
        let least = gang.min_available.clamp(1, all.max(1));
        let mut sizes: Vec<usize> =
            (0..SIZES).map(|step| all - (all - least.min(all)) * step / (SIZES - 1)).collect();
        sizes.dedup();
        let (queue, user, reservation) = (first.queue.clone(), first.user.clone(), first.reservation.clone());
        Some(Asked { gang, sizes, priority, queue, user, limit, reservation, created })
    }

    fn job(&mut self, id: JobId, key: &GangKey, asked: &Asked) -> Job {
        let mut gate = Gate::Open;
        let queue = self.line.tree().queue(&asked.queue).unwrap_or_else(|| {
            gate = Gate::Closed(format!(
                "queue {} does not exist; create it, or name another by the label muster.dev/queue",
                asked.queue
            ));
            self.default_queue()
        });
        let (present, needed) = (asked.gang.present() as u32, asked.gang.min_available as u32);
        if present < needed {
            gate = Gate::Members { present, needed };
        }
        let mut forms = Vec::new();
        for size in &asked.sizes {
            let demand = GangDemand::new(self.ledger.space(), &asked.gang, *size).unwrap_or_else(|reason| {
                gate = Gate::Closed(reason.to_string());
                let anywhere =
                    Gang { closeness: muster_scheduler_core::Closeness::default(), ..asked.gang.clone() };
                GangDemand::new(self.ledger.space(), &anywhere, *size).unwrap_or_default()
            });
            let mut together = Resources::new();
            asked.gang.waiting[..*size].iter().for_each(|member| together.add(&member.requests));
            let amounts: Vec<(FlavorResource, i64)> =
                together.iter().map(|(name, amount)| (FlavorResource::new("", name), amount)).collect();
            let charge =
                self.line.tree().charge(amounts.iter().map(|(resource, amount)| (resource, *amount)));
            forms.push(Form { label: format!("{size} pods"), demand: demand.demand, charge });
        }
        let submitted = self.returning.remove(key).map_or(asked.submitted(), |place| place.submitted);
        Job {
            id,
            name: key.name.clone(),
            user: asked.user.clone(),
            queue,
            submitted,
            priority: i64::from(asked.priority),
            quality: 0,
            limit: asked.limit,
            forms: forms.into(),
            gate,
            restart: Restart::default(),
            reservation: asked.reservation.clone(),
        }
    }

    fn default_queue(&self) -> QueueId {
        let tree = self.line.tree();
        tree.queue(muster_scheduler_api::DEFAULT_QUEUE).unwrap_or_else(|| tree.top()[0])
    }

    fn stand_in_line(&mut self, key: &GangKey, gang: Gang, time: Time) {
        let Some(asked) = self.asked(key, gang) else { return };
        if self.gangs.get(key).is_some_and(|state| state.asked == asked) {
            return;
        }
        self.leave_line(key, time);
        self.last_job += 1;
        let id = JobId(self.last_job);
        let job = self.job(id, key, &asked);
        match self.line.submit(job) {
            Ok(()) => self.note(key, id, asked, false),
            Err(error) => tracing::error!(%error, gang = %key, "cannot stand in line"),
        }
    }

    /// A gang that has places already, from an earlier run of the scheduler.
    fn adopt(&mut self, key: &GangKey, gang: Gang, time: Time) {
        self.leave_line(key, time);
        let Some(asked) = self.asked(key, gang) else { return };
        self.last_job += 1;
        let id = JobId(self.last_job);
        let mut form = Form { label: "as it runs".to_owned(), ..Form::default() };
        let mut slots = muster_scheduler_core::Slots::default();
        let mut together = Resources::new();
        let placed: Vec<&PodKey> =
            self.pods.of(key).filter(|(_, pod)| pod.state != State::Waiting).map(|(pod, _)| pod).collect();
        for pod in placed {
            let Some((node, shape, devices)) = self.ledger.holding(pod) else { continue };
            let groups = &mut form.demand.groups;
            let known = groups.iter().position(|group| Arc::ptr_eq(&group.shape, shape));
            let group = known.unwrap_or_else(|| {
                groups.push(muster_scheduler_core::Group { shape: Arc::clone(shape), count: 0 });
                groups.len() - 1
            });
            groups[group].count += 1;
            slots.0.push(muster_scheduler_core::Slot { group, node, devices: devices.clone() });
            if let Some(assignment) = self.ledger.assignment(pod) {
                together.add(&assignment.resources);
            }
        }
        if slots.0.is_empty() {
            // Its nodes are not known: there is no room to give back.
            return;
        }
        let amounts: Vec<(FlavorResource, i64)> =
            together.iter().map(|(name, amount)| (FlavorResource::new("", name), amount)).collect();
        form.charge = self.line.tree().charge(amounts.iter().map(|(resource, amount)| (resource, *amount)));
        let queue = self.line.tree().queue(&asked.queue).unwrap_or_else(|| self.default_queue());
        let since = Time(asked.created.saturating_mul(1000));
        let job = Job {
            id,
            name: key.name.clone(),
            user: asked.user.clone(),
            queue,
            submitted: since,
            priority: i64::from(asked.priority),
            quality: 0,
            limit: asked.limit,
            forms: vec![form.clone()].into(),
            gate: Gate::Open,
            restart: Restart::default(),
            reservation: None,
        };
        match self.line.adopt(job, Hold { queue, form, slots }, since, time) {
            Ok(()) => self.note(key, id, asked, true),
            Err(error) => tracing::error!(%error, gang = %key, "cannot adopt a gang that runs"),
        }
    }

    fn note(&mut self, key: &GangKey, job: JobId, asked: Asked, running: bool) {
        let state = GangState { job, running, has_run: running, asked, evicting: false, explained: None };
        self.gangs.insert(key.clone(), state);
        self.jobs.insert(job, key.clone());
    }

    /// Pods that join a gang that runs get their places at once, or are told why not.
    fn join(&mut self, key: &GangKey, decisions: &mut Decisions) {
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

    fn start(&mut self, start: &Start, time: Time, decisions: &mut Decisions) {
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
            let placed = |pod: &PodView| matches!(pod.state, State::Placed(_) | State::Binding(_));
            let pods = self.pods.of(&key).filter(|(_, pod)| placed(pod));
            let pods = pods.map(|(key, pod)| (key.clone(), pod.member.uid.clone())).collect();
            let message = format!("Preempted as a whole by gang {preemptor}; it keeps its place in line");
            decisions.now.push(Decision::Evict { pods, message });
        }
    }

    fn explain_waiting(&mut self, now: Timestamp, decisions: &mut Decisions) {
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
        let message = if gang.present() < gang.min_available {
            let left = self.patience_left(key, now);
            if left > SignedDuration::ZERO {
                decisions.ask_again_in(left);
                return;
            }
            Waiting::ForMembers { present: gang.present(), needed: gang.min_available }.to_string()
        } else {
            let Ok(explanation) = self.line.explain(job, Time(now.as_millisecond()), self.ledger.space())
            else {
                return;
            };
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
    fn sentence(&mut self, gang: &Gang, explanation: &Explanation) -> String {
        let reason = match &explanation.reason {
            Reason::Room { .. } | Reason::NeverFits | Reason::Scattered => {
                self.ledger.place(gang).err().map(|waiting| waiting.to_string())
            }
            _ => None,
        };
        let mut sentence = reason.unwrap_or_else(|| Told(&self.line, &explanation.reason).to_string());
        let at = explanation.expected.as_ref().and_then(muster_scheduler_queue::forecast::Expected::known);
        if let Some(at) = at.and_then(|at| Timestamp::from_millisecond(at.0).ok()) {
            // To the minute: whoever reads it does not want to read it every second.
            let minute = at.strftime("%Y-%m-%d %H:%M UTC");
            let place = explanation.place;
            sentence = format!("{sentence}; place {place} in line, expected to start at {minute}");
        }
        sentence
    }

    fn tell(&mut self, key: &GangKey, message: &str, decisions: &mut Decisions) {
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
