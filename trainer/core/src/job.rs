//! A job as the rules see it: of any kind, checked, with every default filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use muster_trainer_api::names::{GROUP, VERSION};
use muster_trainer_api::{JobStatus, ReplicaSpec, RestartPolicy, RunPolicy, annotation, managed_by};

use crate::kind::{Framework, Kind, ReplicaType};
use crate::validation::{self, FieldError};

/// What is restarted when a pod fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartScope {
    /// Every pod of the job, as one action.
    Gang,
    /// The failed pod alone.
    Pod,
}

impl RestartScope {
    /// Reads the annotation `muster.dev/restart-scope`.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        match value {
            "gang" => Some(Self::Gang),
            "pod" => Some(Self::Pod),
            _ => None,
        }
    }
}

/// The pods of one replica type, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    /// The type.
    pub type_: &'static ReplicaType,
    /// How many pods.
    pub count: i32,
    /// What the failure of one means.
    pub restart_policy: RestartPolicy,
    /// What they look like, the kind's port included.
    pub template: PodTemplateSpec,
}

/// A valid training job.
#[derive(Debug, Clone)]
pub struct Job {
    /// The data of its kind.
    pub kind: &'static Kind,
    /// The rules of its kind, with the kind's own fields.
    pub framework: Arc<dyn Framework>,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its replicas, in the order of the kind's replica types.
    pub replicas: Vec<Replica>,
    /// How it runs and how it is cleaned up.
    pub run_policy: RunPolicy,
    /// What was last seen of it.
    pub status: JobStatus,
}

/// A job as it was read, before it is checked.
pub(crate) struct Draft<'a> {
    pub(crate) kind: &'static Kind,
    pub(crate) framework: Arc<dyn Framework>,
    pub(crate) metadata: &'a ObjectMeta,
    pub(crate) replica_specs: &'a BTreeMap<String, ReplicaSpec>,
    pub(crate) run_policy: &'a RunPolicy,
    pub(crate) status: Option<&'a JobStatus>,
}

impl Draft<'_> {
    /// Checks the job and fills in its defaults.
    pub(crate) fn check(self) -> Result<Job, Vec<FieldError>> {
        let mut errors = Vec::new();
        let replica_specs = validation::normalise(self.kind, self.replica_specs, &mut errors);
        validation::validate(self.kind, self.metadata, &replica_specs, self.run_policy, &mut errors);
        self.framework.validate(&replica_specs, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let replicas = self
            .kind
            .replica_types
            .iter()
            .filter_map(|type_| replica_specs.get(type_.name).map(|spec| replica(self.kind, type_, spec)))
            .collect();
        Ok(Job {
            kind: self.kind,
            framework: self.framework,
            metadata: self.metadata.clone(),
            replicas,
            run_policy: self.run_policy.clone(),
            status: self.status.cloned().unwrap_or_default(),
        })
    }
}

fn replica(kind: &Kind, type_: &'static ReplicaType, spec: &ReplicaSpec) -> Replica {
    let mut template = spec.template.clone();
    let containers = template.spec.iter_mut().flat_map(|pod| &mut pod.containers);
    for container in containers.filter(|container| container.name == kind.container) {
        if port_of(kind, container).is_none() {
            container.ports.get_or_insert_default().push(ContainerPort {
                name: Some(kind.port_name.to_owned()),
                container_port: kind.port,
                ..ContainerPort::default()
            });
        }
    }
    Replica {
        type_,
        count: spec.replicas.unwrap_or(1),
        restart_policy: spec.restart_policy.clone().unwrap_or_else(|| kind.restart_policy.clone()),
        template,
    }
}

fn port_of(kind: &Kind, container: &Container) -> Option<i32> {
    let port = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(kind.port_name))?;
    Some(port.container_port)
}

impl Replica {
    /// The type in lower case, as names and labels carry it.
    pub fn label(&self) -> String {
        self.type_.name.to_lowercase()
    }

    /// The container that trains.
    pub(crate) fn container<'a>(&'a self, kind: &Kind) -> Option<&'a Container> {
        self.template.spec.as_ref()?.containers.iter().find(|container| container.name == kind.container)
    }

    /// The number of the kind's port.
    pub fn port(&self, kind: &Kind) -> i32 {
        self.container(kind).and_then(|container| port_of(kind, container)).unwrap_or(kind.port)
    }
}

impl Job {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    /// Its uid, by which it owns its pods.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// How many pods it wants in all.
    pub fn total(&self) -> i32 {
        self.replicas.iter().map(|replica| replica.count).sum()
    }

    /// Its replicas of this type, if it has any.
    pub fn replica(&self, type_: &str) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.type_.name == type_)
    }

    /// What is restarted when a pod fails.
    pub fn restart_scope(&self) -> RestartScope {
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| RestartScope::parse(annotations.get(annotation::RESTART_SCOPE)?))
            .unwrap_or_else(|| self.framework.restart_scope())
    }

    /// Whether its pods are withheld.
    pub fn is_suspended(&self) -> bool {
        self.run_policy.suspend.unwrap_or(false)
    }

    /// Whether another controller is in charge of it.
    pub fn is_managed_elsewhere(&self) -> bool {
        !matches!(self.run_policy.managed_by.as_deref(), None | Some("" | managed_by::TRAINING_OPERATOR))
    }

    /// How many pods must be placeable together: what the job says, else the fewest that an elastic one runs with, else
    /// all; never more than there are to be.
    pub fn min_available(&self) -> i32 {
        let said = self.run_policy.scheduling_policy.as_ref().and_then(|policy| policy.min_available);
        let fewest = || self.framework.elastic_bounds(self).map(|(fewest, _)| fewest);
        let total = self.total();
        said.or_else(fewest).unwrap_or(total).min(total)
    }

    /// A condition or event reason of this job, such as `PyTorchJobRunning`.
    pub(crate) fn reason(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.kind.name)
    }

    /// The reference by which its pods and services name it as their controller.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: self.kind.name.to_owned(),
            name: self.name().to_owned(),
            uid: self.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
