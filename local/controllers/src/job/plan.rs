//! What a job needs next. Pure.
//!
//! A pod that ended is counted in two steps, so that no crash counts it twice or not at all: its uid goes into
//! `status.uncountedTerminatedPods`, then it loses its finalizer, then the uid becomes a number. Indexed successes are a
//! set and need only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::conditions::{self, Happening};
use super::failure_policy::{Verdict, judge};
use super::pod::{index_of, is_tracked};
use super::{backoff, indexes, per_index, success_policy};
use crate::pods::{is_active, is_finished, is_ready, is_terminating, phase};

/// Most pods created in one step.
const BATCH: i32 = 500;

/// A pod to delete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Removal {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Whether the job will count it as failed.
    pub counts: bool,
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The status to write first.
    pub status: JobStatus,
    /// What happened, to be told when the status is written.
    pub happenings: Vec<Happening>,
    /// Pods that are counted and lose their finalizer.
    pub counted: Vec<Arc<Pod>>,
    /// Pods to delete.
    pub remove: Vec<Removal>,
    /// Pods to create, with their index.
    pub create: Vec<Option<i32>>,
    /// How often each index has failed, where the job counts that.
    pub failures: BTreeMap<i32, i32>,
    /// The job's time after its end is over.
    pub delete_job: bool,
    /// When to look again although nothing happened.
    pub again: Option<Duration>,
}

/// What is known while a plan is made.
struct Look<'a> {
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    completed: BTreeSet<i32>,
    /// Indexes that failed for good.
    failed: BTreeSet<i32>,
    plan: Plan,
}

fn indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

fn waits_for_end(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// Whether the pod counts as failed. One that is being deleted does, unless its job waits for its end.
fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    phase(pod) == "Failed" || (is_terminating(pod) && !is_finished(pod) && !waits_for_end(spec))
}

/// Decides what a job needs, given the pods that it controls.
pub(crate) fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &job.spec else { return Plan::default() };
    let status = job.status.clone().unwrap_or_default();
    if conditions::is_finished(&status) {
        return finished(spec, status, pods, now);
    }
    let completions = spec.completions.unwrap_or(0);
    let completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions);
    let failed = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default(), completions);
    let mut look = Look { spec, pods, now, completed, failed, plan: Plan { status, ..Plan::default() } };
    look.start_or_suspend();
    let fail = look.count();
    look.judge(fail);
    if job.metadata.deletion_timestamp.is_none() {
        look.manage();
    }
    look.summarize();
    look.end();
    look.plan
}

fn finished(spec: &JobSpec, status: JobStatus, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let counted = pods.iter().filter(|pod| is_tracked(pod)).cloned().collect();
    let mut plan = Plan { counted, ..Plan::default() };
    if let (Some(ttl), Some(end)) = (spec.ttl_seconds_after_finished, conditions::finish_time(&status)) {
        let left = SignedDuration::from_secs(ttl.into()) - now.duration_since(end);
        plan.delete_job = left <= SignedDuration::ZERO;
        plan.again = (!plan.delete_job).then(|| left.unsigned_abs());
    }
    plan.status = status;
    plan
}

impl Look<'_> {
    fn start_or_suspend(&mut self) {
        let status = &mut self.plan.status;
        if self.spec.suspend == Some(true) {
            if conditions::suspend(status, self.now) {
                self.plan.happenings.push(Happening::Suspended);
            }
            status.start_time = None;
        } else {
            if conditions::resume(status, self.now) {
                self.plan.happenings.push(Happening::Resumed);
            }
            status.start_time.get_or_insert(Time(self.now));
        }
    }

    /// Counts pods that ended; returns why the job must fail if one says so.
    fn count(&mut self) -> Option<String> {
        let uncounted = self.plan.status.uncounted_terminated_pods.clone().unwrap_or_default();
        let tracked: BTreeSet<String> =
            self.pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.uid()).collect();
        let settle = |uids: Option<Vec<String>>| -> (Vec<String>, i32) {
            let (waiting, done): (Vec<_>, Vec<_>) =
                uids.unwrap_or_default().into_iter().partition(|uid| tracked.contains(uid));
            (waiting, done.len() as i32)
        };
        let (mut succeeded, done) = settle(uncounted.succeeded);
        add(&mut self.plan.status.succeeded, done);
        let (mut failed, done) = settle(uncounted.failed);
        add(&mut self.plan.status.failed, done);
        let mut fail = None;
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let uid = pod.uid().unwrap_or_default();
            let known = succeeded.contains(&uid) || failed.contains(&uid);
            let has_failed = has_failed(self.spec, pod);
            if phase(pod) == "Succeeded" {
                if indexed(self.spec) {
                    let last = self.spec.completions.unwrap_or(0);
                    self.completed.extend(index_of(pod).filter(|index| (0..last).contains(index)));
                } else if !known {
                    succeeded.push(uid);
                }
            } else if has_failed {
                match judge(self.spec.pod_failure_policy.as_ref(), pod) {
                    _ if known => {}
                    Verdict::Ignore => {}
                    Verdict::Count => {
                        failed.push(uid);
                        self.failed.extend(index_of(pod).filter(|_| per_index::exceeds(self.spec, pod)));
                    }
                    Verdict::FailIndex => {
                        failed.push(uid);
                        self.failed.extend(index_of(pod));
                    }
                    Verdict::FailJob(message) => {
                        failed.push(uid);
                        fail.get_or_insert(message);
                    }
                }
            } else {
                continue;
            }
            self.plan.counted.push(pod.clone());
        }
        let some = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
        self.plan.status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: some(succeeded), failed: some(failed) });
        if indexed(self.spec) {
            let count = self.completed.len() as i32;
            self.plan.status.succeeded = (count > 0).then_some(count);
            self.plan.status.completed_indexes = (count > 0).then(|| indexes::format(&self.completed));
        }
        if self.spec.backoff_limit_per_index.is_some() {
            self.plan.status.failed_indexes = Some(indexes::format(&self.failed));
        }
        fail
    }

    fn uncounted(&self) -> (i32, i32) {
        let uncounted = self.plan.status.uncounted_terminated_pods.as_ref();
        let length = |uids: Option<&Vec<String>>| uids.map_or(0, |uids| uids.len() as i32);
        (
            length(uncounted.and_then(|uncounted| uncounted.succeeded.as_ref())),
            length(uncounted.and_then(|uncounted| uncounted.failed.as_ref())),
        )
    }

    fn succeeded(&self) -> i32 {
        self.plan.status.succeeded.unwrap_or(0) + self.uncounted().0
    }

    fn failed(&self) -> i32 {
        self.plan.status.failed.unwrap_or(0) + self.uncounted().1
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|pod| is_active(pod))
    }

    /// Decides whether the job has reached or missed its goal.
    fn judge(&mut self, fail: Option<String>) {
        if conditions::has_outcome(&self.plan.status) {
            return;
        }
        let reached = match self.spec.completions {
            Some(completions) => self.succeeded() >= completions,
            None => self.succeeded() > 0 && self.active().next().is_none(),
        };
        let suspended = self.spec.suspend == Some(true);
        let completions = self.spec.completions.unwrap_or(0);
        let by_policy = success_policy::met(self.spec.success_policy.as_ref(), &self.completed, completions);
        let failed_indexes = self.failed.len() as i32;
        if let Some(message) = fail {
            conditions::fail(&mut self.plan.status, "PodFailurePolicy", &message, self.now);
        } else if self.exceeds_limit() {
            let message = "Job has reached the specified backoff limit";
            conditions::fail(&mut self.plan.status, "BackoffLimitExceeded", message, self.now);
        } else if self.deadline_left().is_some_and(|left| left <= SignedDuration::ZERO) && !suspended {
            let message = "Job was active longer than specified deadline";
            conditions::fail(&mut self.plan.status, "DeadlineExceeded", message, self.now);
        } else if self.spec.max_failed_indexes.is_some_and(|most| failed_indexes > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            conditions::fail(&mut self.plan.status, "MaxFailedIndexesExceeded", message, self.now);
        } else if failed_indexes > 0 && failed_indexes + self.succeeded() >= completions {
            conditions::fail(&mut self.plan.status, "FailedIndexes", "Job has failed indexes", self.now);
        } else if let Some(message) = by_policy.filter(|_| !suspended) {
            conditions::succeed(&mut self.plan.status, "SuccessPolicy", &message, self.now);
        } else if reached && !suspended {
            let message = "Reached expected number of succeeded pods";
            conditions::succeed(&mut self.plan.status, "CompletionsReached", message, self.now);
        }
    }

    fn exceeds_limit(&self) -> bool {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts_in_place =
            self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref())
                == Some("OnFailure");
        let restarts = || -> i32 {
            let statuses = self.active().filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
                status
                    .init_container_statuses
                    .iter()
                    .flatten()
                    .chain(status.container_statuses.iter().flatten())
            });
            statuses.map(|status| status.restart_count).sum()
        };
        self.failed() > limit || (restarts_in_place && restarts() >= limit.max(1))
    }

    fn deadline_left(&self) -> Option<SignedDuration> {
        let deadline = SignedDuration::from_secs(self.spec.active_deadline_seconds?);
        let start = self.plan.status.start_time.as_ref()?.0;
        Some(deadline - self.now.duration_since(start))
    }

    /// Chooses pods to delete and to create.
    fn manage(&mut self) {
        let outcome = conditions::has_outcome(&self.plan.status);
        if outcome || self.spec.suspend == Some(true) {
            let remove = self.active().map(|pod| Removal { pod: pod.clone(), counts: outcome });
            self.plan.remove = remove.collect();
            return;
        }
        self.plan.again = self.deadline_left().map(SignedDuration::unsigned_abs);
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let (keep, mut excess) = self.sort_out();
        let active = keep.len() as i32;
        let wanted = match self.spec.completions {
            Some(completions) => parallelism.min(completions - self.succeeded() - self.failed.len() as i32),
            None if self.succeeded() > 0 => active.min(parallelism),
            None => parallelism,
        };
        if active > wanted.max(0) {
            let mut ranked = keep.clone();
            ranked.sort_by_key(|pod| {
                (is_ready(pod), std::cmp::Reverse(pod.metadata.creation_timestamp.clone()))
            });
            excess.extend(ranked.into_iter().take((active - wanted.max(0)) as usize));
        }
        self.plan.remove = excess.into_iter().map(|pod| Removal { pod, counts: false }).collect();
        let ending = || self.pods.iter().filter(|pod| is_terminating(pod) && !is_finished(pod));
        let held = if waits_for_end(self.spec) { ending().count() as i32 } else { 0 };
        let missing = (wanted - active - held).min(BATCH);
        if missing <= 0 {
            return;
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        if !per_index && let Some(left) = self.pause(|_| true) {
            self.wake_after(left);
            return;
        }
        if !indexed(self.spec) {
            self.plan.create = vec![None; missing as usize];
            return;
        }
        let mut taken: BTreeSet<i32> = keep.iter().filter_map(|pod| index_of(pod)).collect();
        taken.extend(&self.completed);
        taken.extend(&self.failed);
        if waits_for_end(self.spec) {
            taken.extend(ending().filter_map(|pod| index_of(pod)));
        }
        if per_index {
            let failing: BTreeSet<i32> = self
                .pods
                .iter()
                .filter(|pod| has_failed(self.spec, pod))
                .filter_map(|pod| index_of(pod))
                .collect();
            for index in failing.difference(&taken).copied().collect::<Vec<_>>() {
                // Every index waits for itself.
                if let Some(left) = self.pause(|pod| index_of(pod) == Some(index)) {
                    self.wake_after(left);
                    taken.insert(index);
                }
            }
        }
        let free = (0..self.spec.completions.unwrap_or(0)).filter(|index| !taken.contains(index));
        self.plan.create = free.take(missing as usize).map(Some).collect();
        self.plan.failures = per_index::failures(self.spec, self.pods, |pod| has_failed(self.spec, pod));
    }

    /// What is left of the pause after failures of these pods.
    fn pause(&self, of: impl Fn(&Pod) -> bool) -> Option<Duration> {
        let pods = self.pods.iter().map(|pod| &**pod).filter(|pod| of(pod));
        backoff::remaining(pods, self.now).map(SignedDuration::unsigned_abs)
    }

    fn wake_after(&mut self, left: Duration) {
        self.plan.again = Some(self.plan.again.map_or(left, |again| again.min(left)));
    }

    /// Active pods to keep, and those that are one too many for their index.
    fn sort_out(&self) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let mut active: Vec<Arc<Pod>> = self.active().cloned().collect();
        if !indexed(self.spec) {
            return (active, Vec::new());
        }
        active.sort_by_key(|pod| (!is_ready(pod), pod.metadata.creation_timestamp.clone(), pod.name_any()));
        let completions = self.spec.completions.unwrap_or(0);
        let mut seen: BTreeSet<i32> = self.completed.union(&self.failed).copied().collect();
        active.into_iter().partition(|pod| {
            index_of(pod).is_some_and(|index| (0..completions).contains(&index) && seen.insert(index))
        })
    }

    fn summarize(&mut self) {
        let active =
            self.active().count() as i32 - self.plan.remove.len() as i32 + self.plan.create.len() as i32;
        let removed =
            |pod: &&Arc<Pod>| !self.plan.remove.iter().any(|removal| removal.pod.uid() == pod.uid());
        let ready = self.active().filter(removed).filter(|pod| is_ready(pod)).count() as i32;
        let ending = self.pods.iter().filter(|pod| is_terminating(pod) && !is_finished(pod)).count() as i32;
        let status = &mut self.plan.status;
        status.active = (active > 0).then_some(active);
        status.ready = Some(ready);
        status.terminating = Some(ending);
    }

    /// The job ends when its outcome is known, every pod is counted and none runs any more.
    fn end(&mut self) {
        let running = self.active().next().is_some() || self.plan.status.terminating != Some(0);
        let uncounted = self.pods.iter().any(|pod| is_tracked(pod)) || self.uncounted() != (0, 0);
        if running || uncounted || !conditions::has_outcome(&self.plan.status) {
            return;
        }
        self.plan.happenings.extend(conditions::finish(&mut self.plan.status, self.now));
    }
}

fn add(count: &mut Option<i32>, more: i32) {
    if more > 0 {
        *count = Some(count.unwrap_or(0) + more);
    }
}

#[cfg(test)]
mod tests;
