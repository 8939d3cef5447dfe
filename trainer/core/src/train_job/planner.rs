//! One plan in the making.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_trainer_api::jobset::{self, JobSet};
use muster_trainer_api::train_job::names::annotation::RESTART_COUNT;
use muster_trainer_api::train_job::{JobStatus, TrainJob, TrainJobStatus, condition_type, reason};

use super::made::{mark, marked};
use super::plan::{JobSetDeletion, Observed, Plan, Waiting};
use super::{budget, group_state};
use crate::condition::{self, Said};
use crate::gang::GangScheduler;
use crate::plan::{Event, EventType};

/// How soon a job is looked at again that waits for something of which no watch tells.
pub(super) const UNWATCHED: Duration = Duration::from_secs(30);

pub(super) struct Planner<'a> {
    pub(super) job: &'a TrainJob,
    pub(super) observed: &'a Observed<'a>,
    now: Timestamp,
    pub(super) scheduler: &'a GangScheduler,
    status: TrainJobStatus,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        job: &'a TrainJob,
        observed: &'a Observed<'a>,
        now: Timestamp,
        scheduler: &'a GangScheduler,
    ) -> Self {
        let status = job.status.clone().unwrap_or_default();
        Self { job, observed, now, scheduler, status, plan: Plan::default() }
    }

    pub(super) fn plan(mut self) -> Plan {
        let jobset = self.observed.jobset.filter(|set| self.is_ours(set));
        self.copy_counts(jobset);
        if !self.status.is_finished() {
            self.go_on(jobset);
            self.tell_of_waiting(jobset);
        }
        if self.status.is_finished() {
            self.clean_up(jobset);
        }
        self.finish()
    }

    /// Nothing but what the job waits for.
    pub(super) fn plan_to_wait(mut self) -> Plan {
        if !self.status.is_finished() {
            self.tell_of_waiting(None);
        }
        self.finish()
    }

    fn finish(mut self) -> Plan {
        if self.job.status.clone().unwrap_or_default() != self.status {
            self.plan.status = Some(self.status);
        }
        self.plan
    }

    fn is_ours(&self, set: &JobSet) -> bool {
        let owners = set.metadata.owner_references.iter().flatten();
        let mut owners = owners.filter(|owner| owner.controller == Some(true));
        owners.any(|owner| Some(&owner.uid) == self.job.metadata.uid.as_ref())
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.job.spec.suspend == Some(true)
    }

    fn go_on(&mut self, jobset: Option<&JobSet>) {
        if let Some(set) = jobset {
            self.take_over(set);
        }
        if self.status.is_finished() {
            return;
        }
        self.suspend_or_resume();
        if self.is_over_deadline() {
            let seconds = self.job.spec.active_deadline_seconds.unwrap_or_default();
            let message = format!("the job ran for more than its {seconds} seconds");
            return self.fail(reason::DEADLINE_EXCEEDED, message);
        }
        // What runs stays as it was made, whatever becomes of the runtime.
        let runs = jobset.is_some_and(|set| set.spec.suspend != Some(true)) && !self.is_suspended();
        if !runs {
            self.make(jobset);
        }
    }

    /// How the jobs of each group fare, also once the job has ended: they go then, and take a while.
    fn copy_counts(&mut self, jobset: Option<&JobSet>) {
        if let Some(set) = jobset {
            let groups = set.status.iter().flat_map(|status| &status.replicated_jobs_status);
            let groups = groups.map(|group| JobStatus {
                name: group.name.clone(),
                ready: group.ready,
                succeeded: group.succeeded,
                failed: group.failed,
                active: group.active,
                suspended: group.suspended,
            });
            self.status.jobs_status = groups.collect();
        } else if self.status.is_finished() {
            // They are gone with the set, which had no time to say so.
            for group in &mut self.status.jobs_status {
                (group.ready, group.active, group.suspended) = (0, 0, 0);
            }
        }
    }

    fn remember_restarts(&mut self, set: &JobSet) {
        let spent = budget::spent(set);
        if spent > budget::remembered(self.job) {
            self.plan.annotations.insert(RESTART_COUNT.to_owned(), spent.to_string());
        }
    }

    /// What the JobSet says of itself is the job's state.
    fn take_over(&mut self, set: &JobSet) {
        self.remember_restarts(set);
        let status = set.status.clone().unwrap_or_default();
        if let Some(said) = &self.observed.trainer_status {
            self.status.trainer_status = Some(said.clone());
        }
        let ends = [
            (jobset::condition_type::COMPLETED, condition_type::COMPLETE, EventType::Normal),
            (jobset::condition_type::FAILED, condition_type::FAILED, EventType::Warning),
        ];
        for (theirs, ours, event) in ends {
            let said = status.condition(theirs).filter(|condition| condition.status == "True");
            if let Some(said) = said {
                self.set_condition(ours, true, &said.reason, said.message.clone());
                return self.tell(event, &said.reason, said.message.clone());
            }
        }
    }

    fn suspend_or_resume(&mut self) {
        let (value, reason, message) = if self.is_suspended() {
            (true, reason::SUSPENDED, "the job is suspended")
        } else if self.status.is(condition_type::SUSPENDED) {
            (false, reason::RESUMED, "the job is no longer suspended")
        } else {
            return;
        };
        if self.set_condition(condition_type::SUSPENDED, value, reason, message.to_owned()) {
            self.tell(EventType::Normal, reason, message.to_owned());
        }
    }

    /// The condition comes when pods wait and goes with it, so that it never is the latest one for long.
    fn tell_of_waiting(&mut self, jobset: Option<&JobSet>) {
        let waiting =
            if self.is_suspended() || self.status.is_finished() { None } else { self.waiting(jobset) };
        let Some(Waiting { reason, message }) = waiting else {
            self.status.conditions.retain(|condition| condition.type_ != condition_type::PODS_WAITING);
            return;
        };
        if self.set_condition(condition_type::PODS_WAITING, true, &reason, message.clone()) {
            self.tell(EventType::Warning, &reason, message);
        }
    }

    /// What the pods say, else what their group says; that one is not watched.
    fn waiting(&mut self, jobset: Option<&JobSet>) -> Option<Waiting> {
        let pending =
            self.observed.pod_group.zip(jobset).filter(|(group, set)| group_state::is_pending(group, set));
        if pending.is_some() {
            self.look_again_after(UNWATCHED);
        }
        let of_group = pending.and_then(|(group, _)| group_state::waiting(group, self.now));
        self.observed.waiting.clone().or(of_group)
    }

    /// From the creation, or the latest resumption.
    fn is_over_deadline(&mut self) -> bool {
        let Some(seconds) = self.job.spec.active_deadline_seconds.filter(|_| !self.is_suspended()) else {
            return false;
        };
        let resumed = self.status.condition(condition_type::SUSPENDED);
        let resumed = resumed.map(|condition| condition.last_transition_time.0);
        let created = self.job.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let Some(since) = resumed.or(created) else { return false };
        self.is_over(since, seconds)
    }

    /// Whether so many seconds have passed; if not, the job is looked at when they have.
    fn is_over(&mut self, since: Timestamp, seconds: i64) -> bool {
        let passed = self.now.duration_since(since);
        let left = SignedDuration::from_secs(seconds) - passed;
        if left.is_positive() {
            self.look_again_after(left.unsigned_abs());
        }
        !left.is_positive()
    }

    /// At the latest: what else is due is not put off.
    pub(super) fn look_again_after(&mut self, wait: Duration) {
        self.plan.requeue_after = Some(self.plan.requeue_after.map_or(wait, |other| other.min(wait)));
    }

    fn clean_up(&mut self, jobset: Option<&JobSet>) {
        let Some(set) = jobset.filter(|set| set.metadata.deletion_timestamp.is_none()) else { return };
        let ends = [condition_type::COMPLETE, condition_type::FAILED];
        let ended = ends.iter().find(|type_| self.status.is(type_));
        let Some(ended) = ended.and_then(|type_| self.status.condition(type_)).cloned() else { return };
        let ttl: Option<i64> = marked(set, mark::TTL).and_then(|seconds| seconds.parse().ok());
        let has_ended_itself = set.status.as_ref().is_some_and(jobset::JobSetStatus::is_finished);
        let is_over = ttl.is_some_and(|seconds| self.is_over(ended.last_transition_time.0, seconds));
        if is_over || !has_ended_itself {
            self.plan.requeue_after = None;
            self.plan.delete_jobset = Some(JobSetDeletion {
                name: set.metadata.name.clone().unwrap_or_default(),
                uid: set.metadata.uid.clone().unwrap_or_default(),
            });
        }
    }

    pub(super) fn fail(&mut self, reason: &str, message: String) {
        self.set_condition(condition_type::FAILED, true, reason, message.clone());
        self.tell(EventType::Warning, reason, message);
    }

    fn set_condition(&mut self, type_: &str, value: bool, reason: &str, message: String) -> bool {
        let said = Said { type_, value, reason, message };
        condition::set(&mut self.status.conditions, said, None, self.now)
    }

    pub(super) fn tell(&mut self, type_: EventType, reason: &str, message: String) {
        self.plan.events.push(Event { type_, reason: reason.to_owned(), message });
    }
}
