//! Numbers of devices, and which node reaches which.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::device::{ClaimedDevice, Consumption, DeviceId, DeviceNumber, Inventory, Reach};
use super::stock::{Shelf, Stock};
use crate::node::Node;

/// All devices that were ever seen, and those that are there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    numbers: BTreeMap<Arc<DeviceId>, DeviceNumber>,
    ids: Vec<Arc<DeviceId>>,
    present: BTreeMap<DeviceNumber, ClaimedDevice>,
    of_node: HashMap<String, Vec<DeviceNumber>>,
    /// Devices that are not of one node.
    wide: Vec<DeviceNumber>,
    counters: Vec<i64>,
    incomplete: Vec<Reach>,
}

impl Table {
    /// Replaces what is there; devices keep their numbers.
    pub(crate) fn set(&mut self, inventory: Inventory) {
        self.present.clear();
        self.of_node.clear();
        self.wide.clear();
        self.counters = inventory.counters;
        self.incomplete = inventory.incomplete;
        for device in inventory.devices {
            let number = self.number(&device.id);
            match &device.reach {
                Reach::Node(name) => self.of_node.entry(name.clone()).or_default().push(number),
                Reach::Selected(_) | Reach::Everywhere => self.wide.push(number),
            }
            self.present.insert(number, device);
        }
    }

    /// The number of a device; it need not be there.
    pub(crate) fn number(&mut self, id: &DeviceId) -> DeviceNumber {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = DeviceNumber(self.ids.len() as u32);
        let id = Arc::new(id.clone());
        self.ids.push(Arc::clone(&id));
        self.numbers.insert(id, number);
        number
    }

    /// The device of a number.
    pub(crate) fn id(&self, number: DeviceNumber) -> Option<&Arc<DeviceId>> {
        self.ids.get(number.0 as usize)
    }

    /// What is there of a number.
    pub(crate) fn device(&self, number: DeviceNumber) -> Option<&ClaimedDevice> {
        self.present.get(&number)
    }

    /// What a node reaches, with nothing taken; nothing when there is nothing.
    pub(crate) fn stock(&self, node: &Node) -> Option<Stock> {
        let reached = |number: &&DeviceNumber| {
            self.present.get(number).is_some_and(|device| device.reach.includes(node))
        };
        let own = self.of_node.get(&node.name).into_iter().flatten();
        let mut numbers: Vec<DeviceNumber> = own.chain(self.wide.iter().filter(reached)).copied().collect();
        if numbers.is_empty() {
            return None;
        }
        numbers.sort_unstable();
        let mut shelf =
            Shelf { complete: !self.incomplete.iter().any(|reach| reach.includes(node)), ..Shelf::default() };
        let mut known: BTreeMap<usize, usize> = BTreeMap::new();
        for number in numbers {
            let Some(device) = self.present.get(&number) else { continue };
            let consumes = device.consumes.iter().map(|use_up| {
                let counter = *known.entry(use_up.counter).or_insert_with(|| {
                    shelf.counters.push(self.counters.get(use_up.counter).copied().unwrap_or(0));
                    shelf.counters.len() - 1
                });
                Consumption { counter, amount: use_up.amount }
            });
            let mut consumes: Vec<Consumption> = consumes.collect();
            consumes.sort_unstable();
            shelf.consumes.push(consumes);
            shelf.numbers.push(number);
        }
        Some(Stock::new(Arc::new(shelf)))
    }
}
