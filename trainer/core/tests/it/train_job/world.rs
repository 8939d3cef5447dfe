//! A model of a cluster that is just large enough for one job; the tests play the JobSet controller.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::{TrainJob, TrainJobStatus, TrainerStatus, TrainingRuntime};
use muster_trainer_core::train_job::{Effect, Observed, Plan, RuntimeSeen, StatusServer, Waiting, plan};
use muster_trainer_core::{Event, GangScheduler};
use serde_json::{Value, json};

/// What a controller sees: the cluster, or what its caches hold of it.
#[derive(Clone)]
pub(super) struct View {
    pub(super) job: TrainJob,
    pub(super) runtime: Option<TrainingRuntime>,
    pub(super) jobset: Option<JobSet>,
    pub(super) pod_group: Option<Value>,
    pub(super) hostfile: Option<ConfigMap>,
    pub(super) has_ssh_secret: bool,
    pub(super) trainer_status: Option<TrainerStatus>,
    pub(super) waiting: Option<Waiting>,
    pub(super) status_server: Option<StatusServer>,
}

impl View {
    pub(super) fn plan(&self, now: Timestamp) -> Plan {
        let runtime = self.runtime.as_ref();
        let observed = Observed {
            runtime: runtime.map_or(RuntimeSeen::Missing, |runtime| RuntimeSeen::Found(&runtime.spec)),
            jobset: self.jobset.as_ref(),
            pod_group: self.pod_group.as_ref(),
            hostfile: self.hostfile.as_ref(),
            has_ssh_secret: self.has_ssh_secret,
            trainer_status: self.trainer_status.clone(),
            waiting: self.waiting.clone(),
            status_server: self.status_server.as_ref(),
        };
        plan(&self.job, &observed, now, &GangScheduler::Muster)
    }
}

/// The job has changed since it was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflict;

pub(super) struct World {
    pub(super) view: View,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
    /// How many JobSets there have been.
    pub(super) jobsets: u64,
    /// How often a JobSet was written.
    writes: u64,
}

pub(super) fn job(spec: Value) -> Value {
    let mut job = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "train", "namespace": "team", "uid": "job-uid", "resourceVersion": "1",
            "creationTimestamp": "1970-01-12T13:46:40Z"},
        "spec": {"runtimeRef": {"name": "runtime"}},
    });
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

/// A runtime with this policy and one group that trains.
pub(super) fn runtime(policy: Value) -> Value {
    json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": "runtime"},
        "spec": {
            "mlPolicy": policy,
            "template": {"spec": {"replicatedJobs": [{
                "name": "node",
                "template": {
                    "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
                    "spec": {"template": {"spec": {"containers": [{"name": "node", "image": "host"}]}}},
                },
            }]}},
        },
    })
}

/// JobSet's webhook: what may change in a set, and when.
fn review(old: &JobSet, new: &JobSet) {
    let mut new_spec = serde_json::to_value(&new.spec).unwrap();
    let mut old_spec = serde_json::to_value(&old.spec).unwrap();
    let is_open = old.spec.suspend == Some(true) || new.spec.suspend == Some(true);
    for spec in [&mut new_spec, &mut old_spec] {
        spec["suspend"] = json!(null);
        for group in spec["replicatedJobs"].as_array_mut().unwrap().iter_mut().filter(|_| is_open) {
            let template = &mut group["template"]["spec"]["template"];
            for (part, field) in [
                ("metadata", "annotations"),
                ("metadata", "labels"),
                ("spec", "nodeSelector"),
                ("spec", "tolerations"),
                ("spec", "schedulingGates"),
            ] {
                template[part][field] = json!(null);
            }
        }
    }
    assert_eq!(new_spec, old_spec, "spec: Invalid value: field is immutable");
}

impl World {
    pub(super) fn new(job: Value, runtime: Value) -> Self {
        Self {
            view: View {
                job: serde_json::from_value(job).unwrap(),
                runtime: Some(serde_json::from_value(runtime).unwrap()),
                jobset: None,
                pod_group: None,
                hostfile: None,
                has_ssh_secret: false,
                trainer_status: None,
                waiting: None,
                status_server: None,
            },
            now: Timestamp::from_second(1_000_000).unwrap(),
            events: Vec::new(),
            jobsets: 0,
            writes: 0,
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.view.job.metadata.resource_version.as_ref().unwrap().parse().unwrap()
    }

    pub(super) fn status(&self) -> TrainJobStatus {
        self.view.job.status.clone().unwrap_or_default()
    }

    pub(super) fn reason(&self, type_: &str) -> Option<String> {
        self.status()
            .condition(type_)
            .filter(|condition| condition.status == "True")
            .map(|c| c.reason.clone())
    }

    /// Plans and carries out until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..8 {
            let plan = self.view.plan(self.now);
            self.events.extend(plan.events.iter().cloned());
            if plan.is_empty() {
                return;
            }
            let mut planned_for = self.version();
            for effect in plan.stages().into_iter().flatten() {
                self.apply(&effect, &mut planned_for).unwrap();
            }
        }
        panic!("the plan never becomes empty: {:?}", self.view.plan(self.now));
    }

    /// Carries out one effect that was planned for this version of the job.
    pub(super) fn apply(&mut self, effect: &Effect, planned_for: &mut u64) -> Result<(), Conflict> {
        match effect {
            Effect::WriteStatus(status) => {
                self.checked_job(planned_for)?.status = Some(status.clone());
            }
            Effect::Annotate(annotations) => {
                let metadata = &mut self.checked_job(planned_for)?.metadata;
                metadata.annotations.get_or_insert_default().extend(annotations.clone());
            }
            Effect::CreateSshKeys(_) => self.view.has_ssh_secret = true,
            Effect::Apply(object) => match object["kind"].as_str().unwrap() {
                "PodGroup" => self.view.pod_group = Some(object.clone()),
                "ConfigMap" => self.view.hostfile = Some(serde_json::from_value(object.clone()).unwrap()),
                other => panic!("a {other} is applied"),
            },
            Effect::CreateJobSet(set) if self.view.jobset.is_none() => {
                self.jobsets += 1;
                let mut set = set.clone();
                set.metadata.uid = Some(format!("set-{}", self.jobsets));
                self.store(set);
            }
            // It is there.
            Effect::CreateJobSet(_) => {}
            Effect::ChangeJobSet(change) => {
                let stored = self.view.jobset.clone().ok_or(Conflict)?;
                let mut changed = serde_json::to_value(&stored).unwrap();
                json_patch::patch(&mut changed, &change.patch).unwrap();
                let changed: JobSet = serde_json::from_value(changed).unwrap();
                if changed.metadata.resource_version != stored.metadata.resource_version {
                    return Err(Conflict);
                }
                review(&stored, &changed);
                self.store(changed);
            }
            Effect::DeleteJobSet(deletion) => {
                self.view.jobset.take_if(|set| set.metadata.uid.as_ref() == Some(&deletion.uid));
            }
        }
        Ok(())
    }

    fn checked_job(&mut self, planned_for: &mut u64) -> Result<&mut TrainJob, Conflict> {
        if self.version() != *planned_for {
            return Err(Conflict);
        }
        *planned_for += 1;
        self.view.job.metadata.resource_version = Some(planned_for.to_string());
        Ok(&mut self.view.job)
    }

    /// The user changes the job.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut TrainJob)) {
        change(&mut self.view.job);
        self.view.job.metadata.resource_version = Some((self.version() + 1).to_string());
    }

    /// Somebody gives the runtime's nodes another image and sends their pods elsewhere.
    pub(super) fn edit_runtime(&mut self, image: &str, zone: &str) {
        let runtime = self.view.runtime.as_mut().unwrap();
        let group = &mut runtime.spec.template.spec.replicated_jobs[0];
        let pod = group.template.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers[0].image = Some(image.to_owned());
        pod.node_selector = Some([("zone".to_owned(), zone.to_owned())].into());
    }

    /// The JobSet controller reports an end.
    pub(super) fn end(&mut self, type_: &str, reason: &str) {
        let condition = json!({"type": type_, "status": "True", "reason": reason, "message": "it is over",
            "lastTransitionTime": self.now});
        self.report(json!({"conditions": [condition], "terminalState": type_}));
    }

    pub(super) fn report(&mut self, status: Value) {
        let mut set = self.view.jobset.clone().unwrap();
        set.status = Some(serde_json::from_value(status).unwrap());
        self.store(set);
    }

    fn store(&mut self, mut set: JobSet) {
        self.writes += 1;
        set.metadata.resource_version = Some(self.writes.to_string());
        self.view.jobset = Some(set);
    }

    pub(super) fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}
