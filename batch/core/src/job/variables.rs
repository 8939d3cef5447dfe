//! What the script finds in its environment: the person's variables, then ours, under Slurm's names and under our own.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector};
use muster_trainer_api::label;

use super::pod::{MARK_FOLDER, literal};
use super::{Request, twins};
use crate::pattern::{self, Known};
use crate::{hosts, limits, names, shell};

fn plain(name: impl Into<String>, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(literal(value)), ..EnvVar::default() }
}

/// What the pod's own object says.
fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

/// Where the keeper of an interactive job and its clients meet, in a folder that no other pod of the machine has, and how
/// patient it is.
fn variables_of_keeper() -> Vec<EnvVar> {
    let folder = EnvVar {
        name: "MUSTER_SHELL_FOLDER".to_owned(),
        value: Some("/tmp/muster-shell-$(MUSTER_POD_UID)".to_owned()),
        ..EnvVar::default()
    };
    let seconds = |name: &str, time: std::time::Duration| plain(name, &time.as_secs().to_string());
    vec![
        field("MUSTER_POD_UID", "metadata.uid"),
        folder,
        seconds("MUSTER_SHELL_PATIENCE", shell::PATIENCE),
        seconds("MUSTER_SHELL_GRACE", shell::GRACE),
    ]
}

impl Request {
    /// The variables of the batch step.
    pub(super) fn variables_of_script(&self, id: u64) -> Vec<EnvVar> {
        let mut variables = self.variables(id);
        // MPICH hands these on to processes on all nodes, where they are wrong: nodes have a NODEID of their own, and no
        // mpirun tells the others.
        let places: &[&str] =
            if self.layout.nodes() == 1 { &["PROCID", "LOCALID", "NODEID", "GTIDS"] } else { &[] };
        for name in places {
            variables.extend([plain(format!("MUSTER_{name}"), "0"), plain(format!("SLURM_{name}"), "0")]);
        }
        variables.push(match self.layout.nodes() {
            1 => field("SLURMD_NODENAME", "spec.nodeName"),
            _ => plain("SLURMD_NODENAME", &format!("{}-launcher", names::job_name(id))),
        });
        let known = Known { id, array: self.array.is_some(), name: &self.name, user: &self.user };
        for (name, pattern) in [("MUSTER_OUTPUT", &self.output), ("MUSTER_ERROR", &self.error)] {
            variables.extend(pattern.iter().map(|pattern| plain(name, &pattern::fill(pattern, known))));
        }
        variables.push(plain("MUSTER_START_MARK", MARK_FOLDER));
        if let Some(time) = self.time {
            variables.push(plain("MUSTER_TIME_LIMIT", &time.to_string()));
        }
        if let Some(warning) = &self.warning {
            variables.push(plain("MUSTER_SIGNAL", &warning.signal));
            variables.push(plain("MUSTER_SIGNAL_BEFORE", &warning.seconds.to_string()));
        }
        if let Some(array) = &self.array {
            variables.push(plain("MUSTER_ARRAY_RANGES", &array.ranges()));
        }
        if self.interactive {
            variables.extend(variables_of_keeper());
        }
        let tasks: Vec<String> = self.layout.on_nodes().map(|tasks| tasks.to_string()).collect();
        variables.push(plain("MUSTER_NODE_TASKS", &tasks.join(" ")));
        // The processes of several nodes find what the pods carry, without the script in between.
        if self.layout.nodes() == 1 { twins::fold(variables) } else { variables }
    }

    /// The variables of processes that the script starts on a node.
    pub(super) fn variables_of_node(&self, id: u64) -> Vec<EnvVar> {
        let mut variables = self.variables(id);
        let index = format!("metadata.labels['{}']", label::REPLICA_INDEX);
        variables.extend(["MUSTER_NODEID", "SLURM_NODEID"].map(|name| field(name, &index)));
        variables.push(field("SLURMD_NODENAME", "metadata.name"));
        variables
    }

    /// What holds everywhere in the job.
    fn variables(&self, id: u64) -> Vec<EnvVar> {
        let own = self.environment.iter().map(|(name, value)| plain(name.clone(), value));
        let mut variables: Vec<EnvVar> = own.collect();
        for (name, value) in self.facts(id) {
            variables.push(plain(format!("MUSTER_{name}"), &value));
            variables.push(plain(format!("SLURM_{name}"), &value));
        }
        let nodes = hosts::list(&self.node_names(id));
        for name in ["MUSTER_JOB_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"] {
            variables.push(match self.layout.nodes() {
                1 => field(name, "spec.nodeName"),
                _ => plain(name, &nodes),
            });
        }
        for (name, value) in [
            ("SLURM_JOBID", id.to_string()),
            ("SLURM_NNODES", self.layout.nodes().to_string()),
            ("SLURM_NPROCS", self.layout.tasks().to_string()),
            ("SLURM_PRIO_PROCESS", "0".to_owned()),
        ] {
            variables.push(plain(name, &value));
        }
        if !self.interactive {
            variables.push(plain("ENVIRONMENT", "BATCH"));
        }
        variables
    }

    /// What is told under two names.
    fn facts(&self, id: u64) -> Vec<(&'static str, String)> {
        let nodes = self.layout.nodes();
        let cpus = self.cpus_on_node();
        let queue = self.queue.as_deref().unwrap_or(muster_scheduler_api::DEFAULT_QUEUE);
        let mut facts = vec![
            ("CLUSTER_NAME", "muster".to_owned()),
            ("JOB_ID", id.to_string()),
            ("JOB_NAME", self.name.clone()),
            ("JOB_USER", self.user.clone()),
            ("JOB_PARTITION", queue.to_owned()),
            ("JOB_NUM_NODES", nodes.to_string()),
            ("JOB_CPUS_PER_NODE", hosts::repeated((0..nodes).map(|_| cpus))),
            ("NTASKS", self.layout.tasks().to_string()),
            ("NTASKS_PER_NODE", self.layout.most().to_string()),
            ("TASKS_PER_NODE", self.layout.text()),
            ("CPUS_PER_TASK", self.cpus_per_task.to_string()),
            ("CPUS_ON_NODE", cpus.to_string()),
            ("SUBMIT_HOST", self.submit_host.clone()),
        ];
        facts.extend(self.folder.clone().map(|folder| ("SUBMIT_DIR", folder)));
        let memory = self.memory.as_deref().and_then(limits::mebibytes);
        facts.extend(memory.map(|memory| ("MEM_PER_NODE", memory.to_string())));
        if self.gpus > 0 {
            facts.push(("GPUS", (self.gpus * nodes).to_string()));
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
