//! One decision: goes through the line once and plans who starts, who is promised what, and who must leave.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use muster_scheduler_core::Slots;
use muster_scheduler_core::space::Space;

use crate::backlog::{LaneKey, Order, Rank};
use crate::estimate::Basis;
use crate::filling;
use crate::forecast::worse;
use crate::hopeless::NeverFits;
use crate::job::{Form, Hold, Job, JobId};
use crate::nearness::{Asked, Nearness};
use crate::planner::{Plan, Planner, Promise, Start};
use crate::policy::Blocked;
use crate::preempt;
use crate::time::{Milliseconds, Time};
use crate::timeline::{Request, Timeline};
use crate::tree::{FlavorResource, QueueId};

/// Jobs for which eviction is considered in one cycle.
const PREEMPTORS: usize = 4;
/// Promises for which earlier room is looked for in one cycle. With many of them that is most of the work; the others
/// have their turn in the next cycles, and start as soon as they can in any case.
const IMPROVED: usize = 8;

impl Planner {
    /// Plans what to do now, given what is free. Nothing is taken: the caller carries the plan out and tells
    /// [`Planner::started`] and [`Planner::evicted`]. What is promised is remembered for the next cycle.
    pub fn cycle(&mut self, now: Time, space: &Space) -> Plan {
        self.watch_overruns(now);
        self.gains += u64::from(self.gained);
        self.count_nodes(space);
        self.hopeless.look(space, self.running.values());
        let mut nearness = std::mem::take(&mut self.nearness);
        nearness.begin();
        let mut cycle = Cycle::new(self, now, space, nearness);
        cycle.keep_promises();
        cycle.walk_the_line();
        let preempt = cycle.preempt();
        let Cycle { plan, promises, hopeless, nearness, .. } = cycle;
        for preemption in &preempt {
            for victim in &preemption.victims {
                if let Some(running) = self.running.get_mut(victim) {
                    running.leaving_for = Some(preemption.job);
                    running.ends = now;
                }
            }
        }
        self.promises = promises;
        self.nearness = nearness;
        self.hopeless.extend(hopeless, space, self.running.values());
        (self.gained, self.slipped) = (false, false);
        Plan { reserve: self.promises.values().cloned().collect(), preempt, ..plan }
    }

    /// Queues without quota share what the nodes have.
    fn count_nodes(&mut self, space: &Space) {
        if !std::mem::take(&mut self.uncounted) || !self.shares_fairly() {
            return;
        }
        let mut together = BTreeMap::new();
        for (_, node) in space.nodes().filter(|(_, node)| node.schedulable) {
            for (resource, amount) in node.allocatable.iter() {
                *together.entry(resource).or_insert(0.0) += amount as f64;
            }
        }
        let named = together.into_iter().map(|(resource, sum)| (FlavorResource::new("", resource), sum));
        self.fair.set_nodes(named.collect());
    }

    /// Whether it matters what queues have used.
    fn shares_fairly(&self) -> bool {
        self.policy.weights.fair_share != 0.0 && self.tree.queues().nth(1).is_some()
    }

    /// The future as it is supposed to be without any promise.
    pub(crate) fn timeline(&self, now: Time, space: &Space) -> Timeline {
        let running =
            self.running.values().map(|running| (running.job.id, running.ends, Arc::clone(&running.hold)));
        let mut timeline = Timeline::new(now, space.clone(), self.tree.clone(), running, &self.calendar);
        if self.policy.packs {
            timeline.end_together();
        }
        timeline
    }
}

/// Why a job cannot start now, as far as the walk through the line needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Neither it nor any like it.
    Full,
    /// What is promised to others is in the way of a job that meets so many constraints.
    Constrained(usize),
    /// It waits for nearer places.
    Far,
}

struct Cycle<'a> {
    planner: &'a Planner,
    now: Time,
    /// What is free before anybody starts.
    space: &'a Space,
    fair: Vec<f64>,
    gpus: f64,
    timeline: Timeline,
    nearness: Nearness,
    plan: Plan,
    promises: BTreeMap<JobId, Promise>,
    started: BTreeSet<JobId>,
    /// The fewest constraints with which forms did not find room, by their fingerprint.
    no_room: HashMap<(u64, u32), usize>,
    /// What was found to have no room in any future.
    hopeless: Vec<NeverFits>,
    /// Promises were taken back and made anew elsewhere: those behind may start beside them.
    disturbed: bool,
    /// Blocked jobs in their order, for preemption.
    blocked: Vec<JobId>,
}

impl<'a> Cycle<'a> {
    fn new(planner: &'a Planner, now: Time, space: &'a Space, nearness: Nearness) -> Self {
        let weights = planner.policy.weights;
        let fair =
            if planner.shares_fairly() { planner.fair.factors(&planner.tree, now) } else { Vec::new() };
        let gpus = if weights.size == 0.0 {
            1.0
        } else {
            space.nodes().map(|(_, node)| f64::from(node.gpu_slots)).sum::<f64>() * 1000.0
        };
        Self {
            planner,
            now,
            space,
            fair,
            gpus,
            timeline: planner.timeline(now, space),
            nearness,
            plan: Plan::default(),
            promises: BTreeMap::new(),
            started: BTreeSet::new(),
            no_room: HashMap::new(),
            hopeless: Vec::new(),
            disturbed: false,
            blocked: Vec::new(),
        }
    }

    fn rank(&self, job: &Job, length: Milliseconds) -> Rank {
        let order = Order { policy: &self.planner.policy, fair: &self.fair, gpus: self.gpus, now: self.now };
        order.rank(job, length)
    }

    /// How many promises may be made for each root of the queues.
    fn depth(&self) -> usize {
        match self.planner.policy.blocked {
            Blocked::Reserves { depth } => depth,
            Blocked::StopsAll | Blocked::StopsQueue | Blocked::Passed => 0,
        }
    }

    /// Puts the promises of the last cycle into the new future: those whose time has come start, those that
    /// can come earlier do, and those that cannot be kept are made anew.
    fn keep_promises(&mut self) {
        let mut old: Vec<(bool, Rank, Promise)> = Vec::new();
        for promise in self.planner.promises.values() {
            let Some(waiter) = self.planner.backlog.get(promise.job) else { continue };
            old.push((promise.pinned, self.rank(&waiter.job, waiter.estimate.length), promise.clone()));
        }
        old.sort_by_key(|(pinned, rank, _)| std::cmp::Reverse((*pinned, *rank)));
        let mut broken = Vec::new();
        for (_, _, promise) in &old {
            let Some(waiter) = self.planner.backlog.get(promise.job) else { continue };
            let mut promise = promise.clone();
            promise.length = waiter.estimate.length;
            promise.from = promise.from.max(self.now);
            promise.latest = promise.latest.max(self.now);
            let request = request(&waiter.job, &promise.hold.form, promise.length);
            if !self.planner.slipped || self.timeline.keeps(&request, &promise.hold.slots, promise.latest) {
                self.timeline.promise(promise.job, &promise.hold, promise.latest, promise.length);
                self.promises.insert(promise.job, promise);
            } else {
                broken.push(promise);
            }
        }
        for promise in broken {
            let Some(waiter) = self.planner.backlog.get(promise.job) else { continue };
            self.reserve(&waiter.job, waiter.estimate.length, Time::NEVER, promise.pinned);
        }
        let improvable = self.improvable(&old);
        for (pinned, _, promise) in old {
            let (Some(waiter), Some(promised)) =
                (self.planner.backlog.get(promise.job), self.promises.get(&promise.job).cloned())
            else {
                continue;
            };
            self.timeline.forget(promise.job);
            self.promises.remove(&promise.job);
            let (job, length) = (&waiter.job, waiter.estimate.length);
            if self.start(job, length).is_ok() {
                continue;
            }
            let due = promised.latest <= self.now;
            let improvable = improvable.contains(&promised.job);
            if (improvable || due) && self.reserve(job, length, promised.from - 1, pinned) {
                continue;
            }
            if due {
                self.reserve(job, length, Time::NEVER, pinned);
                continue;
            }
            self.timeline.promise(promised.job, &promised.hold, promised.latest, promised.length);
            let looked = if improvable { self.planner.gains } else { promised.looked };
            self.promises.insert(promised.job, Promise { looked, ..promised });
        }
        self.no_room.clear();
    }

    /// Promises for which there may be earlier room since it was last looked for: those that wait longest for that,
    /// the first in line of them.
    fn improvable(&self, in_order: &[(bool, Rank, Promise)]) -> BTreeSet<JobId> {
        let mut stale: Vec<&Promise> = in_order.iter().map(|(_, _, promise)| promise).collect();
        stale.retain(|promise| promise.looked < self.planner.gains);
        stale.sort_by_key(|promise| promise.looked);
        stale.truncate(IMPROVED);
        stale.into_iter().map(|promise| promise.job).collect()
    }

    /// Large gangs that go behind those that fill the free nodes better; of each lane the first is looked at.
    fn left_over(&self) -> BTreeSet<JobId> {
        if !self.planner.policy.packs {
            return BTreeSet::new();
        }
        let first = self.planner.backlog.lanes().filter_map(|(_, lane)| lane.after(None));
        let waiting = first.filter(|id| !self.promises.contains_key(id)).filter_map(|id| {
            let waiter = self.planner.backlog.get(id)?;
            Some((self.rank(&waiter.job, waiter.estimate.length), &waiter.job))
        });
        filling::left_over(self.timeline.space(), waiting)
    }

    /// Considers everybody who waits, in order.
    fn walk_the_line(&mut self) {
        let planner = self.planner;
        let left_over = self.left_over();
        let mut line: BinaryHeap<(Rank, &LaneKey, JobId)> = BinaryHeap::new();
        let queue_up = |cycle: &Self, line: &mut BinaryHeap<_>, key, id: JobId| {
            if let Some(waiter) = planner.backlog.get(id) {
                let rank = cycle.rank(&waiter.job, waiter.estimate.length);
                line.push((if left_over.contains(&id) { rank.behind() } else { rank }, key, id));
            }
        };
        for (key, lane) in planner.backlog.lanes() {
            if let Some(first) = lane.after(None) {
                queue_up(self, &mut line, key, first);
            }
        }
        let lanes: BTreeMap<&LaneKey, _> = planner.backlog.lanes().collect();
        let mut stopped: BTreeSet<QueueId> = BTreeSet::new();
        while let Some((rank, key, id)) = line.pop() {
            let Some(waiter) = planner.backlog.get(id) else { continue };
            if stopped.contains(&key.queue) {
                continue;
            }
            let (job, length) = (&waiter.job, waiter.estimate.length);
            let mut go_on = true;
            if self.disturbed && self.promises.get(&id).is_some_and(|promise| !promise.pinned) {
                self.start_instead(job, length);
            }
            let settled = self.started.contains(&id) || self.promises.contains_key(&id);
            if !settled && let Err(refusal) = self.start_or_promise(job, length, &rank) {
                if refusal != Refusal::Far && self.blocked.len() < PREEMPTORS {
                    self.blocked.push(id);
                }
                match planner.policy.blocked {
                    Blocked::StopsAll => return,
                    Blocked::StopsQueue => {
                        stopped.insert(key.queue);
                        go_on = false;
                    }
                    // The next of the lane may be done in time, or get a promise of its own.
                    Blocked::Passed | Blocked::Reserves { .. } => {
                        let shorter = matches!(refusal, Refusal::Constrained(constraints)
                            if self.timeline.constraints(key.least_length()) < constraints);
                        go_on = shorter || self.promises.contains_key(&id);
                    }
                }
            }
            if go_on && let Some(next) = lanes.get(key).and_then(|lane| lane.after(Some((job.submitted, id))))
            {
                queue_up(self, &mut line, key, next);
            }
        }
    }

    /// Starts the job now in the first form that fits.
    fn start(&mut self, job: &Arc<Job>, length: Milliseconds) -> Result<(), Refusal> {
        let constraints = self.timeline.constraints(length);
        // Windows that are open to a job alone make it special.
        let plain = job.reservation.is_none();
        let fingerprint =
            self.planner.backlog.get(job.id).filter(|_| plain).map(crate::backlog::Waiter::forms);
        let known = fingerprint.and_then(|fingerprint| self.no_room.get(&fingerprint)).copied();
        if known.is_some_and(|fewest| fewest <= constraints) {
            return Err(if known == Some(0) { Refusal::Full } else { Refusal::Constrained(constraints) });
        }
        let (mut within_quota, mut is_far) = (false, false);
        for (index, form) in job.forms.iter().enumerate() {
            let request = request(job, form, length);
            if !self.timeline.tree().admits(job.queue, &form.charge) {
                continue;
            }
            within_quota = true;
            if let Some(slots) = self.timeline.start_now(&request) {
                if self.waits_for_nearer(job, index, &slots, length) {
                    is_far = true;
                    continue;
                }
                let hold = Arc::new(Hold { queue: job.queue, form: form.clone(), slots });
                let ends = self.now + length;
                self.timeline.start(job.id, Arc::clone(&hold), ends);
                self.plan.start.push(Start { job: job.id, form: index, hold, ends });
                self.started.insert(job.id);
                return Ok(());
            }
        }
        if is_far {
            return Err(Refusal::Far);
        }
        if !within_quota {
            return Err(Refusal::Full);
        }
        let sums_allow = job.forms.iter().any(|form| self.timeline.may_start(&request(job, form, length)));
        let fewest = if sums_allow { constraints } else { 0 };
        // What quota leaves differs between queues.
        if let Some(fingerprint) = fingerprint
            && (fewest == 0 || job.forms.iter().all(|form| form.charge.is_empty()))
        {
            self.no_room.insert(fingerprint, fewest);
        }
        Err(if fewest == 0 { Refusal::Full } else { Refusal::Constrained(constraints) })
    }

    /// Whether the job waits for places that are nearer to each other than these. Nobody does to whom room was promised.
    fn waits_for_nearer(&mut self, job: &Job, form: usize, slots: &Slots, length: Milliseconds) -> bool {
        let Some(patience) = self.planner.policy.nearness else { return false };
        let Some(waiter) = self.planner.backlog.get(job.id) else { return false };
        if self.planner.promises.contains_key(&job.id) {
            return false;
        }
        let demand = &job.forms[form].demand;
        let asked =
            Asked { job, forms: waiter.forms(), form, demand, slots, length, patience, now: self.now };
        self.nearness.waits(&asked, self.timeline.space_mut(), || self.planner.emptied(self.space))
    }

    /// Starts the job, or promises room to it when there is a promise to be made. Promises to jobs that it
    /// outranks do not bind it: they are taken back, and made again with what is left.
    fn start_or_promise(&mut self, job: &Arc<Job>, length: Milliseconds, rank: &Rank) -> Result<(), Refusal> {
        let Err(refusal) = self.start(job, length) else { return Ok(()) };
        if refusal == Refusal::Far
            || self.depth() == 0
            || self.now.since(job.submitted) < self.planner.policy.due_after(length)
        {
            return Err(refusal);
        }
        let outranked = self.take_back(rank);
        let started = if outranked.is_empty() || refusal == Refusal::Full {
            Err(refusal)
        } else {
            self.start(job, length)
        };
        if started.is_err() && self.has_promises_left(job.queue) {
            self.reserve(job, length, Time::NEVER, false);
        }
        for promise in outranked {
            let Some(waiter) = self.planner.backlog.get(promise.job) else { continue };
            let request = request(&waiter.job, &promise.hold.form, promise.length);
            if !self.has_promises_left(waiter.job.queue) {
                continue;
            }
            if self.timeline.keeps(&request, &promise.hold.slots, promise.latest) {
                self.timeline.promise(promise.job, &promise.hold, promise.latest, promise.length);
                self.promises.insert(promise.job, promise);
            } else {
                self.reserve(&waiter.job, waiter.estimate.length, Time::NEVER, false);
            }
        }
        started
    }

    /// Starts a job to which room was promised for later, when it can start now after all.
    fn start_instead(&mut self, job: &Arc<Job>, length: Milliseconds) {
        let Some(promise) = self.promises.remove(&job.id) else { return };
        self.timeline.forget(job.id);
        self.no_room.clear();
        if self.start(job, length).is_err() {
            self.timeline.promise(job.id, &promise.hold, promise.latest, promise.length);
            self.promises.insert(job.id, promise);
        }
    }

    fn has_promises_left(&self, queue: QueueId) -> bool {
        let tree = &self.planner.tree;
        let root = tree.root(queue);
        let of_root = |promise: &&Promise| tree.root(promise.hold.queue) == root;
        self.promises.values().filter(of_root).count() < self.depth()
    }

    /// Takes back the promises made to jobs that are outranked, the highest of them first.
    fn take_back(&mut self, rank: &Rank) -> Vec<Promise> {
        let held = self.promises.values().filter(|promise| !promise.pinned).filter_map(|promise| {
            let waiter = self.planner.backlog.get(promise.job)?;
            Some((self.rank(&waiter.job, waiter.estimate.length), promise.job))
        });
        let mut outranked: Vec<(Rank, JobId)> = held.filter(|(other, _)| rank.outranks(other)).collect();
        outranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        if !outranked.is_empty() {
            self.no_room.clear();
            self.disturbed = true;
        }
        let taken = outranked.into_iter().filter_map(|(_, id)| {
            self.timeline.forget(id);
            self.promises.remove(&id)
        });
        taken.collect()
    }

    /// Promises the earliest room no later than `latest`; whether there is any.
    fn reserve(&mut self, job: &Arc<Job>, length: Milliseconds, latest: Time, pinned: bool) -> bool {
        let fingerprint = self.planner.backlog.get(job.id).filter(|_| job.reservation.is_none());
        let hopeless = fingerprint.map(|waiter| (job.queue, waiter.forms()));
        if hopeless.is_some_and(|hopeless| self.planner.hopeless.contains(&hopeless)) {
            return false;
        }
        let found = job.forms.iter().enumerate().filter_map(|(index, form)| {
            let request = request(job, form, length);
            if !self.planner.could_ever(job.queue, form) {
                return None;
            }
            let (from, slots) = self.timeline.earliest(&request, latest)?;
            Some((from, index, slots))
        });
        let Some((from, form, slots)) = found.min_by_key(|(from, index, _)| (*from, *index)) else {
            self.hopeless.extend(hopeless.filter(|_| latest == Time::NEVER));
            return false;
        };
        let hold = Arc::new(Hold { queue: job.queue, form: job.forms[form].clone(), slots });
        let basis = self.planner.basis(&hold, from);
        let before = self.planner.promises.get(&job.id).map_or(Time::NEVER, |promise| promise.latest);
        let slack = if pinned { 0 } else { self.planner.policy.slack(from.since(job.submitted)) };
        // What was promised before stays; a job whose time has come anyway has lost it by its own delay.
        let mut latest = if before >= from { before.min(from + slack) } else { from + slack };
        if latest > from && !self.timeline.keeps(&request(job, &hold.form, length), &hold.slots, latest) {
            latest = from;
        }
        self.timeline.promise(job.id, &hold, latest, length);
        let looked = self.planner.gains;
        let promise = Promise { job: job.id, form, hold, from, latest, length, basis, pinned, looked };
        self.promises.insert(job.id, promise);
        true
    }

    /// Whom to evict for those at the head of the line.
    fn preempt(&mut self) -> Vec<crate::planner::Preempt> {
        let mut preempt = Vec::new();
        let mut gone = BTreeSet::new();
        let Some(rules) = self.planner.policy.preemption else { return preempt };
        for id in std::mem::take(&mut self.blocked) {
            let Some(waiter) = self.planner.backlog.get(id) else { continue };
            let promised = self.promises.get(&id).cloned();
            let soon =
                promised.as_ref().is_some_and(|promise| promise.from.since(self.now) <= rules.not_within);
            let waited = self.now.since(waiter.job.submitted) >= rules.after;
            if soon
                || !waited
                || self.started.contains(&id)
                || promised.as_ref().is_some_and(|known| known.pinned)
            {
                continue;
            }
            self.timeline.forget(id);
            // What was freed for another may do for this one too; it starts when that is so.
            let may_start =
                |form| self.timeline.start_now(&request(&waiter.job, form, waiter.estimate.length));
            let freed = !gone.is_empty() && waiter.job.forms.iter().find_map(may_start).is_some();
            let found = if freed {
                None
            } else {
                preempt::choose(self.planner, &self.timeline, &waiter.job, &rules, &gone)
            };
            let Some(chosen) = found else {
                if let Some(promise) = promised {
                    self.timeline.promise(id, &promise.hold, promise.latest, promise.length);
                }
                continue;
            };
            for victim in &chosen.preempt.victims {
                self.timeline.evict(*victim);
                gone.insert(*victim);
            }
            let promise = Promise {
                job: id,
                form: chosen.form,
                hold: Arc::clone(&chosen.preempt.hold),
                from: self.now + 1,
                latest: self.now + 1,
                length: waiter.estimate.length,
                basis: Basis::Declared,
                pinned: true,
                looked: self.planner.gains,
            };
            // Whatever else is decided in this cycle sees the room as taken.
            self.timeline.start(id, Arc::clone(&promise.hold), self.now + promise.length);
            self.promises.insert(id, promise);
            preempt.push(chosen.preempt);
        }
        preempt
    }
}

impl Planner {
    /// Whether quota would ever allow the form.
    pub(crate) fn could_ever(&self, queue: QueueId, form: &Form) -> bool {
        self.tree.admits(queue, &form.charge) || self.tree.emptied().admits(queue, &form.charge)
    }

    /// What a moment rests on, at which a hold's room and quota are supposed to be free.
    pub(crate) fn basis(&self, hold: &Hold, from: Time) -> Basis {
        let nodes: BTreeSet<_> = hold.slots.0.iter().map(|slot| slot.node).collect();
        let root = self.tree.root(hold.queue);
        let matters = |running: &&crate::job::Running| {
            running.ends <= from
                && (running.hold.slots.0.iter().any(|slot| nodes.contains(&slot.node))
                    || (!hold.form.charge.is_empty() && self.tree.root(running.job.queue) == root))
        };
        let bases = self.running.values().filter(matters).map(|running| running.basis);
        bases.fold(Basis::Declared, worse)
    }
}

pub(crate) fn request<'a>(job: &'a Job, form: &'a Form, length: Milliseconds) -> Request<'a> {
    Request { queue: job.queue, form, length, reservation: job.reservation.as_deref() }
}
