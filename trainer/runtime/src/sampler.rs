//! Which samples a rank sees in an epoch.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

/// Deals the samples of an epoch to the ranks: shuffled by seed and epoch, disjoint, and as many to each rank.
///
/// Where the ranks do not divide the samples, the epoch leaves out the remainder, another one each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DistributedSampler {
    pub(crate) samples: usize,
    pub(crate) rank: usize,
    pub(crate) world_size: usize,
    pub(crate) seed: u64,
}

impl DistributedSampler {
    /// Samples of one rank in one epoch.
    pub(crate) fn samples_per_rank(&self) -> usize {
        self.samples / self.world_size
    }

    /// This rank's samples of an epoch, in the order to take them.
    pub(crate) fn epoch(&self, epoch: u32) -> Vec<usize> {
        let order = permutation(self.samples, self.seed, u64::from(epoch) + 1);
        order.into_iter().skip(self.rank).step_by(self.world_size).take(self.samples_per_rank()).collect()
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
        fn ranks_share_an_epoch_evenly_and_disjointly(
            samples in 0_usize..500, world_size in 1_usize..9, seed: u64, epoch in 0_u32..50,
        ) {
            let shards: Vec<Vec<usize>> = (0..world_size)
                .map(|rank| DistributedSampler { samples, rank, world_size, seed }.epoch(epoch))
                .collect();
            prop_assert!(shards.iter().all(|shard| shard.len() == samples / world_size));
            let mut all: Vec<usize> = shards.concat();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), samples / world_size * world_size);
            prop_assert!(all.iter().all(|sample| *sample < samples));
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let sampler = DistributedSampler { samples: 100, rank: 1, world_size: 4, seed: 3 };
        assert_eq!(sampler.epoch(0), sampler.epoch(0));
        assert_ne!(sampler.epoch(0), sampler.epoch(1));
    }
}
