//! A model of a cluster that is just large enough for one job.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_trainer_api::ConditionType;
use muster_trainer_core::{Effect, Event, Job, ObjectAction, Observed, Options, Plan, TrainingKind, plan};
use serde_json::{Value, json};

/// What a controller sees: the cluster, or what its caches hold of it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) job: Job,
    pub(crate) pods: Vec<Pod>,
    pub(crate) services: Vec<Service>,
    pub(crate) pod_group: Option<Value>,
    pub(crate) autoscaler: Option<HorizontalPodAutoscaler>,
}

/// Why an effect was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Conflict,
    AlreadyExists,
    NotFound,
}

pub(crate) struct World {
    /// What the user wrote.
    manifest: Value,
    /// What became of it.
    pub(crate) job: Option<Job>,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) pod_group: Option<Value>,
    pub(crate) autoscaler: Option<HorizontalPodAutoscaler>,
    pub(crate) now: Timestamp,
    pub(crate) options: Options,
    pub(crate) events: Vec<Event>,
    /// Seconds a deleted running pod takes to end; zero removes it at once.
    pub(crate) grace: i64,
    next_uid: u64,
}

/// Replica types and how many pods each has.
pub(crate) type Replicas = &'static [(&'static str, i32)];

/// A PyTorchJob of one Master and this many Workers.
pub(crate) fn manifest(workers: i32) -> Value {
    if workers > 0 {
        manifest_of("PyTorchJob", &[("Master", 1), ("Worker", workers)])
    } else {
        manifest_of("PyTorchJob", &[("Master", 1)])
    }
}

/// A job of this kind with so many pods of each type.
pub(crate) fn manifest_of(kind: &str, replicas: &[(&str, i32)]) -> Value {
    let data = TrainingKind::find("kubeflow.org/v1", kind).unwrap().kind;
    let template = json!({"spec": {"containers": [{"name": data.container, "image": "muster.dev/train:1"}]}});
    let specs: serde_json::Map<String, Value> = replicas
        .iter()
        .map(|(type_, count)| ((*type_).to_owned(), json!({"replicas": count, "template": template})))
        .collect();
    json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": "digits", "namespace": "team", "uid": "job-uid", "resourceVersion": "1"},
        "spec": {data.replica_specs: specs},
    })
}

/// A job as the rules see it.
pub(crate) fn read(manifest: &Value) -> Job {
    let text = |field: &str| manifest[field].as_str().unwrap();
    let training = TrainingKind::find(text("apiVersion"), text("kind")).unwrap();
    (training.read)(manifest.clone()).unwrap()
}

impl World {
    pub(crate) fn new(manifest: Value) -> Self {
        Self {
            job: Some(read(&manifest)),
            manifest,
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            pod_group: None,
            autoscaler: None,
            now: Timestamp::from_second(1_000_000).unwrap(),
            options: Options::default(),
            events: Vec::new(),
            grace: 0,
            next_uid: 1,
        }
    }

    pub(crate) fn view(&self) -> View {
        View {
            job: self.job.clone().unwrap(),
            pods: self.pods.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            pod_group: self.pod_group.clone(),
            autoscaler: self.autoscaler.clone(),
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        self.view().plan(self.now, &self.options)
    }

    /// Plans and carries the whole plan out.
    pub(crate) fn reconcile(&mut self) -> Plan {
        let view = self.view();
        let plan = view.plan(self.now, &self.options);
        self.events.extend(plan.events.iter().cloned());
        let mut version = version(&view.job);
        for effect in plan.clone().stages().into_iter().flatten() {
            self.apply(&effect, &mut version).unwrap();
        }
        plan
    }

    /// Reconciles until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..8 {
            if self.job.is_none() || self.reconcile().is_empty() {
                return;
            }
        }
        panic!("the plan never becomes empty: {:?}", self.plan());
    }

    /// Carries out one effect that was planned for this version of the job.
    pub(crate) fn apply(&mut self, effect: &Effect, job_version: &mut u64) -> Result<(), Refusal> {
        match effect {
            Effect::Annotate(annotations) => {
                let job = self.checked_job(job_version)?;
                job.metadata.annotations.get_or_insert_default().extend(annotations.clone());
            }
            Effect::WriteStatus(status) => self.checked_job(job_version)?.status.clone_from(status),
            Effect::PodGroup(action) => act(&mut self.pod_group, action),
            Effect::Autoscaler(action) => act(&mut self.autoscaler, action),
            Effect::AnnotatePod(annotation) => {
                let pod = self.pods.get_mut(&annotation.name).ok_or(Refusal::NotFound)?;
                if pod.metadata.uid.as_deref() != Some(&annotation.uid) {
                    return Err(Refusal::Conflict);
                }
                pod.metadata.annotations.get_or_insert_default().extend(annotation.annotations.clone());
            }
            Effect::DeletePod(deletion) => {
                let pod = self.pods.get_mut(&deletion.name).ok_or(Refusal::NotFound)?;
                if pod.metadata.uid.as_deref() != Some(&deletion.uid) {
                    return Err(Refusal::Conflict);
                }
                if deletion.force || self.grace == 0 || phase(pod) != "Running" {
                    self.pods.remove(&deletion.name);
                } else {
                    let end = self.now.checked_add(SignedDuration::from_secs(self.grace)).unwrap();
                    pod.metadata.deletion_timestamp.get_or_insert(Time(end));
                    pod.metadata.deletion_grace_period_seconds = Some(self.grace);
                }
            }
            Effect::DeleteService(name) => {
                self.services.remove(name).ok_or(Refusal::NotFound)?;
            }
            Effect::CreateService(service) => {
                let name = service.metadata.name.clone().unwrap();
                if self.services.contains_key(&name) {
                    return Err(Refusal::AlreadyExists);
                }
                self.services.insert(name, service.clone());
            }
            Effect::CreatePod(pod) => {
                let name = pod.metadata.name.clone().unwrap();
                if self.pods.contains_key(&name) {
                    return Err(Refusal::AlreadyExists);
                }
                let mut pod = pod.clone();
                pod.metadata.uid = Some(format!("pod-{}", self.next_uid));
                self.next_uid += 1;
                self.pods.insert(name, pod);
            }
            Effect::DeleteJob => self.job = None,
            Effect::Companion(action) => panic!("a PyTorchJob brings nothing along: {action:?}"),
        }
        Ok(())
    }

    fn checked_job(&mut self, planned_for: &mut u64) -> Result<&mut Job, Refusal> {
        let job = self.job.as_mut().ok_or(Refusal::NotFound)?;
        if version(job) != *planned_for {
            return Err(Refusal::Conflict);
        }
        *planned_for += 1;
        job.metadata.resource_version = Some(planned_for.to_string());
        Ok(job)
    }

    /// Changes the manifest of the job as a user would.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.manifest);
        let job = self.job.as_mut().unwrap();
        let mut edited = read(&self.manifest);
        edited.status = job.status.clone();
        edited.metadata = job.metadata.clone();
        edited.metadata.resource_version = Some((version(job) + 1).to_string());
        *job = edited;
    }

    pub(crate) fn set_pod_status(&mut self, name: &str, status: Value) {
        self.pods.get_mut(name).unwrap().status = Some(serde_json::from_value(status).unwrap());
    }

    pub(crate) fn run(&mut self, name: &str) {
        self.set_pod_status(name, json!({"phase": "Running"}));
    }

    pub(crate) fn run_all(&mut self) {
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            self.run(&name);
        }
    }

    pub(crate) fn exit(&mut self, name: &str, code: i32) {
        self.set_pod_status(name, self.exited(code));
    }

    /// The status of a pod whose training container ended with this code.
    pub(crate) fn exited(&self, code: i32) -> Value {
        exited(self.job.as_ref().unwrap().kind.container, code)
    }

    pub(crate) fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    pub(crate) fn pod_names(&self) -> Vec<&str> {
        self.pods.keys().map(String::as_str).collect()
    }

    /// The conditions of the job, such as `Running=True`.
    pub(crate) fn conditions(&self) -> Vec<String> {
        let status = &self.job.as_ref().unwrap().status;
        status.conditions.iter().map(|c| format!("{}={}", c.type_.as_str(), c.status)).collect()
    }

    pub(crate) fn message(&self, type_: ConditionType) -> String {
        let status = &self.job.as_ref().unwrap().status;
        status.condition(&type_).and_then(|condition| condition.message.clone()).unwrap_or_default()
    }

    /// Active, succeeded and failed pods of a replica type.
    pub(crate) fn counts(&self, type_: &str) -> (i32, i32, i32) {
        let status = &self.job.as_ref().unwrap().status;
        let counts = &status.replica_statuses[type_];
        (counts.active, counts.succeeded, counts.failed)
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.job.as_ref().unwrap().metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.reason.as_str()).collect()
    }
}

impl View {
    pub(crate) fn plan(&self, now: Timestamp, options: &Options) -> Plan {
        let observed = Observed {
            pods: &self.pods,
            services: &self.services,
            pod_group: self.pod_group.as_ref(),
            autoscaler: self.autoscaler.as_ref(),
        };
        plan(&self.job, &observed, now, options)
    }
}

pub(crate) fn version(job: &Job) -> u64 {
    job.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

/// The status of a pod whose container of this name ended with a code.
pub(crate) fn exited(container: &str, code: i32) -> Value {
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{
            "name": container, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": code}},
        }],
    })
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn act<T: Clone>(slot: &mut Option<T>, action: &ObjectAction<T>) {
    match action {
        ObjectAction::Keep => {}
        ObjectAction::Create(object) | ObjectAction::Update(object) => *slot = Some(object.clone()),
        ObjectAction::Delete => *slot = None,
    }
}
