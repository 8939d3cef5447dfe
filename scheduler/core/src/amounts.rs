//! Amounts of resources in a dense form that planning can compare thousands of times a millisecond.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::resources::Resources;

/// Which place each resource has in [`Amounts`].
#[derive(Debug, Clone, Default)]
pub struct Dimensions {
    names: Vec<String>,
    places: BTreeMap<String, usize>,
}

impl Dimensions {
    /// The resource of a place.
    pub fn name(&self, place: usize) -> Option<&str> {
        self.names.get(place).map(String::as_str)
    }

    /// The place of a resource that is known already.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// Whether every resource of `resources` has a place.
    pub(crate) fn know(&self, resources: &Resources) -> bool {
        resources.iter().all(|(name, _)| self.places.contains_key(name))
    }

    /// Gives each resource of `resources` a place.
    pub(crate) fn learn(&mut self, resources: &Resources) {
        for (name, _) in resources.iter() {
            if !self.places.contains_key(name) {
                self.places.insert(name.to_owned(), self.names.len());
                self.names.push(name.to_owned());
            }
        }
    }

    /// The dense form; resources without a place are left out, so [`Dimensions::learn`] them first.
    pub(crate) fn amounts(&self, resources: &Resources) -> Amounts {
        let mut amounts = Amounts(SmallVec::from_elem(0, self.names.len()));
        for (name, thousandths) in resources.iter() {
            if let Some(place) = self.places.get(name) {
                amounts.0[*place] = thousandths;
            }
        }
        amounts
    }

    /// The form for people.
    pub(crate) fn resources(&self, amounts: &Amounts) -> Resources {
        let named = amounts.0.iter().zip(&self.names);
        named.fold(Resources::new(), |resources, (amount, name)| resources.with(name, *amount))
    }
}

/// Thousandths of each resource, in the places that [`Dimensions`] gives; what is beyond the end is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Amounts(SmallVec<[i64; 6]>);

impl Amounts {
    /// The amount of a place, in thousandths.
    pub fn get(&self, place: usize) -> i64 {
        self.0.get(place).copied().unwrap_or(0)
    }

    /// Adds `times` as much of `other`; `times` below zero takes away.
    pub(crate) fn add(&mut self, other: &Self, times: i64) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (own, more) in self.0.iter_mut().zip(&other.0) {
            *own = own.saturating_add(more.saturating_mul(times));
        }
    }

    /// Takes away what is beyond `limit`.
    pub(crate) fn lower(&mut self, limit: &Self) {
        for (place, own) in self.0.iter_mut().enumerate() {
            *own = (*own).min(limit.get(place));
        }
    }

    /// How often this much fits into `free`; [`u32::MAX`] when nothing is asked for.
    pub fn times_in(&self, free: &Self) -> u32 {
        let mut times = u32::MAX;
        for (place, asked) in self.0.iter().enumerate() {
            if *asked > 0 {
                let fits = free.get(place).max(0) / asked;
                times = times.min(u32::try_from(fits).unwrap_or(u32::MAX));
            }
        }
        times
    }

    /// The first place of which `free` has too little.
    pub(crate) fn lacking(&self, free: &Self) -> Option<usize> {
        self.0
            .iter()
            .enumerate()
            .find(|(place, asked)| **asked > 0 && **asked > free.get(*place))
            .map(|(place, _)| place)
    }
}
