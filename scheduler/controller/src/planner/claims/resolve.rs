//! From the claims of a pod to what the ledger plans with: devices that it needs, nodes that it is bound to, or why it
//! cannot be placed.

use muster_scheduler_core::claims::{ClaimDemand, MemberClaim, Reach};
use muster_scheduler_core::node::Requirement;
use muster_scheduler_core::{ClaimKey, Node, PodKey, bundle};

use super::super::pods::{PodView, State};
use super::super::standing::Held;
use super::{Claims, Planner, Unplaceable};
use crate::objects::{ClaimSource, PodClaim, constraints};

/// The most pods that can use one claim.
const MOST_USERS: usize = 256;

/// What a pod's claims come to.
#[derive(Debug, Default)]
struct Resolved {
    claims: Vec<MemberClaim>,
    /// Where the devices are that claims already have.
    bound_to: Vec<Vec<Requirement>>,
    idle: Vec<ClaimKey>,
}

impl Planner {
    /// Works out what a waiting pod's claims ask for.
    pub(super) fn resolve_claims(&mut self, pod: &PodKey) {
        let Some(view) = self.pods.get(pod).filter(|view| view.state == State::Waiting) else { return };
        let (wanted, uid) = (view.claims.clone(), view.member.uid.clone());
        let resolved = self.resolve(pod, &uid, &wanted);
        let Some(view) = self.pods.get_mut(pod) else { return };
        let before =
            (view.member.claims.clone(), view.member.required_affinity.clone(), view.claims_held.clone());
        view.member.required_affinity = view.own_affinity.clone();
        view.member.claims.clear();
        view.claims_held = None;
        match resolved {
            Ok(resolved) => {
                view.member.required_affinity = bundle::both(&view.own_affinity, &resolved.bound_to);
                view.member.claims = resolved.claims;
                if !resolved.idle.is_empty() {
                    let why = "its claims still have devices from an attempt that came to nothing";
                    view.claims_held = Some(Held::Missing(why.to_owned()));
                }
                self.claims.idle.extend(resolved.idle);
            }
            Err(held) => view.claims_held = Some(held),
        }
        let Some(view) = self.pods.get(pod) else { return };
        if before
            != (view.member.claims.clone(), view.member.required_affinity.clone(), view.claims_held.clone())
        {
            self.changed.insert(view.gang.clone());
        }
    }

    /// Whether what a pod's claims have from an earlier attempt is of no use to it. Those who join others of their
    /// gang go where their devices are, unless there is no room for them: nobody else is to take these meanwhile.
    pub(super) fn gives_back(&self, pod: &PodKey) -> bool {
        let Some(gang) = self.pods.get(pod).map(|view| &view.gang) else { return true };
        self.pods.census(gang).with_place() == 0 || self.put_off.contains_key(gang)
    }

    fn resolve(&mut self, pod: &PodKey, uid: &str, wanted: &[PodClaim]) -> Result<Resolved, Held> {
        if let Some(why) = self.claims.unreadable() {
            return Err(Held::Missing(why));
        }
        let mut resolved = Resolved::default();
        for claim in wanted {
            let Some(object) = claim.object() else {
                let ClaimSource::NotYet(template) = &claim.source else { continue };
                return Err(Held::Missing(format!(
                    "its claim {} is to be made from ResourceClaimTemplate {template} and is not there yet",
                    claim.name
                )));
            };
            let key = ClaimKey::new(&pod.namespace, object);
            self.claims.check(&key, claim, uid)?;
            if self.is_idle(&key) && self.gives_back(pod) {
                resolved.idle.push(key);
                continue;
            }
            if let Some(terms) = self.claims.terms(&key) {
                resolved.bound_to = bundle::both(&resolved.bound_to, &terms);
                continue;
            }
            if self.ledger.is_planned(&key) {
                let why = format!("ResourceClaim {object} is getting its devices just now");
                return Err(Held::Missing(why));
            }
            match self.claims.demand(&key) {
                Some(Ok(demand)) => {
                    let anywhere = self.is_anywhere(&demand);
                    resolved.claims.push(MemberClaim { name: object.to_owned(), demand, anywhere });
                }
                Some(Err(missing @ Unplaceable::NoClass(_))) => {
                    return Err(Held::Missing(format!("ResourceClaim {object}: {missing}")));
                }
                Some(Err(problem)) => {
                    return Err(Held::Problem(format!("ResourceClaim {object}: {problem}")));
                }
                None => {}
            }
        }
        Ok(resolved)
    }
}

impl Planner {
    /// Whether all nodes reach all devices that a claim could get.
    fn is_anywhere(&mut self, demand: &ClaimDemand) -> bool {
        let space = self.ledger.space();
        let everywhere =
            |device| space.claimable(device).is_some_and(|device| device.reach == Reach::Everywhere);
        let alternatives = demand.requests().iter().flat_map(|request| &request.alternatives);
        alternatives.flat_map(|alternative| alternative.devices.iter()).all(everywhere)
    }
}

impl Claims {
    /// Whether a pod can use a claim at all.
    fn check(&self, key: &ClaimKey, wanted: &PodClaim, uid: &str) -> Result<(), Held> {
        let name = &key.name;
        let Some(claim) = self.seen.get(key) else {
            return Err(Held::Missing(format!(
                "ResourceClaim {name} does not exist; create it, or name another"
            )));
        };
        if claim.leaving {
            return Err(Held::Missing(format!("ResourceClaim {name} is being deleted")));
        }
        let own = matches!(wanted.source, ClaimSource::Own(_));
        if own && claim.owner.as_deref() != Some(uid) {
            let why =
                format!("ResourceClaim {name} was not made for this pod; delete it, so that another is made");
            return Err(Held::Missing(why));
        }
        if claim.reserved_for.len() >= MOST_USERS && !claim.reserved_for.contains(uid) {
            let why = format!("ResourceClaim {name} is used by {MOST_USERS} pods, and no more can use it");
            return Err(Held::Missing(why));
        }
        Ok(())
    }

    /// The nodes that reach what a claim has; `None` when it has nothing, no terms when that is all of them.
    fn terms(&self, key: &ClaimKey) -> Option<Vec<Vec<Requirement>>> {
        let allocation = self.seen.get(key)?.allocation.as_ref()?;
        Some(allocation.node_selector.as_ref().map(constraints::selected).unwrap_or_default())
    }

    /// Whether a claim can be used on a node as it stands: it has devices that the node reaches, or none.
    pub(in crate::planner) fn suits(&self, key: &ClaimKey, node: &Node) -> bool {
        let terms = self.terms(key).unwrap_or_default();
        terms.is_empty() || Reach::Selected(terms).includes(node)
    }
}

impl PodView {
    /// Why its claims keep it from being planned.
    pub(in crate::planner) fn claims_hold(&self) -> Option<&Held> {
        self.claims_held.as_ref()
    }
}
