//! Which devices pods on one node get: a search through all choices for all of these pods together.

use std::sync::Arc;

use super::demand::{Alternative, Amount, ClaimDemand, ClaimRequest};
use super::device::{Consumption, DeviceNumber};
use super::stock::{Grant, GrantedDevice, Stock};

/// Choices that one search may make before it gives up: what it does not find then counts as not there.
const MOST_STEPS: u32 = 50_000;
/// The most devices that a claim can have; the API allows no more.
const MOST_DEVICES: usize = 32;

/// One request of one pod.
struct Wish<'a> {
    pod: usize,
    claim: usize,
    demand: &'a ClaimDemand,
    alternatives: &'a [Alternative],
    /// The same request of the pod before, which asks for the same: its first device comes first.
    after: Option<usize>,
}

struct Chosen {
    alternative: usize,
    /// Positions on the shelf.
    devices: Vec<usize>,
}

struct Search<'a> {
    stock: &'a Stock,
    wishes: Vec<Wish<'a>>,
    /// Positions on the shelf, those first whose parts are the least of use to others.
    order: Vec<usize>,
    /// Devices that are alike in everything that is asked have the same number, by position.
    kinds: Vec<usize>,
    used: Vec<bool>,
    left: Vec<i64>,
    chosen: Vec<Option<Chosen>>,
    steps: u32,
}

/// Devices for `count` pods that each bring these claims, or for none.
pub(super) fn allocate(stock: &Stock, claims: &[Arc<ClaimDemand>], count: usize) -> Option<Vec<Grant>> {
    let mut search = Search::new(stock, claims, count);
    if (search.bound(claims) as usize) < count || !search.go_on(0) {
        return None;
    }
    let mut grants = vec![Grant { claims: vec![Vec::new(); claims.len()] }; count];
    for (wish, chosen) in search.wishes.iter().zip(&search.chosen) {
        let Some(chosen) = chosen else { continue };
        let alternative = &wish.alternatives[chosen.alternative];
        let request: Arc<str> = Arc::from(alternative.name.as_str());
        let granted = chosen.devices.iter().map(|position| GrantedDevice {
            request: Arc::clone(&request),
            device: stock.shelf.numbers[*position],
            admin: alternative.admin,
        });
        grants[wish.pod].claims[wish.claim].extend(granted);
    }
    Some(grants)
}

impl<'a> Search<'a> {
    fn new(stock: &'a Stock, claims: &'a [Arc<ClaimDemand>], count: usize) -> Self {
        let mut wishes: Vec<Wish<'a>> = Vec::new();
        let requests: usize = claims.iter().map(|claim| claim.requests().len()).sum();
        for pod in 0..count {
            for (claim, demand) in claims.iter().enumerate() {
                for request in demand.requests() {
                    let first = wishes.len() == pod * requests;
                    // Pods that ask for the same are interchangeable.
                    let single = request.alternatives.len() == 1
                        && request.alternatives.iter().all(|only| {
                            !only.admin && matches!(only.amount, Amount::Exactly(count) if count > 0)
                        });
                    let after = (first && single && pod > 0).then(|| wishes.len() - requests);
                    let alternatives = &request.alternatives;
                    wishes.push(Wish { pod, claim, demand, alternatives, after });
                }
            }
        }
        let left = stock.counters_left();
        let shelf = &stock.shelf;
        let mut order: Vec<usize> = (0..shelf.numbers.len()).collect();
        let rest = |position: &usize| {
            let consumes = &shelf.consumes[*position];
            consumes.iter().map(|use_up| left[use_up.counter]).fold(0_i64, i64::saturating_add)
        };
        order.sort_by_key(|position| (rest(position), *position));
        let chosen = wishes.iter().map(|_| None).collect();
        let kinds = kinds(stock, claims);
        Self { stock, wishes, order, kinds, used: vec![false; shelf.numbers.len()], left, chosen, steps: 0 }
    }

    /// For no more pods than this are there devices, whichever of them would get which.
    fn bound(&self, claims: &[Arc<ClaimDemand>]) -> u32 {
        let requests = claims.iter().flat_map(|claim| claim.requests());
        let of_request = |request: &ClaimRequest| {
            let alternatives = request.alternatives.iter();
            alternatives.map(|alternative| self.bound_of(alternative)).fold(0, u32::saturating_add)
        };
        requests.map(of_request).min().unwrap_or(u32::MAX)
    }

    fn bound_of(&self, alternative: &Alternative) -> u32 {
        let usable = (0..self.used.len()).filter(|position| self.is_usable(alternative, *position)).count();
        match alternative.amount {
            Amount::Exactly(wanted) if usable < wanted as usize => 0,
            _ if alternative.admin => u32::MAX,
            Amount::Exactly(wanted) => usable as u32 / wanted.max(1),
            // Nothing is left for the next.
            Amount::All => 1,
        }
    }

    fn number(&self, position: usize) -> DeviceNumber {
        self.stock.shelf.numbers[position]
    }

    fn consumes(&self, position: usize) -> &'a [Consumption] {
        &self.stock.shelf.consumes[position]
    }

    /// Whether the alternative may have the device now, constraints aside.
    fn is_usable(&self, alternative: &Alternative, position: usize) -> bool {
        if !alternative.devices.contains(self.number(position)) {
            return false;
        }
        let enough = |use_up: &Consumption| self.left[use_up.counter] >= use_up.amount;
        alternative.admin
            || self.stock.is_free(position)
                && !self.used[position]
                && self.consumes(position).iter().all(enough)
    }

    /// Chooses for all wishes from `index` on.
    fn go_on(&mut self, index: usize) -> bool {
        let Some(wish) = self.wishes.get(index) else { return true };
        let alternatives = wish.alternatives;
        for (number, alternative) in alternatives.iter().enumerate() {
            self.chosen[index] = Some(Chosen { alternative: number, devices: Vec::new() });
            let done = match alternative.amount {
                Amount::Exactly(count) => self.choose(index, alternative, count as usize, 0),
                Amount::All => self.choose_all(index, alternative),
            };
            if done {
                return true;
            }
            self.chosen[index] = None;
        }
        false
    }

    /// Chooses so many more devices for a wish, in order from a place of the order on, and goes on.
    fn choose(&mut self, index: usize, alternative: &'a Alternative, count: usize, from: usize) -> bool {
        if count == 0 {
            return self.go_on(index + 1);
        }
        let first = self.chosen[index].as_ref().is_none_or(|chosen| chosen.devices.is_empty());
        let from = if first { from.max(self.begin(index)) } else { from };
        let mut failed: Vec<usize> = Vec::new();
        for place in from..self.order.len() {
            let position = self.order[place];
            if failed.contains(&self.kinds[position])
                || !self.is_usable(alternative, position)
                || !self.meets_constraints(index, position)
            {
                continue;
            }
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return false;
            }
            self.take(index, alternative, position);
            if self.choose(index, alternative, count - 1, place + 1) {
                return true;
            }
            self.give_back(index, alternative, position);
            failed.push(self.kinds[position]);
        }
        false
    }

    /// Where the first device of a wish may stand in the order.
    fn begin(&self, index: usize) -> usize {
        let before = self.wishes[index].after.and_then(|before| self.chosen[before].as_ref());
        let first = before.and_then(|chosen| chosen.devices.first());
        let place = first.and_then(|first| self.order.iter().position(|position| position == first));
        place.map_or(0, |place| place + 1)
    }

    fn choose_all(&mut self, index: usize, alternative: &'a Alternative) -> bool {
        let shelf = &self.stock.shelf;
        let meant = |number: &DeviceNumber| alternative.devices.contains(*number);
        let barred = shelf.numbers.iter().any(|number| alternative.barred.contains(*number));
        let positions: Vec<usize> =
            (0..shelf.numbers.len()).filter(|position| meant(&shelf.numbers[*position])).collect();
        if barred || !shelf.complete || positions.is_empty() || positions.len() > MOST_DEVICES {
            return false;
        }
        let mut taken = 0;
        for position in &positions {
            if !self.is_usable(alternative, *position) || !self.meets_constraints(index, *position) {
                break;
            }
            self.take(index, alternative, *position);
            taken += 1;
        }
        if taken == positions.len() && self.go_on(index + 1) {
            return true;
        }
        for position in positions[..taken].iter().rev() {
            self.give_back(index, alternative, *position);
        }
        false
    }

    /// Whether the device has the values that the claim's other devices have.
    fn meets_constraints(&self, index: usize, position: usize) -> bool {
        let wish = &self.wishes[index];
        let number = self.number(position);
        let Some(chosen) = &self.chosen[index] else { return false };
        let name = &wish.alternatives[chosen.alternative].name;
        wish.demand.constraints().iter().filter(|constraint| constraint.binds(name)).all(|constraint| {
            let Some(value) = constraint.value(number) else { return false };
            // Whatever was chosen before has one value: the first says which.
            let mut others = self.wishes[..=index].iter().zip(&self.chosen).rev();
            let first = others
                .by_ref()
                .take_while(|(other, _)| (other.pod, other.claim) == (wish.pod, wish.claim))
                .find_map(|(other, chosen)| {
                    let chosen = chosen.as_ref()?;
                    let bound = constraint.binds(&other.alternatives[chosen.alternative].name);
                    chosen.devices.first().filter(|_| bound)
                });
            first.is_none_or(|first| constraint.value(self.number(*first)) == Some(value))
        })
    }

    fn take(&mut self, index: usize, alternative: &Alternative, position: usize) {
        if let Some(chosen) = &mut self.chosen[index] {
            chosen.devices.push(position);
        }
        if !alternative.admin {
            self.used[position] = true;
            for use_up in self.consumes(position) {
                self.left[use_up.counter] -= use_up.amount;
            }
        }
    }

    fn give_back(&mut self, index: usize, alternative: &Alternative, position: usize) {
        if let Some(chosen) = &mut self.chosen[index] {
            chosen.devices.pop();
        }
        if !alternative.admin {
            self.used[position] = false;
            for use_up in self.consumes(position) {
                self.left[use_up.counter] += use_up.amount;
            }
        }
    }
}

/// All that these claims could tell apart of a device.
#[derive(PartialEq)]
struct Kind<'a> {
    free: bool,
    meant: Vec<bool>,
    values: Vec<Option<u32>>,
    consumes: &'a [Consumption],
}

/// Numbers of kinds: devices of one kind differ in nothing that these claims ask for, and use up the same.
fn kinds(stock: &Stock, claims: &[Arc<ClaimDemand>]) -> Vec<usize> {
    let shelf = &stock.shelf;
    let mut different: Vec<Kind<'_>> = Vec::new();
    let mut kinds = Vec::with_capacity(shelf.numbers.len());
    for (position, number) in shelf.numbers.iter().enumerate() {
        let requests = claims.iter().flat_map(|claim| claim.requests());
        let alternatives = requests.flat_map(|request| &request.alternatives);
        let constraints = claims.iter().flat_map(|claim| claim.constraints());
        let kind = Kind {
            free: stock.is_free(position),
            meant: alternatives.map(|alternative| alternative.devices.contains(*number)).collect(),
            values: constraints.map(|constraint| constraint.value(*number)).collect(),
            consumes: &shelf.consumes[position],
        };
        let known = different.iter().position(|other| *other == kind);
        kinds.push(known.unwrap_or_else(|| {
            different.push(kind);
            different.len() - 1
        }));
    }
    kinds
}

impl Stock {
    /// How many pods with these claims there are devices for, `most` at most.
    pub(crate) fn times(&self, claims: &[Arc<ClaimDemand>], most: u32) -> u32 {
        let holds = |count: u32| allocate(self, claims, count as usize).is_some();
        if claims.iter().flat_map(|claim| claim.requests()).all(takes_nothing) {
            return if holds(1) { most } else { 0 };
        }
        let bound = Search::new(self, claims, 0).bound(claims).min(most);
        if bound == 0 || holds(bound) {
            return bound;
        }
        let (mut fits, mut fails) = (0, bound);
        while fits + 1 < fails {
            let middle = u32::midpoint(fits, fails);
            if holds(middle) { fits = middle } else { fails = middle }
        }
        fits
    }

    /// Devices for so many pods with these claims.
    pub(crate) fn grant(&self, claims: &[Arc<ClaimDemand>], count: usize) -> Option<Vec<Grant>> {
        allocate(self, claims, count)
    }
}

/// Whether a request takes no device away, whichever alternative it gets.
fn takes_nothing(request: &ClaimRequest) -> bool {
    request.alternatives.iter().all(|alternative| alternative.admin)
}
