//! What a simulation is made of: jobs, queues and nodes.

use muster_scheduler_core::{Closeness, Gang, Member, Node};
use muster_scheduler_queue::time::{Milliseconds, Time};
use muster_scheduler_queue::tree::QueueSpec;
use muster_scheduler_topology::Level;

/// Pods of one kind in a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// What each pod asks for.
    pub pod: Member,
    /// How many.
    pub pods: u32,
}

/// A gang that comes, runs and ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// Name.
    pub name: String,
    /// Who submits it.
    pub user: String,
    /// Jobs of one class are reported together.
    pub class: String,
    /// Its queue's name.
    pub queue: String,
    /// Higher goes first.
    pub priority: i64,
    /// When it comes.
    pub submitted: Time,
    /// How long it runs, in truth.
    pub runtime: Milliseconds,
    /// How long it says it runs.
    pub limit: Option<Milliseconds>,
    /// Its pods, in rank order.
    pub roles: Vec<Role>,
    /// How near to each other they must or should be.
    pub closeness: Closeness,
    /// Bytes that its workers sum up in each step; 0 when they do not talk.
    pub all_reduce: u64,
    /// It loses at most this much when it is stopped; all when absent.
    pub checkpoint_every: Option<Milliseconds>,
}

impl Job {
    /// Pods together.
    pub fn pods(&self) -> u32 {
        self.roles.iter().map(|role| role.pods).sum()
    }

    /// GPUs together, in thousandths.
    pub fn gpus(&self) -> i64 {
        self.roles
            .iter()
            .map(|role| i64::from(role.pod.gpu_demand().thousandths()) * i64::from(role.pods))
            .sum()
    }

    /// The job as core plans it.
    pub fn gang(&self) -> Gang {
        let pods = self.roles.iter().flat_map(|role| std::iter::repeat_n(&role.pod, role.pods as usize));
        Gang {
            name: self.name.clone(),
            min_available: self.pods() as usize,
            waiting: pods.cloned().collect(),
            closeness: self.closeness.clone(),
            all_reduce: (self.all_reduce > 0).then_some(self.all_reduce),
            ..Gang::default()
        }
    }
}

/// Nodes and how they are wired.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Levels of the network between cluster and hosts; their keys are node labels.
    pub levels: Vec<Level>,
    /// GB/s per direction of a node's network cards for each of its GPUs; what is usual when absent.
    pub network_per_gpu: Option<f64>,
}

impl Cluster {
    /// GPUs together.
    pub fn gpus(&self) -> u32 {
        self.nodes.iter().map(|node| node.gpu_slots).sum()
    }
}

/// Jobs and where they run.
#[derive(Debug, Clone, Default)]
pub struct Workload {
    /// What people call it.
    pub name: String,
    /// Nodes.
    pub cluster: Cluster,
    /// Queues; when empty, all jobs share one without limits.
    pub queues: Vec<QueueSpec>,
    /// Jobs; their index is their number.
    pub jobs: Vec<Job>,
}
