//! How the pods of a job are scheduled together.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use muster_scheduler_api::{SCHEDULER_NAME, annotations};
use serde_json::{Map, Value, json};

use crate::job::{Job, Replica};
use crate::plan::ObjectAction;
use crate::quantity;

/// The scheduler that places a job's pods as a gang.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GangScheduler {
    /// None: each pod is placed alone.
    #[default]
    None,
    /// Muster's own.
    Muster,
    /// Volcano.
    Volcano,
    /// The coscheduling plugin, in a scheduler of this name.
    SchedulerPlugins(String),
}

impl From<&str> for GangScheduler {
    /// Reads the value of `--gang-scheduler-name`.
    fn from(name: &str) -> Self {
        match name {
            "" | "none" => Self::None,
            SCHEDULER_NAME => Self::Muster,
            "volcano" => Self::Volcano,
            other => Self::SchedulerPlugins(other.to_owned()),
        }
    }
}

/// The kind of object in which a gang scheduler keeps a gang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodGroupKind {
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
}

impl GangScheduler {
    /// The kind of its `PodGroup`s; Muster's scheduler needs none.
    pub fn pod_group(&self) -> Option<PodGroupKind> {
        match self {
            Self::None | Self::Muster => None,
            Self::Volcano => Some(PodGroupKind { group: "scheduling.volcano.sh", version: "v1beta1" }),
            Self::SchedulerPlugins(_) => {
                Some(PodGroupKind { group: "scheduling.x-k8s.io", version: "v1alpha1" })
            }
        }
    }

    /// The `schedulerName` of the gang's pods.
    pub fn scheduler_name(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Muster => Some(SCHEDULER_NAME),
            Self::Volcano => Some("volcano"),
            Self::SchedulerPlugins(name) => Some(name),
        }
    }
}

/// Makes a pod a member of its job's gang.
pub(crate) fn join(job: &Job, replica: &Replica, index: i32, scheduler: &GangScheduler, pod: &mut Pod) {
    let Some(scheduler_name) = scheduler.scheduler_name() else { return };
    if let Some(spec) = &mut pod.spec
        && spec.scheduler_name.as_deref().unwrap_or_default().is_empty()
    {
        spec.scheduler_name = Some(scheduler_name.to_owned());
    }
    let pod_annotations = pod.metadata.annotations.get_or_insert_default();
    match scheduler {
        GangScheduler::None => {}
        GangScheduler::Muster => {
            pod_annotations.insert(annotations::GANG.to_owned(), job.name().to_owned());
            pod_annotations
                .insert(annotations::GANG_MIN_AVAILABLE.to_owned(), job.min_available().to_string());
            pod_annotations
                .insert(annotations::RANK.to_owned(), job.framework.rank(job, replica, index).to_string());
        }
        GangScheduler::Volcano => {
            pod_annotations.insert("scheduling.k8s.io/group-name".to_owned(), job.name().to_owned());
            pod_annotations.insert("volcano.sh/task-spec".to_owned(), replica.label());
        }
        GangScheduler::SchedulerPlugins(_) => {
            let labels = pod.metadata.labels.get_or_insert_default();
            labels.insert("scheduling.x-k8s.io/pod-group".to_owned(), job.name().to_owned());
        }
    }
}

/// What a member must say anew, where its gang has changed since it was made: each says how many must run together, and
/// the scheduler believes the highest.
pub(crate) fn changed_annotations(
    job: &Job,
    pod: &Pod,
    least: i32,
    scheduler: &GangScheduler,
) -> Option<BTreeMap<String, String>> {
    let said = pod.metadata.annotations.as_ref()?;
    let is_member = *scheduler == GangScheduler::Muster
        && said.get(annotations::GANG).is_some_and(|gang| gang == job.name());
    let least = least.to_string();
    (is_member && said.get(annotations::GANG_MIN_AVAILABLE) != Some(&least))
        .then(|| BTreeMap::from([(annotations::GANG_MIN_AVAILABLE.to_owned(), least)]))
}

/// Replica types whose template names another scheduler than the gang's.
pub(crate) fn foreign_schedulers(job: &Job, scheduler: &GangScheduler) -> Vec<&'static str> {
    let Some(ours) = scheduler.scheduler_name() else { return Vec::new() };
    let foreign = |replica: &&Replica| {
        let spec = replica.template.spec.as_ref();
        let named = spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or_default();
        !named.is_empty() && named != ours
    };
    job.replicas.iter().filter(foreign).map(|replica| replica.type_.name).collect()
}

/// The `PodGroup` the job wants.
fn pod_group(job: &Job, kind: PodGroupKind, scheduler: &GangScheduler) -> Value {
    let policy = job.run_policy.scheduling_policy.clone().unwrap_or_default();
    let mut spec = Map::new();
    spec.insert("minMember".to_owned(), json!(job.min_available()));
    let min_resources = policy.min_resources.unwrap_or_else(|| min_resources(job));
    if !min_resources.is_empty() {
        spec.insert("minResources".to_owned(), json!(min_resources));
    }
    if *scheduler == GangScheduler::Volcano {
        if let Some(queue) = policy.queue {
            spec.insert("queue".to_owned(), json!(queue));
        }
        if let Some(priority_class) = policy.priority_class {
            spec.insert("priorityClassName".to_owned(), json!(priority_class));
        }
    } else if let Some(seconds) = policy.schedule_timeout_seconds {
        spec.insert("scheduleTimeoutSeconds".to_owned(), json!(seconds));
    }
    let mut annotations = job.metadata.annotations.clone().unwrap_or_default();
    annotations
        .retain(|key, _| !key.starts_with("muster.dev/") && !key.starts_with("kubectl.kubernetes.io/"));
    json!({
        "apiVersion": format!("{}/{}", kind.group, kind.version),
        "kind": "PodGroup",
        "metadata": {
            "name": job.name(),
            "namespace": job.namespace(),
            "annotations": annotations,
            "ownerReferences": [job.owner_reference()],
        },
        "spec": spec,
    })
}

fn min_resources(job: &Job) -> BTreeMap<String, Quantity> {
    let sets =
        job.replicas.iter().filter_map(|replica| Some((replica.template.spec.as_ref()?, replica.count)));
    quantity::sum_of_pods(sets, job.min_available())
}

/// What is to be done to the job's `PodGroup` while its pods are wanted.
pub(crate) fn keep_pod_group(
    job: &Job,
    observed: Option<&Value>,
    scheduler: &GangScheduler,
) -> ObjectAction<Value> {
    let Some(kind) = scheduler.pod_group() else { return ObjectAction::Keep };
    let mut wanted = pod_group(job, kind, scheduler);
    let Some(observed) = observed else { return ObjectAction::Create(wanted) };
    // A queue that is set stays: Volcano moves a gang between queues by it.
    if let Some(queue) = observed["spec"].get("queue").filter(|queue| **queue != json!("")) {
        wanted["spec"]["queue"] = queue.clone();
    }
    let wanted_spec = wanted["spec"].as_object().cloned().unwrap_or_default();
    if wanted_spec.iter().all(|(field, value)| observed["spec"].get(field) == Some(value)) {
        return ObjectAction::Keep;
    }
    let mut updated = observed.clone();
    for (field, value) in wanted_spec {
        updated["spec"][field] = value;
    }
    ObjectAction::Update(updated)
}

/// Why the job's pods must not be created yet, if so.
pub(crate) fn wait_reason(job: &Job, observed: Option<&Value>, scheduler: &GangScheduler) -> Option<String> {
    if *scheduler != GangScheduler::Volcano {
        return None;
    }
    let Some(observed) = observed else {
        return Some(format!("waits for Volcano to take up its PodGroup {}", job.name()));
    };
    let conditions = observed["status"]["conditions"].as_array();
    let said = conditions.and_then(|conditions| conditions.last()?["message"].as_str());
    volcano_waits(job.name(), observed, said)
}

/// What a `PodGroup` of Volcano waits for before its pods may be there, given what it says itself.
pub(crate) fn volcano_waits(name: &str, group: &Value, said: Option<&str>) -> Option<String> {
    let queue = group["spec"]["queue"].as_str().unwrap_or("default");
    match (group["status"]["phase"].as_str().unwrap_or_default(), said) {
        ("" | "Pending", Some(message)) => Some(format!("PodGroup {name} waits in queue {queue}: {message}")),
        ("Pending", None) => {
            Some(format!("PodGroup {name} waits in queue {queue} for its minimum resources"))
        }
        ("", None) => Some(format!(
            "PodGroup {name} is not taken up by Volcano; does its scheduler run, and does queue {queue} exist?"
        )),
        _ => None,
    }
}
