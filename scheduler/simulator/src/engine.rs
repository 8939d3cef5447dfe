//! Virtual time: jobs come, the scheduler decides, jobs end, nodes fail and come back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Instant;

use muster_scheduler_core::{Demand, GangName, GpuDemand, Ledger, NodeId, Slots, Space};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::time::{Milliseconds, Time};
use muster_scheduler_topology::BuildError;

use crate::failures::{Failures, Outage};
use crate::network::Network;
use crate::report::{Recorder, Report};
use crate::scheduler::{ScheduleError, Scheduler, scheduler};
use crate::workload::Workload;

/// How a simulation is run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Of what is random in it (failures); a trace has its own.
    pub seed: u64,
    /// Failing nodes.
    pub failures: Option<Failures>,
    /// Samples of the curves between the first submission and the last.
    pub samples: u32,
    /// Whether all-reduce times are predicted.
    pub network: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, failures: None, samples: 200, network: true }
    }
}

/// Why a simulation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The scheduler refuses.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The nodes' labels do not make a network.
    #[error("the nodes do not form a topology: {0}")]
    Topology(#[from] BuildError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    // In the order in which events of one moment happen.
    Ends { job: JobId, attempt: u32 },
    Returns { node: usize },
    Fails { node: usize },
    Comes { job: JobId },
}

struct Run {
    demand: Demand,
    slots: Slots,
    since: Time,
}

/// A job's way through the simulation.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Work done and not lost.
    done: Milliseconds,
    /// How often it was started.
    attempt: u32,
}

struct Simulation<'a> {
    workload: &'a Workload,
    scheduler: Box<dyn Scheduler>,
    ledger: Ledger,
    network: Option<Network>,
    events: BinaryHeap<Reverse<(Time, Event)>>,
    running: BTreeMap<JobId, Run>,
    progress: Vec<Progress>,
    /// Thousandths given of each device, counted here again so that nothing is given twice unnoticed.
    given: BTreeMap<(NodeId, u8), u32>,
    recorder: Recorder,
}

/// Runs a workload under the policy of a name until all jobs have ended that can.
///
/// # Errors
/// [`SimulationError`].
pub fn simulate(workload: &Workload, policy: &str, options: Options) -> Result<Report, SimulationError> {
    let mut ledger = Ledger::default();
    for node in &workload.cluster.nodes {
        ledger.set_node(node.clone());
    }
    let comes = |(index, job): (usize, &crate::workload::Job)| {
        Reverse((job.submitted, Event::Comes { job: JobId(index as u64) }))
    };
    let mut simulation = Simulation {
        workload,
        scheduler: scheduler(policy, workload)?,
        ledger,
        network: if options.network { Some(Network::new(&workload.cluster)?) } else { None },
        events: workload.jobs.iter().enumerate().map(comes).collect(),
        running: BTreeMap::new(),
        progress: vec![Progress::default(); workload.jobs.len()],
        given: BTreeMap::new(),
        recorder: Recorder::new(workload, policy, options),
    };
    if let Some(failures) = options.failures {
        let last = workload.jobs.iter().map(|job| job.submitted).max().unwrap_or_default();
        for Outage { node, from, to } in failures.outages(workload.cluster.nodes.len(), last, options.seed) {
            simulation.events.push(Reverse((from, Event::Fails { node })));
            simulation.events.push(Reverse((to, Event::Returns { node })));
        }
    }
    simulation.run()?;
    Ok(simulation.recorder.finish())
}

impl Simulation<'_> {
    fn run(&mut self) -> Result<(), SimulationError> {
        let mut last = Time(i64::MIN);
        while let Some(now) = self.next_moment(last) {
            last = now;
            self.recorder.advance(now, self.ledger.space());
            while let Some(Reverse((at, event))) = self.events.peek().copied() {
                if at > now {
                    break;
                }
                self.events.pop();
                self.happen(event, now)?;
            }
            self.decide(now)?;
        }
        Ok(())
    }

    /// When something happens, or the scheduler wants to be asked though nothing does.
    fn next_moment(&self, last: Time) -> Option<Time> {
        let event = self.events.peek().map(|Reverse((at, _))| *at);
        event.into_iter().chain(self.scheduler.asks_again_at(last)).min()
    }

    fn happen(&mut self, event: Event, now: Time) -> Result<(), SimulationError> {
        match event {
            Event::Comes { job } => {
                let asked = &self.workload.jobs[job.0 as usize];
                self.scheduler.submit(job, asked, self.ledger.space())?;
                self.recorder.came(job, asked);
            }
            Event::Ends { job, attempt } => {
                if self.progress[job.0 as usize].attempt == attempt && self.release(job).is_some() {
                    self.scheduler.ended(job, now)?;
                    self.recorder.ended(job, now);
                }
            }
            Event::Fails { node } => {
                let name = &self.workload.cluster.nodes[node].name;
                if let Some(id) = self.ledger.space().id(name) {
                    let on_it = |run: &Run| run.slots.0.iter().any(|slot| slot.node == id);
                    let hit: Vec<JobId> =
                        self.running.iter().filter(|(_, run)| on_it(run)).map(|(job, _)| *job).collect();
                    for job in hit {
                        self.stop(job, now)?;
                    }
                    self.ledger.remove_node(name);
                    self.scheduler.nodes_changed();
                }
            }
            Event::Returns { node } => {
                self.ledger.set_node(self.workload.cluster.nodes[node].clone());
                self.scheduler.nodes_changed();
            }
        }
        Ok(())
    }

    fn decide(&mut self, now: Time) -> Result<(), SimulationError> {
        loop {
            let begin = Instant::now();
            let decisions = self.scheduler.decide(now, self.ledger.space())?;
            self.recorder.decided(begin.elapsed());
            for start in decisions.start {
                self.start(start.job, start.demand, start.slots, now);
            }
            if decisions.evict.is_empty() {
                return Ok(());
            }
            for job in decisions.evict {
                self.stop(job, now)?;
            }
        }
    }

    fn start(&mut self, id: JobId, demand: Demand, slots: Slots, now: Time) {
        let job = &self.workload.jobs[id.0 as usize];
        let progress = &mut self.progress[id.0 as usize];
        progress.attempt += 1;
        let ends = now + (job.runtime - progress.done).max(1);
        self.events.push(Reverse((ends, Event::Ends { job: id, attempt: progress.attempt })));
        let ordered = self.scheduler.orders_ranks();
        let space = self.ledger.space();
        let cost = self
            .network
            .as_mut()
            .and_then(|network| network.start(id, job.all_reduce, &slots, space, ordered));
        let mut overdrawn = slots.0.iter().any(|slot| overdrawn(space, slot.node));
        for slot in &slots.0 {
            let gpu = demand.groups[slot.group].shape.gpu;
            for device in &slot.devices {
                let given = self.given.entry((slot.node, *device)).or_default();
                *given += each_device(gpu);
                overdrawn |= *given > 1000;
            }
        }
        if self.network.is_some() && job.all_reduce > 0 {
            // Whoever comes next is weighed against its traffic, as in a cluster.
            let talk = self.ledger.talk_on(&demand, &slots);
            self.ledger.talks(name(id), talk);
        }
        let complete = slots.0.len() == job.pods() as usize && !overdrawn;
        self.recorder.started(id, job, now, complete, cost);
        self.running.insert(id, Run { demand, slots, since: now });
    }

    /// Stops a job that goes on later.
    fn stop(&mut self, id: JobId, now: Time) -> Result<(), SimulationError> {
        if let Some(since) = self.release(id) {
            let job = &self.workload.jobs[id.0 as usize];
            let progress = &mut self.progress[id.0 as usize];
            let ran = now.since(since);
            progress.done +=
                job.checkpoint_every.filter(|every| *every > 0).map_or(0, |every| ran - ran % every);
            progress.attempt += 1;
            self.scheduler.stopped(id, now)?;
            self.recorder.stopped(id);
        }
        Ok(())
    }

    /// Gives a job's room back; since when it ran.
    fn release(&mut self, id: JobId) -> Option<Time> {
        let run = self.running.remove(&id)?;
        self.ledger.space().give_back_slots(&run.demand, &run.slots);
        for slot in &run.slots.0 {
            let gpu = run.demand.groups[slot.group].shape.gpu;
            for device in &slot.devices {
                if let Some(given) = self.given.get_mut(&(slot.node, *device)) {
                    *given -= each_device(gpu);
                }
            }
        }
        self.ledger.is_silent(&name(id));
        if let Some(network) = &mut self.network {
            network.end(id);
        }
        Some(run.since)
    }
}

/// The name by which the ledger hears a job.
fn name(id: JobId) -> GangName {
    GangName { namespace: "simulation".to_owned(), name: id.to_string() }
}

/// Thousandths that a pod takes of each device that it gets.
fn each_device(gpu: GpuDemand) -> u32 {
    if let GpuDemand::Share(share) = gpu { u32::from(share) } else { 1000 }
}

/// Whether more was given of a node than it has.
fn overdrawn(space: &Space, node: NodeId) -> bool {
    let left = space.resources_left(node);
    left.iter().any(|(_, amount)| amount < 0)
}
