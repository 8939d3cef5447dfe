//! The planning of one job, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use muster_trainer_api::{ConditionType, JobStatus, ReplicaStatus, annotation};

use crate::job::{Job, RestartScope};
use crate::kind::{Progress, ReplicaCounts};
use crate::members::{self, Members};
use crate::plan::{
    Counter, Event, EventType, ObjectAction, Observed, Options, Plan, PodAnnotation, PodDeletion,
};
use crate::restart::RestartState;
use crate::{autoscaler, conditions, failures, finish, gang, objects};

/// What has been found out and decided so far.
pub(crate) struct Planner<'a> {
    pub(crate) job: &'a Job,
    pub(crate) observed: &'a Observed<'a>,
    pub(crate) now: Timestamp,
    pub(crate) options: &'a Options,
    pub(crate) members: Members<'a>,
    /// The restarts as the job remembers them.
    pub(crate) restarts: RestartState,
    /// Uids of pods that have failed for good and that the job does without.
    pub(crate) given_up: BTreeSet<String>,
    pub(crate) status: JobStatus,
    pub(crate) plan: Plan,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        job: &'a Job,
        observed: &'a Observed<'a>,
        now: Timestamp,
        options: &'a Options,
    ) -> Self {
        let restarts = RestartState::read(job.metadata.annotations.as_ref());
        let members = Members::sort(job, observed.pods, restarts.generation);
        Self {
            job,
            observed,
            now,
            options,
            members,
            restarts,
            given_up: BTreeSet::new(),
            status: job.status.clone(),
            plan: Plan::default(),
        }
    }

    pub(crate) fn plan(mut self) -> Plan {
        if self.status.is_finished() {
            finish::clean_up(&mut self);
            return self.plan;
        }
        self.note_creation();
        if self.job.is_suspended() {
            self.suspend();
        } else {
            self.start();
            self.run();
        }
        if self.status != self.job.status {
            self.status.last_reconcile_time = Some(Time(self.now));
            self.plan.status = Some(self.status);
        }
        self.plan
    }

    fn note_creation(&mut self) {
        let message = self.created_message();
        if self.set(ConditionType::Created, true, "Created", message) {
            self.plan.counters.push(Counter::Created);
            self.warn_of_overrides();
        }
    }

    pub(crate) fn created_message(&self) -> String {
        format!("{} {} is created", self.job.kind.name, self.job.name())
    }

    /// Tells once what of the pod templates will not be heeded.
    fn warn_of_overrides(&mut self) {
        for replica in &self.job.replicas {
            let written = replica.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
            let ours = objects::restart_policy(self.job, replica);
            if let Some(written) = written.filter(|written| *written != ours) {
                let message = format!(
                    "the restart policy {written} in the pod template of {} gives way to {ours}",
                    replica.type_.name
                );
                self.tell(EventType::Warning, "SetPodTemplateRestartPolicy", message);
            }
        }
        let foreign = gang::foreign_schedulers(self.job, &self.options.gang_scheduler);
        if !foreign.is_empty() {
            let message = format!(
                "the pod templates of {} name another scheduler, which will not place the job as a gang",
                foreign.join(" and ")
            );
            self.tell(EventType::Warning, "SetPodTemplateSchedulerName", message);
        }
    }

    /// Withholds the job's pods. They are retired first, so that their end is not taken for a failure when the
    /// job is resumed before the last of them is gone.
    fn suspend(&mut self) {
        if !self.members.current.is_empty() || !self.members.surplus.is_empty() {
            let mut restarts = self.restarts.clone();
            restarts.generation = self.members.generation + 1;
            self.remember(&restarts);
        }
        self.delete_all_pods();
        self.delete_services(|_| true);
        self.drop_groups();
        let message = format!("{} {} is suspended", self.job.kind.name, self.job.name());
        if self.status.is(&ConditionType::Running) {
            self.set(ConditionType::Running, false, "Suspended", message.clone());
        }
        if self.set(ConditionType::Suspended, true, "Suspended", message.clone()) {
            let reason = self.job.reason("Suspended");
            self.tell(EventType::Normal, &reason, message);
        }
        self.write_counts(&BTreeMap::new());
    }

    /// Starts the clock of a job that is new or resumed.
    pub(crate) fn start(&mut self) {
        if self.status.is(&ConditionType::Suspended) {
            let message = format!("{} {} is resumed", self.job.kind.name, self.job.name());
            self.set(ConditionType::Suspended, false, "Resumed", message.clone());
            let reason = self.job.reason("Resumed");
            self.tell(EventType::Normal, &reason, message);
            self.status.start_time = Some(Time(self.now));
        } else if self.status.start_time.is_none() {
            self.status.start_time = Some(Time(self.now));
        }
    }

    fn run(&mut self) {
        let counts = self.members.counts(self.job);
        let progress = self.job.framework.progress(self.job, &counts);
        if let Progress::Succeeded(how) = &progress {
            let message = format!("{} {} has succeeded: {how}", self.job.kind.name, self.job.name());
            finish::succeed(self, &counts, message);
            return;
        }
        if finish::is_overdue(self) {
            finish::fail(self, &counts, "it has run longer than its active deadline allows".to_owned());
            return;
        }
        if failures::handle(self, &counts) {
            return;
        }
        self.write_counts(&counts);
        self.write_progress(&progress);
        self.settle();
    }

    fn write_progress(&mut self, progress: &Progress) {
        let replacing = self.members.current.iter().any(|member| {
            member.failure(self.job.kind.container).is_some()
                && !self.given_up.contains(members::uid(member.pod))
        });
        let name = self.job.name();
        if replacing {
            let message =
                format!("{} {name} is restarting: failed pods are being replaced", self.job.kind.name);
            self.set(ConditionType::Restarting, true, "Restarting", message);
        } else if *progress == Progress::Running {
            let message = format!("{} {name} is running", self.job.kind.name);
            self.set(ConditionType::Running, true, "Running", message);
        } else if self.status.is(&ConditionType::Running) && self.restarts.last.is_some() {
            // The controller was stopped between remembering the restart and saying so.
            let message = format!("{} {name} is restarting", self.job.kind.name);
            self.set(ConditionType::Restarting, true, "Restarting", message);
        }
    }

    /// How many pods must run together, those left out that the job does without for good.
    fn gang_least(&self) -> i32 {
        let left = self.job.total() - i32::try_from(self.given_up.len()).unwrap_or(i32::MAX);
        self.job.min_available().min(left).max(1)
    }

    /// Has the members that are there say what their gang is now.
    pub(crate) fn tell_gang(&mut self, members: &[&Pod]) {
        let (job, least) = (self.job, self.gang_least());
        for pod in members.iter().filter(|pod| !members::is_deleting(pod)) {
            if let Some(annotations) =
                gang::changed_annotations(job, pod, least, &self.options.gang_scheduler)
            {
                let (name, uid) = (members::name(pod).to_owned(), members::uid(pod).to_owned());
                self.plan.annotate_pods.push(PodAnnotation { name, uid, annotations });
            }
        }
    }

    /// Brings pods, services and the rest to what the job wants.
    fn settle(&mut self) {
        let living = self.members.current.iter().filter(|member| !member.is_over());
        let living: Vec<&Pod> = living.map(|member| member.pod).collect();
        self.tell_gang(&living);
        self.plan.pod_group =
            gang::keep_pod_group(self.job, self.observed.pod_group, &self.options.gang_scheduler);
        self.plan.autoscaler = autoscaler::keep(self.job, self.observed.autoscaler);
        let leftovers: Vec<&Pod> =
            self.members.retired.iter().chain(&self.members.surplus).copied().collect();
        for pod in &leftovers {
            self.delete_pod(pod);
        }
        self.delete_services(|place| place.is_none_or(|(wanted, index)| index >= wanted));
        self.create_services();
        // The next generation starts when the last pod of the one before is gone: a rank that meets a dying
        // master would wait for it in vain.
        if leftovers.is_empty() || self.job.restart_scope() == RestartScope::Pod {
            self.create_pods();
        }
    }

    fn create_services(&mut self) {
        // Objects of others that bear our names are left to the API server to refuse, and to be told of.
        let owned =
            self.observed.services.iter().filter(|service| members::owns(self.job, &service.metadata));
        let existing: BTreeSet<_> = owned.filter_map(|service| service.metadata.name.as_deref()).collect();
        for replica in &self.job.replicas {
            for index in 0..replica.count {
                let name = objects::object_name(self.job.name(), replica.type_.name, index);
                if !existing.contains(name.as_str()) {
                    self.plan.create_services.push(objects::service(self.job, replica, index));
                }
            }
        }
    }

    fn create_pods(&mut self) {
        let owned = self.observed.pods.iter().filter(|pod| members::owns(self.job, &pod.metadata));
        let existing: BTreeSet<_> = owned.map(members::name).collect();
        let mut missing = Vec::new();
        for replica in &self.job.replicas {
            for index in 0..replica.count {
                let name = objects::object_name(self.job.name(), replica.type_.name, index);
                if !existing.contains(name.as_str()) {
                    missing.push((replica, index));
                }
            }
        }
        let waits = gang::wait_reason(self.job, self.observed.pod_group, &self.options.gang_scheduler)
            .filter(|_| !missing.is_empty());
        self.explain_wait(waits.as_deref());
        if waits.is_some() {
            // The groups are watched; this is for a cluster that lets them be read but not watched.
            self.requeue_at(self.now.checked_add(SignedDuration::from_secs(30)).unwrap_or(Timestamp::MAX));
        }
        if missing.is_empty() || waits.is_some() {
            return;
        }
        if let Some(start) = self.restarts.not_before(&self.options.restart_backoff)
            && start > self.now
        {
            self.requeue_at(start);
            return;
        }
        let generation = self.members.generation;
        for (replica, index) in missing {
            let mut pod = objects::pod(self.job, replica, index, generation, self.options);
            if let Some(annotations) =
                gang::changed_annotations(self.job, &pod, self.gang_least(), &self.options.gang_scheduler)
            {
                pod.metadata.annotations.get_or_insert_default().extend(annotations);
            }
            self.plan.create_pods.push(pod);
        }
    }

    /// Says in the condition `Created` what the job's pods wait for, and as an event when that changes.
    pub(crate) fn explain_wait(&mut self, waits: Option<&str>) {
        let created = self.created_message();
        let message = waits.map_or(created.clone(), |waits| format!("{created}; {waits}"));
        if conditions::explain(&mut self.status, &ConditionType::Created, &message, self.now)
            && let Some(waits) = waits
        {
            self.tell(EventType::Warning, "PodGroupPending", waits.to_owned());
        }
    }

    pub(crate) fn write_counts(&mut self, counts: &BTreeMap<&'static str, ReplicaCounts>) {
        self.status.replica_statuses = self
            .job
            .replicas
            .iter()
            .map(|replica| {
                let count = counts.get(replica.type_.name).copied().unwrap_or_default();
                let status = ReplicaStatus {
                    active: count.active,
                    succeeded: count.succeeded,
                    failed: count.failed,
                    label_selector: None,
                    selector: objects::selector(self.job, replica),
                };
                (replica.type_.name.to_owned(), status)
            })
            .collect();
    }

    pub(crate) fn set(&mut self, type_: ConditionType, value: bool, reason: &str, message: String) -> bool {
        let reason = self.job.reason(reason);
        conditions::set(&mut self.status, type_, value, reason, message, self.now)
    }

    pub(crate) fn tell(&mut self, type_: EventType, reason: &str, message: String) {
        self.plan.events.push(Event { type_, reason: reason.to_owned(), message });
    }

    pub(crate) fn remember(&mut self, restarts: &RestartState) {
        self.plan.annotations = restarts.changes(&self.restarts);
    }

    pub(crate) fn requeue_at(&mut self, time: Timestamp) {
        let wait = time.duration_since(self.now).max(SignedDuration::ZERO).unsigned_abs();
        // Never at once: what is due now is done now.
        let wait = wait.max(Duration::from_millis(1));
        self.plan.requeue_after = Some(self.plan.requeue_after.map_or(wait, |other| other.min(wait)));
    }

    pub(crate) fn delete_all_pods(&mut self) {
        let current = self.members.current.iter().map(|member| member.pod);
        let others = self.members.surplus.iter().chain(&self.members.retired).copied();
        let pods: Vec<&Pod> = current.chain(others).collect();
        for pod in pods {
            self.delete_pod(pod);
        }
    }

    /// Deletes a pod that is no longer wanted; by force if its node does not confirm its end.
    pub(crate) fn delete_pod(&mut self, pod: &Pod) {
        let force = match &pod.metadata.deletion_timestamp {
            None => false,
            Some(deadline) => {
                let patience = SignedDuration::try_from(self.options.force_delete_after).unwrap_or_default();
                let forced_at = deadline.0.checked_add(patience).unwrap_or(Timestamp::MAX);
                if forced_at > self.now {
                    self.requeue_at(forced_at);
                    return;
                }
                true
            }
        };
        let (name, uid) = (members::name(pod).to_owned(), members::uid(pod).to_owned());
        self.plan.delete_pods.push(PodDeletion { name, uid, force });
    }

    /// Deletes the services for whose place (wanted number and index, if it is a place at all) this holds.
    pub(crate) fn delete_services(&mut self, unwanted: impl Fn(Option<(i32, i32)>) -> bool) {
        for service in self.observed.services {
            let metadata = &service.metadata;
            if !members::owns(self.job, metadata) || metadata.deletion_timestamp.is_some() {
                continue;
            }
            let place = members::place(self.job, metadata).map(|(replica, index)| (replica.count, index));
            if unwanted(place) {
                self.plan.delete_services.extend(metadata.name.clone());
            }
        }
    }

    /// Deletes what exists once for the job.
    pub(crate) fn drop_groups(&mut self) {
        if self.observed.pod_group.is_some() && self.options.gang_scheduler.pod_group().is_some() {
            self.plan.pod_group = ObjectAction::Delete;
        }
        if self.observed.autoscaler.is_some() {
            self.plan.autoscaler = ObjectAction::Delete;
        }
    }

    /// The size of the gang that this pod was created for, if it says so.
    pub(crate) fn size_of(pod: &Pod) -> Option<i32> {
        pod.metadata.annotations.as_ref()?.get(annotation::GANG_SIZE)?.parse().ok()
    }
}
