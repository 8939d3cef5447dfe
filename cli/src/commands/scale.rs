//! `muster scale`: more workers or fewer, while the job runs.

use clap::Args;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::wait::await_condition;
use muster_trainer_api::names;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::api;
use crate::connect::{ClusterArguments, Connection};
use crate::error::{Error, USAGE};
use crate::kinds::{Kind, Kinds};
use crate::output;
use crate::targets::{self, Targets};
use crate::waiting::WaitArguments;

/// Changes the number of workers of an elastic job, or of replicas of a Deployment, and waits until they run
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster scale job/digits --workers 6\n  muster scale deployment/web --replicas 3 --no-wait\n\nRanks that come take part from the next step on, with the state of those that are there; ranks that leave cost no step."
)]
pub(crate) struct Arguments {
    /// job/NAME or KIND/NAME
    #[arg(required = true, value_name = "TARGET")]
    target: Vec<String>,
    /// How many there are to be
    #[arg(long, visible_alias = "replicas", value_name = "NUMBER")]
    workers: u32,
    #[command(flatten)]
    waiting: WaitArguments,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs the command.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Error> {
    let connection = arguments.cluster.connect().await?;
    let kinds = Kinds::discover(&connection.client).await?;
    let Targets::Named(named) = Targets::parse(&arguments.target)? else {
        return Err(Error::new("which one? Say KIND/NAME").with_code(USAGE));
    };
    let [(kind, name)] = named.as_slice() else {
        return Err(Error::new("scale one object at a time").with_code(USAGE));
    };
    let (kind, object) = find(&connection, &kinds, kind, name).await?;
    let label = format!("{}/{name}", kind.label());
    let wanted = arguments.workers;
    if ELASTIC.contains(&(kind.resource.group.as_str(), kind.resource.kind.as_str())) {
        check(&object, &label, wanted)?;
    }
    let objects: Api<DynamicObject> =
        Api::namespaced_with(connection.client.clone(), &connection.namespace, &kind.resource);
    let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
    let scaled = objects.patch_scale(name, &PatchParams::default(), &patch).await;
    scaled.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => {
            Error::new(format!("a {} cannot be scaled", kind.label())).with_code(USAGE)
        }
        other => other.into(),
    })?;
    output::print(&format!("{label} scaled to {wanted}\n"))?;
    let Some(patience) = arguments.waiting.patience() else { return Ok(()) };
    let reached =
        |object: Option<&DynamicObject>| object.is_none_or(|object| has_settled(&object.data, wanted));
    let seen = timeout(patience, await_condition(objects, name, reached)).await;
    let object = match seen {
        Ok(Ok(object)) => object.map(|object| object.data).unwrap_or_default(),
        Ok(Err(error)) => return Err(Error::from_source("cannot see whether they run", &error)),
        Err(_) => {
            return Err(Error::new(format!(
                "{label} has not come to {wanted} within {} s",
                patience.as_secs()
            ))
            .with_hint(format!("`muster explain {label}` says what its pods wait for")));
        }
    };
    if running(&object) == u64::from(wanted) {
        return output::print(&format!("{label}: {wanted} run\n"));
    }
    Err(Error::new(format!("{label} has ended")))
}

/// The object that is meant; `job` means training jobs first.
async fn find<'a>(
    connection: &Connection,
    kinds: &'a Kinds,
    word: &str,
    name: &str,
) -> Result<(&'a Kind, Value), Error> {
    let named = targets::kind_of(kinds, word)?;
    let is_job = matches!(word, "job" | "jobs");
    let of_training = if is_job { kinds.training() } else { Vec::new() };
    for kind in of_training.into_iter().chain([named]) {
        let path = kind.path(Some(&connection.namespace), Some(name));
        if let Some(object) = api::find(&connection.client, &path).await? {
            return Ok((kind, object));
        }
    }
    Err(Error::new(format!("{}/{name} not found", named.label())))
}

/// The kinds whose `elasticPolicy` says how many workers they cope with. Others with a number of workers to set, such
/// as JAXJobs, start again with the new number.
const ELASTIC: [(&str, &str); 2] = [(names::GROUP, "PyTorchJob"), (names::GROUP, "PaddleJob")];

/// Whether an elastic job copes with this number of workers.
fn check(job: &Value, label: &str, wanted: u32) -> Result<(), Error> {
    let elastic = &job["spec"]["elasticPolicy"];
    if elastic.is_null() {
        return Err(Error::new(format!("{label} has a fixed number of workers"))
            .with_hint("spec.elasticPolicy with minReplicas and maxReplicas makes a job elastic"));
    }
    if wanted == 0 {
        return Err(Error::new(format!("{label} cannot be without workers"))
            .with_hint("spec.runPolicy.suspend: true stops its pods and keeps the job"));
    }
    let bound = |field: &str| elastic[field].as_u64();
    let fewest = bound("minReplicas").or(bound("maxReplicas"));
    let most = bound("maxReplicas").or(bound("minReplicas"));
    if let Some((fewest, most)) = fewest.zip(most)
        && !(fewest..=most).contains(&u64::from(wanted))
    {
        return Err(Error::new(format!("{label} may have {fewest} to {most} workers, not {wanted}"))
            .with_hint("spec.elasticPolicy says so"));
    }
    Ok(())
}

/// How many run, as the object's status counts them.
fn running(object: &Value) -> u64 {
    let status = &object["status"];
    let workers = &status["replicaStatuses"]["Worker"];
    let count = if workers.is_object() { &workers["active"] } else { &status["readyReplicas"] };
    count.as_u64().unwrap_or(0)
}

/// As many run as are wanted, or none ever will.
fn has_settled(object: &Value, wanted: u32) -> bool {
    let ended = object["status"]["completionTime"].is_string();
    ended || running(object) == u64::from(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_a_fixed_size_is_not_scaled() {
        let message = |job: Value, wanted| {
            let text = check(&job, "pytorchjob/digits", wanted).unwrap_err().to_string();
            text.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(message(json!({"spec": {}}), 2), "pytorchjob/digits has a fixed number of workers");
        let elastic = json!({"spec": {"elasticPolicy": {"minReplicas": 1, "maxReplicas": 4}}});
        assert_eq!(message(elastic.clone(), 5), "pytorchjob/digits may have 1 to 4 workers, not 5");
        assert_eq!(message(elastic.clone(), 0), "pytorchjob/digits cannot be without workers");
        assert!(check(&elastic, "pytorchjob/digits", 4).is_ok());
    }

    #[test]
    fn workers_and_replicas_are_counted_where_their_kinds_count_them() {
        let job = json!({"status": {"replicaStatuses": {"Worker": {"active": 3, "failed": 1}}}});
        assert_eq!((running(&job), has_settled(&job, 3), has_settled(&job, 4)), (3, true, false));
        let web = json!({"status": {"replicas": 3, "readyReplicas": 2}});
        assert_eq!(running(&web), 2);
        assert!(has_settled(&json!({"status": {}}), 0));
        assert!(has_settled(&json!({"status": {"completionTime": "2026-01-01T00:00:00Z"}}), 4));
    }
}
