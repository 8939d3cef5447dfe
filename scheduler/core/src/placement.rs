//! From a gang to a demand on the space, and from found slots to the places of its pods.

use std::sync::Arc;

use crate::bundle;
use crate::claims::GrantedDevice;
use crate::devices::GpuDemand;
use crate::explain::{self, Waiting};
use crate::gang::{Closeness, Gang, Member, PodKey};
use crate::ledger::{Assignment, ClaimGrant, Placement, PlannedDevice};
use crate::map::Map;
use crate::node::Node;
use crate::ranks;
use crate::search::{Demand, Group, Levels, Slot, Slots};
use crate::shape::Shape;
use crate::space::Space;

/// A gang's demand, and whose each pod of it is: indices into [`Gang::waiting`], group by group.
#[derive(Debug, Clone, Default)]
pub struct GangDemand {
    /// What it asks of the space.
    pub demand: Demand,
    /// Members by group, in rank order, those that share a claim as one; nobody's for spare places.
    pub members: Vec<Vec<Vec<usize>>>,
}

impl GangDemand {
    /// The demand of the gang's first `count` waiting members; a gang that starts whole has its spares, too.
    ///
    /// # Errors
    /// When the gang names a level that the topology does not have.
    pub fn new(space: &mut Space, gang: &Gang, count: usize) -> Result<Self, Waiting> {
        let mut groups: Vec<Group> = Vec::new();
        let mut members: Vec<Vec<Vec<usize>>> = Vec::new();
        let mut last: Option<(&Member, usize)> = None;
        for bundle in bundle::bundles(&gang.waiting[..count.min(gang.waiting.len())]) {
            let group = match (bundle.as_slice(), last) {
                ([alone], Some((like, group))) if asks_alike(like, &gang.waiting[*alone]) => group,
                ([alone], _) => group_of(&mut groups, &mut members, space.shape(&gang.waiting[*alone])),
                (several, _) => {
                    let several: Vec<&Member> = several.iter().map(|index| &gang.waiting[*index]).collect();
                    group_of(&mut groups, &mut members, space.shape(&bundle::together(&several)))
                }
            };
            last = match bundle.as_slice() {
                [alone] => Some((&gang.waiting[*alone], group)),
                _ => None,
            };
            groups[group].count += 1;
            members[group].push(bundle);
        }
        let spares = if count >= gang.waiting.len() && gang.placed_on.is_empty() { gang.spares } else { 0 };
        if let Some(largest) = gang.largest().filter(|_| spares > 0) {
            let bare = Member { claims: Vec::new(), ..largest.clone() };
            groups.push(Group { shape: space.shape(&bare), count: spares });
            members.push(Vec::new());
        }
        let shape = gang.groups_of(count)?;
        let near = gang.placed_on.iter().filter_map(|name| space.id(name)).collect();
        let levels = if gang.closeness == Closeness::default() {
            Levels::default()
        } else {
            levels(&space.map(), &gang.closeness)?
        };
        Ok(Self {
            demand: Demand { groups, near, levels, spares: spares > 0, all_reduce: gang.all_reduce, shape },
            members,
        })
    }

    /// The places of the gang's members, and after them the spare places under names of their own.
    pub fn placement(&self, space: &Space, gang: &Gang, slots: &Slots) -> Placement {
        let mut next: Vec<std::slice::Iter<'_, Vec<usize>>> =
            self.members.iter().map(|members| members.iter()).collect();
        let order = self.order(space, slots);
        let spares = if self.demand.spares { self.demand.groups.len() - 1 } else { usize::MAX };
        let mut places: Vec<Option<Assignment>> = vec![None; gang.waiting.len()];
        let mut held = Vec::new();
        for slot in order.iter().map(|index| &slots.0[*index]) {
            let Some(node) = space.node(slot.node) else { continue };
            if slot.group == spares {
                let key = PodKey::spare(&gang.namespace, &gang.name, held.len());
                let mut gpus = slot.devices.as_slice();
                held.extend(
                    gang.largest().map(|largest| (key, assignment(largest, String::new(), node, &mut gpus))),
                );
            } else if let Some(bundle) = next[slot.group].next() {
                let mut gpus = slot.devices.as_slice();
                let mut claims = claims(space, bundle, gang, slot);
                for index in bundle {
                    let asked = &gang.waiting[*index];
                    let mut place = assignment(asked, asked.uid.clone(), node, &mut gpus);
                    // A claim that several share is carried by the first of them.
                    place.claims = std::mem::take(&mut claims);
                    places[*index] = Some(place);
                }
            }
        }
        let named = gang.waiting.iter().zip(places);
        let members =
            named.filter_map(|(member, place)| Some((PodKey::new(&gang.namespace, &member.name), place?)));
        Placement(members.chain(held).collect())
    }
}

impl GangDemand {
    /// Indices of the slots in the order in which members take them.
    fn order(&self, space: &Space, slots: &Slots) -> Vec<usize> {
        let demand = &self.demand;
        let Some(map) = space.known_map().filter(|_| demand.shape.is_some()) else {
            return (0..slots.0.len()).collect();
        };
        let mut order = ranks::in_order(map, demand, slots);
        // Ranks go through all groups of pods in the order of members.
        let mut wanted: Vec<(usize, usize)> = Vec::with_capacity(order.len());
        for (group, members) in self.members.iter().enumerate().filter(|(group, _)| demand.is_ranked(*group))
        {
            wanted.extend(members.iter().filter_map(|bundle| Some((*bundle.first()?, group))));
        }
        wanted.sort_unstable();
        let wanted: Vec<usize> = wanted.into_iter().map(|(_, group)| group).collect();
        let kind_of = |index: usize| slots.0[index].group;
        ranks::seat(&mut order, kind_of, &wanted, demand.groups_of_pods().as_ref());
        order.extend((0..slots.0.len()).filter(|index| !demand.is_ranked(slots.0[*index].group)));
        order
    }
}

/// What the claims of members on one slot get, each claim once.
fn claims(space: &Space, bundle: &[usize], gang: &Gang, slot: &Slot) -> Vec<ClaimGrant> {
    let Some(granted) = &slot.granted else { return Vec::new() };
    let mut names: Vec<&str> = Vec::new();
    for claim in bundle.iter().flat_map(|index| &gang.waiting[*index].claims) {
        if !names.contains(&claim.name.as_str()) {
            names.push(&claim.name);
        }
    }
    let planned = |granted: &GrantedDevice| {
        Some(PlannedDevice { granted: granted.clone(), id: Arc::clone(space.device_id(granted.device)?) })
    };
    let grants = names.into_iter().zip(&granted.claims);
    grants
        .map(|(claim, devices)| ClaimGrant {
            claim: claim.to_owned(),
            devices: devices.iter().filter_map(planned).collect(),
        })
        .collect()
}

/// The place of one pod, with the first of the GPUs that are left for it and those placed with it.
fn assignment(asked: &Member, uid: String, node: &Node, gpus: &mut &[u8]) -> Assignment {
    let chosen = match asked.gpu_demand() {
        GpuDemand::None => &[],
        GpuDemand::Whole(count) => {
            let (chosen, left) = gpus.split_at(gpus.len().min(count as usize));
            *gpus = left;
            chosen
        }
        // Those who are placed together share one.
        GpuDemand::Share(_) => &gpus[..gpus.len().min(1)],
    };
    Assignment {
        uid,
        node: node.name.clone(),
        resources: asked.requests.clone(),
        gpu_indices: chosen.iter().map(|gpu| u32::from(*gpu)).collect(),
        gpu_share: if asked.gpus == 0 { asked.gpu_share } else { 0 },
        claims: Vec::new(),
    }
}

fn asks_alike(left: &Member, right: &Member) -> bool {
    left.requests == right.requests
        && left.gpu_demand() == right.gpu_demand()
        && left.node_selector == right.node_selector
        && left.required_affinity == right.required_affinity
        && left.tolerations == right.tolerations
        && left.claims.len() == right.claims.len()
        && left.claims.iter().zip(&right.claims).all(|(left, right)| Arc::ptr_eq(&left.demand, &right.demand))
}

fn group_of(groups: &mut Vec<Group>, members: &mut Vec<Vec<Vec<usize>>>, shape: Arc<Shape>) -> usize {
    let known = groups.iter().position(|group| Arc::ptr_eq(&group.shape, &shape));
    known.unwrap_or_else(|| {
        groups.push(Group { shape, count: 0 });
        members.push(Vec::new());
        groups.len() - 1
    })
}

fn levels(map: &Map, closeness: &Closeness) -> Result<Levels, Waiting> {
    let find = |level: &String| {
        map.level_named(level).ok_or_else(|| Waiting::UnknownLevel {
            level: level.clone(),
            known: map.level_names().join(", "),
        })
    };
    // The search goes from the nearest level outwards, so preferred levels are honoured where there is room;
    // a name that does not exist is an error all the same.
    for preferred in &closeness.preferred {
        find(preferred)?;
    }
    let slice = match &closeness.slice {
        Some(slice) => Some((slice.size, find(&slice.level)?)),
        None => None,
    };
    Ok(Levels {
        required: closeness.required.as_ref().map(find).transpose()?.unwrap_or(0),
        spread: closeness.spread.as_ref().map(find).transpose()?,
        slice,
    })
}

pub(crate) fn place(space: &mut Space, gang: &Gang) -> Result<Placement, Waiting> {
    if gang.present() < gang.min_available {
        return Err(Waiting::ForMembers { present: gang.present(), needed: gang.min_available });
    }
    let all = gang.waiting.len();
    // As many as fit, but no fewer than it needs, and in groups no other number than makes whole copies.
    let least = gang.min_available.saturating_sub(gang.placed_on.len()).max(1);
    let sizes: Vec<usize> = (least..all).filter(|size| gang.groups_of(*size).is_ok()).collect();
    match place_first(space, gang, all) {
        Ok(Some(placement)) => return Ok(placement),
        Err(Waiting::Shape { .. }) if !sizes.is_empty() => {}
        Ok(None) => {}
        Err(reason) => return Err(reason),
    }
    let (mut fits, mut fails, mut best) = (0, sizes.len(), None);
    while fits < fails {
        let middle = if best.is_none() { 0 } else { usize::midpoint(fits, fails) };
        match place_first(space, gang, sizes[middle])? {
            Some(placement) => (fits, best) = (middle + 1, Some(placement)),
            None if best.is_none() => break,
            None => fails = middle,
        }
    }
    best.ok_or_else(|| explain::no_room(space, gang))
}

fn place_first(space: &mut Space, gang: &Gang, count: usize) -> Result<Option<Placement>, Waiting> {
    let gang_demand = GangDemand::new(space, gang, count)?;
    let found = space.find(&gang_demand.demand);
    Ok(found.map(|slots| gang_demand.placement(space, gang, &slots)))
}
