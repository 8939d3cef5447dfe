//! The GPUs of one node: which are free, whole or in part.

use muster_scheduler_topology::GpuSet;
use muster_scheduler_topology::interior::MAX_GPUS;
use smallvec::SmallVec;

/// Thousandths of a whole device.
pub const WHOLE: u16 = 1000;

/// Indices of GPUs on their node.
pub type DeviceIndices = SmallVec<[u8; 8]>;

/// What a pod wants of the GPUs of its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GpuDemand {
    /// Nothing.
    #[default]
    None,
    /// So many whole devices.
    Whole(u32),
    /// So many thousandths of one device (1 to 999), shared with others.
    Share(u16),
}

impl GpuDemand {
    /// Thousandths of devices together.
    pub fn thousandths(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Whole(count) => count * u32::from(WHOLE),
            Self::Share(share) => u32::from(share),
        }
    }

    /// Thousandths that it takes of each device it gets.
    pub(crate) fn of_each(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Whole(_) => WHOLE,
            Self::Share(share) => share,
        }
    }
}

/// What is left of each GPU of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Devices {
    left: SmallVec<[u16; 8]>,
    /// Whole devices that pods have without anyone having written down which.
    unnamed: u32,
    /// Devices of which more was taken than there is, in order, with the thousandths beyond: pods that say that they
    /// have the same one. Each has one in truth.
    beyond: Vec<(u8, u32)>,
}

impl Devices {
    /// `count` free devices.
    pub(crate) fn free(count: u32) -> Self {
        Self { left: SmallVec::from_elem(WHOLE, count as usize), unnamed: 0, beyond: Vec::new() }
    }

    /// Thousandths left, device by device.
    pub fn left(&self) -> &[u16] {
        &self.left
    }

    /// Free devices that can be handed out whole.
    pub fn whole(&self) -> u32 {
        let free = self.left.iter().filter(|left| **left == WHOLE).count();
        (free as u32).saturating_sub(self.unknown())
    }

    /// Thousandths left together.
    pub fn thousandths(&self) -> u32 {
        let left: u32 = self.left.iter().map(|left| u32::from(*left)).sum();
        left.saturating_sub(self.unknown() * u32::from(WHOLE))
    }

    /// How many pods of this demand fit.
    pub fn times(&self, demand: GpuDemand) -> u32 {
        match demand {
            GpuDemand::None | GpuDemand::Whole(0) | GpuDemand::Share(0) => u32::MAX,
            GpuDemand::Whole(count) => self.whole() / count,
            GpuDemand::Share(share) => {
                let fits = self.left.iter().map(|left| u32::from(*left / share)).sum::<u32>();
                // Which device such a pod has is not known: suppose the emptiest.
                fits.saturating_sub(self.unknown() * u32::from(WHOLE / share))
            }
        }
    }

    /// The devices that are free as a whole; `None` on nodes with more than is understood of.
    pub(crate) fn free_set(&self) -> Option<GpuSet> {
        let free = self.left.iter().enumerate().filter(|(_, left)| **left == WHOLE);
        (self.left.len() <= MAX_GPUS).then(|| free.map(|(index, _)| index).collect())
    }

    /// Devices for one pod: for a share the fullest that has room, for whole ones the first.
    pub(crate) fn choose(&self, demand: GpuDemand) -> Option<DeviceIndices> {
        if self.times(demand) == 0 {
            return None;
        }
        let indices = 0..self.left.len() as u8;
        match demand {
            GpuDemand::None => Some(DeviceIndices::new()),
            GpuDemand::Whole(count) => {
                let free = indices.filter(|index| self.left[usize::from(*index)] == WHOLE);
                let chosen: DeviceIndices = free.take(count as usize).collect();
                (chosen.len() == count as usize).then_some(chosen)
            }
            GpuDemand::Share(share) => indices
                .filter(|index| self.left[usize::from(*index)] >= share)
                .min_by_key(|index| self.left[usize::from(*index)])
                .map(|index| SmallVec::from_slice(&[index])),
        }
    }

    /// Whether all of `indices` exist and have `thousandths` left.
    pub(crate) fn first_without(&self, indices: &[u8], thousandths: u16) -> Option<u8> {
        indices
            .iter()
            .copied()
            .find(|index| self.left.get(usize::from(*index)).is_none_or(|left| *left < thousandths))
    }

    pub(crate) fn take(&mut self, indices: &[u8], demand: GpuDemand) {
        self.unnamed += self.nameless(indices, demand);
        for index in indices {
            let Some(left) = self.left.get_mut(usize::from(*index)) else { continue };
            let lacking = demand.of_each().saturating_sub(*left);
            *left = left.saturating_sub(demand.of_each());
            if lacking > 0 {
                match self.beyond.binary_search_by_key(index, |(device, _)| *device) {
                    Ok(known) => self.beyond[known].1 += u32::from(lacking),
                    Err(place) => self.beyond.insert(place, (*index, u32::from(lacking))),
                }
            }
        }
    }

    pub(crate) fn give_back(&mut self, indices: &[u8], demand: GpuDemand) {
        self.unnamed = self.unnamed.saturating_sub(self.nameless(indices, demand));
        for index in indices {
            let Some(left) = self.left.get_mut(usize::from(*index)) else { continue };
            let mut each = demand.of_each();
            // What was taken beyond what there is comes back first: the device is another pod's still.
            if let Ok(known) = self.beyond.binary_search_by_key(index, |(device, _)| *device) {
                let paid = u32::from(each).min(self.beyond[known].1);
                each -= paid as u16;
                self.beyond[known].1 -= paid;
                if self.beyond[known].1 == 0 {
                    self.beyond.remove(known);
                }
            }
            *left = left.saturating_add(each).min(WHOLE);
        }
    }

    /// Takes away what is beyond `limit`, device by device; nothing is left of those that it does not have.
    pub(crate) fn lower(&mut self, limit: &Self) {
        for (device, left) in self.left.iter_mut().enumerate() {
            *left = (*left).min(limit.left.get(device).copied().unwrap_or(0));
        }
        self.unnamed += self.whole().saturating_sub(limit.whole());
    }

    /// Whole devices of the demand beyond those whose indices are known and exist.
    fn nameless(&self, indices: &[u8], demand: GpuDemand) -> u32 {
        let named = indices.iter().filter(|index| usize::from(**index) < self.left.len()).count();
        match demand {
            GpuDemand::Whole(count) => count.saturating_sub(named as u32),
            GpuDemand::None | GpuDemand::Share(_) => 0,
        }
    }

    /// Whole devices that are taken, and nobody knows which.
    fn unknown(&self) -> u32 {
        let beyond: u32 = self.beyond.iter().map(|(_, beyond)| beyond).sum();
        self.unnamed + beyond.div_ceil(u32::from(WHOLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_goes_to_the_fullest_device_that_has_room() {
        let mut devices = Devices::free(2);
        let share = GpuDemand::Share(400);
        assert_eq!(devices.times(share), 4);
        for expected in [0, 0, 1] {
            let chosen = devices.choose(share).unwrap();
            assert_eq!(chosen.as_slice(), [expected]);
            devices.take(&chosen, share);
        }
        assert_eq!((devices.left(), devices.whole(), devices.times(share)), (&[200, 600][..], 0, 1));
        devices.give_back(&[0], share);
        assert_eq!(devices.left(), [600, 600]);
    }

    #[test]
    fn devices_that_nobody_named_are_not_handed_out_again() {
        let mut devices = Devices::free(4);
        devices.take(&[], GpuDemand::Whole(3));
        assert_eq!((devices.whole(), devices.times(GpuDemand::Whole(2))), (1, 0));
        devices.give_back(&[], GpuDemand::Whole(3));
        assert_eq!(devices.times(GpuDemand::Whole(2)), 2);
    }

    #[test]
    fn a_device_that_two_pods_claim_is_free_when_both_are_gone() {
        let mut devices = Devices::free(4);
        let one = GpuDemand::Whole(1);
        devices.take(&[2], one);
        devices.take(&[2], one);
        assert_eq!((devices.whole(), devices.thousandths()), (2, 2000), "both have one");
        devices.give_back(&[2], one);
        assert_eq!(
            (devices.left(), devices.whole()),
            (&[1000, 1000, 0, 1000][..], 3),
            "the other has it still"
        );
        devices.give_back(&[2], one);
        assert_eq!(devices, Devices::free(4));
    }

    #[test]
    fn a_device_that_does_not_exist_is_another() {
        let mut devices = Devices::free(2);
        devices.take(&[200], GpuDemand::Whole(1));
        assert_eq!(devices.whole(), 1);
        devices.give_back(&[200], GpuDemand::Whole(1));
        assert_eq!(devices, Devices::free(2));
    }
}
