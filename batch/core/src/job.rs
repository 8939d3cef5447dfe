//! A request of a person as the object that fulfils it: a Job for one node, an `MPIJob` for several.

mod pod;
mod several;
mod twins;
mod variables;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_scheduler_api::labels::QUEUE;

use crate::limits::Warning;
use crate::work::Work;
use crate::{Array, Dependency, Layout, names};

pub use pod::{GPU_MODEL, SCRIPT};

/// Largest script: it travels as one argument of a program, which may have 128 KiB.
pub const MOST_SCRIPT_BYTES: usize = 120 * 1024;
/// How long a job that ended can be looked at, in seconds.
const KEPT_SECONDS: i32 = 24 * 3600;

/// What a person wants to run.
#[derive(Debug, Clone)]
pub struct Request {
    /// The script, which names its interpreter in the first line.
    pub script: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What people call the job.
    pub name: String,
    /// Who submits it.
    pub user: String,
    /// The image of the pods.
    pub image: String,
    /// Where the script starts.
    pub folder: Option<String>,
    /// Folders of the machine that the script finds at their own place.
    pub folders: Vec<String>,
    /// Variables of the person that the script gets.
    pub environment: Vec<(String, String)>,
    /// The machine at which the person sits.
    pub submit_host: String,
    /// Nodes, and the processes that the script means to start on them.
    pub layout: Layout,
    /// Cores for each process.
    pub cpus_per_task: u32,
    /// GPUs on each node.
    pub gpus: u32,
    /// The models that these may be, as the nodes' label `nvidia.com/gpu.product` names them; any if there are none.
    pub gpu_models: Vec<String>,
    /// Memory on each node as a quantity.
    pub memory: Option<String>,
    /// Seconds that it may run, from when its pod got its node.
    pub time: Option<u32>,
    /// A signal before that time is over.
    pub warning: Option<Warning>,
    /// The tasks, if it is an array.
    pub array: Option<Array>,
    /// What it waits for.
    pub dependency: Option<Dependency>,
    /// Whether it is cancelled when what it waits for cannot come any more.
    pub kill_on_invalid_dependency: bool,
    /// Where its output goes; to the pod's log when absent.
    pub output: Option<String>,
    /// Where its errors go; to the output when absent.
    pub error: Option<String>,
    /// Whether a person will release it.
    pub hold: bool,
    /// Whether it starts again when its node is lost or others displace it.
    pub requeue: bool,
    /// Whether somebody works in it; the script is [`crate::shell::KEEPER`] then.
    pub interactive: bool,
    /// The queue.
    pub queue: Option<String>,
}

/// Why a script cannot be a batch job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No interpreter.
    #[error(
        "this does not look like a batch script: its first line must be `#!` and an interpreter, such as `#!/bin/sh`"
    )]
    Interpreter,
    /// Too large.
    #[error(
        "the script has {0} bytes, {MOST_SCRIPT_BYTES} at most; put what is large into a file that it reads"
    )]
    TooLarge(usize),
    /// The warning would come before the start.
    #[error("--signal comes {seconds} s before the end, but --time is {time} s")]
    LateWarning {
        /// Seconds before the end.
        seconds: u32,
        /// The time limit.
        time: u32,
    },
    /// An array over several nodes.
    #[error("--array with --nodes {0}: the tasks of an array have one node each; submit the jobs one by one")]
    ArrayOfSeveralNodes(u32),
    /// A warning before nothing.
    #[error("--signal needs --time: it comes before the time is over")]
    WarningWithoutTime,
}

impl Request {
    /// How many numbers the job takes: an array has one for each task.
    pub fn numbers(&self) -> u64 {
        self.array.as_ref().map_or(1, |array| u64::from(array.count()))
    }

    /// Checks what no single option shows.
    pub fn check(&self) -> Result<(), RequestError> {
        if !self.script.starts_with("#!") {
            return Err(RequestError::Interpreter);
        }
        if self.script.len() > MOST_SCRIPT_BYTES {
            return Err(RequestError::TooLarge(self.script.len()));
        }
        if self.array.is_some() && self.layout.nodes() > 1 {
            return Err(RequestError::ArrayOfSeveralNodes(self.layout.nodes()));
        }
        match (&self.warning, self.time) {
            (Some(_), None) => Err(RequestError::WarningWithoutTime),
            (Some(warning), Some(time)) if warning.seconds >= time => {
                Err(RequestError::LateWarning { seconds: warning.seconds, time })
            }
            _ => Ok(()),
        }
    }

    /// The object with this number.
    pub fn work(&self, id: u64) -> Work {
        if self.layout.nodes() > 1 { self.mpi_job(id).into() } else { self.job(id).into() }
    }

    fn metadata(&self, id: u64) -> ObjectMeta {
        ObjectMeta {
            name: Some(names::job_name(id)),
            labels: Some(self.labels(id)),
            annotations: Some(self.annotations()),
            ..ObjectMeta::default()
        }
    }

    /// Labels of the object and of its pods.
    fn labels(&self, id: u64) -> BTreeMap<String, String> {
        let queue = self.queue.iter().map(|queue| (QUEUE.to_owned(), queue.clone()));
        queue.chain([(names::ID.to_owned(), id.to_string())]).collect()
    }

    /// Whether something must come before it starts.
    fn waits(&self) -> bool {
        self.hold || self.dependency.is_some()
    }

    fn job(&self, id: u64) -> Job {
        let mut spec = JobSpec {
            template: self.template(id, self.script_pod(id)),
            backoff_limit: Some(0),
            suspend: self.waits().then_some(true),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            pod_failure_policy: self.requeue.then(free_of_charge),
            ..JobSpec::default()
        };
        if let Some(array) = &self.array {
            let count = |number: u32| Some(i32::try_from(number).unwrap_or(i32::MAX));
            spec.completion_mode = Some("Indexed".to_owned());
            (spec.completions, spec.parallelism) = (count(array.count()), count(array.at_once()));
            // A task that fails ends itself, not the others.
            (spec.backoff_limit, spec.backoff_limit_per_index) = (None, Some(0));
        }
        Job { metadata: self.metadata(id), spec: Some(spec), status: None }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::new();
        let mut note = |name: &str, text: Option<String>| {
            annotations.extend(text.map(|text| (name.to_owned(), text)));
        };
        note(names::NAME, Some(self.name.clone()));
        note(names::USER, Some(self.user.clone()));
        note(names::ARRAY, self.array.as_ref().map(Array::to_string));
        note(names::DEPENDENCY, self.dependency.as_ref().map(Dependency::to_string));
        note(names::KILL_ON_INVALID_DEPENDENCY, self.kill_on_invalid_dependency.then(|| "yes".to_owned()));
        note(names::HOLD, self.hold.then(|| "user".to_owned()));
        annotations
    }
}

/// Pods that ended for reasons that are not theirs count for nothing, so that others take their place.
fn free_of_charge() -> PodFailurePolicy {
    let disrupted = PodFailurePolicyOnPodConditionsPattern {
        type_: "DisruptionTarget".to_owned(),
        status: Some("True".to_owned()),
    };
    PodFailurePolicy {
        rules: vec![PodFailurePolicyRule {
            action: "Ignore".to_owned(),
            on_pod_conditions: Some(vec![disrupted]),
            ..PodFailurePolicyRule::default()
        }],
    }
}

#[cfg(test)]
mod tests;
