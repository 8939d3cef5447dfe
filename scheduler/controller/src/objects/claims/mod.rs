//! Dynamic resource allocation: which claims a pod has, which devices there are, and what a claim asks for.

mod attributes;
mod pools;
mod selector;
mod wanted;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

pub(crate) use pools::{Published, PublishedDevice, pools};
pub(crate) use wanted::{Catalogue, Unplaceable, wanted};

/// A claim that a pod names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodClaim {
    /// Name among the pod's claims.
    pub name: String,
    /// Where it is.
    pub source: ClaimSource,
}

/// Where a pod's claim is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimSource {
    /// A `ResourceClaim` of this name, which pods may share.
    Shared(String),
    /// A `ResourceClaim` of this name, made from a template for this pod alone.
    Own(String),
    /// It is to be made from the template of this name, and is not there yet.
    NotYet(String),
}

impl PodClaim {
    /// Name of the `ResourceClaim`, once it is known.
    pub fn object(&self) -> Option<&str> {
        match &self.source {
            ClaimSource::Shared(name) | ClaimSource::Own(name) => Some(name),
            ClaimSource::NotYet(_) => None,
        }
    }
}

/// The claims of a pod that count.
pub(super) fn claims(pod: &Pod, spec: &PodSpec) -> Vec<PodClaim> {
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    let claims = spec.resource_claims.iter().flatten().filter_map(|claim| {
        let name = claim.name.clone();
        if let Some(object) = &claim.resource_claim_name {
            return Some(PodClaim { name, source: ClaimSource::Shared(object.clone()) });
        }
        let made = statuses.into_iter().flatten().find(|status| status.name == claim.name);
        let source = match made {
            Some(status) => {
                ClaimSource::Own(status.resource_claim_name.clone().filter(|name| !name.is_empty())?)
            }
            None => ClaimSource::NotYet(claim.resource_claim_template_name.clone().unwrap_or_default()),
        };
        Some(PodClaim { name, source })
    });
    claims.collect()
}
