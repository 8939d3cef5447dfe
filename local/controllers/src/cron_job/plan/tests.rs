use std::collections::BTreeSet;

use proptest::prelude::{Just, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(spec: Value) -> CronJob {
    let mut whole = json!({
        "schedule": "*/5 * * * *", "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
        "jobTemplate": { "metadata": { "labels": { "app": "nightly" } }, "spec": { "template": {} } },
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "metadata": { "name": "nightly", "namespace": "n", "uid": "cron",
                      "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": whole,
    }))
    .unwrap()
}

fn with_last(mut cron: CronJob, last: &str) -> CronJob {
    cron.status.get_or_insert_default().last_schedule_time = Some(Time(at(last)));
    cron
}

/// A job as the API server shows it; `end` is the condition that ended it.
fn job(name: &str, start: &str, end: Option<&str>) -> Arc<Job> {
    let conditions = end.map(|end| json!([{ "type": end, "status": "True", "lastTransitionTime": start }]));
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name },
            "status": { "startTime": start, "conditions": conditions,
                        "completionTime": (end == Some("Complete")).then_some(start) },
        }))
        .unwrap(),
    )
}

fn started(plan: &Plan) -> Option<String> {
    plan.start.as_ref().map(|(job, _)| job.name_any())
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|note| note.reason).collect()
}

#[test]
fn a_job_starts_when_it_is_due_and_is_named_after_the_time() {
    let cron = cron(json!({}));
    let early = plan(&cron, &[], at("2026-01-01T00:04:30Z"));
    assert_eq!((started(&early), early.again), (None, Some(Duration::from_secs(30))));
    let due = plan(&cron, &[], at("2026-01-01T00:05:00Z"));
    let (job, time) = due.start.unwrap();
    assert_eq!(time, at("2026-01-01T00:05:00Z"));
    assert_eq!(job.name_any(), format!("nightly-{}", time.as_second() / 60));
    assert_eq!(job.annotations()[SCHEDULED], "2026-01-01T00:05:00Z");
    assert_eq!((job.labels()["app"].as_str(), job.owner_references()[0].uid.as_str()), ("nightly", "cron"));
    let done = with_last(cron, "2026-01-01T00:05:00Z");
    assert_eq!(started(&plan(&done, &[], at("2026-01-01T00:05:01Z"))), None);
}

#[test]
fn a_time_zone_moves_the_schedule() {
    let cron = cron(json!({ "schedule": "0 9 * * *", "timeZone": "Asia/Tokyo" }));
    let due = plan(&with_last(cron, "2026-01-01T00:00:00Z"), &[], at("2026-01-02T00:00:10Z"));
    assert_eq!(due.start.unwrap().0.annotations()[SCHEDULED], "2026-01-02T09:00:00+09:00");
    let unknown = plan(&self::cron(json!({ "timeZone": "Mars/Olympus" })), &[], at("2026-01-02T00:00:00Z"));
    assert_eq!((started(&unknown), reasons(&unknown)), (None, vec!["UnknownTimeZone"]));
    let unreadable = plan(&self::cron(json!({ "schedule": "x" })), &[], at("2026-01-02T00:00:00Z"));
    assert_eq!(reasons(&unreadable), ["UnparseableSchedule"]);
}

#[test]
fn of_missed_times_only_the_latest_is_made_up_for_and_many_are_told() {
    let some = plan(&cron(json!({})), &[], at("2026-01-01T01:02:00Z"));
    assert_eq!(some.start.as_ref().map(|(_, due)| *due), Some(at("2026-01-01T01:00:00Z")));
    assert!(reasons(&some).is_empty());
    let many = plan(&cron(json!({})), &[], at("2026-02-01T00:02:00Z"));
    assert_eq!(many.start.as_ref().map(|(_, due)| *due), Some(at("2026-02-01T00:00:00Z")));
    assert_eq!(reasons(&many), ["TooManyMissedTimes"]);
    let late = cron(json!({ "startingDeadlineSeconds": 60 }));
    assert_eq!(started(&plan(&late, &[], at("2026-01-01T00:06:30Z"))), None, "the deadline is over");
    assert!(started(&plan(&late, &[], at("2026-01-01T00:05:30Z"))).is_some());
    let suspended = cron(json!({ "suspend": true }));
    assert_eq!(started(&plan(&suspended, &[], at("2026-01-01T00:05:00Z"))), None);
}

#[test]
fn what_is_due_every_so_often_goes_on_from_the_last_time() {
    let cron = with_last(cron(json!({ "schedule": "@every 90s" })), "2026-01-01T00:00:00Z");
    let early = plan(&cron, &[], at("2026-01-01T00:00:30Z"));
    assert_eq!((started(&early), early.again), (None, Some(Duration::from_mins(1))));
    let late = plan(&cron, &[], at("2026-01-02T00:00:50Z"));
    assert_eq!(late.start.map(|(_, due)| due), Some(at("2026-01-02T00:00:00Z")));
    assert_eq!(late.again, Some(Duration::from_secs(40)));
}

#[test]
fn jobs_run_beside_each_other_wait_or_give_way() {
    let (now, running) = (at("2026-01-01T00:10:00Z"), [job("first", "2026-01-01T00:05:00Z", None)]);
    let with = |policy: &str| {
        plan(&with_last(cron(json!({ "concurrencyPolicy": policy })), "2026-01-01T00:05:00Z"), &running, now)
    };
    let allowed = with("Allow");
    assert!(started(&allowed).is_some() && allowed.replace.is_empty());
    assert_eq!(allowed.status.active.as_ref().map(Vec::len), Some(1), "the new one is added when it exists");
    let forbidden = with("Forbid");
    assert_eq!((started(&forbidden), reasons(&forbidden)), (None, vec!["JobAlreadyActive"]));
    assert_eq!(forbidden.notes[0].once, Some(now));
    let replaced = with("Replace");
    assert!(started(&replaced).is_some());
    assert_eq!((replaced.replace.len(), replaced.status.active), (1, None));
}

#[test]
fn a_job_made_by_hand_counts_for_nothing() {
    let mut by_hand = (*job("by-hand", "2026-01-01T00:05:00Z", None)).clone();
    by_hand.metadata.annotations = Some([(BY_HAND.to_owned(), "manual".to_owned())].into());
    let cron = with_last(cron(json!({ "concurrencyPolicy": "Forbid" })), "2026-01-01T00:05:00Z");
    let plan = plan(&cron, &[Arc::new(by_hand)], at("2026-01-01T00:10:00Z"));
    assert!(started(&plan).is_some());
    assert_eq!(plan.status.active, None);
}

#[test]
fn old_jobs_go_and_the_status_follows_the_others() {
    let ended = |minute: i32, end: &str| {
        job(&format!("{end}-{minute}"), &format!("2026-01-01T00:0{minute}:00Z"), Some(end))
    };
    let mut jobs: Vec<_> = (1..6).map(|minute| ended(minute, "Complete")).collect();
    jobs.extend([ended(1, "Failed"), ended(2, "Failed")]);
    let mut cron = with_last(cron(json!({})), "2026-01-01T00:05:00Z");
    let named = |name: &str| ObjectReference {
        uid: Some(name.into()),
        name: Some(name.into()),
        ..Default::default()
    };
    cron.status.as_mut().unwrap().active = Some(vec![named("Complete-5"), named("lost")]);
    let plan = plan(&cron, &jobs, at("2026-01-01T00:06:00Z"));
    let gone: Vec<_> = plan.outdated.iter().map(|job| job.name_any()).collect();
    assert_eq!(gone, ["Complete-1", "Complete-2", "Failed-1"]);
    assert_eq!(reasons(&plan), ["SawCompletedJob", "MissingJob"]);
    assert_eq!(plan.status.last_successful_time, Some(Time(at("2026-01-01T00:05:00Z"))));
    assert_eq!(plan.status.active, None);
}

proptest! {
    /// Through hours of virtual time, looked at whenever, with jobs that take their time and statuses that get lost: no
    /// time is started twice, each started time is one of the schedule's, and what a policy forbids never happens.
    #[test]
    fn every_time_starts_at_most_once(
        policy in prop_oneof![Just("Allow"), Just("Forbid"), Just("Replace")],
        kept in prop_oneof![Just(0), Just(1), Just(1000)],
        looks in proptest::collection::vec((1_i64..900, 1_i64..1200, 0..4_u8), 1..80),
    ) {
        let mut cron = cron(json!({ "concurrencyPolicy": policy, "successfulJobsHistoryLimit": kept }));
        let mut now = at("2026-01-01T00:00:00Z");
        let mut all: Vec<(Arc<Job>, Timestamp)> = Vec::new();
        let mut times = BTreeSet::new();
        for (pause, length, luck) in looks {
            now = now.checked_add(SignedDuration::from_secs(pause)).unwrap();
            for (job, end) in &mut all {
                if *end <= now && !job.status.as_ref().is_some_and(is_finished) {
                    *job = self::job(&job.name_any(), &end.to_string(), Some("Complete"));
                }
            }
            let jobs: Vec<_> = all.iter().map(|(job, _)| job.clone()).collect();
            let plan = plan(&cron, &jobs, now);
            let left = |gone: &[Arc<Job>], job: &Job| !gone.iter().any(|gone| gone.name_any() == job.name_any());
            all.retain(|(job, _)| left(&plan.replace, job));
            let mut status = plan.status;
            if let Some((new, due)) = plan.start {
                prop_assert!(due <= now && due.as_second() % 300 == 0);
                prop_assert!(times.insert(due), "{due} was started before");
                let made = job(&new.name_any(), &now.to_string(), None);
                all.push((made, now.checked_add(SignedDuration::from_secs(length)).unwrap()));
                status.last_schedule_time = Some(Time(due));
            }
            let running = all.iter().filter(|(job, _)| !job.status.as_ref().is_some_and(is_finished)).count();
            prop_assert!(policy == "Allow" || running <= 1, "{running} run under {policy}");
            // The controller dies before the status is written, or between that and the deletion of old jobs.
            if luck > 0 {
                cron.status = Some(status);
            }
            if luck > 1 {
                all.retain(|(job, _)| left(&plan.outdated, job));
            }
        }
        let last = plan(&cron, &[], now);
        prop_assert_eq!(last.again.map(|pause| pause.as_secs() <= 300), Some(true));
    }
}
