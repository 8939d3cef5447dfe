//! Finds room for a whole gang: as near together as possible, and as tightly as possible among equals.
//!
//! Domains are tried from the smallest level upwards. Within the first level that has room, candidates are
//! filled and compared: fewest domains entered (a ring enters and leaves each once), then the least room left
//! over, so that large holes stay for large gangs (best fit). Where nodes differ in size, this is done for all nodes and
//! for the smaller ones alone, and what costs least is taken (see [`cost`](crate::cost)). The same is done with the groups
//! of a gang kept together on each level, and with uplinks avoided that running gangs are busy on ([`weigh`]).

mod fill;
mod nearness;
mod spread;
mod weigh;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use muster_scheduler_topology::GroupShape;

use crate::claims::Grant;
use crate::cost::{self, Cost};
use crate::counts::Counts;
use crate::devices::DeviceIndices;
use crate::map::{Domain, Map};
use crate::shape::Shape;
use crate::space::{NodeId, Space};

pub use nearness::{Nearest, Nearness};

/// Candidates of one level that are filled and compared: the tightest, and the roomiest.
const TIGHTEST: usize = 8;
const ROOMIEST: usize = 4;
/// Costs that differ by less than one of so many parts of a GPU are equal.
const FINE: f64 = 100.0;

/// Pods of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Their shape.
    pub shape: Arc<Shape>,
    /// How many.
    pub count: u32,
}

/// Which levels of the map bind a gang, root 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// All within one domain of this level.
    pub required: usize,
    /// Evenly over the domains of this level.
    pub spread: Option<usize>,
    /// So many consecutive pods of a group within one domain of this level.
    pub slice: Option<(u32, usize)>,
}

/// What a gang asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// Its pods by shape.
    pub groups: Vec<Group>,
    /// Nodes of members that have a place already: the others go near them.
    pub near: Vec<NodeId>,
    /// The levels that bind it.
    pub levels: Levels,
    /// Whether the last group are spare places: in the domain of the others, on nodes that these do not use.
    pub spares: bool,
    /// Bytes that its pods sum up in each step, where that is known.
    pub all_reduce: Option<u64>,
    /// How its ranks are grouped, as many as they are.
    pub shape: Option<GroupShape>,
}

impl Demand {
    /// The groups of pods.
    pub(crate) fn pods(&self) -> &[Group] {
        &self.groups[..self.groups.len() - usize::from(self.spares)]
    }
}

/// A place for one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Index of its group in [`Demand::groups`].
    pub group: usize,
    /// The node.
    pub node: NodeId,
    /// Its GPUs there.
    pub devices: DeviceIndices,
    /// What its claims get there, where it brings any.
    pub granted: Option<Arc<Grant>>,
}

/// Places for all pods of a demand, group by group; within a group in the order of the map, so that pods that
/// follow each other are near each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots(pub Vec<Slot>);

/// Where a demand is to find room.
#[derive(Clone, Copy)]
struct Scope<'a> {
    demand: &'a Demand,
    map: &'a Map,
    /// Positions that its domain must have one of, where there are any.
    near: &'a [usize],
    /// Only on nodes with so many GPUs at most.
    most_gpus: u32,
    /// So many pods that are ranks are kept together within a domain of a level: whole groups.
    together: Option<(u32, usize)>,
    /// Whether to avoid uplinks that running gangs are busy on.
    quiet: bool,
    /// Of hosts that are as good, one of the least rank.
    rank: &'a dyn Fn(NodeId) -> u32,
}

impl Space {
    /// Finds room for all pods of a demand, or for none. What is free stays as it is.
    pub fn find(&mut self, demand: &Demand) -> Option<Slots> {
        self.find_ranked(demand, &|_| 0)
    }

    /// The same, where pods of one shape that fit on one node go, of nodes that are as good for them, to one of the
    /// least rank, and only then where it is tight.
    pub fn find_ranked(&mut self, demand: &Demand, rank: &dyn Fn(NodeId) -> u32) -> Option<Slots> {
        if demand.groups.iter().all(|group| group.count == 0) {
            return Some(Slots::default());
        }
        if self.node_count() == 0 {
            return None;
        }
        let map = self.map();
        let near: Vec<usize> = demand.near.iter().filter_map(|node| map.position(*node)).collect();
        let anywhere =
            Scope { demand, map: &map, near: &near, most_gpus: u32::MAX, together: None, quiet: false, rank };
        let nearest = self.find_nearest(&anywhere);
        if let Some(nearest) = nearest {
            return Some(if near.is_empty() { self.find_cheaper(&anywhere, nearest) } else { nearest });
        }
        // A bound level holds for those who have a place, too: there is no other domain to look in.
        if near.is_empty() || demand.levels.required > 0 {
            None
        } else {
            self.find_ranked(&Demand { near: Vec::new(), ..demand.clone() }, rank)
        }
    }

    /// Room in the smallest domain that has it.
    fn find_nearest(&mut self, scope: &Scope<'_>) -> Option<Slots> {
        let Levels { required, spread, .. } = scope.demand.levels;
        let lowest = if spread.is_some() { required } else { scope.map.hosts_level() };
        (required..=lowest).rev().find_map(|level| self.find_in_level(scope, level))
    }

    fn find_in_level(&mut self, scope: &Scope<'_>, level: usize) -> Option<Slots> {
        let Scope { demand, map, near, most_gpus, .. } = *scope;
        let counts: Vec<Arc<Counts>> =
            demand.groups.iter().map(|group| self.counts(&group.shape, most_gpus)).collect();
        let holds = |domain: &Domain| {
            demand.groups.iter().zip(&counts).all(|(group, counts)| counts.of(*domain) >= group.count)
                && (near.is_empty() || near.iter().any(|position| map.positions(*domain).contains(position)))
        };
        let domains = map.level(level).filter(holds);
        if level == map.hosts_level() && demand.spares {
            return None;
        }
        if level == map.hosts_level() && demand.groups.len() == 1 {
            let host = self.best_host(scope, &counts[0], domains)?;
            let places = vec![(map.positions(host).start, demand.groups[0].count)];
            return self.settle(demand, map, vec![places]);
        }
        let mut candidates: Vec<(u32, Domain)> = domains
            .map(|domain| (counts.iter().map(|counts| counts.of(domain)).min().unwrap_or(0), domain))
            .collect();
        candidates.sort_unstable();
        if candidates.len() > TIGHTEST + ROOMIEST {
            candidates.drain(TIGHTEST..candidates.len() - ROOMIEST);
        }
        let tried = candidates.into_iter().filter_map(|(room, domain)| {
            let slots = self.fill_domain(scope, domain)?;
            let slow = if scope.quiet { self.slowness(scope, &slots) } else { 0 };
            Some(((fill::crossings(map, level, &slots), slow, room, domain), slots))
        });
        tried.min_by(|left, right| left.0.cmp(&right.0)).map(|best| best.1)
    }

    /// The cheapest of hosts that have room; among equals the tightest.
    fn best_host(
        &self,
        scope: &Scope<'_>,
        counts: &Counts,
        hosts: impl Iterator<Item = Domain>,
    ) -> Option<Domain> {
        let Scope { demand, map, rank, .. } = *scope;
        let group = &demand.groups[0];
        let thousandths = group.count * group.shape.gpu.thousandths();
        // GPUs that talk to each other get fast links; a lone one leaves those to others.
        let talks = thousandths > 1000;
        let prices = map.costs().prices(self, map);
        let mut on_host = map.costs().on_host(&prices, thousandths / 1000, cost::bytes(demand));
        let priced: Vec<(Domain, Cost)> = hosts
            .map(|host| {
                let position = map.positions(host).start;
                (host, on_host(position, self.room(map.node_at(position)).devices.free_set()))
            })
            .collect();
        let fastest = priced.iter().map(|(_, cost)| cost.seconds).fold(f64::INFINITY, f64::min);
        let best = priced.iter().min_by_key(|(host, cost)| {
            let total = if thousandths > 0 { (cost.total * FINE).round() as i64 } else { 0 };
            let node = map.host_node(*host);
            let tightness = fill::tightness(self.room(node), &group.shape, group.count);
            let unlike = talks != map.is_linked(*host);
            (!cost.is_bearable(fastest), total, unlike, rank(node), tightness, counts.around(*host), *host)
        });
        best.map(|(host, _)| *host)
    }

    /// Fills a domain with all groups, the largest pods first; other orders when that fails.
    fn fill_domain(&mut self, scope: &Scope<'_>, domain: Domain) -> Option<Slots> {
        let Scope { demand, map, .. } = *scope;
        let mut order: Vec<usize> = (0..demand.pods().len()).collect();
        order.sort_by_key(|index| {
            let shape = &demand.groups[*index].shape;
            // Those that can do with the fewest devices choose first.
            let choice = shape.claims.iter().map(|claim| claim.choice()).min().unwrap_or(usize::MAX);
            (Reverse(shape.gpu.thousandths()), choice, Reverse(shape.amounts.get(0)))
        });
        for _ in 0..order.len().min(6) {
            if let Some(mut places) = self.fill_in_order(scope, domain, &order) {
                if demand.spares {
                    let last = demand.groups.len() - 1;
                    places[last] = self.spares_beside(scope, domain, &places)?;
                }
                return self.settle(demand, map, places);
            }
            order.rotate_left(1);
        }
        None
    }

    /// Spare places in a domain, on as few nodes as possible and on none of those in `places`.
    fn spares_beside(
        &mut self,
        scope: &Scope<'_>,
        domain: Domain,
        places: &[Vec<(usize, u32)>],
    ) -> Option<Vec<(usize, u32)>> {
        let Scope { demand, map, most_gpus, .. } = *scope;
        let spares = demand.groups.last()?;
        let counts = self.counts(&spares.shape, most_gpus);
        let used: BTreeSet<usize> = places.iter().flatten().map(|(position, _)| *position).collect();
        let mut hosts: Vec<(u32, usize)> = map
            .positions(domain)
            .filter(|position| !used.contains(position))
            .map(|position| (counts.of(map.host(position)), position))
            .filter(|(room, _)| *room > 0)
            .collect();
        hosts.sort_unstable_by_key(|(room, position)| (Reverse(*room), *position));
        let mut left = spares.count;
        let mut chosen = Vec::new();
        for (index, (room, position)) in hosts.iter().enumerate() {
            if left == 0 {
                break;
            }
            if *room < left {
                chosen.push((*position, *room));
                left -= room;
            } else {
                // The rest goes to the node that it fills best.
                let tightest = hosts[index..].iter().rev().find(|(room, _)| *room >= left)?;
                chosen.push((tightest.1, left));
                left = 0;
            }
        }
        chosen.sort_unstable();
        (left == 0).then_some(chosen)
    }

    /// Positions and counts by group.
    fn fill_in_order(
        &mut self,
        scope: &Scope<'_>,
        domain: Domain,
        order: &[usize],
    ) -> Option<Vec<Vec<(usize, u32)>>> {
        let Scope { demand, map, .. } = *scope;
        let mut places = vec![Vec::new(); demand.groups.len()];
        let mut taken = Vec::new();
        let mut complete = true;
        for (turn, index) in order.iter().enumerate() {
            let group = &demand.groups[*index];
            let counts = self.counts(&group.shape, scope.most_gpus);
            let found = match demand.levels.spread {
                Some(level) => spread::over(map, &counts, domain, level, group.count),
                None => fill::fill(
                    self,
                    map,
                    &counts,
                    domain,
                    group.count,
                    demand.levels.slice.or(scope.together.filter(|_| demand.is_ranked(*index))),
                    scope.quiet,
                ),
            };
            let Some(found) = found else {
                complete = false;
                break;
            };
            // The last group's room need not be taken: nobody looks at it before it is settled.
            if turn + 1 < order.len() {
                for (position, count) in &found {
                    taken.extend(self.take_several(map.node_at(*position), *index, &group.shape, *count));
                }
            }
            places[*index] = found;
        }
        self.undo(demand, taken);
        complete.then_some(places)
    }

    /// Chooses the devices of each pod.
    fn settle(&mut self, demand: &Demand, map: &Map, places: Vec<Vec<(usize, u32)>>) -> Option<Slots> {
        let mut slots = Vec::new();
        for (index, places) in places.into_iter().enumerate() {
            for (position, count) in places {
                slots.extend(self.take_several(
                    map.node_at(position),
                    index,
                    &demand.groups[index].shape,
                    count,
                ));
            }
        }
        let all: u32 = demand.groups.iter().map(|group| group.count).sum();
        self.undo(demand, slots.clone());
        (slots.len() == all as usize).then_some(Slots(slots))
    }

    fn take_several(&mut self, node: NodeId, group: usize, shape: &Arc<Shape>, count: u32) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(count as usize);
        // The claims of all of them together: one after the other they could spoil each other's choice.
        let mut grants = if shape.claims.is_empty() {
            Vec::new().into_iter()
        } else if let Some(grants) = self.grant(node, shape, count) {
            grants.into_iter()
        } else {
            return slots;
        };
        let shares = self.share_out(node, shape, count);
        for pod in 0..count as usize {
            let share = shares.as_ref().and_then(|shares| shares.get(pod));
            let devices = match share {
                Some(share) if shape.times_in(self.room(node)) > 0 => {
                    share.iter().map(|gpu| gpu as u8).collect()
                }
                Some(_) => break,
                None => {
                    let Some(devices) = self.choose_devices(node, shape) else { break };
                    devices
                }
            };
            let slot = Slot { group, node, devices, granted: grants.next().map(Arc::new) };
            self.take_slot(shape, &slot);
            slots.push(slot);
        }
        slots
    }

    fn undo(&mut self, demand: &Demand, slots: Vec<Slot>) {
        for slot in slots {
            self.give_back_slot(&demand.groups[slot.group].shape, &slot);
        }
    }

    /// Takes the room of a found slot.
    pub fn take_slot(&mut self, shape: &Shape, slot: &Slot) {
        self.take(slot.node, shape, &slot.devices);
        if let Some(grant) = &slot.granted {
            self.take_devices(grant.taken());
        }
    }

    /// Gives the room of a slot back.
    pub fn give_back_slot(&mut self, shape: &Shape, slot: &Slot) {
        self.give_back(slot.node, shape, &slot.devices);
        if let Some(grant) = &slot.granted {
            self.give_back_devices(grant.taken());
        }
    }

    /// Takes the room of found slots.
    pub fn take_slots(&mut self, demand: &Demand, slots: &Slots) {
        for slot in &slots.0 {
            self.take_slot(&demand.groups[slot.group].shape, slot);
        }
    }

    /// Gives the room of slots back.
    pub fn give_back_slots(&mut self, demand: &Demand, slots: &Slots) {
        for slot in &slots.0 {
            self.give_back_slot(&demand.groups[slot.group].shape, slot);
        }
    }
}
