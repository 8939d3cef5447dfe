//! Objects that a job brings along beside its pods and services.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use muster_trainer_core::{Companion, CompanionAction, Event};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Executor, is_owned_by, outcome, settled};
use crate::reconcile::Error;
use crate::ssh_keys;

type Outcome = (Option<Event>, Result<(), Error>);

impl Executor<'_> {
    pub(super) async fn act_on_companion(&self, action: CompanionAction) -> Outcome {
        match action {
            CompanionAction::Ensure(Companion::ConfigMap(object)) => self.create(&self.api(), object).await,
            CompanionAction::Ensure(Companion::ServiceAccount(object)) => {
                self.create(&self.api(), object).await
            }
            CompanionAction::Ensure(Companion::RoleBinding(object)) => self.create(&self.api(), object).await,
            CompanionAction::Ensure(Companion::Job(object)) => self.create(&self.api(), object).await,
            CompanionAction::Ensure(Companion::Role(role)) => self.ensure_role(role).await,
            CompanionAction::Ensure(Companion::SshKeys(metadata)) => match ssh_keys::secret(metadata) {
                Ok(secret) => self.create(&self.api::<Secret>(), secret).await,
                Err(error) => (None, Err(error.into())),
            },
            CompanionAction::Update(Companion::ConfigMap(object)) => self.replace(&object).await,
            CompanionAction::Update(Companion::Job(object)) => self.replace(&object).await,
            // No plan updates these.
            CompanionAction::Update(_) => (None, Ok(())),
            CompanionAction::DeleteJob { name, uid } => {
                let preconditions = Preconditions { uid: Some(uid), ..Preconditions::default() };
                let parameters = DeleteParams::background().preconditions(preconditions);
                let result = settled(self.api::<Job>().delete(&name, &parameters).await.map(drop));
                (Some(outcome(&result, "Delete", "Job", &name)), result.map_err(Error::from))
            }
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    async fn replace<K>(&self, object: &K) -> Outcome
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.name_any();
        let result = self.api::<K>().replace(&name, &PostParams::default(), object).await.map(drop);
        match result {
            Ok(()) => (None, Ok(())),
            Err(error) => {
                let failed = Err(error);
                (Some(outcome(&failed, "Update", &K::kind(&()), &name)), failed.map_err(Error::from))
            }
        }
    }

    /// Creates a role, or gives the job's own these rules: a job that grows has more pods.
    async fn ensure_role(&self, role: Role) -> Outcome {
        let api = self.api::<Role>();
        let name = role.name_any();
        let current = match api.get_opt(&name).await {
            Ok(current) => current,
            Err(error) => return (None, Err(error.into())),
        };
        match current {
            Some(current) if is_owned_by(&current, &self.uid()) => {
                if current.rules == role.rules {
                    return (None, Ok(()));
                }
                self.replace(&Role { rules: role.rules, ..current }).await
            }
            // One of another owner is refused, and told of.
            _ => self.create(&api, role).await,
        }
    }
}
