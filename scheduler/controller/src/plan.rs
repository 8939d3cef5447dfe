//! The written plan of a gang: replaced only as it was last seen, marked when all is bound, taken away in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use muster_scheduler_api::{GangReservation, GangReservationSpec, ReservedMember, SCHEDULER_NAME, labels};
use muster_scheduler_core::{Assignment, PodKey};
use serde_json::json;

use crate::attempt::{Failure, attempt};
use crate::planner::{Binding, Opening, Written, reserved_claims};

/// Milliseconds after each attempt to write a plan, or to take it away, that may succeed when it is made again.
const PAUSES: [u64; 4] = [50, 200, 500, 1000];

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
    let name = name_of(&binding.gang);
    let parameters = PostParams::default();
    let mut last = None;
    for pause in PAUSES {
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
        if failure.code() != Some(409) {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        last = Some(failure);
    }
    Err(last.unwrap_or(Failure::Late).into())
}

/// Notes that every pod of the plan is bound, or let go to where its own scheduler binds it. A plan that stays `Planned` although all is bound costs the next
/// start one look at bound pods.
pub(crate) async fn finish(client: &Client, binding: &Binding, written: Written) -> Written {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), &binding.namespace);
    let opened = binding.gates.values().any(|opening| *opening == Opening::Only);
    match set_phase(&api, &name_of(&binding.gang), if opened { "Opened" } else { "Bound" }).await {
        Ok(written) => written,
        Err(error) => {
            tracing::debug!(%error, gang = binding.gang, "cannot mark the plan as carried out");
            written
        }
    }
}

/// Takes away the plan of a gang that is gone or has no place, unless somebody has changed it since; whether it is
/// certainly not there any more.
pub(crate) async fn discard(client: &Client, namespace: &str, gang: &str, written: &Written) -> bool {
    let api: Api<GangReservation> = Api::namespaced(client.clone(), namespace);
    let preconditions =
        Some(Preconditions { resource_version: Some(written.resource_version.clone()), uid: None });
    let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
    for pause in PAUSES {
        match attempt(api.delete(&name_of(gang), &parameters)).await {
            Ok(_) => return true,
            Err(failure) if failure.code() == Some(404) => return true,
            Err(failure) if failure.is_refusal() => {
                tracing::debug!(error = %failure, gang, "the plan of a gang without places stays");
                return false;
            }
            Err(failure) => {
                tracing::debug!(error = %failure, gang, "cannot take the plan away; trying again");
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
    false
}

/// What the plan of a gang is called: as the gang, unless no object may be called so, as names of gangs that other
/// systems describe may be labels.
fn name_of(gang: &str) -> String {
    const LONGEST: usize = 253;
    const HASH: usize = 16;
    let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let is_label = |label: &str| {
        label.chars().all(|character| plain(character) || character == '-')
            && label.starts_with(plain)
            && label.ends_with(plain)
    };
    if gang.len() <= LONGEST && gang.split('.').all(is_label) {
        return gang.to_owned();
    }
    let lower = gang.chars().map(|character| character.to_ascii_lowercase());
    let readable: String = lower
        .map(|character| if plain(character) { character } else { '-' })
        .take(LONGEST - HASH - 1)
        .collect();
    // FNV-1a: the same name in every version of Muster.
    let hash = gang.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let readable = readable.trim_matches('-');
    format!("{}-{hash:0HASH$x}", if readable.is_empty() { "gang" } else { readable })
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
    let mut plan = GangReservation::new(&name_of(&binding.gang), spec);
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
        claims: reserved_claims(assignment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_called_as_their_gangs_where_objects_may_be_called_so() {
        assert_eq!(name_of("trainer-7.v1"), "trainer-7.v1");
        let long = "x".repeat(300);
        for gang in ["My_Group", "my_group", "-", "a..b", long.as_str()] {
            let name = name_of(gang);
            assert!(name.len() <= 253, "{name}");
            assert_eq!(name_of(&name), name, "{gang}: a name that is valid stays");
        }
        assert_eq!(name_of("My_Group"), "my-group-e757972e55771377");
        assert_ne!(name_of("My_Group"), name_of("my_group"));
    }
}
