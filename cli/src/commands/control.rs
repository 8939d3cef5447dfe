//! `muster cancel`, `hold`, `release` and `requeue`: batch jobs by their numbers.

use clap::Args;
use muster_batch_core::dependency::Progress;
use muster_batch_core::{Work, names};
use serde_json::{Value, json};

use crate::batch;
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};

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
    apply(connection, id, control).await
}

/// Does this to the job with this number.
///
/// # Errors
/// There is no such job, or it is past that.
pub(crate) async fn apply(connection: &Connection, id: u64, control: Control) -> Result<(), Error> {
    for _ in 0..ATTEMPTS {
        let work = batch::find(connection, id).await?;
        let over = work.is_over();
        return match control {
            Control::Requeue if over => batch::again(connection, &work).await,
            _ if over => Err(Error::new(format!("job {id} has ended already"))),
            Control::Hold if work.progress() == Progress::Started && !work.is_suspended() => {
                Err(Error::new(format!("job {id} runs already"))
                    .with_hint(format!("`muster requeue {id}` and then `muster hold {id}` sends it back")))
            }
            _ => match batch::change(connection, &work, &patch(&work, control)).await {
                // It has changed meanwhile, and something else may be right for it now.
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                answer => answer.map_err(Error::from),
            },
        };
    }
    Err(Error::new(format!("job {id} keeps changing")).with_hint("try again"))
}

fn patch(work: &Work, control: Control) -> Value {
    let suspended = work.is_suspended();
    let waits = work.annotation(names::DEPENDENCY).is_some();
    let (annotations, run) = match control {
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
    work.kind().patch(work.metadata().resource_version.as_deref(), annotations, run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::Job;

    fn job(annotations: Value, suspended: bool) -> Work {
        let job: Job = serde_json::from_value(json!({
            "metadata": { "name": "batch-3", "uid": "u", "resourceVersion": "5", "annotations": annotations,
                          "labels": { names::ID: "3", "job-name": "batch-3" } },
            "spec": { "suspend": suspended, "selector": {}, "activeDeadlineSeconds": 0, "template": {
                "metadata": { "labels": { names::ID: "3", "controller-uid": "u" } } } },
        }))
        .unwrap();
        job.into()
    }

    #[test]
    fn a_released_job_still_waits_for_others() {
        let waiting = json!({ names::HOLD: "user", names::DEPENDENCY: "afterok:1" });
        let spec = |work: &Work, control| patch(work, control)["spec"]["suspend"].clone();
        assert_eq!(spec(&job(waiting, true), Control::Release), json!(true));
        assert_eq!(spec(&job(json!({ names::HOLD: "user" }), true), Control::Release), json!(false));
        assert_eq!(spec(&job(json!({}), false), Control::Hold), json!(true));
        assert_eq!(spec(&job(json!({}), false), Control::Requeue), json!(true));
        assert_eq!(spec(&job(json!({}), true), Control::Requeue), Value::Null, "it has not started");
    }
}
