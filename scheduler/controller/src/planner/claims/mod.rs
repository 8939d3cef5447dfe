//! Claims of devices: what was seen of them, of their classes and of the devices, and what pods ask for by them.

mod allocation;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, ResourceClaim, ResourceClaimSpec, ResourceSlice,
};
use muster_scheduler_core::claims::{ClaimDemand, DeviceId, DeviceNumber};
use muster_scheduler_core::{ClaimKey, Placement, PodKey};

use super::Planner;
use super::decision::{Decision, Decisions};
use super::groups::Availability;
use super::pods::{GangKey, State};
use crate::objects::claims::{Catalogue, Published, Unplaceable, pools, wanted};

pub use allocation::ClaimUse;
pub(crate) use allocation::reserved as reserved_claims;

/// Kinds of objects that describe devices and claims of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// `ResourceClaim`.
    Claims,
    /// `DeviceClass`.
    Classes,
    /// `ResourceSlice`.
    Slices,
}

impl DeviceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Claims, Self::Classes, Self::Slices];

    fn name(self) -> &'static str {
        match self {
            Self::Claims => "ResourceClaims",
            Self::Classes => "DeviceClasses",
            Self::Slices => "ResourceSlices",
        }
    }
}

/// News of such objects.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceEvent {
    /// Whether a kind can be read has changed.
    Kind(DeviceKind, Availability),
    /// A claim appeared or changed.
    Claim(Box<ResourceClaim>),
    /// A claim is gone.
    ClaimGone(ClaimKey),
    /// A class appeared or changed.
    Class(Box<DeviceClass>),
    /// A class is gone.
    ClassGone(String),
    /// A slice appeared or changed.
    Slice(Box<ResourceSlice>),
    /// A slice is gone.
    SliceGone(String),
}

/// What is known of a claim.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    uid: String,
    resource_version: String,
    /// Claims that ask for the same have the same text.
    text: String,
    spec: ResourceClaimSpec,
    allocation: Option<AllocationResult>,
    /// Uids of the pods that use it; of whoever else does, an empty one.
    reserved_for: BTreeSet<String>,
    leaving: bool,
    /// Uid of its controller.
    owner: Option<String>,
}

impl Claim {
    fn read(claim: &ResourceClaim) -> Self {
        let status = claim.status.clone().unwrap_or_default();
        let users = status.reserved_for.into_iter().flatten();
        let mut owners = claim.metadata.owner_references.iter().flatten();
        Self {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            resource_version: claim.metadata.resource_version.clone().unwrap_or_default(),
            text: serde_json::to_string(&claim.spec).unwrap_or_default(),
            spec: claim.spec.clone(),
            allocation: status.allocation,
            reserved_for: users
                .map(|user| if user.resource == "pods" { user.uid } else { String::new() })
                .collect(),
            leaving: claim.metadata.deletion_timestamp.is_some(),
            owner: owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()),
        }
    }

    /// The devices that are its own.
    fn devices(&self) -> Option<Vec<DeviceId>> {
        let results =
            self.allocation.as_ref()?.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        let own = results.filter(|result| result.admin_access != Some(true));
        let id = own.map(|result| DeviceId {
            driver: result.driver.clone(),
            pool: result.pool.clone(),
            device: result.device.clone(),
        });
        Some(id.collect())
    }
}

/// How long what is planned for a claim counts beside what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pending {
    /// Until the binding of this gang has ended.
    UnderWay(GangKey),
    /// Until the claim is seen as of this version, or anyhow.
    Until(Option<String>),
}

/// What is known of devices and claims.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    /// Whether they are to be read at all; most clusters have none.
    wanted: bool,
    told: bool,
    kinds: BTreeMap<DeviceKind, Availability>,
    slices: BTreeMap<String, ResourceSlice>,
    classes: BTreeMap<String, DeviceClass>,
    seen: BTreeMap<ClaimKey, Claim>,
    slices_changed: bool,
    /// Whether everything that was resolved is to be resolved again.
    stale: bool,
    changed: BTreeSet<ClaimKey>,
    published: Published,
    numbers: Vec<DeviceNumber>,
    resolved: BTreeMap<String, Result<Arc<ClaimDemand>, Unplaceable>>,
    /// Claims for which devices are planned.
    pending: BTreeMap<ClaimKey, Pending>,
    /// Claims that only pods without a place use.
    idle: BTreeSet<ClaimKey>,
    /// As which version they are being given back.
    given_back: BTreeMap<ClaimKey, String>,
}

impl Claims {
    /// Pods have claims: from now on all of this is to be read.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// What a kind's objects cannot be read for.
    fn unreadable(&self) -> Option<String> {
        DeviceKind::ALL.into_iter().find_map(|kind| {
            let name = kind.name();
            match self.kinds.get(&kind) {
                None | Some(Availability::Unread) => Some(format!("{name} have not been read yet")),
                Some(Availability::Read) => None,
                Some(Availability::Absent) => {
                    Some(format!("this cluster has no {name}: it does not serve resource.k8s.io/v1"))
                }
                Some(Availability::Refused(why)) => Some(format!("{name} cannot be read: {why}")),
            }
        })
    }

    /// Whether a claim was seen as of a version or later, or is gone.
    fn is_seen(&self, key: &ClaimKey, version: Option<&str>) -> bool {
        let number = |version: &str| version.parse::<u64>().ok();
        let Some((claim, version)) = self.seen.get(key).zip(version) else { return true };
        let seen = claim.resource_version.as_str();
        seen == version || number(seen).zip(number(version)).is_some_and(|(seen, version)| seen >= version)
    }

    /// What a claim asks for.
    fn demand(&mut self, key: &ClaimKey) -> Option<Result<Arc<ClaimDemand>, Unplaceable>> {
        let claim = self.seen.get(key)?;
        if let Some(known) = self.resolved.get(&claim.text) {
            return Some(known.clone());
        }
        let catalogue =
            Catalogue { classes: &self.classes, published: &self.published, numbers: &self.numbers };
        let demand = wanted(&claim.spec, &catalogue).map(Arc::new);
        self.resolved.insert(claim.text.clone(), demand.clone());
        Some(demand)
    }
}

impl Planner {
    /// Whether devices and claims are to be read from now on; told once.
    pub fn begins_to_need_devices(&mut self) -> bool {
        let claims = &mut self.claims;
        claims.wanted && !std::mem::replace(&mut claims.told, claims.wanted)
    }

    /// Whether all that pods need is known of devices and claims, or is known not to be had.
    pub fn knows_devices(&self) -> bool {
        let known =
            |kind: &DeviceKind| !matches!(self.claims.kinds.get(kind), None | Some(Availability::Unread));
        !self.claims.wanted || DeviceKind::ALL.iter().all(known)
    }

    /// A claim, a class or a slice appeared, changed or went.
    pub fn devices_changed(&mut self, event: DeviceEvent) {
        let claims = &mut self.claims;
        match event {
            DeviceEvent::Kind(kind, availability) => {
                claims.stale |= claims.kinds.insert(kind, availability.clone()) != Some(availability);
            }
            DeviceEvent::Claim(claim) => {
                let metadata = &claim.metadata;
                let key = ClaimKey::new(
                    metadata.namespace.clone().unwrap_or_default(),
                    metadata.name.clone().unwrap_or_default(),
                );
                let claim = Claim::read(&claim);
                if claims.seen.get(&key) != Some(&claim) {
                    claims.seen.insert(key.clone(), claim);
                    claims.changed.insert(key);
                }
            }
            DeviceEvent::ClaimGone(key) => {
                claims.seen.remove(&key);
                claims.changed.insert(key);
            }
            DeviceEvent::Class(class) => {
                let name = class.metadata.name.clone().unwrap_or_default();
                let before = claims.classes.insert(name, (*class).clone());
                claims.stale |= before.is_none_or(|before| before.spec != class.spec);
            }
            DeviceEvent::ClassGone(name) => claims.stale |= claims.classes.remove(&name).is_some(),
            DeviceEvent::Slice(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                let before = claims.slices.insert(name, (*slice).clone());
                claims.slices_changed |= before.is_none_or(|before| before.spec != slice.spec);
            }
            DeviceEvent::SliceGone(name) => claims.slices_changed |= claims.slices.remove(&name).is_some(),
        }
    }

    /// Brings the ledger and the pods up to date with what was seen of devices and claims.
    pub(super) fn follow_claims(&mut self) {
        if std::mem::take(&mut self.claims.slices_changed) {
            let published = pools(self.claims.slices.values());
            if published != self.claims.published {
                self.ledger.set_inventory(published.inventory());
                let devices = published.devices.iter();
                self.claims.numbers = devices.map(|device| self.ledger.device_number(&device.id)).collect();
                self.claims.published = published;
                self.claims.stale = true;
            }
        }
        if std::mem::take(&mut self.claims.stale) {
            self.claims.resolved.clear();
            self.line.nodes_changed();
            self.gained = true;
            self.pods.resolve_all_claims_again();
        }
        for key in std::mem::take(&mut self.claims.changed) {
            let devices = self.claims.seen.get(&key).and_then(Claim::devices);
            let devices = devices
                .map(|devices| devices.iter().map(|device| self.ledger.device_number(device)).collect());
            self.ledger.record_claim(&key, devices);
            self.gained = true;
            if let Some(Pending::Until(version)) = self.claims.pending.get(&key)
                && self.claims.is_seen(&key, version.as_deref())
            {
                self.settle_claim(&key);
            }
            self.changed.extend(self.pods.gangs_that_use(&key));
            self.pods.resolve_claim_again(&key);
        }
        for pod in self.pods.take_unresolved() {
            self.resolve_claims(&pod);
        }
    }

    /// Devices of claims come with these places: they are planned until it is seen what became of that.
    pub(super) fn claims_begin(&mut self, gang: &GangKey, placement: &Placement) {
        for (pod, place) in &placement.0 {
            for grant in &place.claims {
                let key = ClaimKey::new(&pod.namespace, &grant.claim);
                self.claims.pending.insert(key, Pending::UnderWay(gang.clone()));
            }
        }
    }

    /// The binding of a gang has ended, and has written on some of its claims.
    pub(super) fn claims_end(&mut self, gang: &GangKey, written: &BTreeMap<ClaimKey, Option<String>>) {
        let pending = self.claims.pending.iter();
        let of_gang = pending.filter(|(_, pending)| **pending == Pending::UnderWay(gang.clone()));
        for key in of_gang.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            match written.get(&key) {
                Some(version) if version.is_none() || !self.claims.is_seen(&key, version.as_deref()) => {
                    self.claims.pending.insert(key, Pending::Until(version.clone()));
                }
                _ => self.settle_claim(&key),
            }
        }
    }

    /// A claim has what it says that it has.
    fn settle_claim(&mut self, key: &ClaimKey) {
        self.claims.pending.remove(key);
        self.ledger.unplan(key);
        self.pods.resolve_claim_again(key);
        self.gained = true;
    }

    /// Whether nobody but pods without a place, whom nothing is being done for, use a claim. One that nobody uses may
    /// have been given devices in advance, unless it was made for such a pod: that is left over from an attempt.
    fn is_idle(&self, key: &ClaimKey) -> bool {
        let Some(claim) = self.claims.seen.get(key).filter(|claim| claim.allocation.is_some()) else {
            return false;
        };
        let waits = |uid: &String| {
            self.pods.users(key).any(|pod| {
                self.pods.get(pod).is_some_and(|view| {
                    view.member.uid == *uid
                        && view.state == State::Waiting
                        && !self.under_way.contains(&view.gang)
                })
            })
        };
        if claim.reserved_for.is_empty() {
            claim.owner.as_ref().is_some_and(waits)
        } else {
            claim.reserved_for.iter().all(waits)
        }
    }

    /// Gives back what claims have from attempts that came to nothing.
    pub(super) fn give_idle_claims_back(&mut self, decisions: &mut Decisions) {
        for key in std::mem::take(&mut self.claims.idle) {
            // Since it was found to be so, the pods may have come to use what it has after all.
            let still = self.is_idle(&key) && self.pods.users(&key).all(|pod| self.gives_back(pod));
            let Some(claim) = self.claims.seen.get(&key).filter(|_| still) else { continue };
            let version = claim.resource_version.clone();
            let before = self.claims.given_back.insert(key.clone(), version.clone());
            if before.as_ref() != Some(&version) {
                let pods: Vec<PodKey> = self.pods.users(&key).cloned().collect();
                let claim = key.clone();
                decisions.now.push(Decision::GiveBack { claim, resource_version: version, pods });
            }
            self.claims.idle.insert(key);
        }
    }

    /// An attempt to give a claim's devices back has ended, one way or the other.
    pub fn gave_back(&mut self, claim: &ClaimKey) {
        self.claims.given_back.remove(claim);
    }

    /// Devices of a claim that nobody else uses than this gang.
    pub(super) fn devices_of_gang(&self, key: &ClaimKey, gang: &GangKey) -> &[DeviceNumber] {
        let own = self.pods.gangs_that_use(key).all(|other| other == *gang);
        if own { self.ledger.devices_of(key) } else { &[] }
    }
}
