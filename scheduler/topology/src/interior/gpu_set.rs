//! Sets of a node's GPUs.

use super::MAX_GPUS;

/// Some of a node's GPUs, by index, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GpuSet(pub u64);

impl GpuSet {
    /// No GPU.
    pub const EMPTY: Self = Self(0);

    /// The first `count` GPUs.
    pub const fn first(count: usize) -> Self {
        if count >= MAX_GPUS { Self(u64::MAX) } else { Self((1 << count) - 1) }
    }

    /// Those for which the flag is true; flags beyond the 64th do not count.
    pub fn from_flags(flags: &[bool]) -> Self {
        flags.iter().enumerate().filter(|(_, flag)| **flag).map(|(gpu, _)| gpu).collect()
    }

    /// The same with one more; an index beyond 63 changes nothing.
    #[must_use]
    pub const fn with(self, gpu: usize) -> Self {
        if gpu < MAX_GPUS { Self(self.0 | 1 << gpu) } else { self }
    }

    /// The same without those of another.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a GPU is among them.
    pub const fn contains(self, gpu: usize) -> bool {
        gpu < MAX_GPUS && self.0 >> gpu & 1 == 1
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The indices in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let gpu = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(gpu)
        })
    }
}

impl FromIterator<usize> for GpuSet {
    fn from_iter<T: IntoIterator<Item = usize>>(gpus: T) -> Self {
        gpus.into_iter().fold(Self::EMPTY, Self::with)
    }
}
