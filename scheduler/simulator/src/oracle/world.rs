//! A scenario up to the moment when the questions are asked, and from then on.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_core::{Demand, GpuDemand, Group, Ledger, Levels, Member, Node, Resources, Space};
use muster_scheduler_queue::job::{Form, Gate, Job, JobId, Restart};
use muster_scheduler_queue::planner::{EventError, Plan, Planner};
use muster_scheduler_queue::policy::Policy;
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{FlavorResource, QueueId, QueueSpec, QueueTree, Quota};

use super::naive::Naive;
use super::scenario::{Asked, GPUS, PER_RACK, Scenario};
use crate::scheduler::ScheduleError;

const GPU: &str = "nvidia.com/gpu";

/// The world at the moment of the questions.
pub(super) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) planner: Planner,
    pub(super) space: Space,
    pub(super) leaves: Vec<QueueId>,
    pub(super) now: i64,
    pub(super) naive: Naive,
    /// Job by number: its nodes' GPUs and its end.
    pub(super) running: BTreeMap<u64, (Vec<u32>, i64)>,
    pub(super) waiting: Vec<u64>,
}

impl<'a> World<'a> {
    /// Lets everything happen up to the last arrival.
    pub(super) fn of(scenario: &'a Scenario) -> Result<Self, ScheduleError> {
        let space = cluster(scenario.nodes);
        let tree = queues(scenario)?;
        let leaves: Vec<QueueId> = tree.queues().skip(1).collect();
        let policy = Policy::named(scenario.policy)
            .ok_or_else(|| ScheduleError::UnknownPolicy { name: scenario.policy.to_owned() })?;
        let planner = Planner::new(Policy { preemption: None, ..policy }, tree.clone());
        let naive = Naive::empty(scenario.nodes, &scenario.queues);
        let (running, waiting) = (BTreeMap::new(), Vec::new());
        let mut world = Self { scenario, planner, space, leaves, now: 0, naive, running, waiting };
        let mut at = 0;
        let mut jobs = Vec::new();
        for (id, asked) in (0..).zip(&scenario.jobs) {
            at += asked.pause;
            jobs.push(world.job(id, at, asked, &tree));
        }
        let mut jobs = jobs.into_iter().peekable();
        while let Some(arrives) = jobs.peek().map(|job| job.submitted.0) {
            let ends = world.running.values().map(|(_, ends)| *ends).min().unwrap_or(i64::MAX);
            let boundary = world.planner.next_boundary(Time(world.now)).map_or(i64::MAX, |at| at.0);
            world.now = ends.min(arrives).min(boundary);
            world.end_those_due()?;
            while let Some(job) = jobs.next_if(|job| job.submitted.0 <= world.now) {
                world.waiting.push(job.id.0);
                world.planner.submit(job)?;
            }
            world.decide()?;
        }
        Ok(world)
    }

    fn job(&mut self, id: u64, submitted: i64, asked: &Asked, tree: &QueueTree) -> Job {
        let requests = Resources::new().with("cpu", i64::from(asked.gpus) * 1000);
        let member = Member { requests, ..Member::default() }.with_gpus(GpuDemand::Whole(asked.gpus));
        let groups = vec![Group { shape: self.space.shape(&member), count: asked.pods }];
        let rack = self.space.map().level_named("rack").unwrap_or_default();
        let levels = Levels { required: if asked.in_rack { rack } else { 0 }, ..Levels::default() };
        let form = Form {
            label: format!("{} pods", asked.pods),
            demand: Demand { groups, levels, ..Demand::default() },
            charge: tree.charge([(&FlavorResource::new("", GPU), asked.all_gpus() * 1000)]),
        };
        Job {
            id: JobId(id),
            name: format!("job-{id}"),
            user: "ada".to_owned(),
            queue: self.leaves[asked.queue],
            submitted: Time(submitted),
            priority: 0,
            quality: 0,
            limit: Some(asked.runs),
            forms: Arc::from([form]),
            gate: Gate::Open,
            restart: Restart::default(),
            reservation: None,
            nearness: None,
        }
    }

    fn end_those_due(&mut self) -> Result<(), EventError> {
        let due = self.running.extract_if(.., |_, (_, ends)| *ends <= self.now);
        for (id, (nodes, _)) in due.collect::<Vec<_>>() {
            end(&mut self.planner, &mut self.space, id, self.now)?;
            self.naive.change(&nodes, self.scenario.jobs[id as usize].queue, -1);
        }
        Ok(())
    }

    fn decide(&mut self) -> Result<(), EventError> {
        let plan = cycle(&mut self.planner, &mut self.space, self.now)?;
        for start in &plan.start {
            let mut nodes = vec![0; self.scenario.nodes];
            for slot in &start.hold.slots.0 {
                nodes[slot.node.index()] += slot.devices.len() as u32;
            }
            let asked = &self.scenario.jobs[start.job.0 as usize];
            self.naive.change(&nodes, asked.queue, 1);
            self.running.insert(start.job.0, (nodes, self.now + asked.runs));
            self.waiting.retain(|id| *id != start.job.0);
        }
        Ok(())
    }

    pub(super) fn asked(&self, id: u64) -> &'a Asked {
        &self.scenario.jobs[id as usize]
    }

    /// The cluster when all that runs and ends by then has ended.
    pub(super) fn after(&self, at: i64) -> Naive {
        let mut naive = self.naive.clone();
        for (id, (nodes, _)) in self.running.iter().filter(|(_, (_, ends))| *ends <= at) {
            naive.change(nodes, self.asked(*id).queue, -1);
        }
        naive
    }

    /// When each waiting job starts under first come, first served with whole nodes, by counting.
    pub(super) fn counted_starts(&self) -> BTreeMap<u64, i64> {
        let mut naive = self.naive.clone();
        let mut running: Vec<(i64, u64)> = self.running.iter().map(|(id, (_, ends))| (*ends, *id)).collect();
        let mut free = naive.free.iter().filter(|free| **free == GPUS).count() as u32;
        let mut waiting = self.waiting.clone();
        let mut starts = BTreeMap::new();
        let mut now = self.now;
        loop {
            let mut blocked = Vec::new();
            waiting.retain(|id| {
                let asked = self.asked(*id);
                let stopped = self.scenario.policy == "strict-fifo" && blocked.contains(&asked.queue);
                if stopped || asked.pods > free || !naive.quota_allows(asked.queue, asked.all_gpus()) {
                    blocked.push(asked.queue);
                    return true;
                }
                free -= asked.pods;
                naive.used[asked.queue] += asked.all_gpus();
                running.push((now + asked.runs, *id));
                starts.insert(*id, now);
                false
            });
            let Some(next) = running.iter().map(|(ends, _)| *ends).min() else { return starts };
            now = next;
            running.retain(|(ends, id)| {
                if *ends <= now {
                    let asked = self.asked(*id);
                    free += asked.pods;
                    naive.used[asked.queue] -= asked.all_gpus();
                }
                *ends > now
            });
        }
    }

    /// When each waiting job truly starts, were the planner asked at every event and did jobs run so many tenths of
    /// their limits.
    pub(super) fn true_starts(
        &self,
        tenths: impl Fn(u64) -> i64,
    ) -> Result<BTreeMap<u64, i64>, ScheduleError> {
        let (mut planner, mut space) = (self.planner.clone(), self.space.clone());
        let length = |id: u64| (self.asked(id).runs * tenths(id) / 10).max(1);
        let ends = |(id, (_, ends)): (&u64, &(Vec<u32>, i64))| {
            (*id, (ends - self.asked(*id).runs + length(*id)).max(self.now + 1))
        };
        let mut running: BTreeMap<u64, i64> = self.running.iter().map(ends).collect();
        let mut starts = BTreeMap::new();
        let mut now = self.now;
        loop {
            for start in cycle(&mut planner, &mut space, now)?.start {
                starts.insert(start.job.0, now);
                running.insert(start.job.0, now + length(start.job.0));
            }
            let boundary = planner.next_boundary(Time(now)).map(|at| at.0);
            let Some(next) = running.values().copied().chain(boundary).min() else { return Ok(starts) };
            now = next;
            for (id, _) in running.extract_if(.., |_, ends| *ends <= now).collect::<Vec<_>>() {
                end(&mut planner, &mut space, id, now)?;
            }
        }
    }
}

fn cycle(planner: &mut Planner, space: &mut Space, now: i64) -> Result<Plan, EventError> {
    let plan = planner.cycle(Time(now), space);
    planner.commit(&plan, space, Time(now))?;
    Ok(plan)
}

fn end(planner: &mut Planner, space: &mut Space, id: u64, now: i64) -> Result<(), EventError> {
    if let Some(running) = planner.running().find(|running| running.job.id == JobId(id)) {
        let hold = Arc::clone(&running.hold);
        space.give_back_slots(&hold.form.demand, &hold.slots);
    }
    planner.ended(JobId(id), Time(now))
}

fn cluster(nodes: usize) -> Space {
    let mut ledger = Ledger::default();
    for index in 0..nodes {
        let labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), format!("node-{index}")),
            ("muster.dev/rack".to_owned(), format!("rack-{}", index / PER_RACK)),
        ]);
        let each = i64::from(GPUS) * 1000;
        ledger.set_node(Node {
            name: format!("node-{index}"),
            labels,
            schedulable: true,
            allocatable: Resources::new().with("cpu", each).with(GPU, each),
            gpu_slots: GPUS,
            ..Node::default()
        });
    }
    std::mem::take(ledger.space())
}

/// The scenario's queues below one cohort.
fn queues(scenario: &Scenario) -> Result<QueueTree, ScheduleError> {
    let mut specs = vec![QueueSpec::new("cohort")];
    for (index, share) in scenario.queues.iter().enumerate() {
        let quota = Quota {
            nominal: share.nominal * 1000,
            borrowing_limit: share.borrows_at_most.map(|limit| limit * 1000),
            lending_limit: share.lends_at_most.map(|_| share.lends() * 1000),
        };
        let queue = QueueSpec::new(format!("q{index}")).below("cohort");
        specs.push(queue.with_quota(FlavorResource::new("", GPU), quota));
    }
    Ok(QueueTree::build(specs)?)
}
