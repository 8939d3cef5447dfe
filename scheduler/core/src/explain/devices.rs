//! Of which claimed devices there are too few.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Waiting;
use crate::claims::{Alternative, DeviceNumber};
use crate::gang::Member;
use crate::space::{NodeId, Space};

/// The request with the fewest free devices beyond what it asks for, among those of members that wait.
pub(super) fn short_of(
    space: &Space,
    members: &[Member],
    usable: &BTreeSet<NodeId>,
    fitting: usize,
) -> Option<Waiting> {
    let mut devices: BTreeMap<DeviceNumber, bool> = BTreeMap::new();
    for node in usable {
        devices.extend(space.devices_on(*node));
    }
    let mut fewest: Option<(usize, Waiting)> = None;
    for claim in members.iter().flat_map(|member| &member.claims) {
        for alternative in claim.demand.requests().iter().flat_map(|request| &request.alternatives) {
            let meant = devices.iter().filter(|(device, _)| alternative.devices.contains(**device));
            let matching = meant.clone().count();
            let free = meant.filter(|(_, free)| **free).count();
            if fewest.as_ref().is_none_or(|(least, _)| free < *least) {
                let waiting = Waiting::ForDevices {
                    fitting,
                    needed: members.len(),
                    claim: claim.name.clone(),
                    request: alternative.name.clone(),
                    matching,
                    taken: matching - free,
                };
                fewest = Some((free, waiting));
            }
        }
    }
    fewest.map(|(_, waiting)| waiting)
}

/// Why a node could not give a member its devices even if nothing were taken.
pub(super) fn never_on(space: &Space, node: NodeId, member: &Member) -> Option<String> {
    if member.claims.is_empty() {
        return None;
    }
    let claims: Vec<_> = member.claims.iter().map(|claim| Arc::clone(&claim.demand)).collect();
    let Some(stock) = space.room(node).stock.as_ref().map(|stock| stock.emptied()) else {
        return Some("have no devices that can be claimed".to_owned());
    };
    if stock.times(&claims, 1) > 0 {
        return None;
    }
    let on_node =
        |alternative: &Alternative| stock.devices().any(|(device, _)| alternative.devices.contains(device));
    let lacking = member.claims.iter().find_map(|claim| {
        let none =
            claim.demand.requests().iter().find(|request| !request.alternatives.iter().any(on_node))?;
        Some((none.alternatives.first()?.name.as_str(), claim.name.as_str()))
    });
    Some(match lacking {
        Some((request, claim)) => format!("have no device that request {request} of claim {claim} asks for"),
        None => "have too few devices, or too different ones, for its claims".to_owned(),
    })
}
