//! How near the pods of a gang are to each other, and how near they could be.

use std::collections::BTreeSet;

use crate::cost;
use crate::map::{Domain, Map};
use crate::search::{Demand, Scope, Slots};
use crate::space::Space;

/// How near places are to each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearness {
    /// Domains entered of the highest level that divides the cluster; none where only hosts do.
    pub domains: usize,
    /// Predicted seconds of a step, with nobody else on the links.
    pub step: f64,
    /// GPUs of the largest node among them.
    pub node_gpus: u32,
}

/// How near a gang's pods would be to each other, were they placed on a space where more is free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// The fewest domains, as in [`Nearness::domains`], on nodes with no more GPUs than those that it has now.
    pub domains: usize,
    /// The shortest step, in seconds, on any nodes.
    pub step: f64,
    /// The part of the roomiest domain that the gang takes.
    pub part: f64,
}

impl Space {
    /// How near these places of a demand are.
    pub fn nearness(&mut self, demand: &Demand, slots: &Slots) -> Nearness {
        let map = self.map();
        let positions = || slots.0.iter().filter_map(|slot| map.position(slot.node));
        let domains: BTreeSet<Domain> = dividing_level(&map)
            .map_or_else(BTreeSet::new, |level| positions().map(|at| at_level(&map, at, level)).collect());
        let gpus = slots.0.iter().filter_map(|slot| self.node(slot.node)).map(|node| node.gpu_slots);
        Nearness {
            domains: domains.len(),
            step: cost::usual_step(map.costs().seconds(&map, None, demand, slots)),
            node_gpus: gpus.max().unwrap_or(0),
        }
    }

    /// How near the pods of a demand could be, were all that is free in this space theirs; `None` when they do not fit.
    /// `node_gpus` is that of the places to compare with.
    pub fn nearest(&mut self, demand: &Demand, node_gpus: u32) -> Option<Nearest> {
        let map = self.map();
        let anywhere = self.find_on(demand, u32::MAX)?;
        let on_such = self.find_on(demand, node_gpus);
        let domains = self.nearness(demand, on_such.as_ref().unwrap_or(&anywhere)).domains;
        let step = self.nearness(demand, &anywhere).step;
        let part = dividing_level(&map).map_or(1.0, |level| self.part_of_roomiest(&map, demand, level));
        Some(Nearest { domains, step, part })
    }

    fn find_on(&mut self, demand: &Demand, most_gpus: u32) -> Option<Slots> {
        let map = self.map();
        let scope =
            Scope { demand, map: &map, near: &[], most_gpus, together: None, quiet: false, rank: &|_| 0 };
        self.find_nearest(&scope)
    }

    fn part_of_roomiest(&mut self, map: &Map, demand: &Demand, level: usize) -> f64 {
        let parts = demand.groups.iter().map(|group| {
            let counts = self.counts(&group.shape, u32::MAX);
            let most = map.level(level).map(|domain| counts.of(domain)).max().unwrap_or(0);
            f64::from(group.count) / f64::from(most.max(1))
        });
        parts.sum()
    }
}

/// The highest level above the hosts of which the cluster has several domains.
fn dividing_level(map: &Map) -> Option<usize> {
    (1..map.hosts_level()).find(|level| map.level(*level).len() > 1)
}

fn at_level(map: &Map, position: usize, level: usize) -> Domain {
    let mut domain = map.host(position);
    while map.level_of(domain) > level
        && let Some(parent) = map.parent(domain)
    {
        domain = parent;
    }
    domain
}
