//! Kueue's topology-aware scheduling, from its documentation and KEP-2724.

use std::cmp::Reverse;

use muster_scheduler_core::{Demand, Domain, Map, NodeId, Slot, Slots, Space};

use crate::scheduler::placers::{Placer, eligible};

/// The default profile: the first level, from the racks upwards (the required level downwards is never left), with a
/// domain that holds the whole pod set, and of these domains the one with the least room (BestFit). Without any, the
/// roomiest domains are taken until the rest fits into one, for which the tightest is taken. The same below, level by
/// level. Pods are numbered along the chosen domains.
#[derive(Debug, Clone, Copy)]
pub struct KueueTopology;

impl Placer for KueueTopology {
    fn place(&mut self, space: &mut Space, demand: &Demand) -> Option<Slots> {
        let map = space.map();
        let mut slots = Slots::default();
        let mut complete = true;
        for (index, group) in demand.groups.iter().enumerate() {
            let mut fits = vec![0; map.domains()];
            for node in eligible(space, &group.shape) {
                if let Some(position) = map.position(node) {
                    fits[map.host(position)] = group.shape.times_in(space.room(node));
                }
            }
            for domain in (1..map.domains()).rev() {
                if let Some(parent) = map.parent(domain) {
                    fits[parent] += fits[domain];
                }
            }
            let Some(places) = assign(&map, &fits, demand.levels.required, group.count) else {
                complete = false;
                break;
            };
            for (node, pods) in places {
                for _ in 0..pods {
                    let Some(devices) = space.choose_devices(node, &group.shape) else {
                        complete = false;
                        break;
                    };
                    space.take(node, &group.shape, &devices);
                    slots.0.push(Slot { group: index, node, devices, granted: None });
                }
            }
        }
        space.give_back_slots(demand, &slots);
        complete.then_some(slots)
    }
}

/// Nodes and how many pods go to each.
fn assign(map: &Map, fits: &[u32], required: usize, count: u32) -> Option<Vec<(NodeId, u32)>> {
    let preferred = map.hosts_level().saturating_sub(1).max(required);
    let holding = |level: usize| map.level(level).filter(|domain| fits[*domain] >= count);
    let (mut level, mut chosen) = (required..=preferred).rev().find_map(|level| {
        let best = holding(level).min_by_key(|domain| (fits[*domain], *domain))?;
        Some((level, vec![(best, count)]))
    })?;
    while level < map.hosts_level() {
        level += 1;
        let below: Vec<Domain> = chosen.iter().flat_map(|(domain, _)| map.children(*domain)).collect();
        chosen = fewest(&below, fits, count)?;
    }
    Some(chosen.into_iter().map(|(host, pods)| (map.host_node(host), pods)).collect())
}

/// As few domains as hold `count` pods: the roomiest first, for the rest the tightest that holds it.
fn fewest(domains: &[Domain], fits: &[u32], count: u32) -> Option<Vec<(Domain, u32)>> {
    let mut sorted: Vec<Domain> = domains.iter().copied().filter(|domain| fits[*domain] > 0).collect();
    sorted.sort_by_key(|domain| (Reverse(fits[*domain]), *domain));
    let mut chosen = Vec::new();
    let mut left = count;
    for (index, domain) in sorted.iter().enumerate() {
        if fits[*domain] >= left {
            let rest = sorted[index..].iter().copied().filter(|domain| fits[*domain] >= left);
            let tightest = rest.min_by_key(|domain| (fits[*domain], *domain))?;
            chosen.push((tightest, left));
            chosen.sort_unstable();
            return Some(chosen);
        }
        chosen.push((*domain, fits[*domain]));
        left -= fits[*domain];
    }
    None
}
