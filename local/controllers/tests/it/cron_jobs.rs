use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use muster_machinery::clock::ManualClock;
use serde_json::{Value, json};

use crate::harness::Cluster;

/// A cluster whose cron jobs go by a clock of the test, and a schedule that is due half an hour after its start and
/// every hour from then on. The clock starts a little ahead, as the API server dates objects by the machine's.
async fn cluster() -> (Cluster, ManualClock, String) {
    let minute = Timestamp::now().as_second() / 60 + 2;
    let clock = ManualClock::new(Timestamp::from_second(minute * 60).expect("in range"));
    let own = clock.clone();
    let mut cluster = Cluster::start_with(|options| options.clock = Arc::new(own)).await;
    cluster.start_kubelet();
    (cluster, clock, format!("{} * * * *", (minute + 30) % 60))
}

fn object(schedule: &str, exit: Option<&str>, spec: Value) -> Value {
    let annotations = exit.map_or(json!({}), |exit| json!({ "test/exit": exit }));
    let mut whole = json!({ "schedule": schedule, "jobTemplate": {
        "metadata": { "labels": { "app": "tick" } },
        "spec": { "template": {
            "metadata": { "annotations": annotations },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] },
        }},
    }});
    whole.as_object_mut().expect("map").extend(spec.as_object().expect("map").clone());
    json!({ "metadata": { "name": "tick" }, "spec": whole })
}

/// Lets time pass and the controller look at its clock.
async fn pass(cluster: &Cluster, clock: &ManualClock, minutes: i64) {
    clock.advance(SignedDuration::from_mins(minutes));
    let now = muster_machinery::Clock::now(clock).to_string();
    let touch = Patch::Merge(json!({ "metadata": { "annotations": { "test/look": now } } }));
    cluster.api::<CronJob>().patch("tick", &PatchParams::default(), &touch).await.expect("touched");
}

fn active(crons: &[CronJob]) -> usize {
    let status = crons.first().and_then(|cron| cron.status.as_ref());
    status.and_then(|status| status.active.as_ref()).map_or(0, Vec::len)
}

#[tokio::test]
async fn jobs_start_when_they_are_due_and_old_ones_go() {
    let (cluster, clock, schedule) = cluster().await;
    cluster.create::<CronJob>(object(&schedule, Some("0"), json!({ "successfulJobsHistoryLimit": 2 }))).await;
    let (jobs, crons) = (cluster.api::<Job>(), cluster.api::<CronJob>());
    let mut last = None;
    for round in 0..3 {
        pass(&cluster, &clock, if round == 0 { 30 } else { 60 }).await;
        let due = muster_machinery::Clock::now(&clock);
        let name = format!("tick-{}", due.as_second() / 60);
        let done = |jobs: &[Job]| {
            let own = jobs.iter().find(|job| job.name_any() == name);
            own.and_then(|job| job.status.as_ref()).is_some_and(|status| status.completion_time.is_some())
        };
        let all = cluster.until(jobs.clone(), "the job of the time", done).await;
        let own = all.iter().find(|job| job.name_any() == name).expect("found");
        let scheduled = &own.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
        assert_eq!(scheduled.parse::<Timestamp>().expect("a time"), due);
        assert_eq!(
            (own.labels()["app"].as_str(), own.owner_references()[0].kind.as_str()),
            ("tick", "CronJob")
        );
        let told = |crons: &[CronJob]| {
            let status = crons[0].status.as_ref();
            active(crons) == 0
                && status
                    .and_then(|status| status.last_schedule_time.as_ref())
                    .is_some_and(|time| time.0 == due)
                && status.is_some_and(|status| status.last_successful_time.is_some())
        };
        cluster.until(crons.clone(), "the status", told).await;
        last = Some(name);
    }
    let kept = cluster.until(jobs, "two jobs kept", |jobs| jobs.len() == 2).await;
    assert_eq!(kept.last().map(ResourceExt::name_any), last);
    cluster.stop().await;
}

#[tokio::test]
async fn a_running_job_holds_the_next_one_up_or_gives_way_to_it() {
    let (cluster, clock, schedule) = cluster().await;
    cluster.create::<CronJob>(object(&schedule, None, json!({ "concurrencyPolicy": "Forbid" }))).await;
    let (jobs, crons) = (cluster.api::<Job>(), cluster.api::<CronJob>());
    pass(&cluster, &clock, 30).await;
    cluster.until(crons.clone(), "one active", |crons| active(crons) == 1).await;
    let first = cluster.until(jobs.clone(), "one job", |jobs| jobs.len() == 1).await.remove(0);
    pass(&cluster, &clock, 60).await;
    let forbidden = |events: &[k8s_openapi::api::core::v1::Event]| {
        events.iter().any(|event| event.reason.as_deref() == Some("JobAlreadyActive"))
    };
    cluster.until(cluster.api(), "the refusal", forbidden).await;
    assert_eq!(jobs.list(&ListParams::default()).await.expect("listed").items.len(), 1);

    let replace = Patch::Merge(json!({ "spec": { "concurrencyPolicy": "Replace" } }));
    crons.patch("tick", &PatchParams::default(), &replace).await.expect("changed");
    let other = |jobs: &[Job]| jobs.len() == 1 && jobs[0].uid() != first.uid();
    cluster.until(jobs.clone(), "another job in its place", other).await;
    cluster.until(crons.clone(), "one active", |crons| active(crons) == 1).await;

    crons.delete("tick", &DeleteParams::background()).await.expect("deleted");
    cluster.until(jobs, "no jobs", <[Job]>::is_empty).await;
    cluster.stop().await;
}
