//! When waiting jobs will start: the planner's own rules, played forward in virtual time on copies.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_core::search::Demand;
use muster_scheduler_core::space::{NodeId, Space};

use crate::estimate::Basis;
use crate::job::{Form, Gate, JobId};
use crate::planner::Planner;
use crate::time::{Milliseconds, Time};
use crate::timeline::Request;

/// Decisions played forward before a forecast gives up.
const MOST_CYCLES: usize = 5_000;

/// When a job is expected to start, were nothing else to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The moment.
    pub at: Time,
    /// What it rests on. [`Basis::Supposed`] means that it is a guess, and that people should be told that it is
    /// not known.
    pub basis: Basis,
    /// Which of its forms starts.
    pub form: usize,
    /// The job whose end lets it start, when one does.
    pub after: Option<JobId>,
}

/// The planner's own rules, played forward on copies as far as somebody asks.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    planner: Planner,
    space: Space,
    at: Time,
    /// What the next decision rests on, and the job whose end leads to it.
    basis: Basis,
    last_end: Option<JobId>,
    cycles: usize,
    /// Nothing more will happen.
    is_over: bool,
    expected: BTreeMap<JobId, Expected>,
}

impl Forecast {
    pub(crate) fn new(planner: &Planner, now: Time, space: &Space) -> Self {
        let mut planner = planner.clone();
        // What is only supposed to happen teaches nothing.
        planner.policy.learns = false;
        Self {
            planner,
            space: space.clone(),
            at: now,
            basis: Basis::Declared,
            last_end: None,
            cycles: 0,
            is_over: false,
            expected: BTreeMap::new(),
        }
    }

    /// When a job is expected to start.
    pub(crate) fn expected(&mut self, job: JobId) -> Option<Expected> {
        loop {
            if let Some(known) = self.expected.get(&job) {
                return Some(*known);
            }
            let waits = self.planner.backlog.get(job).is_some_and(|waiter| waiter.job.gate == Gate::Open);
            if !waits || self.is_over {
                return None;
            }
            self.is_over = self.cycles == MOST_CYCLES || self.decide().is_none();
            self.cycles += 1;
        }
    }

    /// Carries out one decision and goes on to the moment of the next; `None` when there is none.
    fn decide(&mut self) -> Option<()> {
        let Self { planner, space, at, basis, last_end, expected, .. } = self;
        let plan = planner.cycle(*at, space);
        planner.commit(&plan, space, *at).ok()?;
        for start in &plan.start {
            let found = Expected { at: *at, basis: *basis, form: start.form, after: *last_end };
            expected.entry(start.job).or_insert(found);
        }
        if planner.evict_leaving(*at, space) {
            return Some(());
        }
        let end = planner.running.values().map(|running| running.ends).min();
        let next = end.into_iter().chain(planner.next_boundary(*at)).min()?;
        *at = next.max(*at + 1);
        *last_end = None;
        let ended = planner.running.iter().filter(|(_, running)| running.ends <= *at);
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Ok(running) = planner.stop(id, *at) else { continue };
            space.give_back_slots(&running.hold.form.demand, &running.hold.slots);
            *basis = worse(*basis, running.basis);
            *last_end = Some(id);
        }
        Some(())
    }
}

impl Planner {
    /// When each of `wanted` is expected to start, were nothing else to come. Jobs that never would, given what
    /// runs and waits, are left out, and so are those that are more than some thousand decisions away.
    pub fn forecast(&self, now: Time, space: &Space, wanted: &BTreeSet<JobId>) -> BTreeMap<JobId, Expected> {
        let mut forecast = Forecast::new(self, now, space);
        wanted.iter().filter_map(|job| Some((*job, forecast.expected(*job)?))).collect()
    }

    /// Nodes for an advance reservation of so many pods, wherever they can be free at `begins` and stay so for
    /// `lasts` without delaying anything promised; `None` when there are none. Put them into a
    /// [`Window`](crate::calendar::Window).
    pub fn nodes_for(
        &self,
        demand: &Demand,
        begins: Time,
        lasts: Milliseconds,
        now: Time,
        space: &Space,
    ) -> Option<BTreeSet<NodeId>> {
        let mut timeline = self.timeline(now, space);
        for promise in self.promises.values() {
            timeline.promise(promise.job, &promise.hold, promise.latest.max(now), promise.length);
        }
        let form = Form { demand: demand.clone(), ..Form::default() };
        let queue = self.tree.queues().next()?;
        let request = Request { queue, form: &form, length: lasts, reservation: None };
        let slots = timeline.places_at(&request, begins.max(now))?;
        Some(slots.0.iter().map(|slot| slot.node).collect())
    }

    /// The next moment at which a window opens or closes, or somebody stops to wait for nearer places.
    pub fn next_boundary(&self, now: Time) -> Option<Time> {
        let nearer = self.nearness.next_end(now);
        if self.calendar.is_empty() {
            return nearer;
        }
        let year = now + 366 * 24 * 3_600_000;
        let occurrences = self.calendar.occurrences(now, year);
        let windows = occurrences.iter().flat_map(|open| [open.from, open.to]).filter(|at| *at > now);
        windows.chain(nearer).min()
    }

    /// Evicts those whose eviction was decided; whether there were any.
    pub(crate) fn evict_leaving(&mut self, now: Time, space: &mut Space) -> bool {
        let leaving: Vec<JobId> = self
            .running
            .iter()
            .filter(|(_, running)| running.leaving_for.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in &leaving {
            if let Some(running) = self.running.get(id) {
                space.give_back_slots(&running.hold.form.demand, &running.hold.slots);
            }
            // It runs, as was just seen.
            let _ = self.evicted(*id, now);
        }
        !leaving.is_empty()
    }
}

pub(crate) fn worse(left: Basis, right: Basis) -> Basis {
    match (left, right) {
        (Basis::Supposed, _) | (_, Basis::Supposed) => Basis::Supposed,
        (Basis::Learned, _) | (_, Basis::Learned) => Basis::Learned,
        (Basis::Declared, Basis::Declared) => Basis::Declared,
    }
}
