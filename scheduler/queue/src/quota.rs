//! Whether a charge is within quota: from its own, borrowed from whom, or short of what.

use crate::tree::{Charge, QueueId, QueueTree};

/// How a charge that is within quota is covered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Of the queue's own, by resource index, in thousandths.
    pub own: Vec<(u16, i64)>,
    /// Beyond its own.
    pub borrowed: Vec<Loan>,
}

/// What a queue borrows of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loan {
    /// Resource index.
    pub resource: u16,
    /// Thousandths.
    pub amount: i64,
    /// Queues whose unused quota covers it, nearest first, with thousandths of each.
    pub lenders: Vec<(QueueId, i64)>,
}

/// Why a charge is not within quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// The queue.
    pub queue: QueueId,
    /// Resource index.
    pub resource: u16,
    /// What is asked for, in thousandths.
    pub needs: i64,
    /// What is free of the queue's own, in thousandths.
    pub free: i64,
    /// What it could borrow now, in thousandths.
    pub borrowable: i64,
    /// What it could have at the most with nobody else running, in thousandths; when this is below `needs`,
    /// waiting does not help.
    pub most: i64,
}

impl QueueTree {
    /// Whether a charge is within quota now. The quick form of [`QueueTree::admit`].
    pub fn admits(&self, queue: QueueId, charge: &Charge) -> bool {
        charge.iter().all(|(resource, amount)| self.available(queue, resource) >= amount)
    }

    /// How a charge would be covered.
    ///
    /// # Errors
    /// [`Shortage`] of the first resource that is short.
    pub fn admit(&self, queue: QueueId, charge: &Charge) -> Result<Admission, Shortage> {
        let mut admission = Admission::default();
        for (resource, needs) in charge.iter() {
            let available = self.available(queue, resource);
            let free = self.free_of_own(queue, resource).min(available.max(0));
            if available < needs {
                let borrowable = (available - free).max(0);
                let most = self.emptied().available(queue, resource);
                return Err(Shortage { queue, resource, needs, free, borrowable, most });
            }
            let own = needs.min(free);
            if own > 0 {
                admission.own.push((resource, own));
            }
            let amount = needs - own;
            if amount > 0 {
                let lenders = self.lenders(queue, resource, amount);
                admission.borrowed.push(Loan { resource, amount, lenders });
            }
        }
        Ok(admission)
    }

    /// Whether the charge, on top of what is used, stays within what `queue` has without borrowing.
    pub fn within_own(&self, queue: QueueId, charge: &Charge) -> bool {
        let fits = |(resource, amount)| {
            self.used(queue, resource).saturating_add(amount) <= self.room(queue, resource)
        };
        charge.iter().all(fits)
    }

    /// What of the queue's own is not used by its jobs, in thousandths.
    fn free_of_own(&self, queue: QueueId, resource: u16) -> i64 {
        (self.room(queue, resource) - self.used(queue, resource)).max(0)
    }

    /// Queues whose unused quota covers `amount`, nearest first.
    fn lenders(&self, queue: QueueId, resource: u16, amount: i64) -> Vec<(QueueId, i64)> {
        let mut left = amount;
        let mut lenders = Vec::new();
        let mut below = queue;
        while let (Some(parent), true) = (self.parent(below), left > 0) {
            let siblings = self.children(parent).iter().filter(|sibling| **sibling != below);
            for lender in siblings.chain([&parent]) {
                let nominal = self.spec(*lender).quotas.get(&self.resources()[usize::from(resource)]);
                let spare = if *lender == parent {
                    nominal.map_or(0, |quota| quota.nominal)
                } else {
                    let limit = nominal.and_then(|quota| quota.lending_limit).unwrap_or(i64::MAX);
                    self.free_of_own(*lender, resource).min(limit)
                };
                let part = spare.min(left);
                if part > 0 {
                    lenders.push((*lender, part));
                    left -= part;
                }
            }
            below = parent;
        }
        lenders
    }

    /// Whether evicting a job of `victim` gives back quota that was borrowed from `reclaimer`: below the queue
    /// where their paths meet, the victim's side uses more than it has, and the reclaimer's side with `charge`
    /// does not.
    pub fn may_reclaim(&self, reclaimer: QueueId, charge: &Charge, victim: QueueId) -> bool {
        if reclaimer == victim || self.root(reclaimer) != self.root(victim) {
            return false;
        }
        let above_victim: Vec<QueueId> = self.path(victim).collect();
        let own_side: Vec<QueueId> =
            self.path(reclaimer).take_while(|queue| !above_victim.contains(queue)).collect();
        let meets = own_side.last().map_or(Some(reclaimer), |last| self.parent(*last));
        let victim_side = above_victim.iter().take_while(|queue| Some(**queue) != meets);
        let entitled = own_side.last().is_none_or(|last| self.within_own(*last, charge));
        let mut victim_side = victim_side.peekable();
        entitled
            && victim_side.peek().is_some()
            && victim_side.all(|queue| charge.iter().any(|(resource, _)| self.borrowed(*queue, resource) > 0))
    }
}
