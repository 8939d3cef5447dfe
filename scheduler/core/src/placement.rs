//! Where a gang goes: into the smallest domain that holds it whole, and there into the fullest nodes.
//!
//! The domains are a node, a rack, a zone, everything. Within one level the domain with the fewest GPUs
//! left over wins (best fit), so that large gangs find large holes later.

use std::collections::{BTreeMap, BTreeSet};

use muster_scheduler_api::{GPU_RESOURCE, labels};

use crate::explain::{self, Waiting};
use crate::gang::{Gang, Member, PodKey};
use crate::ledger::{Assignment, Free, Ledger, Placement};
use crate::node::Node;

/// From the smallest domain to the largest; `None` is the whole cluster.
const LEVELS: [Option<&str>; 4] = [Some(labels::HOSTNAME), Some(labels::RACK), Some(labels::ZONE), None];

pub(crate) fn place(ledger: &Ledger, gang: &Gang) -> Result<Placement, Waiting> {
    if gang.present() < gang.min_available {
        return Err(Waiting::ForMembers { present: gang.present(), needed: gang.min_available });
    }
    let free = ledger.free();
    let near: BTreeSet<&str> = gang.placed_on.iter().map(String::as_str).collect();
    for level in LEVELS {
        let found = domains(ledger, level)
            .into_iter()
            .filter(|nodes| near.is_empty() || nodes.iter().any(|node| near.contains(node.name.as_str())))
            .filter_map(|nodes| {
                fill(&nodes, &free, gang).map(|placement| (left_over(&nodes, &free, gang), placement))
            })
            .min_by_key(|(left_over, _)| *left_over);
        if let Some((_, placement)) = found {
            return Ok(placement);
        }
    }
    Err(explain::no_room(ledger, &free, gang))
}

/// The nodes of each domain of a level; a node without the label is a domain of its own.
fn domains<'a>(ledger: &'a Ledger, level: Option<&str>) -> Vec<Vec<&'a Node>> {
    let mut domains: BTreeMap<(bool, &str), Vec<&Node>> = BTreeMap::new();
    for node in ledger.nodes() {
        let domain = match level {
            None => (true, ""),
            Some(label) => match node.labels.get(label) {
                Some(value) => (true, value.as_str()),
                None => (false, node.name.as_str()),
            },
        };
        domains.entry(domain).or_default().push(node);
    }
    domains.into_values().collect()
}

/// GPUs (or, without GPUs, thousandths of a CPU) that the domain has left once the gang is in.
fn left_over(nodes: &[&Node], free: &BTreeMap<&str, Free>, gang: &Gang) -> i64 {
    let gpus: u32 = gang.waiting.iter().map(|member| member.gpus).sum();
    let resource = if gpus > 0 { GPU_RESOURCE } else { "cpu" };
    nodes
        .iter()
        .filter_map(|node| free.get(node.name.as_str()))
        .map(|left| left.resources.get(resource))
        .sum()
}

/// Places for all waiting members within `nodes`: the largest members first, each on the fullest node that
/// takes it, so that ranks that follow each other share nodes.
fn fill(nodes: &[&Node], free: &BTreeMap<&str, Free>, gang: &Gang) -> Option<Placement> {
    let mut left: BTreeMap<&str, Free> = nodes
        .iter()
        .filter_map(|node| Some((node.name.as_str(), free.get(node.name.as_str())?.clone())))
        .collect();
    let mut order: Vec<usize> = (0..gang.waiting.len()).collect();
    order.sort_by_key(|index| {
        let member = &gang.waiting[*index];
        let cpu = if member.gpus > 0 { 0 } else { member.requests.get("cpu") };
        // The sort is stable: members of one size keep their rank order, and so do their GPU slots.
        std::cmp::Reverse((member.gpus, cpu))
    });
    let mut assignments: Vec<Option<Assignment>> = vec![None; gang.waiting.len()];
    for index in order {
        let member = &gang.waiting[index];
        let node = nodes
            .iter()
            .filter(|node| node.unfit_for(member).is_none())
            .filter_map(|node| {
                left.get(node.name.as_str()).filter(|left| left.holds(member)).map(|left| (left, node))
            })
            .min_by_key(|(left, node)| fullness(left, member, &node.name))
            .map(|(_, node)| *node)?;
        let room = left.get_mut(node.name.as_str())?;
        let gpu_indices: Vec<u32> = room.gpu_slots.iter().copied().take(member.gpus as usize).collect();
        room.take(&member.requests, &gpu_indices);
        assignments[index] = Some(Assignment {
            uid: member.uid.clone(),
            node: node.name.clone(),
            resources: member.requests.clone(),
            gpu_indices,
        });
    }
    let pairs = gang.waiting.iter().zip(assignments);
    let placed =
        pairs.map(|(member, assignment)| Some((PodKey::new(&gang.namespace, &member.name), assignment?)));
    placed.collect::<Option<Vec<_>>>().map(Placement)
}

/// Smaller is fuller. Pods without GPUs keep away from nodes with free GPUs, then spread by CPU.
fn fullness<'a>(left: &Free, member: &Member, name: &'a str) -> (i64, i64, &'a str) {
    let gpus = left.resources.get(GPU_RESOURCE);
    let cpu = left.resources.get("cpu");
    if member.gpus > 0 { (gpus, cpu, name) } else { (gpus, -cpu, name) }
}
