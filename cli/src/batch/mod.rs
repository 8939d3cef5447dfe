//! Batch jobs on the command line: options and lines of scripts, numbers, and jobs by their number.

mod directives;
mod numbers;
mod options;

use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use muster_batch_core::{names, state};

use crate::connect::Connection;
use crate::error::Error;

pub(crate) use directives::Directives;
pub(crate) use numbers::submit;
pub(crate) use options::Options;

/// The batch job with this number.
pub(crate) async fn find(connection: &Connection, id: u64) -> Result<Job, Error> {
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let job = jobs.get_opt(&names::job_name(id)).await?.filter(|job| state::id(job) == Some(id));
    job.ok_or_else(|| {
        Error::new(format!("there is no batch job {id} in namespace {}", connection.namespace))
            .with_hint("`muster queue --all` shows the jobs; those that ended are kept for a day")
    })
}
