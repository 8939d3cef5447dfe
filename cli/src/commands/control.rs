//! `muster cancel`, `hold`, `release` and `requeue`: batch jobs by their numbers.

use clap::Args;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt as _};
use muster_batch_core::board::progress;
use muster_batch_core::dependency::Progress;
use muster_batch_core::names;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::batch;
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};

/// Longest wait for a job that ended to make room for its next run.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often a job is looked at anew that changes while it is to be changed.
const ATTEMPTS: usize = 10;

/// The jobs that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Numbers of batch jobs
    #[arg(required = true, value_name = "JOB")]
    jobs: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// What becomes of the jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    /// They end.
    Cancel,
    /// They do not start.
    Hold,
    /// They may start.
    Release,
    /// They start again.
    Requeue,
}

impl Arguments {
    /// Runs the command; what is wrong with one job holds up no other.
    pub(crate) async fn run(self, control: Control) -> Result<(), Error> {
        let connection = self.cluster.connect().await?;
        let mut errors = Vec::new();
        for job in &self.jobs {
            if let Err(error) = one(&connection, job, control).await {
                errors.push(error);
            }
        }
        let Some(first) = errors.first() else { return Ok(()) };
        let text = errors.iter().map(|error| error.message().to_owned()).collect::<Vec<_>>().join("\n");
        let all = Error::new(text);
        Err(match first.hint() {
            Some(hint) => all.with_hint(hint),
            None => all,
        })
    }
}

async fn one(connection: &Connection, text: &str, control: Control) -> Result<(), Error> {
    let id: u64 = text.parse().map_err(|_| {
        let error = Error::new(format!("`{text}` is not the number of a batch job")).with_code(USAGE);
        match text.split_once('_') {
            Some((job, _)) => error.with_hint(format!("an array is handled as a whole: `{job}`")),
            None => error.with_hint("`muster queue` shows the numbers; other jobs are for `muster delete`"),
        }
    })?;
    for _ in 0..ATTEMPTS {
        let job = batch::find(connection, id).await?;
        let over = matches!(progress(&job), Progress::Succeeded | Progress::Failed);
        return match control {
            Control::Requeue if over => again(connection, &job).await,
            _ if over => Err(Error::new(format!("job {id} has ended already"))),
            Control::Hold if progress(&job) == Progress::Started && !is_suspended(&job) => {
                Err(Error::new(format!("job {id} runs already"))
                    .with_hint(format!("`muster requeue {id}` and then `muster hold {id}` sends it back")))
            }
            _ => match change(connection, &job, &patch(&job, control)).await {
                // It has changed meanwhile, and something else may be right for it now.
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                answer => answer.map_err(Error::from),
            },
        };
    }
    Err(Error::new(format!("job {id} keeps changing")).with_hint("try again"))
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

fn patch(job: &Job, control: Control) -> Value {
    let suspended = is_suspended(job);
    let waits = job.annotations().contains_key(names::DEPENDENCY);
    let (annotations, spec) = match control {
        // It fails at once, also when it has not started: those who wait for it learn of that.
        Control::Cancel => {
            let annotations =
                json!({ names::CANCELLED: "user", names::DEPENDENCY: null, names::REQUEUE: null });
            (annotations, json!({ "activeDeadlineSeconds": 0, "suspend": false }))
        }
        Control::Hold => (json!({ names::HOLD: "user" }), json!({ "suspend": true })),
        Control::Release => (json!({ names::HOLD: null }), json!({ "suspend": suspended && waits })),
        Control::Requeue if suspended => (json!({}), json!({})),
        Control::Requeue => (json!({ names::REQUEUE: "true" }), json!({ "suspend": true })),
    };
    let version = job.resource_version();
    json!({ "metadata": { "resourceVersion": version, "annotations": annotations }, "spec": spec })
}

async fn change(connection: &Connection, job: &Job, patch: &Value) -> Result<(), kube::Error> {
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    jobs.patch(&job.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Puts a new Job in the place of one that ended, under its number.
async fn again(connection: &Connection, job: &Job) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let (name, uid) = (job.name_any(), job.uid().unwrap_or_default());
    jobs.delete(&name, &DeleteParams::foreground()).await?;
    let gone = await_condition(jobs.clone(), &name, conditions::is_deleted(&uid));
    match timeout(PATIENCE, gone).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(Error::from_source("cannot see whether the ended job is gone", &error)),
        Err(_) => {
            return Err(Error::new(format!("{name} is still there"))
                .with_hint("a process that does not end holds it; see `muster describe`"));
        }
    }
    jobs.create(&PostParams::default(), &fresh(job)).await?;
    Ok(())
}

/// The Job as it was submitted.
fn fresh(job: &Job) -> Job {
    let mut fresh = Job { status: None, ..job.clone() };
    fresh.metadata = kube::api::ObjectMeta {
        name: job.metadata.name.clone(),
        labels: job.metadata.labels.clone(),
        annotations: job.metadata.annotations.clone(),
        ..kube::api::ObjectMeta::default()
    };
    if let Some(annotations) = &mut fresh.metadata.annotations {
        annotations.retain(|key, _| ![names::CANCELLED, names::HOLD, names::REQUEUE].contains(&key.as_str()));
    }
    let Some(spec) = &mut fresh.spec else { return fresh };
    (spec.selector, spec.manual_selector, spec.suspend, spec.active_deadline_seconds) =
        (None, None, None, None);
    // What the server wrote into the template for the old Job.
    let labels = spec.template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut());
    for labels in [labels, fresh.metadata.labels.as_mut()].into_iter().flatten() {
        labels.retain(|key, _| key.starts_with("muster.dev/"));
    }
    fresh
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(annotations: Value, suspended: bool) -> Job {
        serde_json::from_value(json!({
            "metadata": { "name": "batch-3", "uid": "u", "resourceVersion": "5", "annotations": annotations,
                          "labels": { names::ID: "3", "job-name": "batch-3" } },
            "spec": { "suspend": suspended, "selector": {}, "activeDeadlineSeconds": 0, "template": {
                "metadata": { "labels": { names::ID: "3", "controller-uid": "u" } } } },
        }))
        .unwrap()
    }

    #[test]
    fn a_released_job_still_waits_for_others() {
        let waiting = json!({ names::HOLD: "user", names::DEPENDENCY: "afterok:1" });
        let spec = |job: &Job, control| patch(job, control)["spec"]["suspend"].clone();
        assert_eq!(spec(&job(waiting, true), Control::Release), json!(true));
        assert_eq!(spec(&job(json!({ names::HOLD: "user" }), true), Control::Release), json!(false));
        assert_eq!(spec(&job(json!({}), false), Control::Hold), json!(true));
        assert_eq!(spec(&job(json!({}), false), Control::Requeue), json!(true));
        assert_eq!(spec(&job(json!({}), true), Control::Requeue), Value::Null, "it has not started");
    }

    #[test]
    fn a_job_that_starts_again_is_as_it_was_submitted() {
        let fresh =
            fresh(&job(json!({ names::CANCELLED: "user", names::HOLD: "user", names::NAME: "n" }), true));
        assert_eq!(fresh.annotations().keys().collect::<Vec<_>>(), [names::NAME]);
        assert_eq!(fresh.labels().keys().collect::<Vec<_>>(), [names::ID]);
        let spec = fresh.spec.unwrap();
        assert!(spec.selector.is_none() && spec.active_deadline_seconds.is_none() && spec.suspend.is_none());
        assert_eq!(spec.template.metadata.unwrap().labels.unwrap().keys().collect::<Vec<_>>(), [names::ID]);
    }
}
