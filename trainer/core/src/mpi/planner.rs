//! The planning of one MPI job.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job as Launcher;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodTemplateSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_trainer_api::{CleanPodPolicy, ConditionType, annotation, label, managed_by};
use serde_json::Value;

use super::failures;
use super::framework::{LAUNCHER, WORKER};
use super::job::{Dialect, LauncherCreation, MpiJob, RemoteShell};
use super::labels::Role;
use super::state::State;
use crate::companion::{Companion, CompanionAction};
use crate::kind::{Progress, ReplicaCounts};
use crate::members::{self, Phase};
use crate::plan::{Counter, EventType, Options, Plan};
use crate::planner::Planner;
use crate::{conditions, finish, gang};

/// What is seen in the job's namespace; objects of others among them do no harm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed<'a> {
    /// Pods, of workers and launchers.
    pub pods: &'a [Pod],
    /// Services.
    pub services: &'a [Service],
    /// Config maps.
    pub config_maps: &'a [ConfigMap],
    /// Jobs of Kubernetes.
    pub launchers: &'a [Launcher],
    /// The `PodGroup` of the job's name.
    pub pod_group: Option<&'a Value>,
}

/// Plans what is to be done for a valid job.
pub fn plan(job: &MpiJob, observed: &Observed<'_>, now: Timestamp, options: &Options) -> Plan {
    let ours = [managed_by::TRAINING_OPERATOR, managed_by::MPI_OPERATOR, ""];
    let controller = job.job.run_policy.managed_by.as_deref().unwrap_or_default();
    if job.job.metadata.deletion_timestamp.is_some() || !ours.contains(&controller) {
        return Plan::default();
    }
    let shared = crate::plan::Observed { pod_group: observed.pod_group, ..crate::plan::Observed::default() };
    let base = Planner::new(&job.job, &shared, now, options);
    let state = State::sort(job, observed, base.restarts.generation);
    MpiPlanner { job, observed, state, base }.plan()
}

/// What has been found out and decided so far.
pub(super) struct MpiPlanner<'a> {
    pub(super) job: &'a MpiJob,
    observed: &'a Observed<'a>,
    pub(super) state: State<'a>,
    /// What the planning of every kind has in common; it sees no pods.
    pub(super) base: Planner<'a>,
}

impl MpiPlanner<'_> {
    fn plan(mut self) -> Plan {
        if self.base.status.is_finished() {
            self.clean_up();
            return self.base.plan;
        }
        let created = self.base.created_message();
        if self.base.set(ConditionType::Created, true, "Created", created) {
            self.base.plan.counters.push(Counter::Created);
        }
        if self.job.job.is_suspended() {
            self.suspend();
        } else {
            self.base.start();
            self.run();
        }
        self.remember_remote_shell();
        if self.base.status != self.job.job.status {
            self.base.status.last_reconcile_time = Some(Time(self.base.now));
            self.base.plan.status = Some(self.base.status);
        }
        self.base.plan
    }

    /// What holds is written down, so that it stays when the job is read or written in the other version.
    fn remember_remote_shell(&mut self) {
        let annotations = self.job.job.metadata.annotations.as_ref();
        if annotations.is_none_or(|annotations| !annotations.contains_key(annotation::REMOTE_SHELL)) {
            let value = self.job.remote_shell.as_str().to_owned();
            self.base.plan.annotations.insert(annotation::REMOTE_SHELL.to_owned(), value);
        }
    }

    /// Withholds the job's pods. The workers are retired first, so that their end is not taken for a failure when
    /// the job is resumed before the last of them is gone; the launcher's Job stays, suspended.
    fn suspend(&mut self) {
        let mut generation = self.state.generation;
        if !self.state.workers.is_empty() || !self.state.surplus.is_empty() {
            generation += 1;
            let mut restarts = self.base.restarts.clone();
            restarts.generation = generation;
            self.base.remember(&restarts);
        }
        self.delete_workers(|_| true);
        if let Some(launcher) = self.state.launcher {
            self.suspend_launcher(launcher, Some(generation));
        }
        self.base.drop_groups();
        let message = format!("MPIJob {} is suspended", self.job.job.name());
        if self.base.status.is(&ConditionType::Running) {
            self.base.set(ConditionType::Running, false, "Suspended", message.clone());
        }
        if self.base.set(ConditionType::Suspended, true, "Suspended", message.clone()) {
            self.base.tell(EventType::Normal, "MPIJobSuspended", message);
        }
        self.write_counts(&BTreeMap::new());
    }

    fn suspend_launcher(&mut self, launcher: &Launcher, generation: Option<u64>) {
        if launcher.metadata.deletion_timestamp.is_some() {
            return;
        }
        let mut suspended = launcher.clone();
        suspended.spec.get_or_insert_default().suspend = Some(true);
        if let Some(generation) = generation {
            let labels = suspended.metadata.labels.get_or_insert_default();
            labels.insert(label::GANG_GENERATION.to_owned(), generation.to_string());
        }
        if suspended != *launcher {
            self.base.plan.companions.push(CompanionAction::Update(Companion::Job(suspended)));
        }
    }

    fn run(&mut self) {
        let counts = BTreeMap::from([
            (LAUNCHER, self.state.launcher_counts()),
            (WORKER, self.state.worker_counts(self.job.workers())),
        ]);
        if self.state.launcher_end("Complete").is_some() {
            let message =
                format!("MPIJob {} has succeeded: its launcher has ended well", self.job.job.name());
            self.end(ConditionType::Succeeded, "MPIJobSucceeded".to_owned(), message, &counts);
            return;
        }
        if failures::handle(self, &counts) {
            return;
        }
        if let Some((reason, message)) = failures::of_launcher(self) {
            self.end(ConditionType::Failed, reason, message, &counts);
            return;
        }
        if finish::is_overdue(&mut self.base) {
            let why =
                format!("MPIJob {} has run longer than its active deadline allows", self.job.job.name());
            self.end(ConditionType::Failed, "DeadlineExceeded".to_owned(), why, &counts);
            return;
        }
        self.write_counts(&counts);
        self.write_progress(&counts);
        self.settle();
    }

    fn write_progress(&mut self, counts: &BTreeMap<&'static str, ReplicaCounts>) {
        let name = self.job.job.name();
        if self.job.job.framework.progress(&self.job.job, counts) == Progress::Running {
            self.base.set(ConditionType::Running, true, "Running", format!("MPIJob {name} is running"));
        } else if self.base.status.is(&ConditionType::Running)
            && self.base.restarts.last.is_some()
            && self.is_replacing()
        {
            // The controller was stopped between remembering the restart and saying so.
            self.base.set(
                ConditionType::Restarting,
                true,
                "Restarting",
                format!("MPIJob {name} is restarting"),
            );
        }
    }

    /// Whether the pods that a restart replaces are not back.
    fn is_replacing(&self) -> bool {
        if self.job.is_elastic() {
            self.state.workers.iter().any(|worker| worker.phase == Phase::Failed)
        } else {
            self.state.launcher_pods.is_empty()
        }
    }

    /// The job ends; what is left is cleaned up once that is written.
    pub(super) fn end(
        &mut self,
        type_: ConditionType,
        reason: String,
        message: String,
        counts: &BTreeMap<&'static str, ReplicaCounts>,
    ) {
        self.write_counts(counts);
        let (counter, event) = match type_ {
            ConditionType::Succeeded => (Counter::Successful, EventType::Normal),
            _ => (Counter::Failed, EventType::Warning),
        };
        let now = self.base.now;
        let status = &mut self.base.status;
        if status.condition(&ConditionType::Running).is_none() {
            // It was over before it was seen to run.
            conditions::set(status, ConditionType::Running, false, reason.clone(), message.clone(), now);
        }
        status.completion_time = Some(Time(now));
        conditions::set(status, type_, true, reason.clone(), message.clone(), now);
        self.base.tell(event, &reason, message);
        self.base.plan.counters.push(counter);
        self.base.plan.requeue_after = None;
    }

    /// Brings everything to what the job wants.
    fn settle(&mut self) {
        let options = self.base.options;
        self.base.plan.pod_group =
            gang::keep_pod_group(&self.job.job, self.observed.pod_group, &options.gang_scheduler);
        let workers = self.state.workers.iter().filter(|worker| !worker.is_over());
        let members: Vec<&Pod> =
            workers.map(|worker| worker.pod).chain(self.state.launcher_pods.iter().copied()).collect();
        self.base.tell_gang(&members);
        self.delete_leftovers();
        self.keep_service();
        self.keep_configuration();
        // The next generation starts when the last pod of the one before is gone.
        if !self.state.retired.is_empty() || self.state.retired_launcher().is_some() {
            return;
        }
        self.create_pods();
    }

    fn delete_leftovers(&mut self) {
        let leftovers: Vec<&Pod> = self.state.retired.iter().chain(&self.state.surplus).copied().collect();
        for pod in leftovers {
            self.base.delete_pod(pod);
        }
        if let Some(launcher) = self.state.retired_launcher() {
            self.delete_launcher(launcher);
        }
    }

    fn keep_service(&mut self) {
        let name = self.job.job.name();
        let mut ours = self.observed.services.iter().filter(|service| {
            service.metadata.name.as_deref() == Some(name) && members::owns(&self.job.job, &service.metadata)
        });
        if ours.next().is_none() {
            self.base.plan.create_services.push(self.job.service());
        }
    }

    fn keep_configuration(&mut self) {
        let wanted = self.job.configuration(&self.state.running(), self.domain());
        let mut ours = self.observed.config_maps.iter().filter(|map| {
            map.metadata.name == wanted.metadata.name && members::owns(&self.job.job, &map.metadata)
        });
        match ours.next() {
            None => self.ensure(Companion::ConfigMap(wanted)),
            Some(current) if current.data != wanted.data => {
                let updated = ConfigMap { data: wanted.data, ..current.clone() };
                self.base.plan.companions.push(CompanionAction::Update(Companion::ConfigMap(updated)));
            }
            Some(_) => {}
        }
    }

    fn domain(&self) -> Option<&str> {
        self.base.options.cluster_domain.as_deref()
    }

    fn create_pods(&mut self) {
        let there: Vec<i32> = self.state.workers.iter().map(|worker| worker.index).collect();
        let missing: Vec<i32> = (0..self.job.workers()).filter(|index| !there.contains(index)).collect();
        let launcher = self.wanted_launcher();
        let waits = if missing.is_empty() && launcher.is_none() {
            None
        } else {
            gang::wait_reason(&self.job.job, self.observed.pod_group, &self.base.options.gang_scheduler)
                .or_else(|| self.lacks_agent())
        };
        self.base.explain_wait(waits.as_deref());
        if waits.is_some() {
            let later = self.base.now.checked_add(SignedDuration::from_secs(30)).unwrap_or(Timestamp::MAX);
            self.base.requeue_at(later);
        }
        if waits.is_some() || (missing.is_empty() && launcher.is_none()) {
            return;
        }
        if let Some(start) = self.base.restarts.not_before(&self.base.options.restart_backoff)
            && start > self.base.now
        {
            self.base.requeue_at(start);
            return;
        }
        for companion in self.job.launcher_rights().into_iter().chain(self.job.ssh_keys()) {
            self.ensure(companion);
        }
        let (generation, options) = (self.state.generation, self.base.options);
        let workers = missing.into_iter().filter_map(|index| self.job.worker(index, generation, options));
        self.base.plan.create_pods.extend(workers);
        self.base.plan.companions.extend(launcher);
    }

    /// What is to be done so that the launcher runs.
    fn wanted_launcher(&self) -> Option<CompanionAction> {
        let (options, restarts) = (self.base.options, &self.base.restarts);
        let wanted = self.job.launcher_job(self.state.generation, restarts.counted, options)?;
        let Some(current) = self.state.current_launcher() else {
            let early = self.job.creation == LauncherCreation::WorkersReady
                && !self.state.are_ready(self.job.workers());
            return (!early).then_some(CompanionAction::Ensure(Companion::Job(wanted)));
        };
        let spec = current.spec.as_ref()?;
        if spec.suspend != Some(true) || current.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let wanted_template = wanted.spec.as_ref().map(|spec| &spec.template)?;
        if !is_placed_alike(&spec.template, wanted_template) {
            // While the job was suspended somebody has decided where it runs.
            return Some(deletion(current));
        }
        let mut resumed = current.clone();
        resumed.spec.get_or_insert_default().suspend = Some(false);
        Some(CompanionAction::Update(Companion::Job(resumed)))
    }

    fn lacks_agent(&self) -> Option<String> {
        let lacking = self.job.remote_shell == RemoteShell::Agent && self.base.options.mpi.agent.is_none();
        lacking.then(|| {
            format!(
                "it starts processes by Muster's agent, and the controller knows no image of it: start it with \
                 --mpi-agent-image, or set the job's annotation {} to sshd",
                annotation::REMOTE_SHELL
            )
        })
    }

    fn ensure(&mut self, companion: Companion) {
        self.base.plan.companions.push(CompanionAction::Ensure(companion));
    }

    pub(super) fn delete_launcher(&mut self, launcher: &Launcher) {
        if launcher.metadata.deletion_timestamp.is_none() {
            self.base.plan.companions.push(deletion(launcher));
        }
    }

    /// Deletes every worker for whose phase this holds, and all that are not wanted any more.
    pub(super) fn delete_workers(&mut self, unwanted: impl Fn(Phase) -> bool) {
        let workers = self.state.workers.iter().filter(|worker| unwanted(worker.phase));
        let current: Vec<&Pod> = workers.map(|worker| worker.pod).collect();
        let others: Vec<&Pod> = self.state.surplus.iter().chain(&self.state.retired).copied().collect();
        for pod in current.into_iter().chain(others) {
            self.base.delete_pod(pod);
        }
    }

    pub(super) fn write_counts(&mut self, counts: &BTreeMap<&'static str, ReplicaCounts>) {
        self.base.write_counts(counts);
        for (type_, role) in [(LAUNCHER, Role::Launcher), (WORKER, Role::Worker(0))] {
            if let Some(status) = self.base.status.replica_statuses.get_mut(type_) {
                status.selector = self.job.selector(role);
            }
        }
    }

    /// Removes what an ended job no longer needs, and at last its launcher or the job itself.
    fn clean_up(&mut self) {
        let retired: Vec<&Pod> = self.state.retired.clone();
        for pod in retired {
            self.base.delete_pod(pod);
        }
        match self.job.job.run_policy.clean_pod_policy {
            Some(CleanPodPolicy::All) => self.delete_workers(|_| true),
            Some(CleanPodPolicy::Running) => {
                self.delete_workers(|phase| matches!(phase, Phase::Running | Phase::Pending));
            }
            _ => {}
        }
        if let Some(launcher) = self.state.launcher {
            // A launcher that outlives its job would try again for nothing.
            let has_ended =
                ["Complete", "Failed"].iter().any(|type_| self.state.launcher_end(type_).is_some());
            if !has_ended {
                self.suspend_launcher(launcher, None);
            }
        }
        self.base.drop_groups();
        match (self.job.dialect, self.state.launcher) {
            (Dialect::V1, _) => finish::expire(&mut self.base),
            (Dialect::V2, Some(launcher)) => {
                if finish::has_expired(&mut self.base) {
                    self.delete_launcher(launcher);
                }
            }
            (Dialect::V2, None) => {}
        }
    }
}

fn deletion(launcher: &Launcher) -> CompanionAction {
    let metadata = &launcher.metadata;
    let (name, uid) = (metadata.name.clone().unwrap_or_default(), metadata.uid.clone().unwrap_or_default());
    CompanionAction::DeleteJob { name, uid }
}

/// Whether two templates say the same about where their pods may run.
fn is_placed_alike(left: &PodTemplateSpec, right: &PodTemplateSpec) -> bool {
    let directives = |template: &PodTemplateSpec| {
        let spec = template.spec.clone().unwrap_or_default();
        let metadata = template.metadata.clone().unwrap_or_default();
        (
            (spec.node_selector, spec.affinity, spec.tolerations, spec.scheduling_gates),
            (metadata.labels.unwrap_or_default(), metadata.annotations.unwrap_or_default()),
        )
    };
    directives(left) == directives(right)
}
