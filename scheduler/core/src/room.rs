//! What is left on one node.

use std::sync::Arc;

use crate::amounts::Amounts;
use crate::claims::{ClaimDemand, Grant, Stock};
use crate::devices::Devices;
use crate::shape::Shape;

/// What is left on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Room {
    /// All resources but GPUs.
    pub amounts: Amounts,
    /// GPUs.
    pub devices: Devices,
    /// Devices that claims may have; most nodes have none.
    pub(crate) stock: Option<Arc<Stock>>,
}

impl Room {
    /// How many pods with these claims there are devices for, `most` at most.
    pub(crate) fn times_claimed(&self, claims: &[Arc<ClaimDemand>], most: u32) -> u32 {
        self.stock.as_ref().map_or(0, |stock| stock.times(claims, most))
    }

    /// How many devices are free that claims may have.
    pub(crate) fn devices_to_claim(&self) -> u32 {
        let stock = self.stock.iter();
        stock.flat_map(|stock| stock.devices()).filter(|(_, free)| *free).count() as u32
    }

    /// Devices for the claims of `count` pods of `shape`, for all or for none.
    pub(crate) fn grant(&self, shape: &Shape, count: u32) -> Option<Vec<Grant>> {
        self.stock.as_ref()?.grant(&shape.claims, count as usize)
    }

    /// Takes away what is beyond `limit`.
    pub(crate) fn lower(&mut self, limit: &Self) {
        self.amounts.lower(&limit.amounts);
        self.devices.lower(&limit.devices);
        if let (Some(stock), Some(limit)) = (&mut self.stock, &limit.stock) {
            Arc::make_mut(stock).lower(limit);
        }
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
