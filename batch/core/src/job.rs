//! A request of a person as the Job that fulfils it.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, HostPathVolumeSource, ObjectFieldSelector, PodSpec, PodTemplateSpec,
    ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_scheduler_api::labels::QUEUE;

use crate::limits::Warning;
use crate::pattern::{self, Known};
use crate::{Array, Dependency, names};

/// What starts the script in the pod; it is a program of `sh`, so that the image needs nothing of Muster.
const START: &str = include_str!("start.sh");
/// Largest script: it travels as one argument of a program, which may have 128 KiB.
pub const MOST_SCRIPT_BYTES: usize = 120 * 1024;
/// How long a job that ended can be looked at, in seconds.
const KEPT_SECONDS: i32 = 24 * 3600;
/// Time between the signal to end and the kill, in seconds, as Slurm's `KillWait`.
const GRACE_SECONDS: i64 = 30;
const GPU: &str = "nvidia.com/gpu";

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
    /// Processes that the script means to start.
    pub tasks: u32,
    /// Cores for each of them.
    pub cpus_per_task: u32,
    /// GPUs.
    pub gpus: u32,
    /// Memory as a quantity.
    pub memory: Option<String>,
    /// Seconds that the script may run.
    pub time: Option<u32>,
    /// A signal before that time is over.
    pub warning: Option<Warning>,
    /// The tasks, if it is an array.
    pub array: Option<Array>,
    /// What it waits for.
    pub dependency: Option<Dependency>,
    /// Where its output goes; to the pod's log when absent.
    pub output: Option<String>,
    /// Where its errors go; to the output when absent.
    pub error: Option<String>,
    /// Whether a person will release it.
    pub hold: bool,
    /// Whether it starts again when its node is lost or others displace it.
    pub requeue: bool,
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
        match (&self.warning, self.time) {
            (Some(_), None) => Err(RequestError::WarningWithoutTime),
            (Some(warning), Some(time)) if warning.seconds >= time => {
                Err(RequestError::LateWarning { seconds: warning.seconds, time })
            }
            _ => Ok(()),
        }
    }

    /// The Job with this number.
    pub fn job(&self, id: u64) -> Job {
        let mut labels = BTreeMap::from([(names::ID.to_owned(), id.to_string())]);
        labels.extend(self.queue.iter().map(|queue| (QUEUE.to_owned(), queue.clone())));
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() }),
            spec: Some(self.pod(id)),
        };
        let held = self.hold || self.dependency.is_some();
        let mut spec = JobSpec {
            template,
            backoff_limit: Some(0),
            suspend: held.then_some(true),
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
        Job {
            metadata: ObjectMeta {
                name: Some(names::job_name(id)),
                labels: Some(labels),
                annotations: Some(self.annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        }
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
        note(names::HOLD, self.hold.then(|| "user".to_owned()));
        annotations
    }

    fn pod(&self, id: u64) -> PodSpec {
        let command = ["/bin/sh", "-c", START, "muster-batch", &self.script].map(literal);
        let quantity = |text: String| Quantity(text);
        let cpu = ("cpu".to_owned(), quantity((self.tasks * self.cpus_per_task).to_string()));
        let memory = self.memory.iter().map(|memory| ("memory".to_owned(), quantity(memory.clone())));
        let gpus = (self.gpus > 0).then(|| (GPU.to_owned(), quantity(self.gpus.to_string())));
        let limits: BTreeMap<String, Quantity> = memory.clone().chain(gpus.clone()).collect();
        let folders = || (0..).zip(&self.folders).map(|(number, path)| (format!("folder-{number}"), path));
        let container = Container {
            name: "batch".to_owned(),
            image: Some(self.image.clone()),
            command: Some(
                command.into_iter().chain(self.arguments.iter().map(|text| literal(text))).collect(),
            ),
            working_dir: self.folder.clone(),
            env: Some(self.variables(id)),
            volume_mounts: some(folders().map(|(name, path)| VolumeMount {
                name,
                mount_path: path.clone(),
                ..VolumeMount::default()
            })),
            resources: Some(ResourceRequirements {
                requests: Some([cpu].into_iter().chain(memory).chain(gpus).collect()),
                limits: Some(limits).filter(|limits| !limits.is_empty()),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        };
        PodSpec {
            volumes: some(folders().map(|(name, path)| Volume {
                name,
                host_path: Some(HostPathVolumeSource {
                    path: path.clone(),
                    type_: Some("Directory".to_owned()),
                }),
                ..Volume::default()
            })),
            containers: vec![container],
            restart_policy: Some("Never".to_owned()),
            // Of the pod, not the Job: the time that a job waits for its turn does not count.
            active_deadline_seconds: self.time.map(i64::from),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            ..PodSpec::default()
        }
    }

    /// The person's variables, then ours: each under Slurm's name and under our own.
    fn variables(&self, id: u64) -> Vec<EnvVar> {
        let plain =
            |name: String, value: &str| EnvVar { name, value: Some(literal(value)), ..EnvVar::default() };
        let own = self.environment.iter().map(|(name, value)| plain(name.clone(), value));
        let mut variables: Vec<EnvVar> = own.collect();
        for (name, value) in self.facts(id) {
            variables.push(plain(format!("MUSTER_{name}"), &value));
            variables.push(plain(format!("SLURM_{name}"), &value));
        }
        let node = EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "spec.nodeName".to_owned(),
            }),
            ..EnvVarSource::default()
        };
        for name in ["MUSTER_JOB_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURMD_NODENAME"] {
            let value_from = Some(node.clone());
            variables.push(EnvVar { name: name.to_owned(), value_from, ..EnvVar::default() });
        }
        for (name, value) in [
            ("SLURM_JOBID", id.to_string()),
            ("SLURM_NNODES", "1".to_owned()),
            ("SLURM_NPROCS", self.tasks.to_string()),
        ] {
            variables.push(plain(name.to_owned(), &value));
        }
        let known = Known { id, array: self.array.is_some(), name: &self.name, user: &self.user };
        for (name, pattern) in [("MUSTER_OUTPUT", &self.output), ("MUSTER_ERROR", &self.error)] {
            let pattern =
                pattern.iter().map(|pattern| plain(name.to_owned(), &pattern::fill(pattern, known)));
            variables.extend(pattern);
        }
        if let (Some(warning), Some(time)) = (&self.warning, self.time) {
            variables.push(plain("MUSTER_SIGNAL".to_owned(), &warning.signal));
            let after = time.saturating_sub(warning.seconds).to_string();
            variables.push(plain("MUSTER_SIGNAL_AFTER".to_owned(), &after));
        }
        if let Some(array) = &self.array {
            variables.push(plain("MUSTER_ARRAY_RANGES".to_owned(), &array.ranges()));
        }
        variables
    }

    /// What is told under two names.
    fn facts(&self, id: u64) -> Vec<(&'static str, String)> {
        let cpus = self.tasks * self.cpus_per_task;
        let mut facts = vec![
            ("JOB_ID", id.to_string()),
            ("JOB_NAME", self.name.clone()),
            ("JOB_USER", self.user.clone()),
            (
                "JOB_PARTITION",
                self.queue.clone().unwrap_or_else(|| muster_scheduler_api::DEFAULT_QUEUE.to_owned()),
            ),
            ("JOB_NUM_NODES", "1".to_owned()),
            ("NTASKS", self.tasks.to_string()),
            ("NTASKS_PER_NODE", self.tasks.to_string()),
            ("CPUS_PER_TASK", self.cpus_per_task.to_string()),
            ("CPUS_ON_NODE", cpus.to_string()),
            ("PROCID", "0".to_owned()),
            ("LOCALID", "0".to_owned()),
            ("NODEID", "0".to_owned()),
        ];
        facts.extend(self.folder.clone().map(|folder| ("SUBMIT_DIR", folder)));
        if self.gpus > 0 {
            facts.push(("GPUS_PER_NODE", self.gpus.to_string()));
            facts.push(("GPUS_ON_NODE", self.gpus.to_string()));
        }
        if let Some(array) = &self.array {
            let (lowest, highest, step) = array.extent();
            facts.extend([
                ("ARRAY_JOB_ID", id.to_string()),
                ("ARRAY_TASK_COUNT", array.count().to_string()),
                ("ARRAY_TASK_MIN", lowest.to_string()),
                ("ARRAY_TASK_MAX", highest.to_string()),
                ("ARRAY_TASK_STEP", step.to_string()),
            ]);
        }
        facts
    }
}

/// A list that is left out when it is empty.
fn some<T>(items: impl Iterator<Item = T>) -> Option<Vec<T>> {
    Some(items.collect::<Vec<T>>()).filter(|items| !items.is_empty())
}

/// Text in which Kubernetes expands nothing.
fn literal(text: &str) -> String {
    text.replace("$(", "$$(")
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
