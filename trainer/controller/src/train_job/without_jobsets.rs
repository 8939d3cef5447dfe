//! Where JobSet is not installed: the jobs that wait for it are told.

use jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use muster_machinery::CancellationToken;
use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::TrainJob;
use muster_trainer_core::train_job::plan_without_jobsets;

use crate::events::Recorder;
use crate::{owned, report};

/// Waits until JobSets are served, and tells every job that waits for them; false when the shutdown comes first.
pub(super) async fn wait(
    client: &Client,
    namespace: Option<&str>,
    recorder: &Recorder,
    shutdown: &CancellationToken,
) -> bool {
    let jobs = owned::in_scope::<TrainJob>(client, namespace);
    let sets = owned::in_scope::<JobSet>(client, namespace);
    let waiting = Box::pin(async {
        let mut has_said = false;
        while !owned::is_served(&sets).await {
            if !has_said {
                tracing::info!("the cluster does not serve JobSet yet; install it: training jobs run in it");
                has_said = true;
            }
            match jobs.list(&ListParams::default()).await {
                Ok(jobs) => tell(client, jobs.items, recorder).await,
                Err(error) => tracing::debug!(%error, "the jobs that wait for JobSet cannot be told"),
            }
            tokio::time::sleep(owned::NOT_SERVED_PAUSE).await;
        }
    });
    shutdown.run_until_cancelled(waiting).await.is_some()
}

/// Each job says it once, in its status; one that could not be told is told at the next look.
async fn tell(client: &Client, jobs: Vec<TrainJob>, recorder: &Recorder) {
    for mut job in jobs {
        let plan = plan_without_jobsets(&job, Timestamp::now());
        let Some(status) = plan.status else { continue };
        job.status = Some(status);
        let name = job.name_any();
        let namespaced =
            Api::<TrainJob>::namespaced(client.clone(), job.namespace().as_deref().unwrap_or("default"));
        match namespaced.replace_status(&name, &PostParams::default(), &job).await {
            Ok(_) => report::publish(recorder, &job.object_ref(&()), plan.events).await,
            Err(error) => tracing::debug!(job = name, %error, "a job that waits for JobSet cannot be told"),
        }
    }
}
