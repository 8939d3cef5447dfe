//! Numbers of jobs: a ConfigMap of the namespace has the next one, and the Job's name makes sure that nobody has it twice.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use muster_batch_core::{Request, names, state};

use crate::connect::Connection;
use crate::error::Error;

/// Most tries, should others submit at the same moment.
const TRIES: u32 = 200;
/// Longest pause between two.
const PAUSE: Duration = Duration::from_millis(50);

/// Creates the Job of a request under the next number, which it returns.
pub(crate) async fn submit(connection: &Connection, request: &Request) -> Result<u64, Error> {
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    for _ in 0..TRIES {
        let Some(id) = take(connection, request.numbers()).await? else { continue };
        match jobs.create(&PostParams::default(), &request.job(id)).await {
            Ok(_) => return Ok(id),
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
    let jobs: Api<Job> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let all = jobs.list(&ListParams::default().labels(names::ID)).await?;
    let tasks = |job: &Job| job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(1).max(1);
    let after = |job: &Job| Some(state::id(job)? + u64::try_from(tasks(job)).unwrap_or(1));
    Ok(all.iter().filter_map(after).max().unwrap_or(1))
}
