//! How gangs come into the line and leave it.

use std::sync::Arc;

use muster_scheduler_core::{Closeness, Gang, GangDemand, Group, PodKey, Resources, Slot, Slots};
use muster_scheduler_queue::job::{Form, Gate, Hold, Job, JobId, Restart};
use muster_scheduler_queue::time::{Milliseconds, Time};
use muster_scheduler_queue::tree::{Charge, FlavorResource, QueueId};

use super::pods::{GangKey, State};
use super::{GangState, Place, Planner};

/// Sizes of an elastic gang that are tried.
const SIZES: usize = 8;
/// A gang that was evicted and has not come back after this long has lost its place in line.
const KEPT_PLACE: Milliseconds = 3_600_000;

/// What a gang stands in line with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) gang: Gang,
    /// Pods of each form of the job.
    pub(super) sizes: Vec<usize>,
    priority: i32,
    queue: String,
    user: String,
    limit: Option<Milliseconds>,
    reservation: Option<String>,
    created: i64,
    /// What keeps it back whatever is free.
    pub(super) held: Option<Held>,
}

/// What keeps a gang back whatever is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// Something is asked for that cannot be had as it is written.
    Problem(String),
    /// The object that describes the gang is not there, or not yet.
    Missing(String),
}

impl Held {
    pub(super) fn sentence(&self) -> &str {
        match self {
            Self::Problem(sentence) | Self::Missing(sentence) => sentence,
        }
    }
}

impl Asked {
    /// Whether all pods that must start together exist.
    pub(super) fn is_complete(&self) -> bool {
        self.gang.present() >= self.gang.min_available
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    pub(super) fn submitted(&self) -> Time {
        Time(self.created.saturating_mul(1000))
    }
}

impl Planner {
    /// Takes a gang out of the line, as ended when it ran.
    pub(super) fn leave_line(&mut self, key: &GangKey, time: Time) {
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
    pub(super) fn keep_place(&mut self, key: &GangKey, state: &GangState, time: Time) {
        self.returning.retain(|_, place| time.since(place.evicted) < KEPT_PLACE);
        self.returning.insert(key.clone(), Place { submitted: state.asked.submitted(), evicted: time });
    }

    fn asked(&self, key: &GangKey, gang: Gang) -> Option<Asked> {
        let created = self.pods.of(key).map(|(_, pod)| pod.created).min()?;
        let group = self.pods.described(key).and_then(Result::ok).map(|(group, _)| group);
        let highest = self.pods.of(key).map(|(_, pod)| pod.priority).max()?;
        let priority = group.and_then(|group| group.priority).unwrap_or(highest);
        let limit = self.pods.of(key).filter_map(|(_, pod)| pod.limit).max();
        let (_, first) = self.pods.of(key).next()?;
        let all = gang.waiting.len();
        let least = gang.min_available.clamp(1, all.max(1));
        let mut sizes: Vec<usize> =
            (0..SIZES).map(|step| all - (all - least.min(all)) * step / (SIZES - 1)).collect();
        sizes.dedup();
        let queue = first.queue.clone().or_else(|| group?.queue.clone());
        let queue = queue.unwrap_or_else(|| muster_scheduler_api::DEFAULT_QUEUE.to_owned());
        let (user, reservation) = (first.user.clone(), first.reservation.clone());
        let held = self.held(key);
        Some(Asked { gang, sizes, priority, queue, user, limit, reservation, created, held })
    }

    /// What keeps the gang's waiting pods back whatever is free.
    pub(super) fn held(&self, key: &GangKey) -> Option<Held> {
        let mut waiting = self.pods.of(key).filter(|(_, view)| view.state == State::Waiting);
        let problem = waiting.find_map(|(pod, view)| {
            let problem = view.problems.first()?;
            Some(Held::Problem(format!("pod {}: {problem}", pod.name)))
        });
        problem.or_else(|| self.pods.described(key)?.err())
    }

    fn next_job(&mut self) -> JobId {
        self.last_job += 1;
        JobId(self.last_job)
    }

    /// What pods with these requests use of the queues' quota.
    fn charge(&self, together: &Resources) -> Charge {
        let amounts: Vec<(FlavorResource, i64)> =
            together.iter().map(|(name, amount)| (FlavorResource::new("", name), amount)).collect();
        self.line.tree().charge(amounts.iter().map(|(resource, amount)| (resource, *amount)))
    }

    /// The forms of a gang that waits, and what keeps it back.
    fn forms(&mut self, asked: &Asked) -> (Vec<Form>, Gate) {
        let mut gate = Gate::Open;
        if self.line.tree().queue(&asked.queue).is_none() {
            gate = Gate::Closed(format!(
                "queue {} does not exist; create it, or name another by the label muster.dev/queue",
                asked.queue
            ));
        }
        if !asked.is_complete() {
            let (present, needed) = (asked.gang.present() as u32, asked.gang.min_available as u32);
            gate = Gate::Members { present, needed };
        }
        if let Some(held) = &asked.held {
            gate = Gate::Closed(held.sentence().to_owned());
        }
        let mut forms = Vec::new();
        for size in &asked.sizes {
            let demand = GangDemand::new(self.ledger.space(), &asked.gang, *size).unwrap_or_else(|reason| {
                gate = Gate::Closed(reason.to_string());
                let anywhere = Gang { closeness: Closeness::default(), ..asked.gang.clone() };
                GangDemand::new(self.ledger.space(), &anywhere, *size).unwrap_or_default()
            });
            let mut together = Resources::new();
            asked.gang.waiting[..*size].iter().for_each(|member| together.add(&member.requests));
            let charge = self.charge(&together);
            forms.push(Form { label: format!("{size} pods"), demand: demand.demand, charge });
        }
        (forms, gate)
    }

    /// The gang as a job of the line, open and at the place of its oldest pod.
    fn job(&mut self, key: &GangKey, asked: &Asked, forms: Vec<Form>) -> Job {
        Job {
            id: self.next_job(),
            name: key.name.clone(),
            user: asked.user.clone(),
            queue: self.line.tree().queue(&asked.queue).unwrap_or_else(|| self.default_queue()),
            submitted: asked.submitted(),
            priority: i64::from(asked.priority),
            quality: 0,
            limit: asked.limit,
            forms: forms.into(),
            gate: Gate::Open,
            restart: Restart::default(),
            reservation: None,
        }
    }

    fn default_queue(&self) -> QueueId {
        let tree = self.line.tree();
        tree.queue(muster_scheduler_api::DEFAULT_QUEUE).unwrap_or_else(|| tree.top()[0])
    }

    /// Puts a gang into the line, anew when what it asks for has changed.
    pub(super) fn stand_in_line(&mut self, key: &GangKey, gang: Gang, time: Time) {
        let Some(asked) = self.asked(key, gang) else { return };
        if self.gangs.get(key).is_some_and(|state| state.asked == asked) {
            return;
        }
        self.leave_line(key, time);
        let (forms, gate) = self.forms(&asked);
        let mut job = self.job(key, &asked, forms);
        job.gate = gate;
        job.reservation.clone_from(&asked.reservation);
        if let Some(place) = self.returning.remove(key) {
            job.submitted = place.submitted;
        }
        let id = job.id;
        match self.line.submit(job) {
            Ok(()) => self.note(key, id, asked, false),
            Err(error) => tracing::error!(%error, gang = %key, "cannot stand in line"),
        }
    }

    /// A gang that has places already, from an earlier run of the scheduler.
    pub(super) fn adopt(&mut self, key: &GangKey, gang: Gang, time: Time) {
        self.leave_line(key, time);
        let Some(asked) = self.asked(key, gang) else { return };
        let mut form = Form { label: "as it runs".to_owned(), ..Form::default() };
        let mut slots = Slots::default();
        let mut together = Resources::new();
        let placed: Vec<&PodKey> =
            self.pods.of(key).filter(|(_, pod)| pod.state != State::Waiting).map(|(pod, _)| pod).collect();
        for pod in placed {
            let Some((node, shape, devices)) = self.ledger.holding(pod) else { continue };
            let groups = &mut form.demand.groups;
            let known = groups.iter().position(|group| Arc::ptr_eq(&group.shape, shape));
            let group = known.unwrap_or_else(|| {
                groups.push(Group { shape: Arc::clone(shape), count: 0 });
                groups.len() - 1
            });
            groups[group].count += 1;
            slots.0.push(Slot { group, node, devices: devices.clone() });
            if let Some(assignment) = self.ledger.assignment(pod) {
                together.add(&assignment.resources);
            }
        }
        if slots.0.is_empty() {
            // Its nodes are not known: there is no room to give back.
            return;
        }
        form.charge = self.charge(&together);
        let job = self.job(key, &asked, vec![form.clone()]);
        let (id, queue, since) = (job.id, job.queue, job.submitted);
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
}
