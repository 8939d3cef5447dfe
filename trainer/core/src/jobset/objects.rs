//! The Jobs, the service and the volume claims that a set wants.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Service, ServiceSpec,
    Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use muster_scheduler_api::{SCHEDULER_NAME, annotations};
use muster_trainer_api::jobset::names::{DEFAULT_GROUP, GROUP, VERSION};
use muster_trainer_api::jobset::{JobSet, JobSetSpec, JobSetStatus, ReplicatedJob, WhenDeleted, label};

use super::children::{own_restarts, replicas};
use super::order;
use crate::digest::sha1_hex;
use crate::gang::GangScheduler;

/// Longest value of a label, in bytes.
const LONGEST_LABEL: usize = 63;

/// The name of a Job of a set.
pub fn job_name(set: &str, group: &str, index: i32) -> String {
    format!("{set}-{group}-{index}")
}

/// The service in which the pods of a set have their names.
pub fn subdomain(set: &JobSet) -> &str {
    let named = set.spec.network.as_ref().and_then(|network| network.subdomain.as_deref());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| name(set))
}

/// The address of the pod that the set names as its coordinator.
pub fn coordinator_address(set: &JobSet) -> Option<String> {
    let coordinator = set.spec.coordinator.as_ref()?;
    let (group, job, pod) = (&coordinator.replicated_job, coordinator.job_index, coordinator.pod_index);
    Some(format!("{}-{group}-{job}-{pod}.{}", name(set), subdomain(set)))
}

pub(super) fn name(set: &JobSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// Whether pods get names in a headless service.
pub(super) fn has_hostnames(spec: &JobSetSpec) -> bool {
    spec.network.as_ref().and_then(|network| network.enable_dns_hostnames).unwrap_or(true)
}

fn owner(set: &JobSet) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "JobSet".to_owned(),
        name: name(set).to_owned(),
        uid: set.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn metadata(set: &JobSet, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: set.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![owner(set)]),
        ..ObjectMeta::default()
    }
}

/// The headless service.
pub(super) fn service(set: &JobSet) -> Service {
    let selector = BTreeMap::from([(label::JOBSET_NAME.to_owned(), name(set).to_owned())]);
    let network = set.spec.network.as_ref();
    Service {
        metadata: metadata(set, subdomain(set).to_owned(), selector.clone()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(
                network.and_then(|network| network.publish_not_ready_addresses).unwrap_or(true),
            ),
            selector: Some(selector),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The volume claims. Those that stay when the set goes have no owner.
pub(super) fn claims(set: &JobSet) -> Vec<PersistentVolumeClaim> {
    let mut claims = Vec::new();
    for policy in &set.spec.volume_claim_policies {
        let retention = policy.retention_policy.clone().unwrap_or_default();
        for template in &policy.templates {
            let mut claim = template.clone();
            let labels = claim.metadata.labels.take().unwrap_or_default();
            let labels = labels.into_iter().chain([(label::JOBSET_NAME.to_owned(), name(set).to_owned())]);
            let mut metadata = metadata(set, claim_name(set, template), labels.collect());
            metadata.annotations = claim.metadata.annotations.take();
            if retention.when_deleted == WhenDeleted::Retain {
                metadata.owner_references = None;
            }
            claim.metadata = metadata;
            claim.status = None;
            claims.push(claim);
        }
    }
    claims
}

fn claim_name(set: &JobSet, template: &PersistentVolumeClaim) -> String {
    format!("{}-{}", template.metadata.name.as_deref().unwrap_or_default(), name(set))
}

/// The labels of a Job and its pods, and with the same names their annotations.
fn marks(set: &JobSet, status: &JobSetStatus, group: usize, index: i32) -> BTreeMap<String, String> {
    let groups = &set.spec.replicated_jobs;
    let own = &groups[group];
    let group_name = |group: &ReplicatedJob| {
        group.group_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| DEFAULT_GROUP.to_owned())
    };
    let mates = |others: &[ReplicatedJob]| -> i32 {
        others.iter().filter(|other| group_name(other) == group_name(own)).map(replicas).sum()
    };
    let jobs = |others: &[ReplicatedJob]| -> i32 { others.iter().map(replicas).sum() };
    let mut marks = BTreeMap::from(
        [
            (label::JOBSET_NAME, name(set).to_owned()),
            (label::JOBSET_UID, set.metadata.uid.clone().unwrap_or_default()),
            (label::REPLICATED_JOB_NAME, own.name.clone()),
            (label::REPLICATED_JOB_REPLICAS, replicas(own).to_string()),
            (label::GLOBAL_REPLICAS, jobs(groups).to_string()),
            (label::JOB_INDEX, index.to_string()),
            (label::JOB_GLOBAL_INDEX, (jobs(&groups[..group]) + index).to_string()),
            (label::JOB_KEY, job_key(set, &job_name(name(set), &own.name, index))),
            (label::GROUP_NAME, group_name(own)),
            (label::GROUP_REPLICAS, mates(groups).to_string()),
            (label::JOB_GROUP_INDEX, (mates(&groups[..group]) + index).to_string()),
            (label::RESTART_ATTEMPT, status.restarts.to_string()),
        ]
        .map(|(mark, value)| (mark.to_owned(), value)),
    );
    let own_restarts = own_restarts(status, &own.name, index);
    if own_restarts > 0 {
        marks.insert(label::JOB_RESTART_ATTEMPT.to_owned(), own_restarts.to_string());
    }
    marks
}

fn job_key(set: &JobSet, job: &str) -> String {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("default");
    sha1_hex(&format!("{namespace}/{job}"))
}

/// A Job of the present attempt.
pub(super) fn job(
    set: &JobSet,
    status: &JobSetStatus,
    group: usize,
    index: i32,
    suspended: bool,
    scheduler: &GangScheduler,
) -> Job {
    let own = &set.spec.replicated_jobs[group];
    let marks = marks(set, status, group, index);
    let template = own.template.clone();
    let given = template.metadata.unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    labels.extend(marks.clone());
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.extend(marks.clone());
    // How long a Job is kept is the set's to say: a completed one that vanished would run again.
    let mut spec = JobSpec { ttl_seconds_after_finished: None, ..template.spec.unwrap_or_default() };
    spec.suspend = Some(suspended);
    if spec.completion_mode.is_none() {
        spec.completion_mode = Some("Indexed".to_owned());
    }
    if spec.completion_mode.as_deref() == Some("Indexed") && spec.completions.is_none() {
        spec.completions = Some(spec.parallelism.unwrap_or(1));
    }
    complete_pods(set, &marks, &mut spec.template, scheduler);
    if let Some(address) = coordinator_address(set) {
        let pod = spec.template.metadata.get_or_insert_default();
        let pod = (pod.labels.get_or_insert_default(), pod.annotations.get_or_insert_default());
        for (labels, annotations) in [(&mut labels, &mut annotations), pod] {
            // Values of labels are shorter than addresses may be.
            if address.len() <= LONGEST_LABEL {
                labels.insert(label::COORDINATOR.to_owned(), address.clone());
            }
            annotations.insert(label::COORDINATOR.to_owned(), address.clone());
        }
    }
    let name = job_name(name(set), &own.name, index);
    Job {
        metadata: ObjectMeta { annotations: Some(annotations), ..metadata(set, name, labels) },
        spec: Some(spec),
        status: None,
    }
}

fn complete_pods(
    set: &JobSet,
    marks: &BTreeMap<String, String>,
    template: &mut PodTemplateSpec,
    scheduler: &GangScheduler,
) {
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(marks.clone());
    metadata.annotations.get_or_insert_default().extend(marks.clone());
    let spec = template.spec.get_or_insert_default();
    if has_hostnames(&set.spec) {
        spec.subdomain = Some(subdomain(set).to_owned());
    }
    if spec.restart_policy.is_none() {
        spec.restart_policy = Some("OnFailure".to_owned());
    }
    mount_claims(set, spec);
    if *scheduler == GangScheduler::Muster {
        join_gang(&set.spec, template);
    }
}

/// The set is a gang; where its groups start one after the other, each of them is.
pub(crate) fn join_gang(spec: &JobSetSpec, template: &mut PodTemplateSpec) {
    let metadata = template.metadata.get_or_insert_default();
    let pod = template.spec.get_or_insert_default();
    let of_others = [SCHEDULER_NAME, ""];
    if !of_others.contains(&pod.scheduler_name.as_deref().unwrap_or_default()) {
        return;
    }
    pod.scheduler_name = Some(SCHEDULER_NAME.to_owned());
    let marks = metadata.annotations.get_or_insert_default();
    if !marks.contains_key(annotations::GANG) && !marks.contains_key(annotations::GANG_BY) {
        let by = if order::is_staged(spec) { "ReplicatedJob" } else { "JobSet" };
        marks.insert(annotations::GANG_BY.to_owned(), by.to_owned());
    }
}

/// Containers that mount a volume by the name of a claim get it.
fn mount_claims(set: &JobSet, pod: &mut PodSpec) {
    let templates = set.spec.volume_claim_policies.iter().flat_map(|policy| &policy.templates);
    for template in templates {
        let Some(wanted) = template.metadata.name.as_deref() else { continue };
        let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
        let mut mounts = containers.flat_map(|container| container.volume_mounts.iter().flatten());
        if mounts.any(|mount| mount.name == wanted)
            && !pod.volumes.iter().flatten().any(|volume| volume.name == wanted)
        {
            pod.volumes.get_or_insert_default().push(Volume {
                name: wanted.to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim_name(set, template),
                    read_only: None,
                }),
                ..Volume::default()
            });
        }
    }
}
