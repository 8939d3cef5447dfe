//! A model of a cluster that is just large enough for one MPI job, and of the controller that runs its launcher.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job as Launcher, JobCondition};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use muster_trainer_api::{ConditionType, MpiJob};
use muster_trainer_core::mpi::{self, AgentSource, Observed};
use muster_trainer_core::{Companion, CompanionAction, Effect, Event, ObjectAction, Options, Plan};
use serde_json::{Value, json};

use crate::world::{Refusal, phase};

/// What a controller sees: the cluster, or what its caches hold of it.
#[derive(Clone)]
pub(super) struct View {
    pub(super) job: MpiJob,
    pub(super) pods: Vec<Pod>,
    pub(super) services: Vec<Service>,
    pub(super) config_maps: Vec<ConfigMap>,
    pub(super) launchers: Vec<Launcher>,
    pub(super) pod_group: Option<Value>,
}

pub(super) struct World {
    pub(super) job: Option<MpiJob>,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) services: BTreeMap<String, Service>,
    /// By kind and name, config maps and launchers apart.
    pub(super) companions: BTreeMap<String, Companion>,
    pub(super) config_maps: BTreeMap<String, ConfigMap>,
    pub(super) launchers: BTreeMap<String, Launcher>,
    pub(super) pod_group: Option<Value>,
    pub(super) now: Timestamp,
    pub(super) options: Options,
    pub(super) events: Vec<Event>,
    /// Seconds a deleted running pod takes to end; zero removes it at once.
    pub(super) grace: i64,
    next_uid: u64,
}

/// A launcher and this many workers, as `v2beta1` reads them.
pub(super) fn manifest(workers: i32) -> Value {
    let mut job = manifest_v1(workers);
    job["spec"]["sshAuthMountPath"] = json!("/root/.ssh");
    job["spec"]["launcherCreationPolicy"] = json!("AtStartup");
    job["spec"]["mpiImplementation"] = json!("OpenMPI");
    job["spec"]["runLauncherAsWorker"] = json!(false);
    job["spec"]["slotsPerWorker"] = json!(1);
    job
}

/// The same as `v1` reads them.
pub(super) fn manifest_v1(workers: i32) -> Value {
    let container = json!({"name": "mpi", "image": "mpi:1"});
    let mut launcher = container.clone();
    launcher["command"] = json!(["mpirun", "-n", "2", "pi"]);
    let mut specs = json!({"Launcher": {"template": {"spec": {"containers": [launcher]}}}});
    if workers > 0 {
        specs["Worker"] = json!({"replicas": workers, "template": {"spec": {"containers": [container]}}});
    }
    json!({
        "apiVersion": "kubeflow.org/v1",
        "kind": "MPIJob",
        "metadata": {"name": "pi", "namespace": "team", "uid": "job-uid", "resourceVersion": "1"},
        "spec": {"mpiReplicaSpecs": specs},
    })
}

/// Whether the cluster has taken a pod, as its conditions say.
fn is_disrupted(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
}

pub(super) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

impl World {
    pub(super) fn new(manifest: Value) -> Self {
        let mut options = Options::default();
        options.mpi.agent = Some(AgentSource::Image("muster.dev/muster:1".to_owned()));
        Self {
            job: Some(serde_json::from_value(manifest).unwrap()),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            companions: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            launchers: BTreeMap::new(),
            pod_group: None,
            now: Timestamp::from_second(1_000_000).unwrap(),
            options,
            events: Vec::new(),
            grace: 0,
            next_uid: 1,
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            job: self.job.clone().unwrap(),
            pods: self.pods.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            config_maps: self.config_maps.values().cloned().collect(),
            launchers: self.launchers.values().cloned().collect(),
            pod_group: self.pod_group.clone(),
        }
    }

    /// Plans and carries the whole plan out.
    pub(super) fn reconcile(&mut self) -> Plan {
        let view = self.view();
        let plan = view.plan(self.now, &self.options);
        self.events.extend(plan.events.iter().cloned());
        let mut planned_for = version(&view.job.metadata);
        for effect in plan.clone().stages().into_iter().flatten() {
            self.apply(&effect, &mut planned_for).unwrap();
        }
        plan
    }

    /// Reconciles until nothing is left to do, the launcher's controller too.
    pub(super) fn settle(&mut self) {
        for _ in 0..12 {
            let changed = self.control_launchers();
            if self.job.is_none() || (self.reconcile().is_empty() && !changed) {
                return;
            }
        }
        panic!("the plan never becomes empty: {:?}", self.view().plan(self.now, &self.options));
    }

    fn uid(&mut self) -> String {
        self.next_uid += 1;
        format!("uid-{}", self.next_uid)
    }

    /// Carries out one effect that was planned for this version of the job.
    pub(super) fn apply(&mut self, effect: &Effect, planned_for: &mut u64) -> Result<(), Refusal> {
        match effect {
            Effect::Annotate(annotations) => {
                let job = self.checked_job(planned_for)?;
                job.metadata.annotations.get_or_insert_default().extend(annotations.clone());
            }
            Effect::WriteStatus(status) => self.checked_job(planned_for)?.status = Some(status.clone()),
            Effect::PodGroup(action) => match action {
                ObjectAction::Keep => {}
                ObjectAction::Create(group) | ObjectAction::Update(group) => {
                    self.pod_group = Some(group.clone());
                }
                ObjectAction::Delete => self.pod_group = None,
            },
            Effect::AnnotatePod(annotation) => {
                let pod = self.pods.get_mut(&annotation.name).ok_or(Refusal::NotFound)?;
                pod.metadata.annotations.get_or_insert_default().extend(annotation.annotations.clone());
            }
            Effect::DeletePod(deletion) => {
                let pod = self.pods.get(&deletion.name).ok_or(Refusal::NotFound)?;
                if pod.metadata.uid.as_deref() != Some(&deletion.uid) {
                    return Err(Refusal::Conflict);
                }
                self.delete_pod(&deletion.name, deletion.force);
            }
            Effect::CreateService(service) => {
                let name = service.metadata.name.clone().unwrap();
                if self.services.insert(name, service.clone()).is_some() {
                    return Err(Refusal::AlreadyExists);
                }
            }
            Effect::CreatePod(pod) => {
                let name = pod.metadata.name.clone().unwrap();
                if self.pods.contains_key(&name) {
                    return Err(Refusal::AlreadyExists);
                }
                let mut pod = pod.clone();
                pod.metadata.uid = Some(self.uid());
                self.pods.insert(name, pod);
            }
            Effect::Companion(action) => self.companion(action)?,
            Effect::DeleteJob => self.job = None,
            Effect::Autoscaler(_) | Effect::DeleteService(_) => panic!("not of an MPI job: {effect:?}"),
        }
        Ok(())
    }

    fn companion(&mut self, action: &CompanionAction) -> Result<(), Refusal> {
        match action {
            CompanionAction::Ensure(Companion::Job(launcher)) => {
                let name = launcher.metadata.name.clone().unwrap();
                if self.launchers.contains_key(&name) {
                    return Err(Refusal::AlreadyExists);
                }
                let mut launcher = launcher.clone();
                launcher.metadata.uid = Some(self.uid());
                launcher.metadata.resource_version = Some("1".to_owned());
                self.launchers.insert(name, launcher);
            }
            CompanionAction::Ensure(Companion::ConfigMap(map)) => {
                let name = map.metadata.name.clone().unwrap();
                if self.config_maps.contains_key(&name) {
                    return Err(Refusal::AlreadyExists);
                }
                let mut map = map.clone();
                map.metadata.resource_version = Some("1".to_owned());
                self.config_maps.insert(name, map);
            }
            CompanionAction::Ensure(companion) => {
                let key = format!("{}/{}", companion.kind(), companion.metadata().name.as_ref().unwrap());
                self.companions.insert(key, companion.clone());
            }
            CompanionAction::Update(Companion::Job(launcher)) => {
                let name = launcher.metadata.name.as_ref().unwrap();
                let stored = self.launchers.get_mut(name).ok_or(Refusal::NotFound)?;
                let current = version(&stored.metadata);
                if version(&launcher.metadata) != current || launcher.metadata.uid != stored.metadata.uid {
                    return Err(Refusal::Conflict);
                }
                let status = stored.status.take();
                *stored = Launcher { status, ..launcher.clone() };
                stored.metadata.resource_version = Some((current + 1).to_string());
            }
            CompanionAction::Update(Companion::ConfigMap(map)) => {
                let name = map.metadata.name.as_ref().unwrap();
                let stored = self.config_maps.get_mut(name).ok_or(Refusal::NotFound)?;
                let current = version(&stored.metadata);
                if version(&map.metadata) != current {
                    return Err(Refusal::Conflict);
                }
                *stored = map.clone();
                stored.metadata.resource_version = Some((current + 1).to_string());
            }
            CompanionAction::Update(companion) => panic!("never updated: {companion:?}"),
            CompanionAction::DeleteJob { name, uid } => {
                let launcher = self.launchers.get(name).ok_or(Refusal::NotFound)?;
                if launcher.metadata.uid.as_ref() != Some(uid) {
                    return Err(Refusal::Conflict);
                }
                self.launchers.remove(name);
            }
        }
        Ok(())
    }

    fn checked_job(&mut self, planned_for: &mut u64) -> Result<&mut MpiJob, Refusal> {
        let job = self.job.as_mut().ok_or(Refusal::NotFound)?;
        if version(&job.metadata) != *planned_for {
            return Err(Refusal::Conflict);
        }
        *planned_for += 1;
        job.metadata.resource_version = Some(planned_for.to_string());
        Ok(job)
    }

    fn delete_pod(&mut self, name: &str, force: bool) {
        let end = self.now.checked_add(SignedDuration::from_secs(self.grace)).unwrap();
        let pod = self.pods.get_mut(name).unwrap();
        if force || self.grace == 0 || phase(pod) != "Running" {
            self.pods.remove(name);
        } else {
            pod.metadata.deletion_timestamp.get_or_insert(Time(end));
            pod.metadata.deletion_grace_period_seconds = Some(self.grace);
        }
    }

    /// What a cluster's controller of Jobs does; whether it did anything.
    pub(super) fn control_launchers(&mut self) -> bool {
        let owners: Vec<_> = self.launchers.values().map(|job| job.metadata.uid.clone().unwrap()).collect();
        let orphans: Vec<_> = self
            .launcher_pods()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && !owners.contains(&owner(pod)))
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect();
        for name in &orphans {
            self.delete_pod(name, false);
        }
        let mut changed = !orphans.is_empty();
        for name in self.launchers.keys().cloned().collect::<Vec<_>>() {
            changed |= self.control(&name);
        }
        changed
    }

    fn control(&mut self, name: &str) -> bool {
        let mut launcher = self.launchers[name].clone();
        let spec = launcher.spec.clone().unwrap();
        let uid = launcher.metadata.uid.clone().unwrap();
        let mut status = launcher.status.clone().unwrap_or_default();
        if status.conditions.iter().flatten().any(|condition| condition.status == "True") {
            return false;
        }
        let pods: Vec<Pod> = self.launcher_pods().filter(|pod| owner(pod) == uid).cloned().collect();
        let ignores = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
        let ignores = ignores.into_iter().any(|rule| rule.action == "Ignore");
        let failed = pods.iter().filter(|pod| phase(pod) == "Failed" && !(ignores && is_disrupted(pod)));
        let failed = failed.count() as i32;
        let succeeded = pods.iter().any(|pod| phase(pod) == "Succeeded");
        let active: Vec<_> = pods.iter().filter(|pod| matches!(phase(pod), "Pending" | "Running")).collect();
        if spec.suspend == Some(true) {
            let running = active.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let names: Vec<_> = running.map(|pod| pod.metadata.name.clone().unwrap()).collect();
            for name in &names {
                self.delete_pod(name, false);
            }
            return !names.is_empty();
        }
        let end = |type_: &str, reason: &str| JobCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(format!("Job {reason}")),
            ..JobCondition::default()
        };
        status.failed = Some(failed);
        if succeeded {
            status.succeeded = Some(1);
            status.conditions = Some(vec![end("Complete", "CompletionsReached")]);
        } else if failed > spec.backoff_limit.unwrap_or(6) {
            status.conditions = Some(vec![end("Failed", "BackoffLimitExceeded")]);
        } else if active.is_empty() {
            let metadata = spec.template.metadata.clone().unwrap_or_default();
            let number = self.uid();
            let pod = Pod {
                metadata: ObjectMeta {
                    name: Some(format!("{name}-{number}")),
                    uid: Some(number),
                    owner_references: Some(vec![OwnerReference {
                        api_version: "batch/v1".to_owned(),
                        kind: "Job".to_owned(),
                        name: name.to_owned(),
                        uid,
                        controller: Some(true),
                        block_owner_deletion: Some(true),
                    }]),
                    ..metadata
                },
                spec: spec.template.spec.clone(),
                status: None,
            };
            self.pods.insert(pod.metadata.name.clone().unwrap(), pod);
        }
        let created = active.is_empty() && !succeeded;
        let changed = launcher.status.as_ref() != Some(&status);
        if changed {
            launcher.status = Some(status);
            launcher.metadata.resource_version = Some((version(&launcher.metadata) + 1).to_string());
            self.launchers.insert(name.to_owned(), launcher);
        }
        changed || created
    }

    pub(super) fn launcher_pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(|pod| pod.metadata.name.as_ref().unwrap().contains("-launcher-"))
    }

    /// Changes the job as a user would.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut MpiJob)) {
        let job = self.job.as_mut().unwrap();
        change(job);
        job.metadata.resource_version = Some((version(&job.metadata) + 1).to_string());
    }

    pub(super) fn set_pod_status(&mut self, name: &str, status: Value) {
        self.pods.get_mut(name).unwrap().status = Some(serde_json::from_value(status).unwrap());
    }

    pub(super) fn run(&mut self, name: &str) {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        self.set_pod_status(name, json!({"phase": "Running", "conditions": ready}));
    }

    /// Every pod runs, the launcher too.
    pub(super) fn run_all(&mut self) {
        self.settle();
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            if phase(&self.pods[&name]) == "Pending" {
                self.run(&name);
            }
        }
        self.settle();
    }

    pub(super) fn launcher_pod(&self) -> String {
        let mut pods = self.launcher_pods().filter(|pod| !matches!(phase(pod), "Failed" | "Succeeded"));
        pods.next().unwrap().metadata.name.clone().unwrap()
    }

    pub(super) fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    /// The conditions of the job, such as `Running=True`.
    pub(super) fn conditions(&self) -> Vec<String> {
        let status = self.job.as_ref().unwrap().status.clone().unwrap_or_default();
        status.conditions.iter().map(|c| format!("{}={}", c.type_.as_str(), c.status)).collect()
    }

    /// Reason and message of a condition.
    pub(super) fn said(&self, type_: ConditionType) -> (String, String) {
        let status = self.job.as_ref().unwrap().status.clone().unwrap();
        let condition = status.condition(&type_).unwrap();
        (condition.reason.clone().unwrap(), condition.message.clone().unwrap())
    }

    /// Active, succeeded and failed pods of a replica type.
    pub(super) fn counts(&self, type_: &str) -> (i32, i32, i32) {
        let status = self.job.as_ref().unwrap().status.clone().unwrap();
        let counts = &status.replica_statuses[type_];
        (counts.active, counts.succeeded, counts.failed)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.job.as_ref().unwrap().metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// A file of the job's ConfigMap.
    pub(super) fn file(&self, name: &str) -> &str {
        &self.config_maps["pi-config"].data.as_ref().unwrap()[name]
    }
}

/// The status of a pod whose program has ended.
pub(super) fn exited(code: i32) -> Value {
    crate::world::exited("mpi", code)
}

fn owner(pod: &Pod) -> String {
    pod.metadata.owner_references.as_ref().unwrap()[0].uid.clone()
}

impl View {
    /// Whether a pod or launcher of this name is seen.
    pub(super) fn shows(&self, name: &str) -> bool {
        let pods = self.pods.iter().map(|pod| &pod.metadata);
        let mut all = pods.chain(self.launchers.iter().map(|launcher| &launcher.metadata));
        all.any(|metadata| metadata.name.as_deref() == Some(name))
    }

    pub(super) fn plan(&self, now: Timestamp, options: &Options) -> Plan {
        let observed = Observed {
            pods: &self.pods,
            services: &self.services,
            config_maps: &self.config_maps,
            launchers: &self.launchers,
            pod_group: self.pod_group.as_ref(),
        };
        mpi::plan(&mpi::job(&self.job).unwrap(), &observed, now, options)
    }
}
