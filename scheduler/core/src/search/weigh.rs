//! What else could be done with a demand that has room, and which of it costs least.

use muster_scheduler_topology::{DomainId, Load, Topology};

use crate::cost::{self, Cost, Prices};
use crate::map::Domain;
use crate::search::{Scope, Slots};
use crate::space::Space;

/// How many times as long a gang must communicate beside others for quieter places to be looked for.
const FELT: f64 = 1.02;

/// How many times as much it may cost to keep whole groups together: so exact are predictions.
const HARDLY_MORE: f64 = 1.1;

/// Something found, and the way in which it was.
struct Found<'a> {
    slots: Slots,
    cost: Cost,
    scope: Scope<'a>,
}

impl Space {
    /// The cheapest of what was found anywhere, and what is found on smaller nodes alone, with whole groups of ranks
    /// kept together, and off the uplinks on which others are busy.
    pub(super) fn find_cheaper(&mut self, anywhere: &Scope<'_>, nearest: Slots) -> Slots {
        let Scope { demand, map, .. } = *anywhere;
        let takes_gpus = demand.groups.iter().any(|group| group.shape.gpu.thousandths() > 0);
        let sizes = if takes_gpus { map.costs().smaller_sizes() } else { &[] };
        let together = demand.pods_together().filter(|_| demand.levels.slice.is_none());
        let heard = |space: &Self, slots: &Slots| space.load().is_some() && cost::meets_others(map, slots);
        if sizes.is_empty() && together.is_none() && !heard(self, &nearest) {
            return nearest;
        }
        let prices = map.costs().prices(self, map);
        let cost = self.cost_of(&prices, anywhere, &nearest);
        let fastest = cost.seconds;
        let mut best = Found { slots: nearest, cost, scope: *anywhere };
        for size in sizes.iter().rev() {
            // What does not fit on these nodes does not on fewer.
            if !self.try_in(&Scope { most_gpus: *size, ..*anywhere }, &prices, fastest, &mut best) {
                break;
            }
        }
        if let Some(pods) = together {
            best = self.keep_together(pods, &prices, fastest, best);
        }
        if heard(self, &best.slots) {
            let alone = map.costs().seconds(map, None, demand, &best.slots);
            if best.cost.seconds > alone * FELT {
                self.try_in(&Scope { quiet: true, ..best.scope }, &prices, fastest, &mut best);
            }
        }
        best.slots
    }

    /// Whole groups within the smallest domains where that costs hardly more than the cheapest.
    fn keep_together<'a>(&mut self, pods: u32, prices: &Prices, fastest: f64, apart: Found<'a>) -> Found<'a> {
        let Scope { demand, map, .. } = apart.scope;
        let mut found = Vec::new();
        for level in (demand.levels.required + 1..=map.hosts_level()).rev() {
            let scope = Scope { together: Some((pods, level)), ..apart.scope };
            let Some(slots) = self.find_nearest(&scope) else { continue };
            let cost = self.cost_of(prices, &scope, &slots);
            found.extend(cost.is_bearable(fastest).then_some(Found { slots, cost, scope }));
        }
        let cheapest = found.iter().map(|found| found.cost.total).fold(apart.cost.total, f64::min);
        let good = found.into_iter().find(|found| found.cost.total <= cheapest * HARDLY_MORE);
        good.unwrap_or(apart)
    }

    /// Whether there is room at all so; it is kept when it costs less.
    fn try_in<'a>(&mut self, scope: &Scope<'a>, prices: &Prices, fastest: f64, best: &mut Found<'a>) -> bool {
        let Some(slots) = self.find_nearest(scope) else { return false };
        let cost = self.cost_of(prices, scope, &slots);
        if cost.total < best.cost.total && cost.is_bearable(fastest) {
            *best = Found { slots, cost, scope: *scope };
        }
        true
    }

    fn cost_of(&self, prices: &Prices, scope: &Scope<'_>, slots: &Slots) -> Cost {
        scope.map.costs().of(prices, scope.map, self.load(), scope.demand, slots)
    }

    /// Microseconds of communication in a step beside those who run.
    pub(super) fn slowness(&self, scope: &Scope<'_>, slots: &Slots) -> u64 {
        (scope.map.costs().seconds(scope.map, self.load(), scope.demand, slots) * 1e6) as u64
    }
}

/// How busy the uplink of a domain is, in quarters of what it carries.
pub(super) fn busy(load: &Load, topology: &Topology, domain: Domain) -> u32 {
    let domain = DomainId(domain as u32);
    (4.0 * load.traffic(domain) / topology.uplink(domain).bandwidth).round().clamp(0.0, 8.0) as u32
}
