//! What is left on one node.

use crate::amounts::Amounts;
use crate::devices::Devices;
use crate::shape::Shape;

/// What is left on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Room {
    /// All resources but GPUs.
    pub amounts: Amounts,
    /// GPUs.
    pub devices: Devices,
}

impl Room {
    /// Takes away what is beyond `limit`.
    pub(crate) fn lower(&mut self, limit: &Self) {
        self.amounts.lower(&limit.amounts);
        self.devices.lower(&limit.devices);
    }

    pub(crate) fn take(&mut self, shape: &Shape, devices: &[u8]) {
        self.amounts.add(&shape.amounts, -1);
        self.devices.take(devices, shape.gpu);
    }

    pub(crate) fn give_back(&mut self, shape: &Shape, devices: &[u8]) {
        self.amounts.add(&shape.amounts, 1);
        self.devices.give_back(devices, shape.gpu);
    }
}
