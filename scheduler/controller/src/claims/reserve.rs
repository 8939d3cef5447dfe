//! What pods get is written on their claims before they are bound, and taken back when they are not.
//!
//! A claim is written only as it was read, so nobody else's word is lost; whatever was done already is found done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{
    AllocationResult, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus,
};
use kube::Client;
use kube::api::{Api, PostParams};
use muster_scheduler_core::{ClaimKey, PodKey};
use parking_lot::Mutex;

use super::is_meant;
use crate::attempt::{Failure, attempt};
use crate::bind::{Binder, PAUSES, UNREACHABLE, Verdict};
use crate::planner::ClaimUse;

/// What keeps a claim with devices from vanishing while they are in use.
const PROTECTION: &str = "resource.kubernetes.io/delete-protection";
/// The most pods that can use one claim.
const MOST_USERS: usize = 256;

/// Claims that were written on, with their version since; none while that is not known.
pub(crate) type ClaimVersions = Mutex<BTreeMap<ClaimKey, Option<String>>>;

/// Why a claim does not get what it is to have.
#[derive(Debug, thiserror::Error)]
enum ReserveError {
    /// It never will.
    #[error("ResourceClaim {0} {1}")]
    Lost(String, &'static str),
    /// The API server.
    #[error(transparent)]
    Api(#[from] Failure),
}

impl Binder {
    /// Sees to it that the claims of a pod have their devices and that the pod may use them, as often as it takes to
    /// know.
    pub(crate) async fn reserve(
        &self,
        pod: &PodKey,
        uid: &str,
        claims: &[ClaimUse],
        versions: &ClaimVersions,
    ) -> Verdict {
        for claim in claims {
            let mut pauses = PAUSES.into_iter();
            loop {
                if self.stop.is_cancelled() {
                    return Verdict::Unknown;
                }
                let Ok(permit) = self.permits.acquire().await else { return Verdict::Unknown };
                let result = reserve(&self.client, pod, uid, claim, versions).await;
                drop(permit);
                let failure = match result {
                    Ok(()) => break,
                    Err(ReserveError::Api(failure))
                        if !failure.is_refusal() || failure.code() == Some(409) =>
                    {
                        failure
                    }
                    Err(error) => {
                        tracing::info!(%error, %pod, "its claim does not get its devices");
                        return Verdict::Refused(Some(error.to_string()));
                    }
                };
                let Some(pause) = pauses.next() else {
                    tracing::info!(error = %failure, %pod, claim = %claim.claim, "cannot write on the claim");
                    return Verdict::Refused(Some(failure.to_string()));
                };
                self.pause(Duration::from_millis(pause)).await;
            }
        }
        Verdict::Bound
    }

    /// Takes back what a pod's claims have got for it, as far as nobody else uses it. What cannot be taken back now is
    /// taken back when it is seen that only pods without a place use it.
    pub(crate) async fn unreserve(&self, uid: &str, claims: &[ClaimUse], versions: &ClaimVersions) {
        for claim in claims {
            let mut pauses = PAUSES.into_iter();
            while let Err(failure) = unreserve(&self.client, uid, claim, versions).await {
                if self.stop.is_cancelled() || failure.is_refusal() && failure.code() != Some(409) {
                    break;
                }
                let Some(pause) = pauses.next() else { break };
                tracing::debug!(error = %failure, claim = %claim.claim, "cannot take back what the claim has");
                self.pause(Duration::from_millis(pause).min(UNREACHABLE)).await;
            }
        }
    }
}

fn api(client: &Client, claim: &ClaimKey) -> Api<ResourceClaim> {
    Api::namespaced(client.clone(), &claim.namespace)
}

async fn reserve(
    client: &Client,
    pod: &PodKey,
    uid: &str,
    wanted: &ClaimUse,
    versions: &ClaimVersions,
) -> Result<(), ReserveError> {
    let (api, name) = (api(client, &wanted.claim), &wanted.claim.name);
    let lost = |why| Err(ReserveError::Lost(name.clone(), why));
    let Some(mut claim) = attempt(api.get_opt(name)).await? else { return lost("is gone") };
    if !is_meant(&claim, &wanted.uid) {
        return lost("is another one of the same name");
    }
    let has = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let user = |user: &ResourceClaimConsumerReference| user.uid == uid;
    match (has, &wanted.allocation) {
        (Some(has), Some(wanted)) if !same_devices(has, wanted) => {
            return lost("has got other devices meanwhile");
        }
        (None, None) => return lost("has lost its devices"),
        _ => {}
    }
    let mut users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    if has.is_some() && users.any(user) {
        note(versions, &claim, wanted);
        return Ok(());
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return lost("is being deleted");
    }
    let protected =
        claim.metadata.finalizers.as_ref().is_some_and(|all| all.iter().any(|known| known == PROTECTION));
    if has.is_none() && !protected {
        claim.metadata.finalizers.get_or_insert_default().push(PROTECTION.to_owned());
        claim = attempt(api.replace(name, &PostParams::default(), &claim)).await?;
    }
    let status = claim.status.get_or_insert_default();
    if status.allocation.is_none() {
        status.allocation.clone_from(&wanted.allocation);
    }
    let users = status.reserved_for.get_or_insert_default();
    if users.len() >= MOST_USERS {
        return lost("is used by as many pods as can use it");
    }
    users.push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.name.clone(),
        uid: uid.to_owned(),
    });
    // Until it is answered.
    versions.lock().insert(wanted.claim.clone(), None);
    let written = attempt(api.replace_status(name, &PostParams::default(), &claim)).await?;
    note(versions, &written, wanted);
    Ok(())
}

fn note(versions: &ClaimVersions, claim: &ResourceClaim, used: &ClaimUse) {
    versions.lock().insert(used.claim.clone(), claim.metadata.resource_version.clone());
}

async fn unreserve(
    client: &Client,
    uid: &str,
    given: &ClaimUse,
    versions: &ClaimVersions,
) -> Result<(), Failure> {
    let (api, name) = (api(client, &given.claim), &given.claim.name);
    let Some(mut claim) = attempt(api.get_opt(name)).await? else { return Ok(()) };
    if !is_meant(&claim, &given.uid) {
        return Ok(());
    }
    let Some(status) = &mut claim.status else { return Ok(()) };
    let users = status.reserved_for.get_or_insert_default();
    let before = users.len();
    users.retain(|user| user.uid != uid);
    // What it had before is its own.
    let mine = users.is_empty()
        && given
            .allocation
            .as_ref()
            .zip(status.allocation.as_ref())
            .is_some_and(|(mine, has)| same_devices(mine, has));
    if users.len() == before && !mine {
        note(versions, &claim, given);
        return Ok(());
    }
    if mine {
        *status = ResourceClaimStatus::default();
    }
    let written = attempt(api.replace_status(name, &PostParams::default(), &claim)).await?;
    note(versions, &written, given);
    Ok(())
}

/// Takes away what a claim has, if it is still as it was seen and none of the pods that use it has a node.
pub(crate) async fn give_back(client: &Client, claim: &ClaimKey, resource_version: &str, pods: &[PodKey]) {
    if let Err(failure) = try_to_give_back(client, claim, resource_version, pods).await {
        tracing::debug!(error = %failure, %claim, "cannot take back what the claim has");
    }
}

async fn try_to_give_back(
    client: &Client,
    claim: &ClaimKey,
    resource_version: &str,
    pods: &[PodKey],
) -> Result<(), Failure> {
    for pod in pods {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
        let found = attempt(api.get_opt(&pod.name)).await?;
        if found.and_then(|pod| pod.spec?.node_name).is_some_and(|node| !node.is_empty()) {
            return Ok(());
        }
    }
    let (api, name) = (api(client, claim), &claim.name);
    let Some(mut claim) = attempt(api.get_opt(name)).await? else { return Ok(()) };
    if claim.metadata.resource_version.as_deref() != Some(resource_version) {
        return Ok(());
    }
    claim.status = Some(ResourceClaimStatus::default());
    attempt(api.replace_status(name, &PostParams::default(), &claim)).await?;
    Ok(())
}

/// Whether two allocations are of the same devices for the same requests.
fn same_devices(left: &AllocationResult, right: &AllocationResult) -> bool {
    let devices = |allocation: &AllocationResult| -> BTreeSet<(String, String, String, String)> {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        let name = |result: &k8s_openapi::api::resource::v1::DeviceRequestAllocationResult| {
            let result = result.clone();
            (result.request, result.driver, result.pool, result.device)
        };
        results.map(name).collect()
    };
    devices(left) == devices(right)
}
