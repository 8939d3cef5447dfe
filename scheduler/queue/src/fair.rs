//! Fair shares: decayed usage of queues by dominant resource, compared level by level.
//!
//! Usage is an exponentially weighted average: after one half-life, half of it is the past. A queue's share is
//! that of the resource of which it uses the largest part (dominant resource fairness), divided by its weight. Of
//! resources with quota all quota is the whole, of others what the nodes have: queues share without quota, too.

use std::collections::BTreeMap;

use crate::spec::FlavorResource;
use crate::time::{Milliseconds, Time};
use crate::tree::{Charge, QueueId, QueueTree};

/// Decayed usage of every queue.
#[derive(Debug, Clone)]
pub struct FairShare {
    half_life: Option<Milliseconds>,
    /// What the tree's roots have together, in thousandths.
    quota: BTreeMap<FlavorResource, f64>,
    /// What the nodes have together, in thousandths.
    nodes: BTreeMap<FlavorResource, f64>,
    /// By queue; what its descendants use is part of it.
    queues: Vec<Usage>,
}

#[derive(Debug, Clone, Default)]
struct Usage {
    since: Time,
    amounts: BTreeMap<FlavorResource, Amount>,
}

/// Of one resource, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    /// In use.
    now: f64,
    /// Averaged until the usage was settled last.
    average: f64,
}

impl Amount {
    /// The average when `kept` of the one before is left.
    fn averaged(self, kept: f64) -> f64 {
        self.average.mul_add(kept, self.now * (1.0 - kept))
    }
}

impl FairShare {
    /// Nothing used yet. Without a half-life only what is in use at the moment counts.
    pub fn new(tree: &QueueTree, half_life: Option<Milliseconds>) -> Self {
        let quota = (0..).zip(tree.resources()).map(|(index, resource)| {
            (resource.clone(), tree.top().iter().map(|root| tree.room(*root, index) as f64).sum())
        });
        let half_life = half_life.filter(|length| *length > 0);
        let queues = vec![Usage::default(); tree.queues().count()];
        Self { half_life, quota: quota.collect(), nodes: BTreeMap::new(), queues }
    }

    /// What the nodes have together, in thousandths.
    pub(crate) fn set_nodes(&mut self, nodes: BTreeMap<FlavorResource, f64>) {
        self.nodes = nodes;
    }

    /// The past of queues of the same names in another tree; nothing is in use there yet.
    pub(crate) fn carried_over(&self, from: &QueueTree, to: &QueueTree, at: Time) -> Self {
        let mut carried = Self { nodes: self.nodes.clone(), ..Self::new(to, self.half_life) };
        for old in from.queues() {
            let Some(new) = to.queue(from.name(old)) else { continue };
            for resource in self.queues[old.index()].amounts.keys() {
                let below = from.children(old).iter().map(|child| self.average(*child, resource, at));
                let own = (self.average(old, resource, at) - below.sum::<f64>()).max(0.0);
                for above in to.path(new) {
                    let usage = &mut carried.queues[above.index()];
                    usage.amounts.entry(resource.clone()).or_default().average += own;
                    usage.since = usage.since.max(at);
                }
            }
        }
        carried
    }

    /// A job starts to use (`sign` 1) or stops using (`sign` -1) a charge.
    pub(crate) fn change(&mut self, tree: &QueueTree, queue: QueueId, charge: &Charge, sign: f64, at: Time) {
        for above in tree.path(queue) {
            self.settle(above, at);
            let usage = &mut self.queues[above.index()];
            for (resource, amount) in charge.asked() {
                let used = |before: f64| (before + sign * amount as f64).max(0.0);
                if let Some(of) = usage.amounts.get_mut(resource) {
                    of.now = used(of.now);
                } else {
                    let first = Amount { now: used(0.0), ..Amount::default() };
                    usage.amounts.insert(resource.clone(), first);
                }
            }
        }
    }

    fn settle(&mut self, queue: QueueId, at: Time) {
        let kept = self.kept(queue, at);
        let usage = &mut self.queues[queue.index()];
        usage.amounts.values_mut().for_each(|amount| amount.average = amount.averaged(kept));
        usage.since = usage.since.max(at);
    }

    /// Which part of a queue's average is left.
    fn kept(&self, queue: QueueId, at: Time) -> f64 {
        self.half_life.map_or(0.0, |half_life| {
            (-(at.since(self.queues[queue.index()].since) as f64) / half_life as f64).exp2()
        })
    }

    fn average(&self, queue: QueueId, resource: &FlavorResource, at: Time) -> f64 {
        let amount = self.queues[queue.index()].amounts.get(resource);
        amount.map_or(0.0, |amount| amount.averaged(self.kept(queue, at)))
    }

    /// The largest part that the queue uses of any resource, by its weight.
    pub fn dominant_share(&self, tree: &QueueTree, queue: QueueId, at: Time) -> f64 {
        let kept = self.kept(queue, at);
        let part = |(resource, amount): (&FlavorResource, &Amount)| {
            let whole = self.quota.get(resource).or_else(|| self.nodes.get(resource));
            whole.filter(|whole| **whole > 0.0).map_or(0.0, |whole| amount.averaged(kept) / whole)
        };
        let parts = self.queues[queue.index()].amounts.iter().map(part);
        parts.fold(0.0, f64::max) / tree.spec(queue).weight
    }

    /// For every queue how well it is due, from 0 (used the most) to 1 (used the least). Siblings are compared by
    /// their shares, and all queues below the one that is due come before all below the other, so that no number
    /// of queues in one branch changes what another branch gets (Slurm's Fair Tree).
    pub fn factors(&self, tree: &QueueTree, at: Time) -> Vec<f64> {
        let mut factors = vec![0.0; self.queues.len()];
        let mut ranked = 0.0;
        let highest = (self.queues.len().max(2) - 1) as f64;
        let with_shares = |queues: &[QueueId]| -> Vec<(f64, QueueId)> {
            queues.iter().map(|queue| (self.dominant_share(tree, *queue, at), *queue)).collect()
        };
        let mut open = vec![with_shares(tree.top())];
        while let Some(mut siblings) = open.pop() {
            siblings.sort_by(|(left, _), (right, _)| right.total_cmp(left));
            let Some((least, _)) = siblings.last().copied() else { continue };
            let tied = siblings.split_off(siblings.partition_point(|(share, _)| *share > least));
            open.push(siblings);
            for (_, queue) in &tied {
                factors[queue.index()] = 1.0 - ranked / highest;
            }
            // Queues that are equally due are compared by what is below them, as if they were one.
            let (leaves, inner): (Vec<_>, Vec<_>) =
                tied.into_iter().partition(|(_, queue)| tree.children(*queue).is_empty());
            if inner.is_empty() {
                ranked += leaves.len() as f64;
            } else {
                ranked += inner.len() as f64;
                let below = inner.iter().flat_map(|(_, queue)| with_shares(tree.children(*queue)));
                open.push(leaves.into_iter().chain(below).collect());
            }
        }
        factors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{QueueSpec, Quota};

    fn gpu() -> FlavorResource {
        FlavorResource::new("", "gpu")
    }

    fn tree() -> QueueTree {
        let quota = |nominal| Quota { nominal, ..Quota::default() };
        let mut heavy = QueueSpec::new("heavy").below("all").with_quota(gpu(), quota(50));
        heavy.weight = 2.0;
        QueueTree::build(vec![
            QueueSpec::new("all"),
            heavy,
            QueueSpec::new("light").below("all").with_quota(gpu(), quota(50)),
        ])
        .unwrap()
    }

    #[test]
    fn half_of_the_usage_is_forgotten_in_a_half_life() {
        let tree = tree();
        let queue = tree.queue("light").unwrap();
        let mut fair = FairShare::new(&tree, Some(1000));
        let charge = tree.charge([(&gpu(), 40)]);
        fair.change(&tree, queue, &charge, 1.0, Time(0));
        let at = |fair: &FairShare, time| fair.dominant_share(&tree, queue, Time(time));
        assert!((at(&fair, 1000) - 0.2).abs() < 1e-9, "half of 40 of 100");
        fair.change(&tree, queue, &charge, -1.0, Time(1000));
        assert!((at(&fair, 2000) - 0.1).abs() < 1e-9);
        assert!((at(&fair, 4000) - 0.025).abs() < 1e-9);
    }

    #[test]
    fn the_weight_divides_the_share() {
        let tree = tree();
        let mut fair = FairShare::new(&tree, None);
        for (name, amount) in [("heavy", 30), ("light", 20)] {
            let queue = tree.queue(name).unwrap();
            fair.change(&tree, queue, &tree.charge([(&gpu(), amount)]), 1.0, Time(0));
        }
        let factors = fair.factors(&tree, Time(0));
        let factor = |name: &str| factors[tree.queue(name).unwrap().index()];
        assert!(factor("heavy") > factor("light"), "{factors:?}");
    }

    #[test]
    fn without_quota_the_nodes_are_the_whole() {
        let tree = QueueTree::build(vec![QueueSpec::new("a"), QueueSpec::new("b")]).unwrap();
        let mut fair = FairShare::new(&tree, None);
        let (a, b) = (tree.queue("a").unwrap(), tree.queue("b").unwrap());
        let cpu = FlavorResource::new("", "cpu");
        fair.change(&tree, a, &tree.charge([(&gpu(), 10), (&cpu, 10)]), 1.0, Time(0));
        assert!(fair.dominant_share(&tree, a, Time(0)) < 1e-9, "of what, nobody knows");
        fair.set_nodes(BTreeMap::from([(gpu(), 40.0), (cpu, 1000.0)]));
        assert!((fair.dominant_share(&tree, a, Time(0)) - 0.25).abs() < 1e-9);
        let factors = fair.factors(&tree, Time(0));
        assert!(factors[b.index()] > factors[a.index()], "{factors:?}");
    }

    #[test]
    fn queues_that_used_equally_little_are_equally_due_wherever_they_are() {
        let tree = QueueTree::build(vec![
            QueueSpec::new("paid").with_quota(gpu(), Quota { nominal: 50, ..Quota::default() }),
            QueueSpec::new("gold").below("paid"),
            QueueSpec::new("silver").below("paid"),
            QueueSpec::new("free").with_quota(gpu(), Quota { nominal: 50, ..Quota::default() }),
        ])
        .unwrap();
        let mut fair = FairShare::new(&tree, None);
        let factor = |fair: &FairShare, name: &str| {
            fair.factors(&tree, Time(0))[tree.queue(name).unwrap().index()].to_bits()
        };
        assert_eq!(factor(&fair, "gold"), factor(&fair, "free"), "nobody has used anything");
        let silver = tree.queue("silver").unwrap();
        fair.change(&tree, silver, &tree.charge([(&gpu(), 10)]), 1.0, Time(0));
        assert!(factor(&fair, "free") > factor(&fair, "gold"), "its branch has used something");
        assert!(factor(&fair, "gold") > factor(&fair, "silver"));
    }
}
