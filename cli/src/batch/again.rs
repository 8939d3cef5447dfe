//! A new run of a batch job that has ended, under its number.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Resource, ResourceExt as _};
use muster_batch_core::{Work, names};
use muster_trainer_api::annotation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::error::Error;

/// Longest wait for a job that ended to make room for its next run.
const PATIENCE: Duration = Duration::from_mins(1);

/// Annotations that are not of the job as it was submitted.
const OF_A_RUN: [&str; 4] = [names::CANCELLED, names::HOLD, names::REQUEUE, names::REASON];

/// Puts a new object in the place of one that ended.
pub(crate) async fn again(connection: &Connection, work: &Work) -> Result<(), Error> {
    match fresh(work) {
        Work::Job(job) => replace(connection, work, &*job).await,
        Work::MpiJob(job) => replace(connection, work, &*job).await,
    }
}

async fn replace<K>(connection: &Connection, old: &Work, new: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    let jobs: Api<K> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let (name, uid) = (new.name_any(), old.metadata().uid.clone().unwrap_or_default());
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
    jobs.create(&PostParams::default(), new).await?;
    Ok(())
}

/// The job as it was submitted.
fn fresh(work: &Work) -> Work {
    let mut metadata = ObjectMeta {
        name: work.metadata().name.clone(),
        labels: work.metadata().labels.clone(),
        annotations: work.metadata().annotations.clone(),
        ..ObjectMeta::default()
    };
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| key.starts_with("muster.dev/"));
    }
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|key, _| {
            let of_kind = [annotation::REMOTE_SHELL, annotation::REQUEUE].contains(&key.as_str());
            (of_kind || key.starts_with(names::PREFIX)) && !OF_A_RUN.contains(&key.as_str())
        });
    }
    match work.clone() {
        Work::Job(mut job) => {
            (job.metadata, job.status) = (metadata, None);
            if let Some(spec) = &mut job.spec {
                (spec.selector, spec.manual_selector, spec.suspend, spec.active_deadline_seconds) =
                    (None, None, None, None);
                // What the server wrote into the template for the old Job.
                if let Some(labels) = spec.template.metadata.as_mut().and_then(|data| data.labels.as_mut()) {
                    labels.retain(|key, _| key.starts_with("muster.dev/"));
                }
            }
            Work::Job(job)
        }
        Work::MpiJob(mut job) => {
            (job.metadata, job.status) = (metadata, None);
            let policy = &mut job.spec.run_policy;
            (policy.suspend, policy.active_deadline_seconds) = (None, None);
            Work::MpiJob(job)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;
    use muster_trainer_api::MpiJob;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_starts_again_is_as_it_was_submitted() {
        let metadata = json!({
            "name": "batch-3", "uid": "u", "resourceVersion": "5",
            "labels": { names::ID: "3", "job-name": "batch-3" },
            "annotations": { names::CANCELLED: "user", names::HOLD: "user", names::REASON: "r", names::NAME: "n",
                             "muster.dev/restart-count": "2" },
        });
        let job: Job = serde_json::from_value(json!({
            "metadata": metadata,
            "spec": { "suspend": true, "selector": {}, "activeDeadlineSeconds": 0, "template": {
                "metadata": { "labels": { names::ID: "3", "controller-uid": "u" } } } },
            "status": { "failed": 1 },
        }))
        .unwrap();
        let mpi_job: MpiJob = serde_json::from_value(json!({
            "apiVersion": "kubeflow.org/v1", "kind": "MPIJob", "metadata": metadata,
            "spec": { "runPolicy": { "activeDeadlineSeconds": 0, "backoffLimit": 0 }, "mpiReplicaSpecs": {} },
            "status": { "conditions": [{ "type": "Failed", "status": "True" }] },
        }))
        .unwrap();
        for work in [Work::from(job), Work::from(mpi_job)] {
            let fresh = fresh(&work);
            let metadata = fresh.metadata();
            assert_eq!(
                metadata.annotations.iter().flatten().map(|(key, _)| key).collect::<Vec<_>>(),
                [names::NAME]
            );
            assert_eq!(metadata.labels.iter().flatten().map(|(key, _)| key).collect::<Vec<_>>(), [names::ID]);
            assert!(metadata.uid.is_none() && !fresh.is_suspended() && !fresh.is_over());
            match fresh {
                Work::Job(job) => {
                    let spec = job.spec.unwrap();
                    assert!(spec.selector.is_none() && spec.active_deadline_seconds.is_none());
                    let labels = spec.template.metadata.unwrap().labels.unwrap();
                    assert_eq!(labels.keys().collect::<Vec<_>>(), [names::ID]);
                }
                Work::MpiJob(job) => {
                    let policy = job.spec.run_policy;
                    assert_eq!((policy.active_deadline_seconds, policy.backoff_limit), (None, Some(0)));
                }
            }
        }
    }
}
