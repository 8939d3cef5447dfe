//! One plan in the making.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use muster_trainer_api::jobset::{
    JobSet, JobSetStatus, Operator, ReplicatedJobStatus, RestartStrategy, condition_type, reason,
};

use super::children::{Children, Ending, ending, replicas, status_of_group};
use super::plan::{JobDeletion, Observed, Plan};
use super::{failure, objects, order, validation};
use crate::condition::{self, Said};
use crate::gang::GangScheduler;
use crate::plan::{Event, EventType};

pub(super) struct Planner<'a> {
    set: &'a JobSet,
    observed: &'a Observed<'a>,
    now: Timestamp,
    scheduler: &'a GangScheduler,
    status: JobSetStatus,
    plan: Plan,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        set: &'a JobSet,
        observed: &'a Observed<'a>,
        now: Timestamp,
        scheduler: &'a GangScheduler,
    ) -> Self {
        let status = set.status.clone().unwrap_or_default();
        Self { set, observed, now, scheduler, status, plan: Plan::default() }
    }

    pub(super) fn plan(mut self) -> Plan {
        if !self.status.is_finished() {
            self.go_on();
        }
        if self.status.is_finished() {
            self.clean_up();
        }
        if self.set.status.as_ref() != Some(&self.status) && self.status != JobSetStatus::default() {
            self.plan.status = Some(self.status);
        }
        self.plan
    }

    fn go_on(&mut self) {
        let errors = validation::validate(self.set);
        if !errors.is_empty() {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            let message = format!("the set is not valid: {}", errors.join("; "));
            return self.end(condition_type::FAILED, reason::INVALID, message);
        }
        let children = Children::sort(self.set, &self.status, self.observed.jobs);
        self.count(&children);
        if let Some(failed) = failure::first_failed(&children) {
            let decision = failure::decide(self.set, failed, &mut self.status);
            if decision.fails {
                return self.end(condition_type::FAILED, decision.reason, decision.message);
            }
            self.tell(EventType::Warning, decision.reason, decision.message);
        } else if self.is_complete(&children) {
            let message = "the jobs that count are complete".to_owned();
            return self.end(condition_type::COMPLETED, reason::ALL_JOBS_COMPLETED, message);
        }
        // What is to be done follows from what is then counted.
        let children = Children::sort(self.set, &self.status, self.observed.jobs);
        self.count(&children);
        self.delete(children.retired.iter().copied());
        self.suspend_or_resume();
        self.create_surroundings();
        self.create_and_update(&children);
    }

    fn count(&mut self, children: &Children<'_>) {
        let groups = 0..self.set.spec.replicated_jobs.len();
        let statuses = groups.map(|group| status_of_group(self.set, children, group, &self.status));
        self.status.replicated_jobs_status = statuses.collect();
    }

    /// Of a set that has ended: its last Jobs go, or still end. One that has ended counts, though it may be gone since.
    fn recount(&mut self, children: &Children<'_>) {
        let before = self.status.clone();
        for of_group in &mut self.status.replicated_jobs_status {
            let group = self.set.spec.replicated_jobs.iter().position(|group| group.name == of_group.name);
            let Some(group) = group else { continue };
            let counted = status_of_group(self.set, children, group, &before);
            let (succeeded, failed) =
                (counted.succeeded.max(of_group.succeeded), counted.failed.max(of_group.failed));
            *of_group = ReplicatedJobStatus { succeeded, failed, ..counted };
        }
    }

    fn is_complete(&self, children: &Children<'_>) -> bool {
        let policy = self.set.spec.success_policy.clone().unwrap_or_default();
        let groups = self.set.spec.replicated_jobs.iter().enumerate().filter(|(_, group)| {
            policy.target_replicated_jobs.is_empty() || policy.target_replicated_jobs.contains(&group.name)
        });
        let complete = |group: usize| {
            let jobs = children.of_group(group);
            jobs.filter(|child| matches!(ending(child.job), Some((Ending::Complete, _)))).count()
        };
        let (mut wanted, mut reached) = (0, 0);
        for (place, group) in groups {
            wanted += replicas(group) as usize;
            reached += complete(place);
        }
        match policy.operator {
            Operator::All => reached >= wanted,
            Operator::Any => reached > 0,
        }
    }

    fn end(&mut self, type_: &str, reason: &'static str, message: String) {
        let event = if type_ == condition_type::FAILED { EventType::Warning } else { EventType::Normal };
        self.set_condition(type_, true, reason, message.clone());
        self.status.terminal_state = Some(type_.to_owned());
        self.tell(event, reason, message);
    }

    fn set_condition(&mut self, type_: &str, value: bool, reason: &str, message: String) -> bool {
        let said = Said { type_, value, reason, message };
        condition::set(&mut self.status.conditions, said, None, self.now)
    }

    fn tell(&mut self, type_: EventType, reason: &str, message: String) {
        self.plan.events.push(Event { type_, reason: reason.to_owned(), message });
    }

    fn delete(&mut self, jobs: impl Iterator<Item = &'a Job>) {
        let going = jobs.filter(|job| job.metadata.deletion_timestamp.is_none());
        self.plan.delete_jobs.extend(going.map(|job| JobDeletion {
            name: job.metadata.name.clone().unwrap_or_default(),
            uid: job.metadata.uid.clone().unwrap_or_default(),
        }));
    }

    /// What has ended keeps its Jobs that have ended, and goes itself when its time is over.
    fn clean_up(&mut self) {
        let children = Children::sort(self.set, &self.status, self.observed.jobs);
        self.recount(&children);
        self.delete(
            children.unfinished().chain(children.retired.iter().copied().filter(|job| ending(job).is_some())),
        );
        let Some(seconds) = self.set.spec.ttl_seconds_after_finished else { return };
        let types = [condition_type::COMPLETED, condition_type::FAILED];
        let mut ended = types.iter().filter(|type_| self.status.is(type_));
        let Some(ended) = ended.find_map(|type_| self.status.condition(type_)) else { return };
        let left = ended.last_transition_time.0 + SignedDuration::from_secs(seconds.into());
        let left = left.duration_since(self.now);
        if left.is_positive() {
            self.plan.requeue_after = Some(left.unsigned_abs());
        } else {
            self.plan.delete_set = true;
        }
    }

    fn is_suspended(&self) -> bool {
        self.set.spec.suspend == Some(true)
    }

    fn suspend_or_resume(&mut self) {
        let (value, reason, message) = if self.is_suspended() {
            (true, reason::SUSPENDED_JOBS, "the jobs are suspended")
        } else if self.status.is(condition_type::SUSPENDED) {
            (false, reason::RESUME_JOBS, "the jobs are no longer suspended")
        } else {
            return;
        };
        if self.set_condition(condition_type::SUSPENDED, value, reason, message.to_owned()) {
            self.tell(EventType::Normal, reason, message.to_owned());
        }
    }

    fn create_surroundings(&mut self) {
        if objects::has_hostnames(&self.set.spec) && self.observed.service.is_none() {
            self.plan.create_service = Some(objects::service(self.set));
        }
        let claims = objects::claims(self.set).into_iter();
        let missing = claims.filter(|claim| {
            claim.metadata.name.as_ref().is_none_or(|name| !self.observed.claims.contains(name))
        });
        self.plan.create_claims = missing.collect();
    }

    fn create_and_update(&mut self, children: &Children<'_>) {
        let (set, spec) = (self.set, &self.set.spec);
        let policy = spec.failure_policy.as_ref();
        let strategy = policy.and_then(|policy| policy.restart_strategy).unwrap_or_default();
        let is_blocked = strategy == RestartStrategy::BlockingRecreate && !children.retired.is_empty();
        let mut all_started = true;
        for group in 0..spec.replicated_jobs.len() {
            if !order::may_start(spec, group, &self.status.replicated_jobs_status) {
                all_started = false;
                continue;
            }
            for index in 0..replicas(&spec.replicated_jobs[group]) {
                let wanted =
                    objects::job(set, &self.status, group, index, self.is_suspended(), self.scheduler);
                let taken = |job: &&Job| job.metadata.name == wanted.metadata.name;
                match children.of_group(group).find(|child| child.index == index) {
                    Some(child) => self.plan.update_jobs.extend(updated(child.job, &wanted)),
                    // The name is free once the predecessor is gone.
                    None if is_blocked || children.retired.iter().any(taken) => all_started = false,
                    None => self.plan.create_jobs.push(wanted),
                }
            }
        }
        self.suspend_the_rest(children);
        if order::is_staged(spec) && !self.is_suspended() {
            self.tell_startup(all_started);
        }
    }

    /// Jobs of groups that wait again, too.
    fn suspend_the_rest(&mut self, children: &Children<'_>) {
        if !self.is_suspended() {
            return;
        }
        for child in &children.current {
            let is_planned = |planned: &Job| planned.metadata.name == child.job.metadata.name;
            if !self.plan.update_jobs.iter().any(is_planned) {
                let wanted =
                    objects::job(self.set, &self.status, child.group, child.index, true, self.scheduler);
                self.plan.update_jobs.extend(updated(child.job, &wanted));
            }
        }
    }

    fn tell_startup(&mut self, all_started: bool) {
        let progress = (condition_type::STARTUP_IN_PROGRESS, reason::STARTUP_IN_PROGRESS);
        let done = (condition_type::STARTUP_COMPLETED, reason::STARTUP_COMPLETED);
        let (holds, other) = if all_started { (done, progress) } else { (progress, done) };
        let message = if all_started {
            "all groups of jobs have been started"
        } else {
            "some groups of jobs wait for others"
        };
        self.set_condition(holds.0, true, holds.1, message.to_owned());
        if self.status.is(other.0) {
            self.set_condition(other.0, false, holds.1, message.to_owned());
        }
    }
}

/// The Job as it should be, if it is to be suspended or resumed. One that never ran takes over from the set where
/// its pods may go.
fn updated(job: &Job, wanted: &Job) -> Option<Job> {
    let (spec, wanted_spec) = (job.spec.as_ref()?, wanted.spec.as_ref()?);
    let is_suspended = spec.suspend.unwrap_or(false);
    let should_be = wanted_spec.suspend.unwrap_or(false);
    if ending(job).is_some() || is_suspended == should_be {
        return None;
    }
    let mut updated = job.clone();
    let updated_spec = updated.spec.get_or_insert_default();
    updated_spec.suspend = Some(should_be);
    let has_run = job.status.as_ref().is_some_and(|status| status.start_time.is_some());
    if !should_be && !has_run {
        let wanted_metadata = wanted_spec.template.metadata.clone().unwrap_or_default();
        let metadata = updated_spec.template.metadata.get_or_insert_default();
        metadata.labels.get_or_insert_default().extend(wanted_metadata.labels.unwrap_or_default());
        metadata.annotations.get_or_insert_default().extend(wanted_metadata.annotations.unwrap_or_default());
        let pod = updated_spec.template.spec.get_or_insert_default();
        let wanted_pod = wanted_spec.template.spec.clone().unwrap_or_default();
        pod.node_selector = wanted_pod.node_selector;
        pod.affinity = wanted_pod.affinity;
        pod.tolerations = wanted_pod.tolerations;
        pod.scheduling_gates = wanted_pod.scheduling_gates;
    }
    Some(updated)
}
