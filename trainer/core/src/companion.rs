//! Objects that a job brings along beside its pods and services.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object that a job brings along.
#[expect(clippy::large_enum_variant, reason = "a plan has a handful of them")]
#[derive(Debug, Clone, PartialEq)]
pub enum Companion {
    /// Settings that pods mount.
    ConfigMap(ConfigMap),
    /// A Secret of type `kubernetes.io/ssh-auth`. Its keys are made when it is created: no plan ever holds them.
    SshKeys(ObjectMeta),
    /// Who a pod is to the API server.
    ServiceAccount(ServiceAccount),
    /// What that one may do.
    Role(Role),
    /// Who may do it.
    RoleBinding(RoleBinding),
    /// A job of Kubernetes.
    Job(Job),
}

impl Companion {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ConfigMap(object) => &object.metadata,
            Self::SshKeys(metadata) => metadata,
            Self::ServiceAccount(object) => &object.metadata,
            Self::Role(object) => &object.metadata,
            Self::RoleBinding(object) => &object.metadata,
            Self::Job(object) => &object.metadata,
        }
    }

    /// Its kind, as events name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConfigMap(_) => "ConfigMap",
            Self::SshKeys(_) => "Secret",
            Self::ServiceAccount(_) => "ServiceAccount",
            Self::Role(_) => "Role",
            Self::RoleBinding(_) => "RoleBinding",
            Self::Job(_) => "Job",
        }
    }
}

/// What is to be done to an object that a job brings along.
#[derive(Debug, Clone, PartialEq)]
pub enum CompanionAction {
    /// Create it, unless it is there; a role that is there gets these rules.
    Ensure(Companion),
    /// Replace it, provided that it has not changed.
    Update(Companion),
    /// Delete a job of Kubernetes, and its pods with it, provided that it is this one.
    DeleteJob {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
}
