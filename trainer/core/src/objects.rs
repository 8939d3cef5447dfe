//! The pods and services a job wants.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Pod, PodSpec, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::{RestartPolicy, annotation, label};

use crate::gang;
use crate::job::{Job, Replica, RestartScope};
use crate::plan::Options;
use crate::rendezvous::Rendezvous;

/// The name of a replica's pod and service.
pub fn object_name(job: &str, replica_type: &str, index: i32) -> String {
    format!("{job}-{}-{index}", replica_type.to_lowercase()).replace('/', "-")
}

/// Labels that select all pods of one replica type.
fn type_labels(job: &Job, replica: &Replica) -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::OPERATOR_NAME.to_owned(), job.kind.operator_name.to_owned()),
        (label::JOB_NAME.to_owned(), job.name().to_owned()),
        (label::REPLICA_TYPE.to_owned(), replica.label()),
    ])
}

/// The selector of all pods of one replica type, as text.
pub fn selector(job: &Job, replica: &Replica) -> String {
    let labels = type_labels(job, replica);
    let terms: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    terms.join(",")
}

fn labels(job: &Job, replica: &Replica, index: i32) -> BTreeMap<String, String> {
    let mut labels = type_labels(job, replica);
    labels.insert(label::REPLICA_INDEX.to_owned(), index.to_string());
    labels
}

fn metadata(job: &Job, replica: &Replica, index: i32, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(object_name(job.name(), replica.type_.name, index)),
        namespace: Some(job.namespace().to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![job.owner_reference()]),
        ..ObjectMeta::default()
    }
}

/// The headless service by which a replica is found.
pub(crate) fn service(job: &Job, replica: &Replica, index: i32) -> Service {
    let labels = labels(job, replica, index);
    let ports =
        replica.container(job.kind).into_iter().flat_map(|container| container.ports.iter().flatten());
    let ports = ports.map(|port| ServicePort {
        name: port.name.clone(),
        port: port.container_port,
        protocol: port.protocol.clone(),
        ..ServicePort::default()
    });
    Service {
        metadata: metadata(job, replica, index, labels.clone()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(labels),
            ports: Some(ports.collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The pod of a replica, for this generation.
pub(crate) fn pod(job: &Job, replica: &Replica, index: i32, generation: u64, options: &Options) -> Pod {
    let template = replica.template.clone();
    let template_metadata = template.metadata.unwrap_or_default();
    let mut pod_labels = template_metadata.labels.unwrap_or_default();
    pod_labels.extend(labels(job, replica, index));
    pod_labels.insert(label::GANG_GENERATION.to_owned(), generation.to_string());
    if job.framework.leads(job, replica, index) {
        pod_labels.insert(label::JOB_ROLE.to_owned(), "master".to_owned());
    }
    let mut annotations = template_metadata.annotations.unwrap_or_default();
    annotations.insert(annotation::GANG_SIZE.to_owned(), job.total().to_string());
    let mut pod = Pod {
        metadata: ObjectMeta {
            annotations: Some(annotations),
            finalizers: template_metadata.finalizers,
            ..metadata(job, replica, index, pod_labels)
        },
        spec: Some(pod_spec(job, replica, index, template.spec.unwrap_or_default(), options)),
        status: None,
    };
    gang::join(job, replica, index, &options.gang_scheduler, &mut pod);
    pod
}

fn pod_spec(job: &Job, replica: &Replica, index: i32, mut spec: PodSpec, options: &Options) -> PodSpec {
    spec.restart_policy = Some(restart_policy(job, replica).to_owned());
    let mut environment = job.framework.environment(job, replica, index);
    if let Some((rendezvous, bounds)) = options.rendezvous.as_ref().zip(job.framework.elastic_bounds(job)) {
        environment.extend(rendezvous.environment(job, replica, index, bounds));
        Rendezvous::mount_token(&mut spec);
    }
    let cluster_domain = options.cluster_domain.as_deref();
    let of_training = job.framework.training_environment(job, replica, index, cluster_domain);
    for container in &mut spec.containers {
        let variables = container.env.get_or_insert_default();
        set_environment(variables, &environment);
        if container.name == job.kind.container {
            set_environment(variables, &of_training);
        }
    }
    let init_containers = job.framework.init_containers(job, replica, &options.init_container);
    if !init_containers.is_empty() {
        spec.init_containers.get_or_insert_default().extend(init_containers);
    }
    spec
}

/// The controller's variables win over the template's, and a name occurs once.
fn set_environment(variables: &mut Vec<EnvVar>, environment: &[EnvVar]) {
    variables.retain(|variable| environment.iter().all(|ours| ours.name != variable.name));
    variables.extend_from_slice(environment);
}

/// What the kubelet does with an ended container.
pub(crate) fn restart_policy<'a>(job: &Job, replica: &'a Replica) -> &'a str {
    match (job.restart_scope(), &replica.restart_policy) {
        (RestartScope::Gang, _) | (RestartScope::Pod, RestartPolicy::ExitCode) => "Never",
        (RestartScope::Pod, policy) => policy.as_str(),
    }
}
