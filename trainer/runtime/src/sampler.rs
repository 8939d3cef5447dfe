//! Which samples a rank sees in an epoch.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

/// A place in the training data: everything before it has been learned from, whatever the number of ranks was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The pass over the data, from 1.
    pub(crate) epoch: u32,
    /// Samples of the pass that all ranks together have taken.
    pub(crate) taken: usize,
}

impl Cursor {
    pub(crate) const START: Self = Self { epoch: 1, taken: 0 };

    /// Where nothing is left of so many epochs.
    pub(crate) fn after(epochs: u32) -> Self {
        Self { epoch: epochs.saturating_add(1), taken: 0 }
    }

    pub(crate) fn to_words(self) -> [u64; 2] {
        [u64::from(self.epoch), self.taken as u64]
    }

    pub(crate) fn from_words([epoch, taken]: [u64; 2]) -> Self {
        Self { epoch: epoch as u32, taken: taken as usize }
    }
}

/// How many ranks take how much at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dealing {
    pub(crate) world_size: usize,
    /// Samples that a rank takes at most.
    pub(crate) per_rank: usize,
    /// Batches among which a rank divides them; each needs a sample.
    pub(crate) batches: usize,
}

impl Dealing {
    /// Samples of each rank, when so many are left of the epoch; 0 ends it.
    fn share(&self, left: usize) -> usize {
        let share = self.per_rank.min(left / self.world_size);
        share / self.batches * self.batches
    }
}

/// Deals the samples of an epoch to the ranks: shuffled by seed and epoch, disjoint, and as many to each rank.
///
/// Where the ranks do not divide the samples, the epoch leaves out the remainder, another one each time.
#[derive(Debug)]
pub(crate) struct DistributedSampler {
    samples: usize,
    seed: u64,
    /// The order of the last epoch asked for.
    order: (u32, Vec<usize>),
}

impl DistributedSampler {
    pub(crate) fn new(samples: usize, seed: u64) -> Self {
        Self { samples, seed, order: (0, Vec::new()) }
    }

    /// What `rank` takes at `cursor`, and where the step after it begins; none at the end of the epoch.
    pub(crate) fn take(
        &mut self,
        cursor: Cursor,
        dealing: Dealing,
        rank: usize,
    ) -> Option<(Vec<usize>, Cursor)> {
        let share = dealing.share(self.samples - cursor.taken);
        if share == 0 {
            return None;
        }
        if self.order.0 != cursor.epoch {
            self.order = (cursor.epoch, permutation(self.samples, self.seed, u64::from(cursor.epoch) + 1));
        }
        let taken = cursor.taken + share * dealing.world_size;
        let all = &self.order.1[cursor.taken..taken];
        let own = all.iter().skip(rank).step_by(dealing.world_size).copied().collect();
        Some((own, Cursor { taken, ..cursor }))
    }

    /// Whether the epoch of `cursor` has another step.
    pub(crate) fn has_more(&self, cursor: Cursor, dealing: Dealing) -> bool {
        dealing.share(self.samples - cursor.taken) > 0
    }

    /// Steps from `cursor` to the end of epoch `last`.
    pub(crate) fn steps_left(&self, cursor: Cursor, dealing: Dealing, last: u32) -> u64 {
        let of_epoch = |mut left: usize| {
            let mut steps = 0;
            while let share @ 1.. = dealing.share(left) {
                // All steps but the last are equal.
                let equal = if share == dealing.per_rank / dealing.batches * dealing.batches {
                    left / (share * dealing.world_size)
                } else {
                    1
                };
                left -= equal * share * dealing.world_size;
                steps += equal as u64;
            }
            steps
        };
        if cursor.epoch > last {
            return 0;
        }
        of_epoch(self.samples - cursor.taken) + of_epoch(self.samples) * u64::from(last - cursor.epoch)
    }
}

/// The numbers below `count` in an order that depends on the seed and the stream alone.
pub(crate) fn permutation(count: usize, seed: u64, stream: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut generator(seed, stream));
    order
}

/// A generator of its own for each purpose: streams of one seed do not repeat each other.
pub(crate) fn generator(seed: u64, stream: u64) -> Xoshiro256PlusPlus {
    let mixed = seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Xoshiro256PlusPlus::seed_from_u64(mixed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_sample_is_taken_once_however_the_ranks_change(
            samples in 1_usize..300,
            seed: u64,
            changes in proptest::collection::vec((1_usize..9, 1_usize..6, 1_usize..12), 1..6),
        ) {
            let mut sampler = DistributedSampler::new(samples, seed);
            let (mut cursor, mut seen, mut last) = (Cursor { epoch: 3, taken: 0 }, Vec::new(), None);
            for (world_size, batches, steps) in changes {
                let dealing = Dealing { world_size, per_rank: 2 * batches, batches };
                for _ in 0..steps {
                    let dealt: Vec<_> = (0..world_size).map(|rank| sampler.take(cursor, dealing, rank)).collect();
                    let has_more = sampler.has_more(cursor, dealing);
                    prop_assert!(dealt.iter().all(|dealt| dealt.is_some() == has_more));
                    let Some((first, next)) = dealt[0].clone() else { break };
                    for dealt in dealt {
                        let (own, end) = dealt.unwrap();
                        prop_assert_eq!((own.len(), end), (first.len(), next));
                        prop_assert_eq!(own.len() % batches, 0);
                        seen.extend(own);
                    }
                    cursor = next;
                }
                last = Some(dealing);
            }
            while let Some((_, next)) = sampler.take(cursor, last.unwrap(), 0) {
                for rank in 0..last.unwrap().world_size {
                    seen.extend(sampler.take(cursor, last.unwrap(), rank).unwrap().0);
                }
                cursor = next;
            }
            prop_assert_eq!(seen.len(), cursor.taken);
            let left = samples - cursor.taken;
            prop_assert!(left < last.unwrap().world_size * last.unwrap().batches);
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), cursor.taken);
            prop_assert!(seen.iter().all(|sample| *sample < samples));
        }

        #[test]
        fn steps_are_counted_as_they_are_taken(
            samples in 1_usize..200, world_size in 1_usize..5, batches in 1_usize..4, size in 1_usize..20,
            epoch in 1_u32..4,
        ) {
            let mut sampler = DistributedSampler::new(samples, 1);
            let dealing = Dealing { world_size, per_rank: size.max(batches), batches };
            let (mut cursor, mut steps) = (Cursor { epoch, taken: 0 }, 0);
            let expected = sampler.steps_left(cursor, dealing, 3);
            while cursor.epoch <= 3 {
                match sampler.take(cursor, dealing, 0) {
                    Some((_, next)) => {
                        prop_assert_eq!(sampler.steps_left(cursor, dealing, 3), expected - steps);
                        (cursor, steps) = (next, steps + 1);
                    }
                    None => cursor = Cursor { epoch: cursor.epoch + 1, taken: 0 },
                }
            }
            prop_assert_eq!(steps, expected);
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let mut sampler = DistributedSampler::new(100, 3);
        let dealing = Dealing { world_size: 4, per_rank: 25, batches: 1 };
        let mut of = |epoch| sampler.take(Cursor { epoch, taken: 0 }, dealing, 1).unwrap().0;
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_cursor_travels_as_words() {
        let cursor = Cursor { epoch: 7, taken: 12_345 };
        assert_eq!(Cursor::from_words(cursor.to_words()), cursor);
    }
}
