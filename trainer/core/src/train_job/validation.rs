//! Which jobs can run on their runtime, beyond what the custom resource's schema can say.

use k8s_openapi::api::core::v1::PodSpec;
use muster_trainer_api::jobset::ReplicatedJob;
use muster_trainer_api::train_job::names::{DATASET_INITIALIZER, LAUNCHER, MODEL_INITIALIZER, NODE};
use muster_trainer_api::train_job::{MlPolicy, PodSpecPatch, TrainJob, TrainingRuntimeSpec, annotation};

use super::elastic::fewest_nodes;
use super::mpi::slots_of;
use super::render::{is_trainer, step};
use super::{jax, torch, xgboost};
use crate::validation::{FieldError, is_dns_1035_label};

/// What keeps a job from running.
pub fn validate(job: &TrainJob, runtime: &TrainingRuntimeSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    if !is_dns_1035_label(name) {
        errors.push(FieldError::new(
            "metadata.name",
            format!("`{name}` is no DNS-1035 label: at most 63 lower case letters, digits or '-', starting with a letter"),
        ));
    }
    let policy = runtime.ml_policy.clone().unwrap_or_default();
    trainer(job, runtime, &mut errors);
    initializer(job, runtime, &mut errors);
    reserved(job, &policy, &mut errors);
    patches(job, runtime, &mut errors);
    mpi(job, runtime, &policy, &mut errors);
    elastic(job, &policy, &mut errors);
    if policy.flux.is_some() {
        errors.push(FieldError::new(
            "spec.runtimeRef",
            "names a runtime with mlPolicy.flux, which is not offered",
        ));
    }
    errors
}

fn has_container(group: &ReplicatedJob, name: &str) -> bool {
    let pod = group.template.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.is_some_and(|pod| pod.containers.iter().any(|container| container.name == name))
}

fn trainer(job: &TrainJob, runtime: &TrainingRuntimeSpec, errors: &mut Vec<FieldError>) {
    let groups = &runtime.template.spec.replicated_jobs;
    if !groups.iter().any(|group| is_trainer(group) && has_container(group, NODE)) {
        errors.push(FieldError::new(
            "spec.runtimeRef",
            format!("names a runtime without a container `{NODE}` in a replicated job whose template has the label trainer.kubeflow.org/trainjob-ancestor-step=trainer"),
        ));
    }
    let training: Vec<_> = groups.iter().filter(|group| is_trainer(group)).collect();
    if let [_, _, ..] = training[..] {
        let names: Vec<_> = training.iter().map(|group| group.name.as_str()).collect();
        errors.push(FieldError::new(
            "spec.runtimeRef",
            format!(
                "names a runtime with several replicated jobs that train, {}; each would take itself for all nodes",
                names.join(", ")
            ),
        ));
    }
    for group in training.iter().filter(|group| group.replicas.is_some_and(|replicas| replicas != 1)) {
        errors.push(FieldError::new(
            "spec.runtimeRef",
            format!(
                "names a runtime whose replicated job `{}` has {} replicas; a job that trains needs 1, whose pods are \
                 the nodes (numNodes)",
                group.name,
                group.replicas.unwrap_or_default()
            ),
        ));
    }
    if let Some(nodes) =
        job.spec.trainer.as_ref().and_then(|trainer| trainer.num_nodes).filter(|nodes| *nodes < 1)
    {
        errors.push(FieldError::new("spec.trainer.numNodes", format!("must be at least 1, not {nodes}")));
    }
}

fn initializer(job: &TrainJob, runtime: &TrainingRuntimeSpec, errors: &mut Vec<FieldError>) {
    let Some(initializer) = &job.spec.initializer else { return };
    for (field, name, source) in [
        ("dataset", DATASET_INITIALIZER, &initializer.dataset),
        ("model", MODEL_INITIALIZER, &initializer.model),
    ] {
        let mut groups = runtime.template.spec.replicated_jobs.iter();
        if source.is_some() && !groups.any(|group| step(group) == Some(name) && has_container(group, name)) {
            errors.push(FieldError::new(
                format!("spec.initializer.{field}"),
                format!("the runtime has no replicated job with a container `{name}` to fetch it"),
            ));
        }
    }
}

fn reserved(job: &TrainJob, policy: &MlPolicy, errors: &mut Vec<FieldError>) {
    let (by, names): (&str, &[&str]) = if policy.torch.is_some() {
        ("torch", &torch::RESERVED)
    } else if policy.jax.is_some() {
        ("jax", &jax::RESERVED)
    } else if policy.xgboost.is_some() {
        ("xgboost", &xgboost::RESERVED)
    } else {
        return;
    };
    let variables = job.spec.trainer.iter().flat_map(|trainer| &trainer.env);
    for variable in variables.filter(|variable| names.contains(&variable.name.as_str())) {
        errors.push(FieldError::new(
            format!("spec.trainer.env[{}]", variable.name),
            format!("is set by the runtime's policy {by}; leave it out"),
        ));
    }
}

fn patches(job: &TrainJob, runtime: &TrainingRuntimeSpec, errors: &mut Vec<FieldError>) {
    for patch in &job.spec.runtime_patches {
        let field = format!("spec.runtimePatches[{}]", patch.manager);
        let template = patch.training_runtime_spec.as_ref().and_then(|spec| spec.template.as_ref());
        for change in
            template.and_then(|template| template.spec.as_ref()).iter().flat_map(|spec| &spec.replicated_jobs)
        {
            let field = format!("{field}.replicatedJobs[{}]", change.name);
            let mut groups = runtime.template.spec.replicated_jobs.iter();
            let Some(group) = groups.find(|group| group.name == change.name) else {
                errors.push(FieldError::new(field, "the runtime has no such replicated job"));
                continue;
            };
            let spec = change.template.as_ref().and_then(|job| job.spec.as_ref());
            let pod = spec.and_then(|spec| spec.template.as_ref()).and_then(|pod| pod.spec.as_ref());
            if let Some(pod) = pod {
                containers(pod, group, &field, errors);
            }
        }
    }
}

fn containers(patch: &PodSpecPatch, group: &ReplicatedJob, field: &str, errors: &mut Vec<FieldError>) {
    let empty = PodSpec::default();
    let pod = group.template.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).unwrap_or(&empty);
    let inits: Vec<_> = pod.init_containers.iter().flatten().map(|container| &container.name).collect();
    let own: Vec<_> = pod.containers.iter().map(|container| &container.name).collect();
    for (kind, changed, known) in
        [("initContainers", &patch.init_containers, inits), ("containers", &patch.containers, own)]
    {
        for container in changed {
            let field = format!("{field}.{kind}[{}]", container.name);
            if !known.contains(&&container.name) {
                errors.push(FieldError::new(&field, "the runtime has no such container"));
            }
            let is_managed =
                [NODE, DATASET_INITIALIZER, MODEL_INITIALIZER].contains(&container.name.as_str());
            if is_managed && !container.env.is_empty() {
                errors.push(FieldError::new(
                    format!("{field}.env"),
                    "is set in spec.trainer.env or spec.initializer for this container",
                ));
            }
        }
    }
}

fn elastic(job: &TrainJob, policy: &MlPolicy, errors: &mut Vec<FieldError>) {
    let wanted = job.spec.trainer.as_ref().and_then(|trainer| trainer.num_nodes);
    let nodes = wanted.or(policy.num_nodes).unwrap_or(1);
    if let Err(message) = fewest_nodes(job, policy, nodes) {
        errors.push(FieldError::new(format!("metadata.annotations[{}]", annotation::MIN_NODES), message));
    }
}

fn mpi(job: &TrainJob, runtime: &TrainingRuntimeSpec, policy: &MlPolicy, errors: &mut Vec<FieldError>) {
    let Some(mpi) = &policy.mpi else { return };
    let groups = &runtime.template.spec.replicated_jobs;
    if !groups.iter().any(|group| group.name == LAUNCHER && is_trainer(group)) {
        let message =
            format!("names a runtime with mlPolicy.mpi and no replicated job `{LAUNCHER}` that trains");
        errors.push(FieldError::new("spec.runtimeRef", message));
    }
    if !groups.iter().any(|group| group.name == NODE && !is_trainer(group)) {
        let message = format!(
            "names a runtime with mlPolicy.mpi and no replicated job `{NODE}` beside the `{LAUNCHER}` that trains"
        );
        errors.push(FieldError::new("spec.runtimeRef", message));
    }
    for group in groups {
        let name = &group.name;
        match slots_of(group) {
            Err(said) => {
                let message = format!(
                    "names a runtime whose replicated job `{name}` has in {} no number of processes from 1, but `{said}`",
                    annotation::MPI_SLOTS
                );
                errors.push(FieldError::new("spec.runtimeRef", message));
            }
            Ok(Some(_)) if !has_container(group, NODE) => {
                let message =
                    format!("names a runtime whose replicated job `{name}` has no container `{NODE}`");
                errors.push(FieldError::new("spec.runtimeRef", message));
            }
            Ok(_) => {}
        }
    }
    let reserved = |name: &str| name.starts_with("OMPI_MCA_orte_") || name.starts_with("PRTE_MCA_prte_");
    let variables = job.spec.trainer.iter().flat_map(|trainer| &trainer.env);
    for variable in variables.filter(|variable| reserved(&variable.name)) {
        errors.push(FieldError::new(
            format!("spec.trainer.env[{}]", variable.name),
            "is set by the runtime's policy mpi; leave it out",
        ));
    }
    let implementation = mpi.mpi_implementation.as_deref().unwrap_or_default();
    if !matches!(implementation, "" | "OpenMPI") {
        let message =
            format!("names a runtime with mpiImplementation {implementation}; only OpenMPI is offered");
        errors.push(FieldError::new("spec.runtimeRef", message));
    }
}
