//! An openb trace with its own arrival and run times, for the engine.

use muster_scheduler_core::node::Requirement;
use muster_scheduler_queue::time::Time;

use crate::generate::{PRODUCT, labelled, node, pod};
use crate::openb::{Pod, Trace};
use crate::workload::{Cluster, Job, Role, Workload};

/// The pods as jobs of one pod each, which run for as long as the trace says they existed. A pod's GPU models become
/// required node affinity.
pub fn workload(name: &str, trace: &Trace) -> Workload {
    let nodes = trace.machines.iter().map(|machine| {
        let [processor, memory] = machine.host;
        let plain = node(machine.name.clone(), processor, memory * 1000, machine.devices as u32);
        labelled(plain, PRODUCT, trace.models[machine.model].clone())
    });
    let cluster = Cluster { nodes: nodes.collect(), ..Cluster::default() };
    let job = |pod: &Pod| job(trace, pod);
    Workload {
        name: name.to_owned(),
        cluster,
        queues: Vec::new(),
        jobs: trace.pods.iter().map(job).collect(),
    }
}

fn job(trace: &Trace, asked: &Pod) -> Job {
    let [processor, memory] = asked.want.host;
    let mut member = pod(processor, memory * 1000, asked.want.gpu);
    let models: Vec<String> = trace
        .models
        .iter()
        .enumerate()
        .filter(|(model, _)| asked.want.classes.contains(*model))
        .map(|(_, name)| name.clone())
        .collect();
    if models.len() < trace.models.len() {
        member.required_affinity = vec![vec![Requirement::In(PRODUCT.to_owned(), models)]];
    }
    let runtime = asked.deleted.saturating_sub(asked.created).clamp(1, 1 << 40) * 1000;
    let class = match asked.want.gpu.thousandths() {
        0 => "cpu",
        1..1000 => "shared",
        1000 => "one-gpu",
        _ => "several-gpus",
    };
    Job {
        name: asked.name.clone(),
        user: class.to_owned(),
        class: class.to_owned(),
        queue: "default".to_owned(),
        submitted: Time(asked.created * 1000),
        runtime,
        limit: Some(runtime),
        roles: vec![Role { pod: member, pods: 1 }],
        ..Job::default()
    }
}
