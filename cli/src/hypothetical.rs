//! The pods that the objects of a manifest would have, without creating any.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use muster_scheduler_controller::objects::{ForeignGroup, GroupKind};
use muster_trainer_core::{GangScheduler, Observed, Options, TrainingKind};
use serde_json::{Value, json};

use crate::api;
use crate::connect::Connection;
use crate::error::Error;
use crate::kinds::Kinds;
use crate::manifest::Document;

/// The pods of a document's object as the server and its controller would make them, not yet created; nothing
/// when an object of this kind has none.
///
/// # Errors
/// What the server says against the object, or that it asks for more pods than anybody means.
pub(crate) async fn pods(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
    gang_scheduler: &str,
) -> Result<Vec<Pod>, Error> {
    let object = api::dry_run(connection, kinds, document).await?;
    let training = TrainingKind::find(document.api_version(), document.kind());
    let mut pods = match (training, document.api_version(), document.kind()) {
        (Some(training), ..) => {
            let job = (training.read)(object).map_err(|errors| {
                let errors = errors.iter().map(|error| (error.field.as_str(), error.message.as_str()));
                Error::invalid(document, errors)
            })?;
            let options =
                Options { gang_scheduler: GangScheduler::from(gang_scheduler), ..Options::default() };
            muster_trainer_core::plan(&job, &Observed::default(), Timestamp::now(), &options).create_pods
        }
        (None, "v1", "Pod") => vec![serde_json::from_value(object)?],
        _ => from_template(document, &object)?,
    };
    complete(connection, kinds, document, &mut pods).await?;
    Ok(pods)
}

/// What an object of another system says of the gang that it describes; nothing when it is of no such kind.
pub(crate) fn group(connection: &Connection, document: &Document) -> Result<Option<ForeignGroup>, Error> {
    let (group, _) = document.api_version().split_once('/').unwrap_or_default();
    let Some(kind) = GroupKind::ALL.into_iter().find(|kind| kind.api() == (group, document.kind())) else {
        return Ok(None);
    };
    let mut object: DynamicObject = serde_json::from_value(document.object.clone())?;
    object.metadata.namespace.get_or_insert_with(|| connection.namespace.clone());
    Ok(Some(ForeignGroup::read(kind, &object)))
}

/// The pods of an object that says by a template what they are, and how many there are at a time.
fn from_template(document: &Document, object: &Value) -> Result<Vec<Pod>, Error> {
    /// More pods than a cluster has.
    const MOST: u64 = 100_000;
    let template = &object["spec"]["template"];
    if !template["spec"]["containers"].is_array() {
        return Ok(Vec::new());
    }
    let count = ["parallelism", "replicas"].iter().find_map(|field| object["spec"][*field].as_u64());
    let count = count.unwrap_or(1);
    if count > MOST {
        return Err(Error::new(format!("{}: {count} pods are more than {MOST}", document.place_of("spec"))));
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let pod = |index: u64| {
        let mut pod = template.clone();
        pod["metadata"]["name"] = json!(format!("{name}-{index}"));
        Ok(serde_json::from_value(pod)?)
    };
    (0..count).map(pod).collect()
}

/// What the server adds to pods (priorities, defaults), asked once for pods that differ by name only.
async fn complete(
    connection: &Connection,
    kinds: &Kinds,
    document: &Document,
    pods: &mut [Pod],
) -> Result<(), Error> {
    let namespace = document.namespace().unwrap_or(&connection.namespace);
    let mut completed: BTreeMap<String, Pod> = BTreeMap::new();
    for (index, pod) in pods.iter_mut().enumerate() {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let looks =
            json!([spec.priority_class_name, spec.scheduler_name, spec.overhead, spec.runtime_class_name]);
        let looks = looks.to_string();
        if !completed.contains_key(&looks) {
            let mut asked = serde_json::to_value(&*pod)?;
            (asked["apiVersion"], asked["kind"]) = (json!("v1"), json!("Pod"));
            asked["metadata"]["namespace"] = json!(namespace);
            // The owner does not exist, so the server is not told of it.
            if let Some(metadata) = asked["metadata"].as_object_mut() {
                metadata.remove("ownerReferences");
            }
            let answer = api::dry_run(connection, kinds, &document.implies(asked)).await?;
            completed.insert(looks.clone(), serde_json::from_value(answer)?);
        }
        if let (Some(answer), Some(spec)) = (completed[&looks].spec.as_ref(), &mut pod.spec) {
            spec.priority = answer.priority;
            spec.scheduler_name.clone_from(&answer.scheduler_name);
            spec.overhead.clone_from(&answer.overhead);
        }
        pod.metadata.namespace = Some(namespace.to_owned());
        pod.metadata.uid = Some(format!("hypothetical-{index}-{name}"));
        pod.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
        pod.status = None;
    }
    Ok(())
}
