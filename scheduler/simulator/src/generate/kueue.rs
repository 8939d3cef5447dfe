//! The workloads of Kueue's own performance tests, from their generator files.

use muster_scheduler_core::{Closeness, GpuDemand, Slice};
use muster_scheduler_queue::time::Time;
use muster_scheduler_queue::tree::{FlavorResource, Preempts, QueueSpec, Quota};
use muster_scheduler_topology::Level;
use muster_scheduler_topology::import::labels;
use serde::Deserialize;

use crate::generate::{labelled, node, pod};
use crate::workload::{Cluster, Job, Role, Workload};

/// Why a generator file is not one.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    /// Not the expected fields.
    #[error("the generator file does not parse: {0}")]
    Yaml(#[from] Box<serde_saphyr::Error>),
    /// A quantity.
    #[error("{field}: {text:?} is no quantity")]
    Quantity {
        /// Where.
        field: &'static str,
        /// What is there.
        text: String,
    },
    /// A level that has no counterpart.
    #[error("tasLevel {0:?} is none of the topology's levels")]
    Level(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    cohorts: Vec<Cohort>,
    #[serde(default)]
    topology: Option<Topology>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cohort {
    class_name: String,
    count: usize,
    queues_sets: Vec<QueueSet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueueSet {
    class_name: String,
    count: usize,
    nominal_quota: Quantity,
    borrowing_limit: Quantity,
    #[serde(default)]
    reclaim_within_cohort: String,
    #[serde(default)]
    within_cluster_queue: String,
    workloads_sets: Vec<WorkloadSet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSet {
    count: i64,
    creation_interval_ms: i64,
    workloads: Vec<Template>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Template {
    class_name: String,
    runtime_ms: i64,
    priority: i64,
    request: Quantity,
    #[serde(default)]
    pod_count: Option<u32>,
    #[serde(default)]
    tas_constraint: String,
    #[serde(default)]
    tas_level: String,
    #[serde(default)]
    slice_size: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Topology {
    levels: Vec<TopologyLevel>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopologyLevel {
    count: usize,
    node_label: String,
    #[serde(default)]
    capacity: Option<Capacity>,
}

#[derive(Deserialize)]
struct Capacity {
    cpu: Quantity,
    memory: Quantity,
}

/// `20`, `"20"` or `"500m"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(i64),
    Text(String),
}

impl Quantity {
    fn thousandths(&self, field: &'static str) -> Result<i64, GeneratorError> {
        match self {
            Self::Number(number) => Ok(number * 1000),
            Self::Text(text) => {
                let mut amount = muster_scheduler_core::Resources::new();
                let error = |_| GeneratorError::Quantity { field, text: text.clone() };
                amount.add_quantity(field, text).map_err(error)?;
                Ok(amount.get(field))
            }
        }
    }
}

/// Reads a generator file. Its levels `block` and `rack` become spine and rack here; a file without topology gets one
/// node that is large enough for everything, since only quota counts. The n-th of a set comes after n intervals.
///
/// # Errors
/// [`GeneratorError`].
pub fn workload(name: &str, yaml: &str) -> Result<Workload, GeneratorError> {
    let file: File = serde_saphyr::from_str(yaml).map_err(Box::new)?;
    let cluster = cluster(file.topology.as_ref())?;
    let processor = FlavorResource::new("", "cpu");
    let (mut queues, mut jobs) = (Vec::new(), Vec::new());
    for cohort in &file.cohorts {
        for number in 0..cohort.count {
            let parent = format!("{}-{number}", cohort.class_name);
            queues.push(QueueSpec::new(&parent));
            for set in &cohort.queues_sets {
                let quota = Quota {
                    nominal: set.nominal_quota.thousandths("nominalQuota")?,
                    borrowing_limit: Some(set.borrowing_limit.thousandths("borrowingLimit")?),
                    lending_limit: None,
                };
                for index in 0..set.count {
                    let queue = format!("{parent}-{}-{index}", set.class_name);
                    let mut spec = QueueSpec::new(&queue).below(&parent).with_quota(processor.clone(), quota);
                    spec.within_queue = preempts(&set.within_cluster_queue);
                    spec.reclaim = preempts(&set.reclaim_within_cohort);
                    queues.push(spec);
                    for workloads in &set.workloads_sets {
                        add_jobs(&mut jobs, workloads, &queue, file.topology.as_ref())?;
                    }
                }
            }
        }
    }
    Ok(Workload { name: name.to_owned(), cluster, queues, jobs })
}

fn preempts(text: &str) -> Preempts {
    match text {
        "Any" => Preempts::Any,
        "LowerPriority" | "LowerOrNewerEqualPriority" => Preempts::LowerPriority,
        _ => Preempts::Never,
    }
}

fn add_jobs(
    jobs: &mut Vec<Job>,
    set: &WorkloadSet,
    queue: &str,
    topology: Option<&Topology>,
) -> Result<(), GeneratorError> {
    for template in &set.workloads {
        let request = template.request.thousandths("request")?;
        let closeness = closeness(template, topology)?;
        for number in 1..=set.count {
            jobs.push(Job {
                name: format!("{queue}-{}-{number}", template.class_name),
                user: queue.to_owned(),
                class: template.class_name.clone(),
                queue: queue.to_owned(),
                priority: template.priority,
                submitted: Time(number * set.creation_interval_ms),
                runtime: template.runtime_ms,
                roles: vec![Role {
                    pod: pod(request, 0, GpuDemand::None),
                    pods: template.pod_count.unwrap_or(1),
                }],
                closeness: closeness.clone(),
                ..Job::default()
            });
        }
    }
    Ok(())
}

/// `required` binds, `preferred` need not be said since the nearest place is taken anyway, and `balanced` spreads
/// slices of pods evenly.
fn closeness(template: &Template, topology: Option<&Topology>) -> Result<Closeness, GeneratorError> {
    let Some(topology) = topology else { return Ok(Closeness::default()) };
    if template.tas_level.is_empty() {
        return Ok(Closeness::default());
    }
    let at = topology.levels.iter().position(|level| level.node_label == template.tas_level);
    let level = match at.map(|at| topology.levels.len() - 1 - at) {
        Some(1) => labels::RACK.to_owned(),
        Some(2) => labels::ZONE.to_owned(),
        _ => return Err(GeneratorError::Level(template.tas_level.clone())),
    };
    Ok(match (template.tas_constraint.as_str(), template.slice_size) {
        ("required", _) => Closeness { required: Some(level), ..Closeness::default() },
        ("balanced", Some(size)) if size > 1 => {
            Closeness { slice: Some(Slice { size, level }), ..Closeness::default() }
        }
        _ => Closeness { preferred: vec![level], ..Closeness::default() },
    })
}

fn cluster(topology: Option<&Topology>) -> Result<Cluster, GeneratorError> {
    /// Processors of the one node where only quota counts; whole cohorts fit.
    const ENOUGH: i64 = 1_000_000_000;
    let Some(topology) = topology else {
        let mut all = node("node-0".to_owned(), ENOUGH, ENOUGH, 0);
        all.allocatable = all.allocatable.with("pods", ENOUGH);
        return Ok(Cluster { nodes: vec![all], ..Cluster::default() });
    };
    let count = |from_host: usize| {
        topology.levels.len().checked_sub(from_host + 1).map_or(1, |at| topology.levels[at].count)
    };
    let (hosts, racks, blocks) = (count(0), count(1), count(2));
    let capacity = topology.levels.last().and_then(|level| level.capacity.as_ref());
    let (processor, memory) = match capacity {
        Some(capacity) => (capacity.cpu.thousandths("cpu")?, capacity.memory.thousandths("memory")?),
        None => (ENOUGH, ENOUGH),
    };
    let mut nodes = Vec::new();
    for block in 0..blocks {
        for rack in 0..racks {
            for host in 0..hosts {
                let plain = node(format!("node-{block}-{rack}-{host:03}"), processor, memory, 0);
                let plain = labelled(plain, labels::ZONE, format!("block-{block}"));
                nodes.push(labelled(plain, labels::RACK, format!("rack-{rack}")));
            }
        }
    }
    let levels = vec![Level::new("block", &[labels::ZONE]), Level::new("rack", &[labels::RACK])];
    Ok(Cluster { nodes, levels, network_per_gpu: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
cohorts:
- className: cohort
  count: 2
  queuesSets:
  - className: cq
    count: 3
    nominalQuota: '20'
    borrowingLimit: 100
    reclaimWithinCohort: Any
    withinClusterQueue: LowerPriority
    workloadsSets:
    - count: 2
      creationIntervalMs: 100
      workloads:
      - {className: small, runtimeMs: 200, priority: 50, request: '500m', podCount: 2, tasConstraint: required, tasLevel: rack}
topology:
  levels:
  - {name: block, count: 1, nodeLabel: block}
  - {name: rack, count: 2, nodeLabel: rack}
  - {name: node, count: 4, nodeLabel: host, capacity: {cpu: '96', memory: 256Gi}}
";

    #[test]
    fn a_generator_file_becomes_a_workload() {
        let workload = workload("small", SMALL).unwrap();
        assert_eq!((workload.queues.len(), workload.jobs.len(), workload.cluster.nodes.len()), (8, 12, 8));
        let job = &workload.jobs[1];
        assert_eq!((job.submitted, job.runtime, job.priority, job.pods()), (Time(200), 200, 50, 2));
        assert_eq!(job.roles[0].pod.requests.get("cpu"), 500);
        assert_eq!(job.closeness.required.as_deref(), Some(labels::RACK));
        assert_eq!(workload.queues[1].parent.as_deref(), Some("cohort-0"));
        assert_eq!(workload.cluster.nodes[0].allocatable.get("cpu"), 96_000);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |from: &str, to: &str| workload("x", &SMALL.replace(from, to)).unwrap_err().to_string();
        assert_eq!(error("'500m'", "'half'"), "request: \"half\" is no quantity");
        assert_eq!(
            error("tasLevel: rack", "tasLevel: cage"),
            "tasLevel \"cage\" is none of the topology's levels"
        );
        assert!(
            error("count: 2\n  queues", "number: 2\n  queues")
                .starts_with("the generator file does not parse")
        );
    }
}
