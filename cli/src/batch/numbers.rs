//! Numbers of jobs: a ConfigMap of the namespace has the next one, and the Job's name makes sure that nobody has it twice.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use muster_batch_core::{Request, Work, names};
use muster_trainer_api::MpiJob;

use crate::connect::Connection;
use crate::error::Error;

/// Most tries, should others submit at the same moment.
const TRIES: u32 = 200;
/// Longest pause between two.
const PAUSE: Duration = Duration::from_millis(50);

/// Creates the object of a request under the next number, which it returns.
pub(crate) async fn submit(connection: &Connection, request: &Request) -> Result<u64, Error> {
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let mpi_jobs: Api<MpiJob> = Api::namespaced(connection.client.clone(), &connection.namespace);
    for _ in 0..TRIES {
        let Some(id) = take(connection, request.numbers()).await? else { continue };
        let created = match request.work(id) {
            Work::Job(job) => jobs.create(&PostParams::default(), &job).await.map(drop),
            Work::MpiJob(job) => mpi_jobs.create(&PostParams::default(), &job).await.map(drop),
        };
        match created {
            Ok(()) => return Ok(id),
            Err(kube::Error::Api(status)) if status.code == 404 && request.layout.nodes() > 1 => {
                return Err(Error::new(
                    "this cluster does not know kubeflow.org/v1 MPIJob, which a job of several nodes becomes",
                )
                .with_hint("`muster install` installs the kind and its controller"));
            }
            // The counter was lost, or set back.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(format!("no number for the job after {TRIES} tries: others submit all the time"))
        .with_hint(format!("see the ConfigMap {} of the namespace", names::COUNTER)))
}

/// Takes so many numbers and returns the first; none if others were faster.
async fn take(connection: &Connection, count: u64) -> Result<Option<u64>, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let found = maps.get_opt(names::COUNTER).await?;
    let known = found.as_ref().and_then(|map| map.data.as_ref()?.get(names::NEXT)?.parse::<u64>().ok());
    let first = match known {
        Some(next) => next,
        None => after_all(connection).await?,
    };
    let next = first.saturating_add(count).to_string();
    let answer = if let Some(mut map) = found {
        map.data.get_or_insert_default().insert(names::NEXT.to_owned(), next);
        maps.replace(names::COUNTER, &PostParams::default(), &map).await
    } else {
        let metadata = ObjectMeta { name: Some(names::COUNTER.to_owned()), ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([(names::NEXT.to_owned(), next)]));
        maps.create(&PostParams::default(), &ConfigMap { metadata, data, ..ConfigMap::default() }).await
    };
    match answer {
        Ok(_) => Ok(Some(first)),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            tokio::time::sleep(PAUSE.mul_f64(rand::random())).await;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The first number that no job of the namespace has.
async fn after_all(connection: &Connection) -> Result<u64, Error> {
    let all = super::list(connection).await?;
    Ok(all.iter().filter_map(|work| Some(work.id()? + work.numbers())).max().unwrap_or(1))
}
