//! Watches a simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_scheduler_core::Space;
use muster_scheduler_core::fragmentation::{ClassSet, Free, Mix, Want, fragments};
use muster_scheduler_queue::job::JobId;
use muster_scheduler_queue::time::{Milliseconds, Time};

use crate::engine::Options;
use crate::network::GangCost;
use crate::report::{ClassReport, GangReport, Report, Sample, Waits};
use crate::workload::{Job, Workload};

/// Counts what happens and makes the [`Report`] of it.
#[derive(Debug)]
pub struct Recorder {
    report: Report,
    classes: BTreeMap<String, (usize, Vec<Milliseconds>)>,
    waits: Vec<Milliseconds>,
    costs: Vec<GangCost>,
    /// Size of running jobs: GPUs in thousandths, or processors when there are no GPUs.
    sizes: BTreeMap<JobId, i64>,
    in_use: i64,
    capacity: i64,
    by_gpu: bool,
    waiting: BTreeSet<(Time, JobId)>,
    submitted: Vec<Time>,
    ever_started: BTreeSet<JobId>,
    mix: Mix,
    first: Time,
    last: Time,
    now: Time,
    /// Use over time until the last submission.
    used: f64,
    offered: f64,
    last_end: Time,
    step: Milliseconds,
    next_sample: Time,
}

impl Recorder {
    /// For one run.
    pub fn new(workload: &Workload, policy: &str, options: Options) -> Self {
        let times = || workload.jobs.iter().map(|job| job.submitted);
        let (first, last) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
        let by_gpu = workload.cluster.gpus() > 0;
        let step = (last.since(first) / i64::from(options.samples.max(1))).max(1);
        let capacity =
            workload.cluster.nodes.iter().map(|node| {
                if by_gpu { i64::from(node.gpu_slots) * 1000 } else { node.allocatable.get("cpu") }
            });
        Self {
            report: Report {
                workload: workload.name.clone(),
                policy: policy.to_owned(),
                seed: options.seed,
                jobs: workload.jobs.len(),
                ended: 0,
                makespan: 0,
                utilisation: 0.0,
                fragmentation: 0.0,
                waits: Waits::default(),
                classes: Vec::new(),
                gangs: GangReport::default(),
                partial_gangs: 0,
                stopped: 0,
                samples: Vec::new(),
                decisions: 0,
                deciding: Duration::ZERO,
            },
            classes: BTreeMap::new(),
            waits: Vec::new(),
            costs: Vec::new(),
            sizes: BTreeMap::new(),
            in_use: 0,
            capacity: capacity.sum(),
            by_gpu,
            waiting: BTreeSet::new(),
            submitted: workload.jobs.iter().map(|job| job.submitted).collect(),
            ever_started: BTreeSet::new(),
            mix: Mix::default(),
            first,
            last,
            now: first,
            used: 0.0,
            offered: 0.0,
            last_end: first,
            step,
            next_sample: first + step,
        }
    }

    /// Time passes until `now`; the space is as it was all the while.
    pub fn advance(&mut self, now: Time, space: &Space) {
        while self.next_sample <= now && self.next_sample <= self.last {
            let at = self.next_sample;
            let sample = self.sample(at, space);
            self.report.samples.push(sample);
            self.next_sample = at + self.step;
        }
        let length = now.min(self.last).since(self.now) as f64;
        self.used += self.in_use as f64 * length;
        self.offered += self.capacity as f64 * length;
        self.now = now.max(self.now);
    }

    fn sample(&self, at: Time, space: &Space) -> Sample {
        let ages: f64 = self.waiting.iter().map(|(since, _)| at.since(*since) as f64 / 1000.0).sum();
        Sample {
            at,
            utilisation: self.in_use as f64 / self.capacity.max(1) as f64,
            fragmentation: self.fragmentation(space),
            waiting: self.waiting.len(),
            mean_wait: ages / self.waiting.len().max(1) as f64,
        }
    }

    fn fragmentation(&self, space: &Space) -> f64 {
        if !self.by_gpu || self.mix.total() == 0.0 {
            return 0.0;
        }
        let places = ["cpu", "memory"].map(|name| space.dimensions().place(name));
        let of_node = |id| {
            let room = space.room(id);
            let host = places.map(|place| place.map_or(0, |place| room.amounts.get(place)));
            fragments(&Free { class: 0, host, devices: room.devices.left() }, &self.mix)
        };
        space.nodes().map(|(id, _)| of_node(id)).sum::<f64>() / self.capacity.max(1) as f64
    }

    /// A job came.
    pub fn came(&mut self, id: JobId, job: &Job) {
        self.waiting.insert((job.submitted, id));
        self.classes.entry(job.class.clone()).or_default().0 += 1;
        for role in &job.roles {
            let amount = |name| role.pod.requests.get(name);
            let want = Want {
                gpu: role.pod.gpu_demand(),
                host: [amount("cpu"), amount("memory")],
                classes: ClassSet::ALL,
            };
            if want.gpu.thousandths() > 0 {
                self.mix.observe(&want, f64::from(role.pods));
            }
        }
    }

    /// A job was started; `complete` when every pod has a place that was free.
    pub fn started(&mut self, id: JobId, job: &Job, now: Time, complete: bool, cost: Option<GangCost>) {
        self.waiting.remove(&(job.submitted, id));
        if self.ever_started.insert(id) {
            let wait = now.since(job.submitted);
            self.waits.push(wait);
            self.classes.entry(job.class.clone()).or_default().1.push(wait);
        }
        let processors =
            || job.roles.iter().map(|role| role.pod.requests.get("cpu") * i64::from(role.pods)).sum();
        let size = if self.by_gpu { job.gpus() } else { processors() };
        self.in_use += size;
        self.sizes.insert(id, size);
        self.costs.extend(cost);
        self.report.partial_gangs += usize::from(!complete);
    }

    /// A running job ended.
    pub fn ended(&mut self, id: JobId, now: Time) {
        self.in_use -= self.sizes.remove(&id).unwrap_or(0);
        self.report.ended += 1;
        self.last_end = now;
    }

    /// A running job was stopped and waits again.
    pub fn stopped(&mut self, id: JobId) {
        self.in_use -= self.sizes.remove(&id).unwrap_or(0);
        self.waiting.insert((self.submitted[id.0 as usize], id));
        self.report.stopped += 1;
    }

    /// The scheduler was asked, and thought for so long.
    pub fn decided(&mut self, thought: Duration) {
        self.report.decisions += 1;
        self.report.deciding += thought;
    }

    /// The outcome.
    pub fn finish(mut self) -> Report {
        let class = |(class, (jobs, waits))| ClassReport { class, jobs, waits: Waits::of(waits) };
        self.report.classes = self.classes.into_iter().map(class).collect();
        self.report.waits = Waits::of(self.waits);
        self.report.makespan = self.last_end.since(self.first);
        self.report.utilisation = if self.offered > 0.0 { self.used / self.offered } else { 0.0 };
        let samples = &self.report.samples;
        let fragmentation: f64 = samples.iter().map(|sample| sample.fragmentation).sum();
        self.report.fragmentation = fragmentation / samples.len().max(1) as f64;
        self.report.gangs = GangReport::of(&self.costs);
        self.report
    }
}
