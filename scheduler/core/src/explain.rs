//! Why a gang waits, in one sentence, and what would let it start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::gang::{Gang, Member};
use crate::ledger::{Free, Ledger};
use crate::node::Unfit;
use crate::resources::amount_text;

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

/// Says why `gang` has no room, given what is free.
pub(crate) fn no_room(ledger: &Ledger, free: &BTreeMap<&str, Free>, gang: &Gang) -> Waiting {
    if let Some(impossible) = gang.waiting.iter().find_map(|member| impossible(ledger, member)) {
        return impossible;
    }
    let mut left = free.clone();
    let mut fitting = 0;
    let mut short: BTreeMap<String, usize> = BTreeMap::new();
    for member in &gang.waiting {
        let usable = ledger.nodes().filter(|node| node.unfit_for(member).is_none());
        let mut lacking = BTreeSet::new();
        let mut placed = false;
        for node in usable {
            let Some(room) = left.get_mut(node.name.as_str()) else { continue };
            if room.holds(member) {
                let slots: Vec<u32> = room.gpu_slots.iter().copied().take(member.gpus as usize).collect();
                room.take(&member.requests, &slots);
                placed = true;
                break;
            }
            lacking.insert(
                member
                    .requests
                    .lacking(&room.resources)
                    .unwrap_or(muster_scheduler_api::GPU_RESOURCE)
                    .to_owned(),
            );
        }
        fitting += usize::from(placed);
        if !placed {
            for resource in lacking {
                *short.entry(resource).or_default() += 1;
            }
        }
    }
    let resource =
        short.into_iter().max_by_key(|(_, count)| *count).map_or_else(|| "room".to_owned(), |(name, _)| name);
    let wanted = gang.waiting.iter().map(|member| member.requests.get(&resource)).sum();
    let usable =
        ledger.nodes().filter(|node| gang.waiting.iter().any(|member| node.unfit_for(member).is_none()));
    let free = usable
        .filter_map(|node| free.get(node.name.as_str()))
        .map(|left| left.resources.get(&resource))
        .sum();
    Waiting::ForRoom { fitting, needed: gang.waiting.len(), resource, wanted, free }
}

/// Whether no node could take the pod even if it were empty, and why.
fn impossible(ledger: &Ledger, member: &Member) -> Option<Waiting> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for node in ledger.nodes() {
        let reason = match node.unfit_for(member) {
            Some(Unfit::Unschedulable) => "not ready or cordoned".to_owned(),
            Some(Unfit::Selector) => "do not match its node selector or affinity".to_owned(),
            Some(Unfit::Taint(key)) => format!("have the taint {key} that it does not tolerate"),
            None => match member.requests.lacking(&node.allocatable) {
                None => return None,
                Some(resource) => {
                    let most = ledger.nodes().map(|node| node.allocatable.get(resource)).max().unwrap_or(0);
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
        let total = ledger.nodes().count();
        reasons
            .iter()
            .map(|(reason, count)| format!("{count} of {total} nodes {reason}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Some(Waiting::Impossible { pod: member.name.clone(), reason })
}
