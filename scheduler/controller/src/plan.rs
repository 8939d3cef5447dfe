//! The written plan of a gang: replaced only as it was last seen, marked when all is bound, taken away in the end.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use muster_scheduler_api::{GangReservation, GangReservationSpec, ReservedMember, SCHEDULER_NAME, labels};
use muster_scheduler_core::{Assignment, PodKey};
use serde_json::json;

use crate::attempt::{Failure, attempt};
use crate::planner::{Binding, Written};

/// Writes of one plan before it is given up.
const ATTEMPTS: usize = 4;

/// Why a plan could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Somebody else has planned the gang.
    #[error("another scheduler has written plan {} of the gang", .0.epoch)]
    Overtaken(Written),
    /// The API server.
    #[error(transparent)]
    Api(#[from] Failure),
}

/// Writes the plan on top of the one that it replaces; nobody else's plan is overwritten unseen.
pub(crate) async fn write(client: &Client, binding: &Binding) -> Result<Written, PlanError> {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), &binding.namespace);
    let mut before = binding.replaces.clone();
    let mut plan = reservation(binding);
    plan.spec.epoch = before.as_ref().map_or(1, |before| before.epoch + 1);
    let name = binding.gang.clone();
    let parameters = PostParams::default();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        plan.metadata.resource_version = before.as_ref().map(|before| before.resource_version.clone());
        let answer = match before {
            None => attempt(api.create(&parameters, &plan)).await,
            Some(_) => attempt(api.replace(&name, &parameters, &plan)).await,
        };
        let failure = match answer {
            Ok(there) if binding.replaces.is_none() => return Ok(Written::of(&there)),
            // Its phase is that of the plan before.
            Ok(_) => return Ok(set_phase(&api, &name, "Planned").await?),
            Err(failure) if failure.is_refusal() && !matches!(failure.code(), Some(404 | 409)) => {
                return Err(failure.into());
            }
            Err(failure) => failure,
        };
        before = match attempt(api.get_opt(&name)).await? {
            // It was written although the answer was lost.
            Some(there) if there.spec == plan.spec => return Ok(Written::of(&there)),
            Some(there) if there.spec.epoch >= plan.spec.epoch => {
                return Err(PlanError::Overtaken(Written::of(&there)));
            }
            Some(there) => Some(Written::of(&there)),
            None => None,
        };
        last = Some(failure);
    }
    Err(last.unwrap_or(Failure::Late).into())
}

/// Notes that every pod of the plan is bound. A plan that stays `Planned` although all is bound costs the next
/// start one look at bound pods.
pub(crate) async fn finish(client: &Client, binding: &Binding, written: Written) -> Written {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), &binding.namespace);
    match set_phase(&api, &binding.gang, "Bound").await {
        Ok(written) => written,
        Err(error) => {
            tracing::debug!(%error, gang = binding.gang, "cannot mark the plan as bound");
            written
        }
    }
}

/// Takes away the plan of a gang that is gone, unless somebody has changed it since.
pub(crate) async fn discard(client: &Client, namespace: &str, gang: &str, written: &Written) {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), namespace);
    let preconditions =
        Some(Preconditions { resource_version: Some(written.resource_version.clone()), uid: None });
    let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
    for _ in 0..ATTEMPTS {
        match attempt(api.delete(gang, &parameters)).await {
            Ok(_) => return,
            Err(failure) if failure.is_refusal() => {
                if failure.code() != Some(404) {
                    tracing::debug!(error = %failure, gang, "the plan of a gang that is gone stays");
                }
                return;
            }
            Err(failure) => {
                tracing::debug!(error = %failure, gang, "cannot take the plan away; trying again");
            }
        }
    }
}

async fn set_phase(api: &Api<GangReservation>, name: &str, phase: &str) -> Result<Written, Failure> {
    let status = json!({"status": {"phase": phase}});
    let there = attempt(api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))).await?;
    Ok(Written::of(&there))
}

fn reservation(binding: &Binding) -> GangReservation {
    let members = binding
        .settled
        .iter()
        .cloned()
        .chain(binding.placement.0.iter().map(|(pod, assignment)| reserved(pod, assignment)))
        .collect();
    let spec = GangReservationSpec { gang: binding.gang.clone(), epoch: 0, members };
    let mut plan = GangReservation::new(&binding.gang, spec);
    plan.metadata.namespace = Some(binding.namespace.clone());
    plan.metadata.labels = Some(BTreeMap::from([(labels::PLANNED_BY.to_owned(), SCHEDULER_NAME.to_owned())]));
    // The plan goes when its gang's owner goes, but the owner need not wait for that, and is not its controller.
    let owner = binding.owner.as_ref().map(|owner| OwnerReference {
        controller: None,
        block_owner_deletion: None,
        ..owner.clone()
    });
    plan.metadata.owner_references = owner.map(|owner| vec![owner]);
    plan
}

/// A place of the plan.
pub(crate) fn reserved(pod: &PodKey, assignment: &Assignment) -> ReservedMember {
    ReservedMember {
        pod: pod.name.clone(),
        uid: assignment.uid.clone(),
        node: assignment.node.clone(),
        gpu_indices: assignment.gpu_indices.clone(),
    }
}
