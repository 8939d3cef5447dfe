//! Small clusters and jobs to plan with.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_scheduler_core::{
    Demand, GpuDemand, Group, Ledger, Levels, Member, Node, Resources, Shape, Space,
};
use muster_scheduler_queue::job::{Form, Gate, Job, JobId, Restart};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{FlavorResource, QueueId, QueueSpec, QueueTree, Quota};

/// Nodes with GPUs (and one processor each), `per_rack` in a rack.
pub(crate) fn cluster(nodes: usize, gpus: u32, per_rack: usize) -> Space {
    let mut ledger = Ledger::default();
    for index in 0..nodes {
        let labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), format!("node-{index:04}")),
            ("muster.dev/rack".to_owned(), format!("rack-{:03}", index / per_rack)),
        ]);
        ledger.set_node(Node {
            name: format!("node-{index:04}"),
            labels,
            schedulable: true,
            allocatable: Resources::new()
                .with("cpu", i64::from(gpus) * 1000)
                .with("nvidia.com/gpu", i64::from(gpus) * 1000),
            gpu_slots: gpus,
            ..Node::default()
        });
    }
    ledger.space().clone()
}

/// The shape of a pod with so many GPUs and a processor for each.
pub(crate) fn shape(space: &mut Space, gpus: u32) -> Arc<Shape> {
    let requests = Resources::new().with("cpu", i64::from(gpus) * 1000);
    space.shape(&Member { requests, ..Member::default() }.with_gpus(GpuDemand::Whole(gpus)))
}

pub(crate) fn gpu() -> FlavorResource {
    FlavorResource::new("", "nvidia.com/gpu")
}

pub(crate) fn demand(space: &mut Space, pods: u32, gpus: u32, required: usize) -> Demand {
    let groups = vec![Group { shape: shape(space, gpus), count: pods }];
    Demand { groups, levels: Levels { required, ..Levels::default() }, ..Demand::default() }
}

pub(crate) fn form(space: &mut Space, tree: &QueueTree, pods: u32, gpus: u32) -> Form {
    Form {
        label: format!("{pods} pods"),
        demand: demand(space, pods, gpus, 0),
        charge: tree.charge([(&gpu(), i64::from(pods * gpus) * 1000)]),
    }
}

pub(crate) fn job(id: u64, submitted: i64, queue: QueueId, form: Form) -> Job {
    Job {
        id: JobId(id),
        name: format!("job-{id}"),
        user: "ada".to_owned(),
        queue,
        submitted: Time(submitted),
        priority: 0,
        quality: 0,
        limit: None,
        forms: Arc::from([form]),
        gate: Gate::Open,
        restart: Restart::default(),
        reservation: None,
        nearness: None,
    }
}

/// Queues `names` below one cohort, each with so many GPUs.
pub(crate) fn cohort(names: &[&str], gpus: i64) -> QueueTree {
    let quota = Quota { nominal: gpus * 1000, ..Quota::default() };
    let mut specs = vec![QueueSpec::new("cohort")];
    specs.extend(names.iter().map(|name| QueueSpec::new(*name).below("cohort").with_quota(gpu(), quota)));
    QueueTree::build(specs).unwrap()
}
