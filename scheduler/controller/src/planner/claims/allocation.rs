//! What is written on claims before their pods are bound.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequest,
    DeviceRequestAllocationResult, DeviceToleration, ResourceClaimSpec,
};
use muster_scheduler_api::{ReservedClaim, ReservedDevice};
use muster_scheduler_core::claims::{DeviceId, GrantedDevice, Reach};
use muster_scheduler_core::{Assignment, ClaimGrant, ClaimKey, Placement, PlannedDevice, PodKey};

use super::{Claims, Planner};
use crate::objects::claims::PublishedDevice;

/// That a pod uses a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimUse {
    /// The claim.
    pub claim: ClaimKey,
    /// Its uid: a successor of the same name is not meant.
    pub uid: String,
    /// What it gets; `None` when it has its devices already.
    pub allocation: Option<AllocationResult>,
}

impl Planner {
    /// The claims of the pods of a placement, with what they get.
    pub(in crate::planner) fn claim_uses(&self, placement: &Placement) -> BTreeMap<PodKey, Vec<ClaimUse>> {
        let mut allocations: BTreeMap<ClaimKey, AllocationResult> = BTreeMap::new();
        for (pod, place) in &placement.0 {
            for grant in &place.claims {
                let key = ClaimKey::new(&pod.namespace, &grant.claim);
                if let Some(allocation) = self.claims.allocation(&key, grant, &place.node) {
                    allocations.insert(key, allocation);
                }
            }
        }
        let uses = placement.0.iter().filter_map(|(pod, _)| {
            let claims = self.pods.get(pod)?.claims.iter().filter_map(|claim| {
                let key = ClaimKey::new(&pod.namespace, claim.object()?);
                let uid = self.claims.seen.get(&key)?.uid.clone();
                let allocation = allocations.get(&key).cloned();
                Some(ClaimUse { claim: key, uid, allocation })
            });
            let claims: Vec<ClaimUse> = claims.collect();
            (!claims.is_empty()).then(|| (pod.clone(), claims))
        });
        uses.collect()
    }

    /// What a written plan says that a pod's claims get, as far as they have nothing yet; `None` when they cannot have
    /// it any more. `planned` are all claims of the plan.
    pub(in crate::planner) fn granted_by_plan(
        &mut self,
        pod: &PodKey,
        node: &str,
        reserved: &[ReservedClaim],
        planned: &[&str],
    ) -> Option<Vec<ClaimGrant>> {
        let names: Vec<String> = self
            .pods
            .get(pod)?
            .claims
            .iter()
            .map(|claim| claim.object().map(str::to_owned))
            .collect::<Option<_>>()?;
        let mut grants = Vec::new();
        for name in names {
            let key = ClaimKey::new(&pod.namespace, &name);
            let known = self.claims.seen.get(&key).filter(|claim| !claim.leaving)?;
            if known.allocation.is_some() {
                if !self.claims.suits(&key, self.ledger.node(node)?) {
                    return None;
                }
                continue;
            }
            let Some(reserved) = reserved.iter().find(|reserved| reserved.name == name) else {
                // It is written with the pod that carries it.
                if planned.contains(&name.as_str()) {
                    continue;
                }
                return None;
            };
            let devices = reserved.devices.iter().map(|device| {
                let id = DeviceId {
                    driver: device.driver.clone(),
                    pool: device.pool.clone(),
                    device: device.device.clone(),
                };
                let number = self.ledger.device_number(&id);
                let request = device.request.as_str().into();
                let granted = GrantedDevice { request, device: number, admin: device.admin_access };
                PlannedDevice { granted, id: id.into() }
            });
            grants.push(ClaimGrant { claim: name, devices: devices.collect() });
        }
        Some(grants)
    }
}

/// What a plan says of the claims that come with a place.
pub(crate) fn reserved(place: &Assignment) -> Vec<ReservedClaim> {
    let claims = place.claims.iter().map(|claim| {
        let devices = claim.devices.iter().map(|device| ReservedDevice {
            request: device.granted.request.to_string(),
            driver: device.id.driver.clone(),
            pool: device.id.pool.clone(),
            device: device.id.device.clone(),
            admin_access: device.granted.admin,
        });
        ReservedClaim { name: claim.claim.clone(), devices: devices.collect() }
    });
    claims.collect()
}

impl Claims {
    fn allocation(&self, key: &ClaimKey, grant: &ClaimGrant, node: &str) -> Option<AllocationResult> {
        let spec = &self.seen.get(key)?.spec;
        let results = grant.devices.iter().map(|device| DeviceRequestAllocationResult {
            request: device.granted.request.to_string(),
            driver: device.id.driver.clone(),
            pool: device.id.pool.clone(),
            device: device.id.device.clone(),
            admin_access: device.granted.admin.then_some(true),
            tolerations: class_and_tolerations(spec, &device.granted.request)
                .and_then(|(_, tolerations)| tolerations.cloned()),
            ..DeviceRequestAllocationResult::default()
        });
        let results: Vec<DeviceRequestAllocationResult> = results.collect();
        let config = self.configuration(spec, &results);
        let published = grant.devices.iter().filter_map(|device| self.published(&device.id));
        Some(AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult {
                config: (!config.is_empty()).then_some(config),
                results: Some(results),
            }),
            node_selector: node_selector(published, node),
        })
    }

    fn published(&self, id: &DeviceId) -> Option<&PublishedDevice> {
        self.published.devices.iter().find(|device| device.id == *id)
    }

    /// What the classes of the requests that got devices say of them, and then what the claim says.
    fn configuration(
        &self,
        spec: &ResourceClaimSpec,
        results: &[DeviceRequestAllocationResult],
    ) -> Vec<DeviceAllocationConfiguration> {
        let mut requests: Vec<&str> = results.iter().map(|result| result.request.as_str()).collect();
        requests.dedup();
        let of_classes = requests.iter().flat_map(|request| {
            let class = class_and_tolerations(spec, request).and_then(|(class, _)| self.classes.get(class));
            let configs = class.into_iter().flat_map(|class| class.spec.config.iter().flatten());
            configs.map(|config| DeviceAllocationConfiguration {
                source: "FromClass".to_owned(),
                requests: Some(vec![(*request).to_owned()]),
                opaque: config.opaque.clone(),
            })
        });
        let configs = spec.devices.iter().flat_map(|devices| devices.config.iter().flatten());
        let meant = |names: &Vec<String>| {
            names.is_empty()
                || names.iter().any(|name| {
                    requests.iter().any(|request| request == name || request.split('/').next() == Some(name))
                })
        };
        let of_claim = configs.filter(|config| config.requests.as_ref().is_none_or(meant));
        let of_claim = of_claim.map(|config| DeviceAllocationConfiguration {
            source: "FromClaim".to_owned(),
            requests: config.requests.clone(),
            opaque: config.opaque.clone(),
        });
        of_classes.chain(of_claim).collect()
    }
}

/// The class that a request or alternative names, and what it tolerates.
fn class_and_tolerations<'a>(
    spec: &'a ResourceClaimSpec,
    name: &str,
) -> Option<(&'a str, Option<&'a Vec<DeviceToleration>>)> {
    let (request, alternative) =
        name.split_once('/').map_or((name, None), |(request, one)| (request, Some(one)));
    let mut requests = spec.devices.as_ref()?.requests.iter().flatten();
    let request: &DeviceRequest = requests.find(|known| known.name == request)?;
    match alternative {
        None => {
            let exactly = request.exactly.as_ref()?;
            Some((&exactly.device_class_name, exactly.tolerations.as_ref()))
        }
        Some(name) => {
            let one = request.first_available.iter().flatten().find(|one| one.name == name)?;
            Some((&one.device_class_name, one.tolerations.as_ref()))
        }
    }
}

/// The nodes that reach all of the devices; `None` when all nodes do.
fn node_selector<'a>(devices: impl Iterator<Item = &'a PublishedDevice>, node: &str) -> Option<NodeSelector> {
    let mut together: Option<NodeSelectorTerm> = None;
    for device in devices {
        match (&device.reach, &device.node_selector) {
            (Reach::Everywhere, _) => {}
            // A selector says what it says in one term.
            (Reach::Selected(_), Some(selector)) if selector.node_selector_terms.len() == 1 => {
                let term = &selector.node_selector_terms[0];
                let all = together.get_or_insert_default();
                for (into, from) in [
                    (&mut all.match_expressions, &term.match_expressions),
                    (&mut all.match_fields, &term.match_fields),
                ] {
                    for requirement in from.iter().flatten() {
                        let into = into.get_or_insert_default();
                        if !into.contains(requirement) {
                            into.push(requirement.clone());
                        }
                    }
                }
            }
            (Reach::Node(_) | Reach::Selected(_), _) => {
                together = Some(NodeSelectorTerm {
                    match_fields: Some(vec![NodeSelectorRequirement {
                        key: "metadata.name".to_owned(),
                        operator: "In".to_owned(),
                        values: Some(vec![node.to_owned()]),
                    }]),
                    match_expressions: None,
                });
                break;
            }
        }
    }
    together.map(|term| NodeSelector { node_selector_terms: vec![term] })
}
