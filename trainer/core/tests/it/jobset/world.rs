//! A model of a cluster that is just large enough for one set; the tests play the Job controller.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_trainer_api::jobset::{JobSet, JobSetStatus};
use muster_trainer_core::jobset::{Effect, Observed, Plan, plan};
use muster_trainer_core::{Event, GangScheduler};
use serde_json::{Value, json};

/// What a controller sees: the cluster, or what its caches hold of it.
#[derive(Clone)]
pub(super) struct View {
    pub(super) set: Option<JobSet>,
    pub(super) jobs: Vec<Job>,
    pub(super) service: Option<Service>,
    pub(super) claims: Vec<String>,
}

impl View {
    pub(super) fn plan(&self, now: Timestamp) -> Plan {
        let Some(set) = &self.set else { return Plan::default() };
        let observed = Observed { jobs: &self.jobs, service: self.service.as_ref(), claims: &self.claims };
        plan(set, &observed, now, &GangScheduler::Muster)
    }
}

/// Why an effect was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Conflict,
    AlreadyExists,
    NotFound,
}

pub(super) struct World {
    pub(super) set: Option<JobSet>,
    pub(super) jobs: BTreeMap<String, Job>,
    pub(super) service: Option<Service>,
    pub(super) claims: Vec<String>,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
    /// Seconds a deleted Job takes to be gone; zero removes it at once.
    pub(super) grace: i64,
    next_uid: u64,
}

/// A set with these groups of one-pod jobs.
pub(super) fn manifest(groups: &[(&str, i32)]) -> Value {
    let groups: Vec<_> = groups
        .iter()
        .map(|(name, replicas)| {
            json!({"name": name, "replicas": replicas, "template": {"spec": {
                "parallelism": 2, "completions": 2, "ttlSecondsAfterFinished": 1,
                "template": {"spec": {"containers": [{"name": "main", "image": "host"}]}},
            }}})
        })
        .collect();
    json!({
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "train", "namespace": "team", "uid": "set-uid", "resourceVersion": "1"},
        "spec": {"replicatedJobs": groups},
    })
}

pub(super) fn version(set: &JobSet) -> u64 {
    set.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

impl World {
    pub(super) fn new(manifest: Value) -> Self {
        Self {
            set: Some(serde_json::from_value(manifest).unwrap()),
            jobs: BTreeMap::new(),
            service: None,
            claims: Vec::new(),
            now: Timestamp::from_second(1_000_000).unwrap(),
            events: Vec::new(),
            grace: 0,
            next_uid: 1,
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            set: self.set.clone(),
            jobs: self.jobs.values().cloned().collect(),
            service: self.service.clone(),
            claims: self.claims.clone(),
        }
    }

    pub(super) fn status(&self) -> JobSetStatus {
        self.set.as_ref().and_then(|set| set.status.clone()).unwrap_or_default()
    }

    pub(super) fn plan(&self) -> Plan {
        self.view().plan(self.now)
    }

    /// Plans and carries out until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..8 {
            let plan = self.plan();
            if plan.is_empty() {
                return;
            }
            self.events.extend(plan.events.iter().cloned());
            let mut planned_for = self.set.as_ref().map_or(0, version);
            for effect in plan.stages().into_iter().flatten() {
                self.apply(&effect, &mut planned_for).unwrap();
            }
        }
        panic!("the plan never becomes empty: {:?}", self.plan());
    }

    /// Carries out one effect that was planned for this version of the set.
    pub(super) fn apply(&mut self, effect: &Effect, planned_for: &mut u64) -> Result<(), Refusal> {
        match effect {
            Effect::WriteStatus(status) => {
                let set = self.set.as_mut().ok_or(Refusal::NotFound)?;
                if version(set) != *planned_for {
                    return Err(Refusal::Conflict);
                }
                *planned_for += 1;
                set.metadata.resource_version = Some(planned_for.to_string());
                set.status = Some(status.clone());
            }
            Effect::DeleteJob(deletion) => {
                let job = self.jobs.get_mut(&deletion.name).ok_or(Refusal::NotFound)?;
                if job.metadata.uid.as_ref() != Some(&deletion.uid) {
                    return Err(Refusal::Conflict);
                }
                if self.grace == 0 {
                    self.jobs.remove(&deletion.name);
                } else {
                    let gone = self.now + SignedDuration::from_secs(self.grace);
                    job.metadata.deletion_timestamp.get_or_insert(Time(gone));
                }
            }
            Effect::CreateService(service) => {
                if self.service.is_some() {
                    return Err(Refusal::AlreadyExists);
                }
                self.service = Some(service.clone());
            }
            Effect::CreateClaim(claim) => self.claims.push(claim.metadata.name.clone().unwrap()),
            Effect::UpdateJob(job) => {
                let stored = self.jobs.get_mut(job.metadata.name.as_ref().unwrap());
                let stored = stored.ok_or(Refusal::NotFound)?;
                if stored.metadata.resource_version != job.metadata.resource_version {
                    return Err(Refusal::Conflict);
                }
                *stored = job.clone();
                self.changed(&job.metadata.name.clone().unwrap());
            }
            Effect::CreateJob(job) => {
                let name = job.metadata.name.clone().unwrap();
                if self.jobs.contains_key(&name) {
                    return Err(Refusal::AlreadyExists);
                }
                let mut job = job.clone();
                job.metadata.uid = Some(format!("uid-{}", self.next_uid));
                self.jobs.insert(name.clone(), job);
                self.changed(&name);
            }
            Effect::DeleteSet => {
                self.set = None;
                self.jobs.clear();
                self.service = None;
            }
        }
        Ok(())
    }

    fn changed(&mut self, job: &str) {
        self.next_uid += 1;
        self.jobs.get_mut(job).unwrap().metadata.resource_version = Some(self.next_uid.to_string());
    }

    /// The Job controller reports.
    pub(super) fn report(&mut self, job: &str, status: Value) {
        self.jobs.get_mut(job).unwrap().status = Some(serde_json::from_value(status).unwrap());
        self.changed(job);
    }

    pub(super) fn ready(&mut self, job: &str) {
        self.report(job, json!({"startTime": self.now, "active": 2, "ready": 2}));
    }

    pub(super) fn complete(&mut self, job: &str) {
        self.end(job, "Complete", "CompletionsReached", "");
    }

    pub(super) fn fail(&mut self, job: &str) {
        self.end(job, "Failed", "BackoffLimitExceeded", "too many failures of node gpu-7");
    }

    pub(super) fn end(&mut self, job: &str, type_: &str, reason: &str, message: &str) {
        let condition = json!({"type": type_, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": self.now});
        self.report(job, json!({"startTime": self.now, "conditions": [condition]}));
    }

    pub(super) fn advance(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.jobs.keys().map(String::as_str).collect()
    }

    /// The reason of the condition of this type, if it holds.
    pub(super) fn reason(&self, type_: &str) -> Option<String> {
        self.status()
            .condition(type_)
            .filter(|condition| condition.status == "True")
            .map(|c| c.reason.clone())
    }
}
