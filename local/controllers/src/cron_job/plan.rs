//! Whether a cron job starts a job now, and which jobs of it go. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource as _, ResourceExt as _};
use muster_admission::cron::{self, Schedule};

use super::due;
use crate::events::Severity;
use crate::job::{completed_at, is_finished};
use crate::owners::controller_reference;

/// Annotation of a job with the time it was due.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Annotation of a job that a person made from the cron job.
const BY_HAND: &str = "cronjob.kubernetes.io/instantiate";

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
    /// Told once for this time, however often somebody looks.
    pub once: Option<Timestamp>,
}

/// What to do, in this order. Old jobs go last: one of them may be all that is known of a time that the status does not
/// tell yet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Jobs to delete: a new one replaces them.
    pub replace: Vec<Arc<Job>>,
    /// The job to create, and when it was due.
    pub start: Option<(Job, Timestamp)>,
    /// The status before the job is created.
    pub status: CronJobStatus,
    /// Jobs to delete once the status is written: they ended, and there are newer ones to look at.
    pub outdated: Vec<Arc<Job>>,
    /// What to tell.
    pub notes: Vec<Note>,
    /// When the next job is due.
    pub again: Option<Duration>,
}

impl Plan {
    fn tell(&mut self, severity: Severity, reason: &'static str, message: String, once: Option<Timestamp>) {
        self.notes.push(Note { severity, reason, message, once });
    }
}

/// Decides what a cron job does now, given the jobs that it controls.
pub(crate) fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let spec = &cron.spec;
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    let active = account(cron, jobs, &mut plan);
    let look = Look { cron, spec, jobs, active, now };
    if cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    plan.outdated = outdated(spec, jobs);
    if spec.suspend == Some(true) {
        return plan;
    }
    let zone = spec.time_zone.as_deref().map_or(Some(TimeZone::UTC), cron::time_zone);
    let Some(zone) = zone else {
        let name = spec.time_zone.as_deref().unwrap_or_default();
        let message = format!("invalid timeZone: {name:?}: unknown time zone");
        plan.tell(Severity::Warning, "UnknownTimeZone", message, None);
        return plan;
    };
    match Schedule::parse(&spec.schedule) {
        Ok(schedule) => look.start(&schedule, &zone, &mut plan),
        Err(error) => {
            let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
            plan.tell(Severity::Warning, "UnparseableSchedule", message, None);
        }
    }
    plan
}

/// Brings the status in line with the jobs there are; returns those that have not ended.
fn account(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) -> Vec<Arc<Job>> {
    let running = |job: &&Arc<Job>| !job.status.as_ref().is_some_and(is_finished);
    let scheduled = |job: &&Arc<Job>| !job.annotations().contains_key(BY_HAND);
    let active: Vec<Arc<Job>> = jobs.iter().filter(running).filter(scheduled).cloned().collect();
    let before = plan.status.active.take().unwrap_or_default();
    for gone in before.iter().filter(|one| !active.iter().any(|job| job.metadata.uid == one.uid)) {
        let name = gone.name.clone().unwrap_or_default();
        match jobs.iter().find(|job| job.metadata.uid == gone.uid) {
            Some(job) => {
                let complete = job.status.as_ref().is_some_and(|status| completed_at(status).is_some());
                let condition = if complete { "Complete" } else { "Failed" };
                let message = format!("Saw completed job: {name}, condition: {condition}");
                plan.tell(Severity::Normal, "SawCompletedJob", message, None);
            }
            None => {
                plan.tell(Severity::Normal, "MissingJob", format!("Active job went missing: {name}"), None);
            }
        }
    }
    let listed = active.iter().map(|job| {
        let known = before.iter().find(|one| one.uid == job.metadata.uid);
        known.cloned().unwrap_or_else(|| reference(cron, job))
    });
    plan.status.active = Some(listed.collect::<Vec<_>>()).filter(|active| !active.is_empty());
    let ends = jobs.iter().filter_map(|job| completed_at(job.status.as_ref()?)).map(Time);
    plan.status.last_successful_time = ends.chain(plan.status.last_successful_time.take()).max();
    active
}

/// How a status names a job.
pub(crate) fn reference(cron: &CronJob, job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::api_version(&()).into_owned()),
        kind: Some(Job::kind(&()).into_owned()),
        name: job.metadata.name.clone(),
        namespace: cron.namespace(),
        uid: job.uid(),
        resource_version: job.resource_version(),
        ..ObjectReference::default()
    }
}

/// The oldest jobs that ended, beyond those that are kept for people to look at.
fn outdated(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let ended = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
    let ended = ended.filter(|job| job.status.as_ref().is_some_and(is_finished));
    let (well, badly): (Vec<&Arc<Job>>, Vec<&Arc<Job>>) =
        ended.partition(|job| job.status.as_ref().and_then(completed_at).is_some());
    let old = |mut jobs: Vec<&Arc<Job>>, limit: Option<i32>| -> Vec<Arc<Job>> {
        let Some(limit) = limit else { return Vec::new() };
        let extra = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        jobs.sort_by_key(|job| {
            (job.status.as_ref().and_then(|status| status.start_time.clone()), job.name_any())
        });
        jobs.into_iter().take(extra).cloned().collect()
    };
    let mut outdated = old(well, spec.successful_jobs_history_limit);
    outdated.extend(old(badly, spec.failed_jobs_history_limit));
    outdated
}

/// What is known when a job may start.
struct Look<'a> {
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    jobs: &'a [Arc<Job>],
    active: Vec<Arc<Job>>,
    now: Timestamp,
}

impl Look<'_> {
    fn start(&self, schedule: &Schedule, zone: &TimeZone, plan: &mut Plan) {
        let (spec, now) = (self.spec, self.now);
        let created = self.cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let mut since = plan.status.last_schedule_time.as_ref().map_or(created, |time| time.0);
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if let Some(earliest) = deadline.and_then(|deadline| now.checked_sub(deadline).ok()) {
            since = since.max(earliest);
        }
        let due = due::latest(schedule, zone, since, now);
        let next = schedule.next(due.map_or(since, |due| due.at), zone);
        plan.again = next.map(|next| next.duration_since(now).max(SignedDuration::ZERO).unsigned_abs());
        let Some(due) = due else { return };
        let job = build(self.cron, spec, due.at, zone);
        if self.jobs.iter().any(|known| known.metadata.name == job.metadata.name) {
            // It was started, and only the status not written.
            plan.status.last_schedule_time = Some(Time(due.at));
            return;
        }
        if due.many_missed {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            plan.tell(Severity::Warning, "TooManyMissedTimes", message.to_owned(), Some(due.at));
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                plan.tell(Severity::Normal, "JobAlreadyActive", message.to_owned(), Some(due.at));
                return;
            }
            Some("Replace") => {
                plan.replace.extend(self.active.iter().cloned());
                plan.status.active = None;
            }
            _ => {}
        }
        plan.start = Some((job, due.at));
    }
}

/// The job of a time. Its name follows from the time, so that it cannot be started twice.
fn build(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let given = spec.job_template.metadata.clone().unwrap_or_default();
    let reading = due.to_zoned(zone.clone());
    let offset = if *zone == TimeZone::UTC { "Z".to_owned() } else { reading.strftime("%:z").to_string() };
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), format!("{}{offset}", reading.strftime("%Y-%m-%dT%H:%M:%S")));
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), due.as_second().div_euclid(60))),
            namespace: cron.namespace(),
            labels: given.labels,
            annotations: Some(annotations),
            finalizers: given.finalizers,
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
