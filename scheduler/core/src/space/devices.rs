//! Devices that can be claimed, on the nodes that reach them.

use std::sync::Arc;

use super::{NodeId, Space};
use crate::claims::{ClaimedDevice, DeviceId, DeviceNumber, Grant, Inventory, Reach, Stock};
use crate::node::Node;
use crate::shape::Shape;

impl Space {
    /// Replaces the devices that can be claimed; none of them is taken.
    pub(crate) fn set_inventory(&mut self, inventory: Inventory) {
        Arc::make_mut(&mut self.claimable).set(inventory);
        let nodes: Vec<(NodeId, Arc<Node>)> = self.nodes().map(|(id, node)| (id, Arc::clone(node))).collect();
        for (id, node) in nodes {
            let stock = self.claimable.stock(&node).map(Arc::new);
            let room = &mut self.rooms[id.index()];
            if room.stock != stock {
                room.stock = stock;
                self.log.push(id, self.rooms.len());
            }
        }
    }

    /// The number of a device.
    pub(crate) fn device_number(&mut self, id: &DeviceId) -> DeviceNumber {
        Arc::make_mut(&mut self.claimable).number(id)
    }

    /// The device of a number.
    pub fn device_id(&self, number: DeviceNumber) -> Option<&Arc<DeviceId>> {
        self.claimable.id(number)
    }

    /// What is published of a device.
    pub fn claimable(&self, number: DeviceNumber) -> Option<&ClaimedDevice> {
        self.claimable.device(number)
    }

    /// The devices that a node reaches, and whether each is free.
    pub fn devices_on(&self, node: NodeId) -> impl Iterator<Item = (DeviceNumber, bool)> {
        self.rooms[node.index()].stock.iter().flat_map(|stock| stock.devices())
    }

    /// Whether a node has devices that a claim was granted, and nobody holds them.
    pub fn has_granted(&self, node: NodeId, grant: &Grant) -> bool {
        let stock = self.rooms[node.index()].stock.as_ref();
        let mut devices = grant.claims.iter().flatten();
        devices.all(|granted| {
            stock.is_some_and(|stock| {
                if granted.admin { stock.reaches(granted.device) } else { stock.has(granted.device) }
            })
        })
    }

    /// Takes devices away from all nodes that reach them.
    pub fn take_devices(&mut self, devices: impl IntoIterator<Item = DeviceNumber>) {
        self.change_devices(devices, Stock::take);
    }

    /// Gives devices back to all nodes that reach them.
    pub fn give_back_devices(&mut self, devices: impl IntoIterator<Item = DeviceNumber>) {
        self.change_devices(devices, Stock::give_back);
    }

    fn change_devices(
        &mut self,
        devices: impl IntoIterator<Item = DeviceNumber>,
        change: fn(&mut Stock, DeviceNumber),
    ) {
        for device in devices {
            let Some(reach) = self.claimable.device(device).map(|device| &device.reach) else { continue };
            let nodes: Vec<NodeId> = match reach {
                Reach::Node(name) => self.id(name).into_iter().collect(),
                Reach::Selected(_) | Reach::Everywhere => self.nodes.ids.values().copied().collect(),
            };
            for node in nodes {
                self.change_device_on(node, device, change);
            }
        }
    }

    fn change_device_on(&mut self, node: NodeId, device: DeviceNumber, change: fn(&mut Stock, DeviceNumber)) {
        let stock = self.rooms[node.index()].stock.as_mut().filter(|stock| stock.reaches(device));
        if let Some(stock) = stock {
            change(Arc::make_mut(stock), device);
            self.log.push(node, self.rooms.len());
        }
    }

    /// Takes a device on one node as often as it is held, after the node's room was made anew.
    pub(crate) fn take_device_again(&mut self, node: NodeId, device: DeviceNumber, times: u16) {
        (0..times).for_each(|_| self.change_device_on(node, device, Stock::take));
    }

    /// Devices for the claims of `count` pods of a shape on a node, for all or for none.
    pub(crate) fn grant(&self, node: NodeId, shape: &Shape, count: u32) -> Option<Vec<Grant>> {
        self.rooms[node.index()].grant(shape, count)
    }
}
