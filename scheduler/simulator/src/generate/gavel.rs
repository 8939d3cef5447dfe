//! Gavel's traces, which were derived from Microsoft's Philly cluster: type of job, steps, arrival, GPUs.

use muster_scheduler_core::GpuDemand;
use muster_scheduler_queue::time::Time;

use crate::generate::{node, pod};
use crate::workload::{Cluster, Job, Role, Workload};

/// GPUs of a node of that cluster.
const GPUS_PER_NODE: u32 = 8;

/// Why a trace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Too few fields.
    #[error("line {line} has {found} fields separated by tabs, not 7; is it a Gavel trace?")]
    Fields {
        /// The line, from 1.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// Not a number.
    #[error("line {line}: {field} is {text:?}, not a number")]
    Number {
        /// The line, from 1.
        line: usize,
        /// What it should be.
        field: &'static str,
        /// What is there.
        text: String,
    },
}

/// Steps a second that one V100 makes.
///
/// An assumption: the trace gives steps, and the table that turns them into time did not come with it. These are
/// rounded to what such a GPU does in order of magnitude; several GPUs are supposed to be as much faster.
const STEPS: [(&str, f64); 7] = [
    ("ResNet-18", 2400.0),
    ("ResNet-50", 340.0),
    ("Transformer", 900.0),
    ("LM", 600.0),
    ("Recommendation", 20_000.0),
    ("A3C", 5.0),
    ("CycleGAN", 4.0),
];

/// Steps a second of a job type such as `ResNet-50 (batch size 64)`: samples a second by its batch size, at most 40.
fn steps_per_second(kind: &str) -> f64 {
    let (_, samples) = STEPS.iter().find(|(model, _)| kind.starts_with(model)).unwrap_or(&("", 300.0));
    let batch =
        kind.split("batch size ").nth(1).and_then(|rest| rest.trim_end_matches(')').parse::<f64>().ok());
    batch.map_or(*samples, |batch| (samples / batch).min(40.0))
}

/// Reads a trace. Jobs of more than one node's GPUs are gangs of whole nodes; each declares `estimate` times its run
/// time as limit, or none.
///
/// # Errors
/// [`TraceError`].
pub fn jobs(text: &str, estimate: Option<f64>) -> Result<Vec<Job>, TraceError> {
    let mut jobs = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line_number = index + 1;
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() < 7 {
            return Err(TraceError::Fields { line: line_number, found: fields.len() });
        }
        let number = |at: usize, field: &'static str| {
            fields[at].trim().parse::<f64>().map_err(|_| TraceError::Number {
                line: line_number,
                field,
                text: fields[at].to_owned(),
            })
        };
        let (steps, arrival) = (number(4, "steps")?, number(5, "arrival")?);
        let gpus = number(6, "GPUs")?.max(1.0) as u32;
        let model = fields[0].split(" (").next().unwrap_or(fields[0]);
        let runtime = (steps / (steps_per_second(fields[0]) * f64::from(gpus)) * 1000.0).max(1000.0) as i64;
        let (pods, each) =
            if gpus <= GPUS_PER_NODE { (1, gpus) } else { (gpus.div_ceil(GPUS_PER_NODE), GPUS_PER_NODE) };
        jobs.push(Job {
            name: format!("{}-{index}", model.to_lowercase()),
            user: model.to_lowercase(),
            class: if pods == 1 { "small" } else { "large" }.to_owned(),
            queue: "default".to_owned(),
            submitted: Time((arrival * 1000.0) as i64),
            runtime,
            limit: estimate.map(|factor| (runtime as f64 * factor) as i64),
            roles: vec![Role { pod: pod(i64::from(each) * 4000, 0, GpuDemand::Whole(each)), pods }],
            ..Job::default()
        });
    }
    Ok(jobs)
}

/// The jobs of a trace on nodes of 8 GPUs, as many as make the work that arrives `load` times what they can do, but
/// enough for the largest job.
///
/// # Errors
/// [`TraceError`].
pub fn workload(name: &str, text: &str, estimate: Option<f64>, load: f64) -> Result<Workload, TraceError> {
    let jobs = jobs(text, estimate)?;
    let work: f64 = jobs.iter().map(|job| job.gpus() as f64 / 1000.0 * job.runtime as f64).sum();
    let span = jobs.iter().map(|job| job.submitted.0).max().unwrap_or(0).max(1) as f64;
    let enough = (work / span / load.max(0.01) / f64::from(GPUS_PER_NODE)).ceil() as usize;
    let largest = jobs.iter().map(|job| job.pods() as usize).max().unwrap_or(1);
    let made = |index| node(format!("node-{index:03}"), 64_000, 512_000, GPUS_PER_NODE);
    let nodes = (0..enough.max(largest)).map(made).collect();
    Ok(Workload {
        name: name.to_owned(),
        cluster: Cluster { nodes, ..Cluster::default() },
        queues: Vec::new(),
        jobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_job() {
        let trace = "ResNet-50 (batch size 128)\tcd x\t-n\t1\t47442\t10.5\t16\nA3C\tx\t-n\t1\t500\t11\t1\n";
        let jobs = jobs(trace, Some(2.0)).unwrap();
        assert_eq!((jobs[0].submitted, jobs[0].pods(), jobs[0].gpus()), (Time(10_500), 2, 16_000));
        // 47,442 steps at 340/128 a second on each of 16 GPUs.
        assert!((jobs[0].runtime - 1_116_282).abs() < 10, "{}", jobs[0].runtime);
        assert_eq!(jobs[0].limit, Some(jobs[0].runtime * 2));
        assert_eq!((jobs[1].runtime, jobs[1].class.as_str()), (100_000, "small"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |line: &str| jobs(line, None).unwrap_err().to_string();
        assert_eq!(error("a\tb"), "line 1 has 2 fields separated by tabs, not 7; is it a Gavel trace?");
        assert_eq!(error("\nA3C\tx\t-n\t1\tmany\t0\t1"), "line 2: steps is \"many\", not a number");
    }
}
