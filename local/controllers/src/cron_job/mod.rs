//! Starts the jobs of cron jobs when they are due.

mod due;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};
use muster_machinery::clock::Clock;
use parking_lot::Mutex;
use plan::Note;

use crate::error::{Error, Result, existing_is_fine, gone_is_fine};
use crate::events::{Recorder, Severity, post_params};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::owners::{controller_of, controller_uid};
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "cronjob-controller";
/// Longest wait before a look at the clock: it may have been set, or the machine may have slept.
const LOOK: Duration = Duration::from_mins(1);

/// The cron job controller.
pub(crate) struct CronJobs {
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    cache: Arc<Informer<CronJob>>,
    jobs: Arc<Informer<Job>>,
    /// What was told for which time, by uid and reason.
    told: Mutex<HashMap<(String, &'static str), Timestamp>>,
    queue: Queue<Key>,
}

impl CronJobs {
    pub(crate) fn new(
        client: Client,
        informers: &Informers,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            recorder,
            clock,
            cache: informers.cron_jobs.clone(),
            jobs: informers.jobs.clone(),
            told: Mutex::default(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.cron_jobs.on_change(move |change| {
            let Some(cron) = change.latest() else { return };
            if change.new.is_none() {
                own.told.lock().retain(|(uid, _), _| Some(uid) != cron.metadata.uid.as_ref());
            }
            own.queue.add(Key::of(&**cron));
        });
        let own = controller.clone();
        informers.jobs.on_change(move |change| {
            let Some(job) = change.latest() else { return };
            let owner = controller_of(&job.metadata).filter(|owner| owner.kind == CronJob::kind(&()));
            if let Some(owner) = owner {
                own.queue.add(Key::new(job.namespace().unwrap_or_default(), owner.name.clone()));
            }
        });
        controller
    }

    fn jobs_api(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.client.clone(), &cron.namespace().unwrap_or_default())
    }

    fn tell(&self, cron: &CronJob, note: Note) {
        if let Some(time) = note.once {
            let key = (cron.uid().unwrap_or_default(), note.reason);
            if self.told.lock().insert(key, time) == Some(time) {
                return;
            }
        }
        self.recorder.tell(COMPONENT, cron, note.severity, note.reason, note.message);
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<()> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
            ..DeleteParams::background()
        };
        if gone_is_fine(self.jobs_api(cron).delete(&job.name_any(), &parameters).await)?.is_some() {
            let message = format!("Deleted job {}", job.name_any());
            self.recorder.tell(COMPONENT, cron, Severity::Normal, "SuccessfulDelete", message);
        }
        self.jobs.shows_deletion(&Key::of(job), job.metadata.uid.as_deref()).await
    }

    /// Creates the job; one that was created before the status could be written counts.
    async fn create(&self, cron: &CronJob, job: &Job) -> Result<Job> {
        let api = self.jobs_api(cron);
        if let Some(written) = existing_is_fine(api.create(&post_params(), job).await)? {
            let message = format!("Created job {}", written.name_any());
            self.recorder.tell(COMPONENT, cron, Severity::Normal, "SuccessfulCreate", message);
            self.jobs.shows(&written).await?;
            return Ok(written);
        }
        let found = api.get(&job.name_any()).await?;
        if controller_uid(&found.metadata) == cron.metadata.uid.as_deref() {
            return Ok(found);
        }
        let message = format!("job {} exists and belongs to somebody else", job.name_any());
        self.recorder.tell(COMPONENT, cron, Severity::Warning, "FailedCreate", message);
        Err(Error::NamesTaken { what: format!("a job of {}", cron.name_any()), tried: 1 })
    }

    async fn write(&self, cron: &CronJob, status: CronJobStatus) -> Result<()> {
        if cron.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = CronJob { status: Some(status), ..cron.clone() };
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &cron.namespace().unwrap_or_default());
        let answer = api.replace_status(&cron.name_any(), &post_params(), &changed).await;
        if let Some(written) = gone_is_fine(answer)? {
            self.cache.shows(&written).await?;
        }
        Ok(())
    }
}

impl Reconcile for CronJobs {
    type Key = Key;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(cron) = self.cache.get(key) else { return Ok(None) };
        let jobs = self.jobs.controlled_by(&*cron);
        let plan = plan::plan(&cron, &jobs, self.clock.now());
        for note in plan.notes {
            self.tell(&cron, note);
        }
        for job in &plan.replace {
            self.delete(&cron, job).await?;
        }
        let mut status = plan.status;
        if let Some((job, due)) = plan.start {
            let written = self.create(&cron, &job).await?;
            let reference = plan::reference(&cron, &written);
            let active = status.active.get_or_insert_default();
            if !active.iter().any(|one| one.uid == reference.uid) {
                active.push(reference);
            }
            status.last_schedule_time = Some(Time(due));
        }
        self.write(&cron, status).await?;
        for job in &plan.outdated {
            self.delete(&cron, job).await?;
        }
        Ok(plan.again.map(|pause| pause.min(LOOK)))
    }
}
