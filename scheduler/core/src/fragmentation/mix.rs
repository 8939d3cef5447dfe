//! The demand seen so far, and what one node has free.

use std::collections::BTreeMap;

use crate::devices::{GpuDemand, WHOLE};

/// Processor and memory, each in any unit as long as it is always the same.
pub type Host = [i64; 2];

/// Which classes of nodes will do. A class holds nodes whose GPUs are of one model; numbers above 63 count
/// as 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassSet(u64);

impl ClassSet {
    /// Every class.
    pub const ALL: Self = Self(u64::MAX);

    /// No class but those of `classes`.
    pub fn of(classes: impl IntoIterator<Item = usize>) -> Self {
        Self(classes.into_iter().fold(0, |set, class| set | Self::bit(class)))
    }

    /// Whether nodes of the class will do.
    pub fn contains(self, class: usize) -> bool {
        self.0 & Self::bit(class) != 0
    }

    fn bit(class: usize) -> u64 {
        1 << class.min(63)
    }
}

/// What one pod asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Want {
    /// GPUs.
    pub gpu: GpuDemand,
    /// Processor and memory.
    pub host: Host,
    /// Where it may run.
    pub classes: ClassSet,
}

/// What a node has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free<'a> {
    /// Its class.
    pub class: usize,
    /// Processor and memory.
    pub host: Host,
    /// Thousandths of each device.
    pub devices: &'a [u16],
}

impl Free<'_> {
    /// Whether one pod fits.
    pub fn holds(&self, want: &Want) -> bool {
        let host = self.host.iter().zip(want.host).all(|(free, asked)| *free >= asked || asked <= 0);
        let devices = |least: u16| self.devices.iter().filter(|left| **left >= least).count();
        host && want.classes.contains(self.class)
            && match want.gpu {
                GpuDemand::None => true,
                GpuDemand::Whole(count) => devices(WHOLE) >= count as usize,
                GpuDemand::Share(share) => devices(share) >= 1,
            }
    }

    /// Thousandths of devices together.
    pub fn thousandths(&self) -> u32 {
        self.devices.iter().map(|left| u32::from(*left)).sum()
    }
}

/// How often each kind of pod was asked for: the best guess at what comes next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mix {
    weights: BTreeMap<Want, f64>,
    total: f64,
}

impl Mix {
    /// Counts pods of one kind.
    pub fn observe(&mut self, want: &Want, pods: f64) {
        *self.weights.entry(*want).or_default() += pods;
        self.total += pods;
    }

    /// Lets the past count for less: `factor` 1 keeps it, 0 forgets it.
    pub fn fade(&mut self, factor: f64) {
        self.total = 0.0;
        for weight in self.weights.values_mut() {
            *weight *= factor;
            self.total += *weight;
        }
        self.weights.retain(|_, weight| *weight > 1e-6);
    }

    /// Pods counted.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Kinds with their share of all pods.
    pub fn shares(&self) -> impl Iterator<Item = (&Want, f64)> {
        self.weights.iter().map(|(want, weight)| (want, weight / self.total))
    }

    /// The most frequent kinds that make up `share` of all pods.
    #[must_use]
    pub fn typical(&self, share: f64) -> Self {
        let mut kinds: Vec<(&Want, f64)> =
            self.weights.iter().map(|(want, weight)| (want, *weight)).collect();
        kinds.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(right.0)));
        let mut typical = Self::default();
        for (want, weight) in kinds {
            if typical.total >= share * self.total {
                break;
            }
            typical.observe(want, weight);
        }
        typical
    }
}

/// Thousandths of a node's free devices that the next pod of the mix cannot use, in expectation: all of them
/// when it does not fit or wants no GPU, else those on devices with too little left.
pub fn fragments(free: &Free<'_>, mix: &Mix) -> f64 {
    let all = f64::from(free.thousandths());
    let unusable = |want: &Want| {
        let least = match want.gpu {
            GpuDemand::None => return all,
            GpuDemand::Whole(_) => WHOLE,
            GpuDemand::Share(share) => share,
        };
        if !free.holds(want) {
            return all;
        }
        let left = free.devices.iter().filter(|left| **left < least).map(|left| f64::from(*left));
        left.sum::<f64>()
    };
    mix.shares().map(|(want, share)| share * unusable(want)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(gpu: GpuDemand, processor: i64) -> Want {
        Want { gpu, host: [processor, 0], classes: ClassSet::ALL }
    }

    #[test]
    fn what_the_next_pod_cannot_use_is_a_fragment() {
        let mut mix = Mix::default();
        mix.observe(&want(GpuDemand::Whole(1), 4), 3.0);
        mix.observe(&want(GpuDemand::Share(300), 8), 1.0);
        let free = |processor, devices| Free { class: 0, host: [processor, 0], devices };
        // Whole pods cannot use the 400; shares can use everything.
        assert!((fragments(&free(16, &[1000, 400]), &mix) - 0.75 * 400.0).abs() < 1e-9);
        // Too little processor for the share: all 1400 are lost to it.
        assert!((fragments(&free(4, &[1000, 400]), &mix) - (0.75 * 400.0 + 0.25 * 1400.0)).abs() < 1e-9);
        assert!((fragments(&free(1, &[1000, 400]), &mix) - 1400.0).abs() < 1e-9);
    }

    #[test]
    fn the_rarest_kinds_are_not_typical() {
        let mut mix = Mix::default();
        for (processor, pods) in [(1, 60.0), (2, 36.0), (3, 4.0)] {
            mix.observe(&want(GpuDemand::Whole(1), processor), pods);
        }
        let typical = mix.typical(0.95);
        assert_eq!(typical.shares().count(), 2);
        assert!((typical.total() - 96.0).abs() < 1e-9);
    }

    #[test]
    fn a_class_above_the_last_counts_as_the_last() {
        assert!(
            ClassSet::of([100]).contains(63) && !ClassSet::of([1]).contains(2) && ClassSet::ALL.contains(70)
        );
    }
}
