//! Copies of shared state on a neighbour, so that the loss of a rank costs no more than a step.
//!
//! After every step each rank passes its part to the next rank. The calls are made in order, so a rank that has the
//! gradients of the next step knows that all copies are complete; until then it keeps those of two steps. Hence there is
//! always a step of which every part is held by its rank or by the one behind it, unless both are lost.

use std::ops::Range;

use muster_collectives::{Communicator, Error as CollectiveError, Pending};

use super::layout::Unit;
use super::state::Quantity;

/// Numbers that a caller keeps with a state.
pub(super) type Cursor = [u64; 2];

/// A rank's part of the state after a step: unit by unit the values, first and second moments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) step: u64,
    pub(super) cursor: Cursor,
    pub(super) values: Vec<f32>,
}

/// Where the part of a unit lies among the values of a [`Part`].
fn place(units: &[Unit], index: usize, ranks: usize) -> Range<usize> {
    let quantities = Quantity::ALL.len();
    let start: usize = units[..index].iter().map(|unit| quantities * unit.padded / ranks).sum();
    start..start + quantities * units[index].padded / ranks
}

/// What a rank holds of the states of the last steps: its own parts, and those of the rank before it.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    own: Vec<Part>,
    before: Vec<Part>,
    flying: Option<Pending<Part>>,
}

impl Mirror {
    /// Takes note of a state and starts to exchange it; `exchange` makes the call in the background.
    pub(super) fn pass(&mut self, part: Part, exchange: impl FnOnce(Part) -> Pending<Part>) {
        self.own.push(part.clone());
        self.flying = Some(exchange(part));
    }

    /// The gradients of the next step have come, so every rank has the copies of the last one: older ones can go.
    pub(super) fn settle(&mut self) -> Result<(), CollectiveError> {
        if let Some(flying) = self.flying.take() {
            self.before.push(flying.wait()?);
            let last = self.own.len().saturating_sub(1);
            self.own.drain(..last);
            let last = self.before.len().saturating_sub(1);
            self.before.drain(..last);
        }
        Ok(())
    }

    /// What is held once the group has failed: own parts, and those of the rank before.
    pub(super) fn into_parts(mut self) -> (Vec<Part>, Vec<Part>) {
        self.before.extend(self.flying.take().and_then(|flying| flying.wait().ok()));
        (self.own, self.before)
    }

    /// Bytes that copies take.
    pub(super) fn bytes(&self) -> usize {
        self.own.iter().chain(&self.before).map(|part| size_of_val(&*part.values)).sum()
    }
}

/// Passes a part to the next rank and takes that of the one before.
pub(super) fn exchange(group: &mut Communicator, part: &Part) -> Result<Part, CollectiveError> {
    let (rank, ranks, count) = (group.rank(), group.world_size(), part.values.len());
    let (next, before) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
    let only =
        |peer: usize| (0..ranks).map(|rank| if rank == peer { count } else { 0 }).collect::<Vec<usize>>();
    let mut taken = vec![0.0; count];
    group.all_to_all_v(&part.values, &only(next), &mut taken, &only(before))?;
    // All ranks are at the same step and the same place of the data.
    Ok(Part { step: part.step, cursor: part.cursor, values: taken })
}

/// What a rank brings along from a group that has failed.
pub(super) struct History {
    pub(super) rank: usize,
    pub(super) ranks: usize,
    pub(super) units: Vec<Unit>,
    pub(super) own: Vec<Part>,
    pub(super) before: Vec<Part>,
}

/// Which parts a rank has, as it tells the others.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Offer {
    /// Its number among how many ranks, unless it is new.
    place: Option<(usize, usize)>,
    own: Vec<(u64, Cursor)>,
    before: Vec<u64>,
}

/// Who brings which part of the state that all go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) step: u64,
    pub(super) cursor: Cursor,
    /// For each old part, the new rank that has it.
    pub(super) holders: Vec<usize>,
}

impl History {
    pub(super) fn offer(&self) -> Offer {
        Offer {
            place: Some((self.rank, self.ranks)),
            own: self.own.iter().map(|part| (part.step, part.cursor)).collect(),
            before: self.before.iter().map(|part| part.step).collect(),
        }
    }

    /// A unit's values of a part at a step, if this rank has them.
    pub(super) fn values(&self, part: usize, step: u64, index: usize) -> Option<&[f32]> {
        let own = (part == self.rank).then_some(&self.own);
        let before = ((part + 1) % self.ranks == self.rank).then_some(&self.before);
        let mut held = own.into_iter().chain(before).flatten();
        let found = held.find(|held| held.step == step)?;
        Some(&found.values[place(&self.units, index, self.ranks)])
    }
}

/// The newest state of which the ranks together have every part.
pub(super) fn plan(offers: &[Offer]) -> Option<Plan> {
    let of_offer = |offer: &Offer| {
        let ranks = offer.place.map_or(0, |(_, ranks)| ranks);
        offer.own.iter().map(move |(step, cursor)| (*step, *cursor, ranks)).collect::<Vec<_>>()
    };
    let mut states: Vec<(u64, Cursor, usize)> = offers.iter().flat_map(of_offer).collect();
    states.sort_unstable_by(|left, right| right.cmp(left));
    states.dedup();
    // Parts of groups of different sizes do not fit together.
    states.into_iter().find_map(|(step, cursor, ranks)| {
        let holder = |part: usize| {
            let is_at = |offer: &Offer, place: usize| offer.place == Some((place, ranks));
            let owns = |offer: &Offer| is_at(offer, part) && offer.own.iter().any(|(own, _)| *own == step);
            let copies = |offer: &Offer| is_at(offer, (part + 1) % ranks) && offer.before.contains(&step);
            offers.iter().position(owns).or_else(|| offers.iter().position(copies))
        };
        let holders = (0..ranks).map(holder).collect::<Option<Vec<usize>>>()?;
        Some(Plan { step, cursor, holders })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(rank: usize, own: &[u64], before: &[u64]) -> Offer {
        let own = own.iter().map(|step| (*step, [1, *step * 10])).collect();
        Offer { place: Some((rank, 4)), own, before: before.to_vec() }
    }

    #[test]
    fn parts_of_groups_of_different_sizes_do_not_mix() {
        let of_two = |rank, step| Offer { place: Some((rank, 2)), ..offer(0, &[step], &[]) };
        // Rank 1 of two has gone on without the others of four, which have all of step 8.
        let of_four = |rank| offer(rank, &[8], &[8]);
        let mut offers = vec![of_two(1, 9)];
        offers.extend((0..4).map(of_four));
        let found = plan(&offers).unwrap();
        assert_eq!((found.step, found.holders), (8, vec![1, 2, 3, 4]));
        offers.push(of_two(0, 9));
        let found = plan(&offers).unwrap();
        assert_eq!((found.step, found.holders), (9, vec![5, 0]));
    }

    #[test]
    fn the_newest_state_that_is_whole_is_taken() {
        // Rank 2 is lost and started again; rank 3 has its copy of step 7 only.
        let new = Offer::default();
        let offers = [offer(0, &[7, 8], &[7, 8]), offer(1, &[7, 8], &[7]), new, offer(3, &[7, 8], &[7])];
        let plan = plan(&offers).unwrap();
        assert_eq!((plan.step, plan.cursor, plan.holders), (7, [1, 70], vec![0, 1, 3, 3]));
    }

    #[test]
    fn a_rank_and_its_copy_cannot_both_be_lost() {
        assert_eq!(plan(&[offer(0, &[7], &[7]), offer(1, &[7], &[7])]), None);
        assert_eq!(plan(&[offer(0, &[7], &[7]), offer(2, &[7], &[7])]).unwrap().holders, [0, 1, 1, 0]);
        assert_eq!(plan(&[Offer::default(), Offer::default()]), None);
    }

    proptest! {
        /// Ranks as they may stand when one is lost: see the module's documentation.
        #[test]
        fn the_loss_of_one_rank_costs_a_step_at_most(
            ranks in 2_usize..7, lost in 0_usize..7, step in 1_u64..50,
            copied in proptest::collection::vec(any::<bool>(), 7), applied in proptest::collection::vec(any::<bool>(), 7),
        ) {
            let lost = lost % ranks;
            let all_copied = (0..ranks).all(|rank| copied[rank]);
            let offers: Vec<Offer> = (0..ranks)
                .filter(|rank| *rank != lost)
                .map(|rank| {
                    // Who has the next gradients has dropped the step before; that needs all copies.
                    let (own, before) = match (all_copied && applied[rank], copied[rank]) {
                        (true, _) => (vec![step, step + 1], vec![step]),
                        (false, true) => (vec![step - 1, step], vec![step - 1, step]),
                        (false, false) => (vec![step - 1, step], vec![step - 1]),
                    };
                    Offer { place: Some((rank, ranks)), ..offer(rank, &own, &before) }
                })
                .collect();
            let plan = plan(&offers).unwrap();
            let furthest = offers.iter().flat_map(|offer| &offer.own).map(|(step, _)| *step).max().unwrap();
            prop_assert!(furthest - plan.step <= 1, "{} of {}", plan.step, furthest);
        }
    }
}
