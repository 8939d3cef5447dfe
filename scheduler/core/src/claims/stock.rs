//! The devices that one node reaches, and which of them are taken.

use std::sync::Arc;

use super::device::{Consumption, DeviceNumber};

/// What a node reaches, whatever is taken of it.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Shelf {
    /// In order.
    pub(super) numbers: Vec<DeviceNumber>,
    /// What each of them uses up, by counters of this shelf.
    pub(super) consumes: Vec<Vec<Consumption>>,
    /// What there is of each counter.
    pub(super) counters: Vec<i64>,
    /// Whether it is known whole.
    pub(super) complete: bool,
}

impl Shelf {
    pub(super) fn position(&self, device: DeviceNumber) -> Option<usize> {
        self.numbers.binary_search(&device).ok()
    }
}

/// The devices that one node reaches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stock {
    pub(super) shelf: Arc<Shelf>,
    /// By how many claims each device is held; more than one is others' doing.
    taken: Vec<u16>,
}

/// A device that a claim gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrantedDevice {
    /// The request, and below `/` the alternative where there are several.
    pub request: Arc<str>,
    /// The device.
    pub device: DeviceNumber,
    /// Whether the claim only looks at it.
    pub admin: bool,
}

/// What the claims of one pod get, claim by claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Devices of each claim, in the order of [`Shape::claims`](crate::Shape::claims).
    pub claims: Vec<Vec<GrantedDevice>>,
}

impl Grant {
    /// The devices that are nobody else's from now on.
    pub fn taken(&self) -> impl Iterator<Item = DeviceNumber> {
        let devices = self.claims.iter().flatten();
        devices.filter(|granted| !granted.admin).map(|granted| granted.device)
    }
}

impl Stock {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        let taken = vec![0; shelf.numbers.len()];
        Self { shelf, taken }
    }

    /// Everything that the node reaches, with nothing taken.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(Arc::clone(&self.shelf))
    }

    pub(super) fn is_free(&self, position: usize) -> bool {
        self.taken[position] == 0
    }

    /// Whether nobody holds the device, and what it uses up is left.
    pub(crate) fn has(&self, device: DeviceNumber) -> bool {
        let Some(position) = self.shelf.position(device) else { return false };
        let left = self.counters_left();
        let enough = |use_up: &Consumption| left[use_up.counter] >= use_up.amount;
        self.is_free(position) && self.shelf.consumes[position].iter().all(enough)
    }

    /// Whether the node reaches the device.
    pub(crate) fn reaches(&self, device: DeviceNumber) -> bool {
        self.shelf.position(device).is_some()
    }

    /// What is left of each counter.
    pub(super) fn counters_left(&self) -> Vec<i64> {
        let mut left = self.shelf.counters.clone();
        let taken = self.taken.iter().zip(&self.shelf.consumes).filter(|(taken, _)| **taken > 0);
        for use_up in taken.flat_map(|(_, consumes)| consumes) {
            left[use_up.counter] -= use_up.amount;
        }
        left
    }

    pub(crate) fn take(&mut self, device: DeviceNumber) {
        if let Some(position) = self.shelf.position(device) {
            self.taken[position] = self.taken[position].saturating_add(1);
        }
    }

    pub(crate) fn give_back(&mut self, device: DeviceNumber) {
        if let Some(position) = self.shelf.position(device) {
            self.taken[position] = self.taken[position].saturating_sub(1);
        }
    }

    /// Takes what is taken in `limit`, too.
    pub(crate) fn lower(&mut self, limit: &Self) {
        for (device, taken) in limit.shelf.numbers.iter().zip(&limit.taken) {
            if let Some(position) = self.shelf.position(*device) {
                self.taken[position] = self.taken[position].max(*taken);
            }
        }
    }

    /// Its devices, and whether each is free.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (DeviceNumber, bool)> {
        let numbers = self.shelf.numbers.iter().enumerate();
        numbers.map(|(position, device)| (*device, self.is_free(position)))
    }
}
