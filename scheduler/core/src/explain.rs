//! Why a gang waits, in one sentence, and what would let it start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod devices;

use muster_scheduler_topology::GroupShape;

use crate::resources::GPU_RESOURCE;

use crate::devices::GpuDemand;
use crate::gang::{Gang, Member};
use crate::node::{Selection, Unfit};
use crate::placement::GangDemand;
use crate::resources::amount_text;
use crate::search::{Demand, Group, Slot, Slots};
use crate::shape::Shape;
use crate::space::{NodeId, Space};

/// What devices of claims are called among resources.
const DEVICES: &str = "claimed devices";

/// Why a gang cannot start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Not all of its pods exist yet.
    ForMembers {
        /// Pods that exist.
        present: usize,
        /// Pods that must exist.
        needed: usize,
    },
    /// No node could ever take one of its pods.
    Impossible {
        /// The pod.
        pod: String,
        /// Why, by node count.
        reason: String,
    },
    /// It names a level of the topology that does not exist.
    UnknownLevel {
        /// The level.
        level: String,
        /// Those that exist.
        known: String,
    },
    /// Its groups of ranks are for another number of them.
    Shape {
        /// The groups.
        shape: GroupShape,
        /// Its pods.
        pods: usize,
        /// Their GPUs, where they have whole ones.
        gpus: Option<u64>,
    },
    /// Its pods fit now, but not the spare places beside them.
    ForSpares {
        /// Spare places that it wants.
        spares: u32,
    },
    /// Too few of the devices that a claim asks for are free now.
    ForDevices {
        /// Pods that would fit now.
        fitting: usize,
        /// Pods that must fit.
        needed: usize,
        /// The claim.
        claim: String,
        /// The claim's request, and below `/` the alternative.
        request: String,
        /// Devices, on nodes that the pods may use, that are what it asks for.
        matching: usize,
        /// Those of them that others have.
        taken: usize,
    },
    /// Too little is free now.
    ForRoom {
        /// Pods that would fit now.
        fitting: usize,
        /// Pods that must fit.
        needed: usize,
        /// The resource that runs out first.
        resource: String,
        /// How much of it the gang needs, in thousandths.
        wanted: i64,
        /// How much of it is free on nodes it may use, in thousandths.
        free: i64,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForMembers { present, needed } => {
                write!(
                    formatter,
                    "{present} of the {needed} pods that must start together exist; it starts when the others are created"
                )
            }
            Self::Impossible { pod, reason } => write!(
                formatter,
                "no node can ever take pod {pod}: {reason}; it starts when such a node joins or the pod asks for less"
            ),
            Self::UnknownLevel { level, known } => write!(
                formatter,
                "no node has the topology level {level}; it starts when nodes are labelled so or the gang names one of: {known}"
            ),
            Self::Shape { shape, pods, gpus } => {
                let ranks = shape.ranks();
                write!(formatter, "its group shape {shape} is {ranks} ranks, but its {pods} pods ")?;
                match gpus {
                    Some(gpus) => write!(formatter, "have {gpus} GPUs, of which each is one")?,
                    None => write!(formatter, "have no GPUs, so that each pod is one")?,
                }
                write!(formatter, "; it starts when the shape or the pods are changed")
            }
            Self::ForSpares { spares } => write!(
                formatter,
                "its pods fit now, but not {spares} spare places beside them on other nodes; it starts when there is room or it asks for fewer"
            ),
            Self::ForDevices { fitting, needed, claim, request, matching, taken } => write!(
                formatter,
                "{fitting} of {needed} pods fit now: {matching} devices are what request {request} of claim {claim} \
                 asks for, and {taken} of them are taken; it starts when enough of them are free on one node for each pod"
            ),
            Self::ForRoom { fitting, needed, resource, wanted, free } => {
                let (wanted_text, free_text) = (amount_text(resource, *wanted), amount_text(resource, *free));
                write!(
                    formatter,
                    "{fitting} of {needed} pods fit now: they need {resource} {wanted_text} together and {free_text} is free"
                )?;
                if wanted > free {
                    write!(
                        formatter,
                        "; it starts when {} more {resource} is released",
                        amount_text(resource, wanted - free)
                    )
                } else {
                    write!(
                        formatter,
                        ", but in pieces too small; it starts when one node has more {resource} free"
                    )
                }
            }
        }
    }
}

/// Says why `gang` has no room.
pub(crate) fn no_room(space: &mut Space, gang: &Gang) -> Waiting {
    if let Some(impossible) = gang.waiting.iter().find_map(|member| impossible(space, member)) {
        return impossible;
    }
    // Room is wanted for all of them, in whatever groups.
    let bare = Gang { spares: 0, shape: None, ..gang.clone() };
    let demand = match GangDemand::new(space, &bare, gang.waiting.len()) {
        Ok(demand) => demand.demand,
        Err(reason) => return reason,
    };
    if gang.spares > 0 && space.find(&demand).is_some() {
        return Waiting::ForSpares { spares: gang.spares };
    }
    let mut fitting = 0;
    let mut short: BTreeMap<String, u32> = BTreeMap::new();
    let mut taken = Slots::default();
    let mut usable: BTreeSet<NodeId> = BTreeSet::new();
    for (index, group) in demand.groups.iter().enumerate() {
        let fits = space.fits(&group.shape).min(group.count);
        fitting += fits;
        take_anywhere(space, &demand, index, fits, &mut taken);
        let missing = group.count - fits;
        for resource in scan(space, &group.shape, &mut usable) {
            if missing > 0 {
                *short.entry(resource).or_default() += missing;
            }
        }
    }
    space.give_back_slots(&demand, &taken);
    if short.iter().max_by_key(|(_, count)| **count).is_some_and(|(resource, _)| resource == DEVICES)
        && let Some(waiting) = devices::short_of(space, &gang.waiting, &usable, fitting as usize)
    {
        return waiting;
    }
    let resource =
        short.into_iter().max_by_key(|(_, count)| *count).map_or_else(|| "room".to_owned(), |(name, _)| name);
    let wanted = gang.waiting.iter().map(|member| wanted(member, &resource)).sum();
    let free = usable.into_iter().map(|id| left(space, id, &resource)).sum();
    Waiting::ForRoom { fitting: fitting as usize, needed: gang.waiting.len(), resource, wanted, free }
}

/// Takes room for `count` pods of one group wherever it is, so that the next group sees what is left.
fn take_anywhere(space: &mut Space, demand: &Demand, group: usize, count: u32, taken: &mut Slots) {
    let shape = &demand.groups[group].shape;
    let alone = Demand { groups: vec![Group { shape: shape.clone(), count }], ..Demand::default() };
    if let Some(slots) = space.find(&alone) {
        space.take_slots(&alone, &slots);
        taken.0.extend(slots.0.into_iter().map(|slot| Slot { group, ..slot }));
    }
}

/// Notes the nodes that may take the shape, and says of which resources those that do not take it now have
/// too little.
fn scan(space: &Space, shape: &Shape, usable: &mut BTreeSet<NodeId>) -> BTreeSet<String> {
    let mut lacks: BTreeSet<&str> = BTreeSet::new();
    for (id, node) in space.nodes() {
        if node.unfit_for(shape.selection()).is_some() {
            continue;
        }
        usable.insert(id);
        if shape.times_in(space.room(id)) == 0 {
            lacks.insert(lacking(space, id, shape));
        }
    }
    lacks.into_iter().map(str::to_owned).collect()
}

/// How much of a resource a member asks for, in thousandths.
fn wanted(member: &Member, resource: &str) -> i64 {
    match (resource, member.gpu_demand()) {
        (GPU_RESOURCE, GpuDemand::Share(share)) => i64::from(share),
        _ => member.requests.get(resource),
    }
}

/// How much of a resource a node has left, in thousandths.
fn left(space: &Space, node: NodeId, resource: &str) -> i64 {
    if resource == GPU_RESOURCE {
        return i64::from(space.room(node).devices.thousandths());
    }
    space.dimensions().place(resource).map_or(0, |place| space.room(node).amounts.get(place))
}

/// The resource of which a node has too little for the shape.
fn lacking<'a>(space: &'a Space, id: NodeId, shape: &Shape) -> &'a str {
    let room = space.room(id);
    let place = shape.amounts.lacking(&room.amounts);
    let other = if room.devices.times(shape.gpu) > 0 { DEVICES } else { GPU_RESOURCE };
    place.and_then(|place| space.dimensions().name(place)).unwrap_or(other)
}

/// Whether no node could take the pod even if it were empty, and why.
fn impossible(space: &Space, member: &Member) -> Option<Waiting> {
    let selection = Selection {
        node_selector: &member.node_selector,
        required_affinity: &member.required_affinity,
        tolerations: &member.tolerations,
    };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for (id, node) in space.nodes() {
        let reason = match node.unfit_for(selection) {
            Some(Unfit::Unschedulable) => "not ready or cordoned".to_owned(),
            Some(Unfit::Selector) => "do not match its node selector or affinity".to_owned(),
            Some(Unfit::Taint(key)) => format!("have the taint {key} that it does not tolerate"),
            None => match member.requests.lacking(&node.allocatable) {
                None => devices::never_on(space, id, member)?,
                Some(resource) => {
                    let most =
                        space.nodes().map(|(_, node)| node.allocatable.get(resource)).max().unwrap_or(0);
                    format!(
                        "have too little {resource} (it asks for {}, the largest has {})",
                        amount_text(resource, member.requests.get(resource)),
                        amount_text(resource, most)
                    )
                }
            },
        };
        *reasons.entry(reason).or_default() += 1;
    }
    let reason = if reasons.is_empty() {
        "the cluster has no nodes".to_owned()
    } else {
        let total = space.node_count();
        reasons
            .iter()
            .map(|(reason, count)| format!("{count} of {total} nodes {reason}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Some(Waiting::Impossible { pod: member.name.clone(), reason })
}
