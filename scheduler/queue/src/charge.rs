//! What a job uses of the resources that queues limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spec::FlavorResource;

/// Amounts of resources, in thousandths, and which of them have quota in a [`QueueTree`](crate::tree::QueueTree).
/// The names of all are kept, so that the charge can be made anew when other resources have quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Charge {
    /// By resource, sorted.
    asked: Arc<[(FlavorResource, i64)]>,
    /// The part that has quota, by the resource's index in the tree.
    limited: Vec<(u16, i64)>,
}

impl Charge {
    /// The amounts, of which those have quota that have an `index`.
    pub(crate) fn new<'a>(
        amounts: impl IntoIterator<Item = (&'a FlavorResource, i64)>,
        index: impl Fn(&FlavorResource) -> Option<u16>,
    ) -> Self {
        let mut sums: BTreeMap<&FlavorResource, i64> = BTreeMap::new();
        for (resource, amount) in amounts.into_iter().filter(|(_, amount)| *amount > 0) {
            let sum = sums.entry(resource).or_default();
            *sum = sum.saturating_add(amount);
        }
        Self {
            limited: sums.iter().filter_map(|(resource, sum)| Some((index(resource)?, *sum))).collect(),
            asked: sums.into_iter().map(|(resource, sum)| (resource.clone(), sum)).collect(),
        }
    }

    /// Whether nothing that has quota is asked for.
    pub fn is_empty(&self) -> bool {
        self.limited.is_empty()
    }

    /// Resource indices and thousandths of what has quota.
    pub fn iter(&self) -> impl Iterator<Item = (u16, i64)> + '_ {
        self.limited.iter().copied()
    }

    /// All amounts by name, those without quota too.
    pub fn asked(&self) -> impl Iterator<Item = (&FlavorResource, i64)> {
        self.asked.iter().map(|(resource, amount)| (resource, *amount))
    }

    /// The same shares of every resource, scaled by `numerator / denominator` and rounded up.
    #[must_use]
    pub fn scaled(&self, numerator: i64, denominator: i64) -> Self {
        let scale = |amount: i64| {
            let exact = i128::from(amount) * i128::from(numerator);
            exact.div_euclid(i128::from(denominator.max(1))) as i64
                + i64::from(exact.rem_euclid(i128::from(denominator.max(1))) > 0)
        };
        Self {
            asked: self.asked.iter().map(|(resource, amount)| (resource.clone(), scale(*amount))).collect(),
            limited: self.iter().map(|(resource, amount)| (resource, scale(amount))).collect(),
        }
    }
}
