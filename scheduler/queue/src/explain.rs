//! Why a job waits, its place in line, when it will start, and what would let it start now.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use muster_scheduler_core::search::Levels;
use muster_scheduler_core::space::Space;

use crate::backlog::Order;
use crate::cycle::request;
use crate::estimate::Basis;
use crate::forecast::Expected;
use crate::job::{Form, Gate, Job, JobId};
pub use crate::nearness::Nearer;
use crate::planner::Planner;
use crate::quota::Shortage;
use crate::time::Time;
use crate::timeline::Request;
use crate::tree::QueueId;

/// Why a job does not start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It does start now.
    Starts,
    /// Somebody else must let it go first.
    Gate(String),
    /// Some of its pods do not exist yet.
    Members {
        /// How many there are.
        present: u32,
        /// How many it needs.
        needed: u32,
    },
    /// Its queue has too little quota left.
    Quota(Shortage),
    /// It asks for more than its queue could ever have.
    NeverQuota(Shortage),
    /// It would not fit on the nodes if they were all empty.
    NeverFits,
    /// Pods of one of its groups do not all fit, wherever they are put.
    Room {
        /// The group.
        group: usize,
        /// Pods that it has.
        needed: u32,
        /// Pods that fit now.
        fits: u32,
    },
    /// There is enough room, but not near enough together.
    Scattered,
    /// There is room, but it waits for places that are nearer to each other.
    Nearer(Nearer),
    /// It would delay a job to which room was promised.
    Promised {
        /// To whom.
        to: JobId,
        /// From when on.
        from: Time,
    },
    /// Nodes that it would need are set aside.
    SetAside,
    /// Another job that cannot start either goes first.
    Behind(JobId),
    /// It runs and is being evicted, and pods that join it wait for its next turn.
    Leaving,
}

/// Something that would let a job start now, or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhatIf {
    /// If it had this many pods instead of so many; one more would not do.
    Pods {
        /// With this many.
        pods: u32,
        /// Instead of this many.
        instead_of: u32,
    },
    /// If all its pods needed to be within one domain only of a wider level, by its index; 0 is the whole cluster.
    Level {
        /// Of this level.
        level: usize,
        /// Instead of this one.
        instead_of: usize,
    },
    /// If it did not wait for nearer places than those that are free.
    AnyDistance,
    /// If its pods need not be spread, nor kept together in slices.
    AnyArrangement,
    /// If it were in another queue.
    Queue(QueueId),
    /// It starts when this job ends.
    Ends {
        /// The job that ends.
        job: JobId,
        /// When it is supposed to.
        at: Time,
    },
}

/// All that is to be said of a waiting job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The job.
    pub job: JobId,
    /// Why it does not start now.
    pub reason: Reason,
    /// Its place in line, from 1.
    pub place: usize,
    /// When it is expected to start; `None` when nothing known lets it.
    pub expected: Option<Expected>,
    /// What would let it start.
    pub what_if: Vec<WhatIf>,
}

/// A line of the list of those who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InLine {
    /// The job.
    pub job: JobId,
    /// Its place, from 1.
    pub place: usize,
    /// Why it does not start now.
    pub reason: Reason,
    /// When it is expected to start.
    pub expected: Option<Expected>,
}

impl Planner {
    /// Jobs that wait, in their order.
    pub fn order(&self, now: Time, space: &Space) -> Vec<JobId> {
        let fair = self.fair.factors(&self.tree, now);
        let gpus = space.nodes().map(|(_, node)| f64::from(node.gpu_slots)).sum::<f64>() * 1000.0;
        let order = Order { policy: &self.policy, fair: &fair, gpus, now };
        let ranked = self
            .backlog
            .iter()
            .map(|waiter| (order.rank(&waiter.job, waiter.estimate.length), waiter.job.id));
        let mut line: Vec<_> = ranked.collect();
        line.sort_by(|left, right| right.cmp(left));
        line.into_iter().map(|(_, id)| id).collect()
    }

    /// What would let a job start that waits for this reason.
    pub(crate) fn what_if(
        &self,
        id: JobId,
        reason: &Reason,
        expected: Option<&Expected>,
        now: Time,
        space: &Space,
    ) -> Vec<WhatIf> {
        let mut what_if = Vec::new();
        let Some(waiter) = self.backlog.get(id) else { return what_if };
        if !matches!(reason, Reason::Starts | Reason::Gate(_) | Reason::Members { .. }) {
            if matches!(reason, Reason::Nearer(_)) {
                what_if.extend(self.at_any_distance(&waiter.job, now, space));
            }
            what_if.extend(self.with_fewer_pods(&waiter.job, now, space));
            what_if.extend(self.with_wider_level(&waiter.job, now, space));
            what_if.extend(self.in_any_arrangement(&waiter.job, now, space));
            what_if.extend(self.in_another_queue(&waiter.job, now, space));
            if let Some(Expected { at, after: Some(job), .. }) = expected {
                what_if.push(WhatIf::Ends { job: *job, at: *at });
            }
        }
        what_if
    }

    /// Whether the job, changed so, would start now.
    pub fn would_start(&self, job: Job, now: Time, space: &Space) -> bool {
        let mut planner = self.clone();
        let id = job.id;
        planner.promises.remove(&id);
        planner.gained = true;
        let estimate =
            planner.backlog.get(id).map_or_else(|| planner.estimate(&job), |waiter| waiter.estimate);
        planner.backlog.insert(Arc::new(job), estimate);
        planner.cycle(now, space).start.iter().any(|start| start.job == id)
    }

    fn at_any_distance(&self, job: &Job, now: Time, space: &Space) -> Option<WhatIf> {
        let anywhere = Job { nearness: Some(0), ..job.clone() };
        self.would_start(anywhere, now, space).then_some(WhatIf::AnyDistance)
    }

    /// The most pods, of the largest group of its smallest form, with which it would start now.
    fn with_fewer_pods(&self, job: &Job, now: Time, space: &Space) -> Option<WhatIf> {
        let form = job.forms.last()?;
        let (largest, group) = form.demand.groups.iter().enumerate().max_by_key(|(_, group)| group.count)?;
        let (instead_of, others) = (form.pods(), form.pods() - group.count);
        let with = |count: u32| {
            let mut smaller = form.clone();
            smaller.demand.groups[largest].count = count;
            smaller.charge = form.charge.scaled(i64::from(others + count), i64::from(instead_of));
            Job { forms: Arc::from([smaller]), ..job.clone() }
        };
        let (mut fits, mut fails) = (0, group.count);
        while fits + 1 < fails {
            let middle = if fits == 0 && fails == group.count { 1 } else { u32::midpoint(fits, fails) };
            if self.would_start(with(middle), now, space) {
                fits = middle;
            } else {
                fails = middle;
            }
            if fits == 0 && fails == 1 {
                return None;
            }
        }
        (fits > 0).then_some(WhatIf::Pods { pods: others + fits, instead_of })
    }

    fn with_wider_level(&self, job: &Job, now: Time, space: &Space) -> Option<WhatIf> {
        let instead_of = job.forms.iter().map(|form| form.demand.levels.required).max()?;
        let mut wider = (0..instead_of).rev();
        let level = wider.find(|level| {
            let changed = with_levels(job, |levels| levels.required = levels.required.min(*level));
            self.would_start(changed, now, space)
        })?;
        Some(WhatIf::Level { level, instead_of })
    }

    fn in_any_arrangement(&self, job: &Job, now: Time, space: &Space) -> Option<WhatIf> {
        let arranged =
            |form: &Form| form.demand.levels.spread.is_some() || form.demand.levels.slice.is_some();
        if !job.forms.iter().any(arranged) {
            return None;
        }
        let changed = with_levels(job, |levels| (levels.spread, levels.slice) = (None, None));
        self.would_start(changed, now, space).then_some(WhatIf::AnyArrangement)
    }

    fn in_another_queue(&self, job: &Job, now: Time, space: &Space) -> Option<WhatIf> {
        let others =
            self.tree.queues().filter(|queue| *queue != job.queue && self.tree.children(*queue).is_empty());
        let room = |queue: &QueueId| job.forms.iter().any(|form| self.tree.admits(*queue, &form.charge));
        let found = others
            .filter(room)
            .take(16)
            .find(|queue| self.would_start(Job { queue: *queue, ..job.clone() }, now, space))?;
        Some(WhatIf::Queue(found))
    }
}

fn with_levels(job: &Job, change: impl Fn(&mut Levels)) -> Job {
    let mut forms = job.forms.to_vec();
    for form in &mut forms {
        change(&mut form.demand.levels);
    }
    Job { forms: forms.into(), ..job.clone() }
}

impl Planner {
    /// What keeps a job from starting now, as far as quota, room and promises go; `None` when nothing of it does.
    pub(crate) fn in_the_way(
        &self,
        request: &Request<'_>,
        now: Time,
        space: &Space,
        job: JobId,
    ) -> Option<Reason> {
        let demand = &request.form.demand;
        if let Err(shortage) = self.tree.admit(request.queue, &request.form.charge) {
            let ever = shortage.most >= shortage.needs;
            return Some(if ever { Reason::Quota(shortage) } else { Reason::NeverQuota(shortage) });
        }
        if self.emptied(space).find(demand).is_none() {
            return Some(Reason::NeverFits);
        }
        let mut free = space.clone();
        for (index, group) in demand.groups.iter().enumerate() {
            let fits = free.fits(&group.shape);
            if fits < group.count {
                return Some(Reason::Room { group: index, needed: group.count, fits });
            }
        }
        if free.find(demand).is_none() {
            return Some(Reason::Scattered);
        }
        let mut timeline = self.timeline(now, space);
        if timeline.start_now(request).is_none() {
            return Some(Reason::SetAside);
        }
        let mut promises: Vec<_> = self.promises.values().filter(|promise| promise.job != job).collect();
        promises.sort_by_key(|promise| (promise.latest, promise.job));
        promises.into_iter().find_map(|promise| {
            timeline.promise(promise.job, &promise.hold, promise.latest.max(now), promise.length);
            let blocks = timeline.start_now(request).is_none();
            blocks.then_some(Reason::Promised { to: promise.job, from: promise.latest })
        })
    }

    /// The nodes without any of the jobs.
    pub(crate) fn emptied(&self, space: &Space) -> Space {
        let mut space = space.clone();
        for running in self.running.values() {
            space.give_back_slots(&running.hold.form.demand, &running.hold.slots);
        }
        space
    }
}

/// The moment after everybody who can start has started.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    planner: Planner,
    now: Time,
    space: Space,
    started: BTreeSet<JobId>,
}

impl Settled {
    pub(crate) fn new(planner: &Planner, now: Time, space: &Space) -> Self {
        let (mut planner, mut space) = (planner.clone(), space.clone());
        let plan = planner.cycle(now, &space);
        // The plan is of this very planner.
        let _ = planner.commit(&plan, &mut space, now);
        Self { planner, now, space, started: plan.start.iter().map(|start| start.job).collect() }
    }

    pub(crate) fn reason(&self, job: &Job, order: &[JobId]) -> Reason {
        match &job.gate {
            Gate::Open => {}
            Gate::Closed(why) => return Reason::Gate(why.clone()),
            Gate::Members { present, needed } => {
                return Reason::Members { present: *present, needed: *needed };
            }
        }
        if self.started.contains(&job.id) {
            return Reason::Starts;
        }
        if let Some(nearer) = self.planner.nearness.of(job.id) {
            return Reason::Nearer(*nearer);
        }
        // The last form asks for the least.
        let Some(form) = job.forms.last() else { return Reason::NeverFits };
        let length = self.planner.backlog.get(job.id).map_or(1, |waiter| waiter.estimate.length);
        let request = request(job, form, length);
        let in_the_way = self.planner.in_the_way(&request, self.now, &self.space, job.id);
        in_the_way.unwrap_or_else(|| {
            let first = order.iter().find(|other| {
                !self.started.contains(other)
                    && self.planner.backlog.get(**other).is_some_and(|waiter| waiter.job.gate == Gate::Open)
            });
            Reason::Behind(first.copied().unwrap_or(job.id))
        })
    }
}

/// For people: what the planner says, with names in place of numbers.
pub struct Told<'a, T>(pub &'a Planner, pub &'a T);

impl Planner {
    fn job_name(&self, id: JobId) -> &str {
        let waiting = self.backlog.get(id).map(|waiter| waiter.job.name.as_str());
        waiting
            .or_else(|| self.running.get(&id).map(|running| running.job.name.as_str()))
            .unwrap_or("another job")
    }
}

fn units(thousandths: i64) -> String {
    if thousandths % 1000 == 0 { (thousandths / 1000).to_string() } else { format!("{thousandths}m") }
}

impl fmt::Display for Told<'_, Shortage> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told(planner, shortage) = self;
        let resource = &planner.tree.resources()[usize::from(shortage.resource)];
        write!(
            formatter,
            "queue {} has too little quota for {resource}: needs {}, {} of its own free, {} to borrow",
            planner.tree.name(shortage.queue),
            units(shortage.needs),
            units(shortage.free),
            units(shortage.borrowable),
        )
    }
}

impl fmt::Display for Told<'_, Reason> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told(planner, reason) = self;
        match reason {
            Reason::Starts => formatter.write_str("it starts now"),
            Reason::Gate(why) => write!(formatter, "held back: {why}"),
            Reason::Members { present, needed } => write!(formatter, "{present} of {needed} pods exist"),
            Reason::Quota(shortage) => Told(planner, shortage).fmt(formatter),
            Reason::NeverQuota(shortage) => {
                Told(planner, shortage).fmt(formatter)?;
                write!(formatter, "; it could never have more than {}", units(shortage.most))
            }
            Reason::NeverFits => formatter.write_str("it would not fit if all nodes were empty"),
            Reason::Room { needed, fits, .. } => write!(formatter, "room for {fits} of {needed} pods"),
            Reason::Scattered => formatter.write_str("enough is free, but not near enough together"),
            Reason::Nearer(nearer) => nearer.fmt(formatter),
            Reason::Promised { to, .. } => {
                write!(formatter, "it would delay {}, to which the room is promised", planner.job_name(*to))
            }
            Reason::SetAside => formatter.write_str("nodes that it needs are set aside"),
            Reason::Leaving => formatter.write_str("its gang is being evicted"),
            Reason::Behind(job) => write!(formatter, "behind {}, which goes first", planner.job_name(*job)),
        }
    }
}

impl fmt::Display for Told<'_, WhatIf> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told(planner, what_if) = self;
        match what_if {
            WhatIf::Pods { pods, instead_of } => {
                write!(formatter, "starts now with {pods} of {instead_of} pods")
            }
            WhatIf::Level { level: 0, .. } => formatter.write_str("starts now if its pods may be anywhere"),
            WhatIf::Level { level, .. } => {
                write!(formatter, "starts now if its pods may be anywhere within one domain of level {level}")
            }
            WhatIf::AnyDistance => formatter.write_str("starts now if it does not wait for nearer places"),
            WhatIf::AnyArrangement => formatter.write_str("starts now without spreading or slices"),
            WhatIf::Queue(queue) => write!(formatter, "starts now in queue {}", planner.tree.name(*queue)),
            WhatIf::Ends { job, .. } => write!(formatter, "starts when {} ends", planner.job_name(*job)),
        }
    }
}

impl Expected {
    /// The moment, where it rests on something.
    pub fn known(&self) -> Option<Time> {
        (self.basis != Basis::Supposed).then_some(self.at)
    }
}
