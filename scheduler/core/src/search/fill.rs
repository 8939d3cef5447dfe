//! Fills one domain with pods of one shape: as few domains of each level below as possible.

use muster_scheduler_topology::Load;

use crate::counts::Counts;
use crate::devices::WHOLE;
use crate::map::{Domain, Map};
use crate::room::Room;
use crate::search::Slots;
use crate::search::weigh::busy;
use crate::shape::Shape;
use crate::space::Space;

/// Smaller is tighter. Pods with GPUs leave the fewest GPUs over; pods without keep away from nodes with free
/// GPUs, and a lone one goes where most CPU is free.
pub(super) fn tightness(room: &Room, shape: &Shape, count: u32) -> (u32, i64) {
    let claimed = if shape.claims.is_empty() { 0 } else { room.devices_to_claim() };
    let gpus = room.devices.thousandths() + claimed * u32::from(WHOLE);
    let cpu = room.amounts.get(0);
    if shape.gpu.thousandths() == 0 && count == 1 { (gpus, -cpu) } else { (gpus, cpu) }
}

struct Fill<'a> {
    space: &'a Space,
    map: &'a Map,
    pods: &'a Counts,
    /// Slices by domain, at and above their level.
    slices: Option<(u32, usize, Vec<u32>)>,
    /// The traffic to keep away from.
    load: Option<&'a Load>,
    places: Vec<(usize, u32)>,
}

/// Places of `count` pods within `domain` as (position, pods) in the order of ranks; `None` when they do not fit. Domains
/// with quiet uplinks come first where that is asked for.
pub(super) fn fill(
    space: &Space,
    map: &Map,
    counts: &Counts,
    domain: Domain,
    count: u32,
    slice: Option<(u32, usize)>,
    quiet: bool,
) -> Option<Vec<(usize, u32)>> {
    let slices = slice
        .filter(|(size, _)| *size > 1)
        .map(|(size, level)| (size, level, slices(map, counts, size, level)));
    let mut fill =
        Fill { space, map, pods: counts, slices, load: space.load().filter(|_| quiet), places: Vec::new() };
    match &fill.slices {
        // A gang that is no whole number of slices has a last, smaller one; it needs the room of a whole one.
        Some((size, level, _)) if map.level_of(domain) <= *level => {
            let (size, whole) = (*size, count.div_ceil(*size));
            let missing = whole * size - count;
            fill.enter(domain, whole)?;
            fill.drop_last(missing);
            let smaller = fill.places.last().filter(|_| missing > 0).map(|(position, _)| *position);
            fill.places.sort_unstable();
            if let Some(smaller) = smaller {
                fill.end_at(smaller);
            }
        }
        _ => {
            fill.slices = None;
            fill.enter(domain, count)?;
            fill.places.sort_unstable();
        }
    }
    Some(fill.places)
}

fn slices(map: &Map, counts: &Counts, size: u32, level: usize) -> Vec<u32> {
    let mut slices = vec![0; map.domains()];
    for domain in (0..map.domains()).rev() {
        if map.level_of(domain) == level {
            slices[domain] = counts.of(domain) / size;
        }
        if map.level_of(domain) <= level
            && let Some(parent) = map.parent(domain)
        {
            slices[parent] += slices[domain];
        }
    }
    slices
}

impl Fill<'_> {
    /// What fits into a domain, in slices at and above their level, in pods below.
    fn room(&self, domain: Domain) -> u32 {
        match &self.slices {
            Some((_, level, slices)) if self.map.level_of(domain) <= *level => slices[domain],
            _ => self.pods.of(domain),
        }
    }

    fn enter(&mut self, domain: Domain, units: u32) -> Option<()> {
        if self.room(domain) < units {
            return None;
        }
        match &self.slices {
            Some((size, level, _)) if self.map.level_of(domain) == *level => {
                let pods = units * size;
                self.below(domain, pods)
            }
            _ => self.below(domain, units),
        }
    }

    fn below(&mut self, domain: Domain, units: u32) -> Option<()> {
        let children = self.map.children(domain);
        if children.is_empty() {
            self.places.push((self.map.positions(domain).start, units));
            return Some(());
        }
        let inside = |fill: &Self, child: Domain| match &fill.slices {
            Some((_, level, slices)) if fill.map.level_of(child) <= *level => slices[child],
            _ => fill.pods.of(child),
        };
        let mut by_room: Vec<(u32, Domain)> =
            children.map(|child| (inside(self, child), child)).filter(|(room, _)| *room > 0).collect();
        let (load, map) = (self.load, self.map);
        let busy = |child: Domain| load.map_or(0, |load| busy(load, map.topology(), child));
        // The largest first; the last part goes to the tightest that holds it whole.
        by_room.sort_unstable_by_key(|(room, child)| (busy(*child), std::cmp::Reverse(*room), *child));
        let mut left = units;
        let mut next = 0;
        while left > 0 {
            let (room, child) = *by_room.get(next)?;
            if room >= left {
                let enough = by_room[next..].iter().filter(|(room, _)| *room >= left);
                let last = enough.min_by_key(|(room, child)| {
                    let host = self.map.children(*child).is_empty();
                    let tight = host.then(|| {
                        tightness(self.space.room(self.map.host_node(*child)), &self.pods.shape, left)
                    });
                    (busy(*child), tight, *room, *child)
                })?;
                return self.enter(last.1, left);
            }
            self.enter(child, room)?;
            left -= room;
            next += 1;
        }
        Some(())
    }

    /// Brings the places into an order in which ranks leave every domain once and come last to what is around
    /// `position`.
    fn end_at(&mut self, position: usize) {
        let map = self.map;
        let around: Vec<Domain> =
            std::iter::successors(Some(map.host(position)), |domain| map.parent(*domain)).collect();
        let shared = |at: usize| around.iter().filter(|domain| map.positions(**domain).contains(&at)).count();
        self.places.sort_unstable_by_key(|(at, _)| (shared(*at), *at));
    }

    /// Forgets the places of the last `pods` pods.
    fn drop_last(&mut self, mut pods: u32) {
        while pods > 0 {
            let Some((_, count)) = self.places.last_mut() else { return };
            let dropped = pods.min(*count);
            *count -= dropped;
            pods -= dropped;
            if *count == 0 {
                self.places.pop();
            }
        }
    }
}

/// How many domains of each level below `level` the slots enter, from the largest domains to the smallest.
pub(super) fn crossings(map: &Map, level: usize, slots: &Slots) -> Vec<usize> {
    let mut hosts: Vec<Domain> =
        slots.0.iter().filter_map(|slot| Some(map.host(map.position(slot.node)?))).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let mut entered = Vec::new();
    let mut domains = hosts;
    for _ in level + 1..=map.hosts_level() {
        entered.push(domains.len());
        domains = domains.iter().filter_map(|domain| map.parent(*domain)).collect();
        domains.dedup();
    }
    entered.reverse();
    entered
}
