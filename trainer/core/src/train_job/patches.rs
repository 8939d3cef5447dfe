//! Changes of the runtime that come with a job.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::jobset::ReplicatedJob;
use muster_trainer_api::train_job::{
    ContainerPatch, JobSetTemplate, PodSpecPatch, ReplicatedJobPatch, RuntimePatch, TemplateMetadata,
};

use super::env;

/// Makes the changes, in order.
pub(super) fn apply(patches: &[RuntimePatch], template: &mut JobSetTemplate) {
    let changes = patches.iter().filter_map(|patch| patch.training_runtime_spec.as_ref()?.template.as_ref());
    for change in changes {
        if let Some(marks) = &change.metadata {
            let own = template.metadata.get_or_insert_default();
            own.labels.extend(marks.labels.clone());
            own.annotations.extend(marks.annotations.clone());
        }
        for patch in change.spec.iter().flat_map(|spec| &spec.replicated_jobs) {
            let groups = template.spec.replicated_jobs.iter_mut();
            for group in groups.filter(|group| group.name == patch.name) {
                change_group(patch, group);
            }
        }
    }
}

fn change_group(patch: &ReplicatedJobPatch, group: &mut ReplicatedJob) {
    let Some(job) = &patch.template else { return };
    mark(job.metadata.as_ref(), &mut group.template.metadata);
    let Some(pod) = job.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return };
    let template = &mut group.template.spec.get_or_insert_default().template;
    mark(pod.metadata.as_ref(), &mut template.metadata);
    if let Some(spec) = &pod.spec {
        change_pods(spec.clone(), template.spec.get_or_insert_default());
    }
}

fn mark(marks: Option<&TemplateMetadata>, metadata: &mut Option<ObjectMeta>) {
    let add = |new: &BTreeMap<String, String>, own: &mut Option<BTreeMap<String, String>>| {
        if !new.is_empty() {
            own.get_or_insert_default().extend(new.clone());
        }
    };
    if let Some(marks) = marks {
        let metadata = metadata.get_or_insert_default();
        add(&marks.labels, &mut metadata.labels);
        add(&marks.annotations, &mut metadata.annotations);
    }
}

fn change_pods(patch: PodSpecPatch, pod: &mut PodSpec) {
    replace(patch.service_account_name, &mut pod.service_account_name);
    merge(patch.volumes, pod.volumes.get_or_insert_default(), |volume| volume.name.clone());
    for container in &patch.init_containers {
        let own = pod.init_containers.iter_mut().flatten();
        own.filter(|own| own.name == container.name).for_each(|own| change_container(container, own));
    }
    for container in &patch.containers {
        let own = pod.containers.iter_mut();
        own.filter(|own| own.name == container.name).for_each(|own| change_container(container, own));
    }
    merge(patch.image_pull_secrets, pod.image_pull_secrets.get_or_insert_default(), |secret| {
        secret.name.clone()
    });
    replace(patch.security_context, &mut pod.security_context);
    pod.node_selector.get_or_insert_default().extend(patch.node_selector);
    replace(patch.affinity, &mut pod.affinity);
    let tolerations = pod.tolerations.get_or_insert_default();
    for toleration in patch.tolerations {
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    merge(patch.scheduling_gates, pod.scheduling_gates.get_or_insert_default(), |gate| gate.name.clone());
    replace(patch.termination_grace_period_seconds, &mut pod.termination_grace_period_seconds);
    drop_empty(pod);
}

/// A list that nobody filled is none.
fn drop_empty(pod: &mut PodSpec) {
    fn none_if_empty<T>(list: &mut Option<Vec<T>>) {
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    }
    none_if_empty(&mut pod.volumes);
    none_if_empty(&mut pod.image_pull_secrets);
    none_if_empty(&mut pod.tolerations);
    none_if_empty(&mut pod.scheduling_gates);
    if pod.node_selector.as_ref().is_some_and(BTreeMap::is_empty) {
        pod.node_selector = None;
    }
}

fn change_container(patch: &ContainerPatch, container: &mut Container) {
    env::set(&mut container.env, &patch.env);
    if !patch.volume_mounts.is_empty() {
        let mounts = container.volume_mounts.get_or_insert_default();
        merge(patch.volume_mounts.clone(), mounts, |mount| mount.name.clone());
    }
    replace(patch.security_context.clone(), &mut container.security_context);
}

fn replace<T>(new: Option<T>, own: &mut Option<T>) {
    if new.is_some() {
        *own = new;
    }
}

fn merge<T>(new: Vec<T>, own: &mut Vec<T>, name: impl Fn(&T) -> String) {
    for item in new {
        match own.iter_mut().find(|own| name(own) == name(&item)) {
            Some(place) => *place = item,
            None => own.push(item),
        }
    }
}
