//! Batch jobs on the command line: options and lines of scripts, numbers, and jobs by their number.

mod again;
mod cluster;
mod directives;
mod forecast;
mod nodes;
mod numbers;
mod options;
mod request;

use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use muster_batch_core::{Kind, Work, names};
use muster_trainer_api::MpiJob;
use serde_json::Value;

use crate::connect::Connection;
use crate::error::Error;

pub(crate) use again::again;
pub(crate) use cluster::BatchCluster;
pub(crate) use directives::Directives;
pub(crate) use forecast::Forecasts;
pub(crate) use nodes::Nodes;
pub(crate) use numbers::submit;
pub(crate) use options::{Allocation, Options};
pub(crate) use request::{interactive, request};

/// The batch job with this number.
pub(crate) async fn find(connection: &Connection, id: u64) -> Result<Work, Error> {
    look_up(connection, id).await?.ok_or_else(|| {
        Error::new(format!("there is no batch job {id} in namespace {}", connection.namespace))
            .with_hint("`muster queue --all` shows the jobs; those that ended are kept for a day")
    })
}

/// The same, if there is one.
pub(crate) async fn look_up(connection: &Connection, id: u64) -> Result<Option<Work>, kube::Error> {
    let name = names::job_name(id);
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let job = jobs.get_opt(&name).await?.map(Work::from).filter(|work| work.id() == Some(id));
    if job.is_some() {
        return Ok(job);
    }
    // A cluster without the kind answers as if there were no such job.
    let jobs: Api<MpiJob> = Api::namespaced(connection.client.clone(), &connection.namespace);
    Ok(jobs.get_opt(&name).await?.map(Work::from).filter(|work| work.id() == Some(id)))
}

/// All batch jobs of the namespace.
pub(crate) async fn list(connection: &Connection) -> Result<Vec<Work>, Error> {
    let numbered = ListParams::default().labels(names::ID);
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let mpi_jobs: Api<MpiJob> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let (jobs, mpi_jobs) = tokio::join!(jobs.list(&numbered), mpi_jobs.list(&numbered));
    let mpi_jobs = match mpi_jobs {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(jobs?.items.into_iter().map(Work::from).chain(mpi_jobs.into_iter().map(Work::from)).collect())
}

/// Changes a batch job.
pub(crate) async fn change(connection: &Connection, work: &Work, patch: &Value) -> Result<(), kube::Error> {
    let (name, patch) = (work.metadata().name.clone().unwrap_or_default(), Patch::Merge(patch));
    let (client, parameters) = (connection.client.clone(), PatchParams::default());
    match work.kind() {
        Kind::Job => {
            let jobs: Api<Job> = Api::namespaced(client, &connection.namespace);
            jobs.patch(&name, &parameters, &patch).await.map(drop)
        }
        Kind::MpiJob => {
            let jobs: Api<MpiJob> = Api::namespaced(client, &connection.namespace);
            jobs.patch(&name, &parameters, &patch).await.map(drop)
        }
    }
}
