//! Names and labels of an MPI job's objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::label;

use super::framework::WORKER;
use super::job::{Dialect, MpiJob};
use crate::objects::object_name;

/// Every value of the label `training.kubeflow.org/operator-name` that MPI jobs' objects may have.
pub const OPERATOR_NAMES: [&str; 2] = ["mpi-operator", "mpijob-controller"];

/// Which part a pod plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Launcher,
    Worker(i32),
}

impl Role {
    /// As variables and labels name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Worker(_) => "worker",
        }
    }
}

impl MpiJob {
    pub(super) fn launcher_name(&self) -> String {
        format!("{}-launcher", self.job.name())
    }

    pub(super) fn worker_name(&self, index: i32) -> String {
        object_name(self.job.name(), WORKER, index)
    }

    pub(super) fn configuration_name(&self) -> String {
        format!("{}-config", self.job.name())
    }

    pub(super) fn ssh_name(&self) -> String {
        format!("{}-ssh", self.job.name())
    }

    /// Labels that select every object of the job.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let operator = match self.dialect {
            Dialect::V2 => OPERATOR_NAMES[0],
            Dialect::V1 => OPERATOR_NAMES[1],
        };
        BTreeMap::from([
            (label::OPERATOR_NAME.to_owned(), operator.to_owned()),
            (label::JOB_NAME.to_owned(), self.job.name().to_owned()),
        ])
    }

    /// Labels of a pod of this role.
    pub(super) fn role_labels(&self, role: Role) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        let mut insert = |key: &str, value: String| labels.insert(key.to_owned(), value);
        match self.dialect {
            Dialect::V1 => {
                insert(label::REPLICA_TYPE, role.name().to_owned());
                if role == Role::Launcher {
                    insert(label::JOB_ROLE, "master".to_owned());
                    insert(label::REPLICA_INDEX, "0".to_owned());
                }
            }
            Dialect::V2 => drop(insert(label::JOB_ROLE, role.name().to_owned())),
        }
        if let Role::Worker(index) = role {
            // Where the launcher is the first host, the workers come after it.
            insert(label::REPLICA_INDEX, (index + i32::from(self.launcher_is_worker)).to_string());
        } else if self.launcher_is_worker {
            insert(label::REPLICA_INDEX, "0".to_owned());
        }
        labels
    }

    /// The selector of the pods of a role, as text.
    pub(super) fn selector(&self, role: Role) -> String {
        let mut labels = self.role_labels(role);
        labels.remove(label::REPLICA_INDEX);
        let terms: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        terms.join(",")
    }

    /// Metadata of an object of the job.
    pub(super) fn metadata(&self, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.job.namespace().to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![self.job.owner_reference()]),
            ..ObjectMeta::default()
        }
    }
}
