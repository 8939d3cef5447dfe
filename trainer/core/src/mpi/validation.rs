//! Which MPI jobs are valid beyond what the custom resource's schema can say.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{
    CleanPodPolicy, LauncherCreationPolicy, MpiImplementation, MpiJobSpec, ReplicaSpec, RestartPolicy,
    annotation, managed_by,
};

use super::framework::{KIND, LAUNCHER, WORKER};
use super::job::{Dialect, RemoteShell};
use crate::job::RestartScope;
use crate::objects::object_name;
use crate::validation::{FieldError, is_dns_1035_label, validate_run_policy};

/// The checks of both versions.
pub(super) fn validate(
    dialect: Dialect,
    metadata: &ObjectMeta,
    spec: &MpiJobSpec,
    replica_specs: &BTreeMap<&'static str, ReplicaSpec>,
    errors: &mut Vec<FieldError>,
) {
    validate_fields(metadata, spec, errors);
    let mut run_policy = spec.run_policy.clone();
    run_policy.managed_by.take_if(|controller| controller == managed_by::MPI_OPERATOR);
    validate_run_policy(&run_policy, errors);
    match replica_specs.get(LAUNCHER) {
        None => errors.push(FieldError::new(
            format!("spec.{}", KIND.replica_specs),
            "a launcher is needed: add Launcher, the pod that runs mpirun",
        )),
        Some(launcher) => validate_replica(dialect, LAUNCHER, launcher, spec, errors),
    }
    if let Some(worker) = replica_specs.get(WORKER) {
        validate_replica(dialect, WORKER, worker, spec, errors);
    }
    let last = replica_specs.get(WORKER).map_or(0, |worker| worker.replicas.unwrap_or(1).max(1) - 1);
    let name = metadata.name.as_deref().unwrap_or_default();
    let longest = object_name(name, WORKER, last);
    if !is_dns_1035_label(&longest) {
        errors.push(FieldError::new(
            "metadata.name",
            format!("the worker `{longest}` would have a name that is no DNS-1035 label: at most 63 lower case letters, digits or '-', starting with a letter"),
        ));
    }
}

fn validate_fields(metadata: &ObjectMeta, spec: &MpiJobSpec, errors: &mut Vec<FieldError>) {
    let annotations = metadata.annotations.iter().flatten();
    for (key, value) in annotations {
        let (is_known, known) = match key.as_str() {
            annotation::RESTART_SCOPE => (RestartScope::parse(value).is_some(), "gang or pod"),
            annotation::REMOTE_SHELL => (RemoteShell::parse(value).is_some(), "sshd or agent"),
            annotation::REQUEUE => (matches!(value.as_str(), "true" | "false"), "true or false"),
            _ => continue,
        };
        if !is_known {
            let message = format!("`{value}` is unknown, use {known}");
            errors.push(FieldError::new(format!("metadata.annotations[{key}]"), message));
        }
    }
    if spec.slots_per_worker.is_some_and(|slots| slots < 1) {
        errors.push(FieldError::new("spec.slotsPerWorker", "must be at least 1"));
    }
    if let Some(folder) = spec.ssh_auth_mount_path.as_ref().filter(|folder| !folder.starts_with('/')) {
        let message = format!("`{folder}` must be an absolute path");
        errors.push(FieldError::new("spec.sshAuthMountPath", message));
    }
    if let Some(LauncherCreationPolicy::Unknown(other)) = &spec.launcher_creation_policy {
        let message = format!("`{other}` is unknown, use AtStartup or WaitForWorkersReady");
        errors.push(FieldError::new("spec.launcherCreationPolicy", message));
    }
    if let Some(MpiImplementation::Unknown(other)) = &spec.mpi_implementation {
        let message = format!("`{other}` is unknown, use OpenMPI, Intel or MPICH");
        errors.push(FieldError::new("spec.mpiImplementation", message));
    }
    if let Some(CleanPodPolicy::Unknown(other)) = &spec.clean_pod_policy {
        let message = format!("`{other}` is unknown, use All, Running or None");
        errors.push(FieldError::new("spec.cleanPodPolicy", message));
    }
}

fn validate_replica(
    dialect: Dialect,
    type_: &str,
    replica: &ReplicaSpec,
    spec: &MpiJobSpec,
    errors: &mut Vec<FieldError>,
) {
    let path = format!("spec.{}[{type_}]", KIND.replica_specs);
    let replicas = replica.replicas.unwrap_or(1);
    if type_ == LAUNCHER && replicas != 1 {
        errors.push(FieldError::new(format!("{path}.replicas"), format!("must be 1, not {replicas}")));
    } else if replicas < 1 {
        errors
            .push(FieldError::new(format!("{path}.replicas"), format!("must be at least 1, not {replicas}")));
    }
    let is_refused = matches!(
        (dialect, &replica.restart_policy),
        (_, Some(RestartPolicy::Unknown(_)))
            | (Dialect::V2, Some(RestartPolicy::Always | RestartPolicy::ExitCode))
    );
    if let Some(policy) = replica.restart_policy.as_ref().filter(|_| is_refused) {
        let policies = match dialect {
            Dialect::V1 => "Always, OnFailure, Never or ExitCode",
            Dialect::V2 => "Never or OnFailure",
        };
        let message = format!("`{}` is not supported, use {policies}", policy.as_str());
        errors.push(FieldError::new(format!("{path}.restartPolicy"), message));
    }
    let containers = replica.template.spec.as_ref().map(|pod| pod.containers.as_slice()).unwrap_or_default();
    let containers_path = format!("{path}.template.spec.containers");
    if containers.is_empty() {
        errors.push(FieldError::new(containers_path, "at least one container is needed"));
        return;
    }
    for (position, container) in containers.iter().enumerate() {
        if container.image.as_deref().unwrap_or_default().is_empty() {
            errors
                .push(FieldError::new(format!("{containers_path}[{position}].image"), "an image is needed"));
        }
    }
    if let Some(main) = spec.main_container.as_ref().filter(|_| type_ == LAUNCHER)
        && !containers.iter().any(|container| container.name == *main)
    {
        errors.push(FieldError::new(
            containers_path,
            format!("one container must be named {main}, as spec.mainContainer says"),
        ));
    }
}
