//! The ledger: what every node has, and who took what. The one truth of all front ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_scheduler_topology::import::TopologySources;

use crate::resources::GPU_RESOURCE;

use crate::claims::{ClaimKey, DeviceId, DeviceNumber, Grant, GrantedDevice, HeldClaims, Inventory, Shift};
use crate::devices::{DeviceIndices, GpuDemand, WHOLE};
use crate::explain::Waiting;
use crate::gang::{Gang, PodKey};
use crate::node::Node;
use crate::placement;
use crate::resources::Resources;
use crate::shape::Shape;
use crate::space::{NodeId, Space};
use crate::traffic::Traffic;

/// What one pod took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Uid of the pod.
    pub uid: String,
    /// The node.
    pub node: String,
    /// What it took there.
    pub resources: Resources,
    /// Which GPU slots.
    pub gpu_indices: Vec<u32>,
    /// Thousandths of the one slot that it shares with others; 0 when it has its slots for itself.
    pub gpu_share: u16,
    /// What claims get with it; a claim that several pods share comes with one of them.
    pub claims: Vec<ClaimGrant>,
}

/// What a claim gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimGrant {
    /// Name of the claim in the pod's namespace.
    pub claim: String,
    /// Its devices.
    pub devices: Vec<PlannedDevice>,
}

/// A device that a claim gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDevice {
    /// Which request gets it, and what its number is.
    pub granted: GrantedDevice,
    /// Which it is.
    pub id: Arc<DeviceId>,
}

impl ClaimGrant {
    /// What the ledger counts.
    pub fn grant(&self) -> Grant {
        Grant { claims: vec![self.devices.iter().map(|device| device.granted.clone()).collect()] }
    }
}

impl Assignment {
    fn gpu_demand(&self) -> GpuDemand {
        match self.resources.get(GPU_RESOURCE) / 1000 {
            0 if self.gpu_share > 0 => GpuDemand::Share(self.gpu_share),
            0 => GpuDemand::None,
            count => GpuDemand::Whole(u32::try_from(count).unwrap_or(0)),
        }
    }

    fn devices(&self) -> DeviceIndices {
        self.gpu_indices.iter().filter_map(|slot| u8::try_from(*slot).ok()).collect()
    }
}

/// Places for all pods of a gang that need one, in the order of [`Gang::waiting`], and behind them its spare places
/// ([`PodKey::is_spare`]), in which nothing is to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement(pub Vec<(PodKey, Assignment)>);

/// Why a placement could not be taken: the ledger changed since it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TakeError {
    /// The node is gone.
    #[error("node {0} is gone")]
    NodeGone(String),
    /// Another pod took the room.
    #[error("node {node} has too little {resource} left for {pod}")]
    TooLittle {
        /// The node.
        node: String,
        /// The resource.
        resource: String,
        /// The pod.
        pod: PodKey,
    },
    /// Another pod has the GPU slot.
    #[error("GPU slot {slot} of node {node} is taken")]
    SlotTaken {
        /// The node.
        node: String,
        /// The slot.
        slot: u32,
    },
    /// Another claim has the device, or it is gone.
    #[error("device {device} of node {node} is taken or gone")]
    DeviceTaken {
        /// The node.
        node: String,
        /// The device.
        device: String,
    },
}

/// What a pod holds, and in what form the space knows it.
#[derive(Debug, Clone)]
struct Held {
    assignment: Assignment,
    shape: Arc<Shape>,
    devices: DeviceIndices,
}

/// Nodes and what is taken on them. Copies share what does not change.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    space: Space,
    held: HashMap<PodKey, Arc<Held>>,
    by_node: BTreeMap<String, Arc<BTreeSet<PodKey>>>,
    /// Spare places among those held.
    spares: BTreeSet<PodKey>,
    claims: HeldClaims,
    traffic: Traffic,
}

impl Ledger {
    /// Adds a node or replaces what is known of it.
    pub fn set_node(&mut self, node: Node) {
        if let Some(known) = self.node(&node.name)
            && *known == node
        {
            return;
        }
        let name = node.name.clone();
        let id = self.space.set_node(node);
        self.take_devices_again(id);
        for pod in self.by_node.get(&name).into_iter().flat_map(|pods| pods.iter()) {
            if let Some(held) = self.held.get(pod) {
                self.space.take(id, &held.shape, &held.devices);
            }
        }
    }

    /// Forgets a node; pods on it keep their entries until they are released.
    pub fn remove_node(&mut self, name: &str) {
        self.space.remove_node(name);
    }

    /// What was written down about where nodes are, beside their labels.
    pub fn set_topology_sources(&mut self, sources: TopologySources) {
        self.space.set_topology_sources(sources);
    }

    /// Replaces the devices that can be claimed. Claims keep what they have.
    pub fn set_inventory(&mut self, inventory: Inventory) {
        self.space.set_inventory(inventory);
        let nodes: Vec<NodeId> = self.space.nodes().map(|(id, _)| id).collect();
        for id in nodes {
            self.take_devices_again(id);
        }
    }

    fn take_devices_again(&mut self, node: NodeId) {
        let on_node = self.space.devices_on(node);
        let held =
            on_node.map(|(device, _)| (device, self.claims.count(device))).filter(|(_, count)| *count > 0);
        for (device, count) in held.collect::<Vec<_>>() {
            self.space.take_device_again(node, device, count);
        }
    }

    /// The number of a device, whether it is there or not.
    pub fn device_number(&mut self, id: &DeviceId) -> DeviceNumber {
        self.space.device_number(id)
    }

    /// Records which devices a claim says that it has, those that it only looks at left out; `None` when it has no
    /// allocation. What is planned for it stays planned.
    pub fn record_claim(&mut self, claim: &ClaimKey, devices: Option<Vec<DeviceNumber>>) {
        let shift = self.claims.allocate(claim, devices);
        self.shift(shift);
    }

    fn shift(&mut self, shift: Shift) {
        self.space.give_back_devices(shift.given_back);
        self.space.take_devices(shift.taken);
    }

    /// Notes that claims are to have what comes with a place.
    fn plan(&mut self, pod: &PodKey, assignment: &Assignment) {
        for grant in &assignment.claims {
            let key = ClaimKey::new(&pod.namespace, &grant.claim);
            let shift = self.claims.plan(&key, Some(grant.grant().taken().collect()));
            self.shift(shift);
        }
    }

    /// What was planned for a claim when its place was [taken](Self::take) is over: it has what it says that it has. The
    /// end of the place alone does not end it, as the claim may have got its devices unseen.
    pub fn unplan(&mut self, claim: &ClaimKey) {
        let shift = self.claims.plan(claim, None);
        self.shift(shift);
    }

    /// The devices that a claim holds or is to hold.
    pub fn devices_of(&self, claim: &ClaimKey) -> &[DeviceNumber] {
        self.claims.devices(claim)
    }

    /// Whether devices are planned for a claim.
    pub fn is_planned(&self, claim: &ClaimKey) -> bool {
        self.claims.is_planned(claim)
    }

    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.space.nodes().map(|(_, node)| &**node)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        Some(self.space.node(self.space.id(name)?)?)
    }

    /// Who has something on a node, whether it is known or not.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &PodKey> {
        self.by_node.get(node).into_iter().flat_map(|pods| pods.iter())
    }

    /// What is free where; plan the future on a copy of it.
    pub fn space(&mut self) -> &mut Space {
        self.follow_map();
        &mut self.space
    }

    pub(crate) fn bare_space(&mut self) -> &mut Space {
        &mut self.space
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(crate) fn traffic_mut(&mut self) -> &mut Traffic {
        &mut self.traffic
    }

    /// What was written down about where nodes are, beside their labels.
    pub fn topology_sources(&self) -> &TopologySources {
        self.space.topology_sources()
    }

    /// What a pod took.
    pub fn assignment(&self, pod: &PodKey) -> Option<&Assignment> {
        self.held.get(pod).map(|held| &held.assignment)
    }

    /// Node and shape of what a pod holds, for planning on copies of the space.
    pub fn holding(&self, pod: &PodKey) -> Option<(NodeId, &Arc<Shape>, &DeviceIndices)> {
        let held = self.held.get(pod)?;
        Some((self.space.id(&held.assignment.node)?, &held.shape, &held.devices))
    }

    /// Records what a pod has on its node in truth, whatever the ledger thought.
    pub fn record(&mut self, pod: PodKey, assignment: Assignment) {
        if self.assignment(&pod) == Some(&assignment) {
            return;
        }
        self.release(&pod);
        let shape = self.space.held(&assignment.resources, assignment.gpu_demand());
        let devices = assignment.devices();
        if let Some(id) = self.space.id(&assignment.node) {
            self.space.take(id, &shape, &devices);
        }
        Arc::make_mut(self.by_node.entry(assignment.node.clone()).or_default()).insert(pod.clone());
        if pod.is_spare() {
            self.spares.insert(pod.clone());
        }
        self.held.insert(pod, Arc::new(Held { assignment, shape, devices }));
    }

    /// Gives back what a pod took; whether it had anything.
    pub fn release(&mut self, pod: &PodKey) -> bool {
        let Some(held) = self.held.remove(pod) else { return false };
        self.spares.remove(pod);
        let node = &held.assignment.node;
        if let Some(id) = self.space.id(node) {
            self.space.give_back(id, &held.shape, &held.devices);
        }
        if let Some(pods) = self.by_node.get_mut(node).map(Arc::make_mut) {
            pods.remove(pod);
            if pods.is_empty() {
                self.by_node.remove(node);
            }
        }
        true
    }

    /// What is left on each node.
    pub fn free(&self) -> BTreeMap<&str, Free> {
        let left = |(id, node)| {
            let node: &Arc<Node> = node;
            (node.name.as_str(), self.free_on(id))
        };
        self.space.nodes().map(left).collect()
    }

    fn free_on(&self, id: NodeId) -> Free {
        let devices = &self.space.room(id).devices;
        let whole = devices.left().iter().enumerate().filter(|(_, left)| **left == WHOLE);
        Free {
            resources: self.space.resources_left(id).with(GPU_RESOURCE, i64::from(devices.whole()) * 1000),
            gpu_slots: whole.map(|(slot, _)| slot as u32).collect(),
        }
    }

    /// Finds places for the waiting pods of the gang, or says why there are none. Takes nothing. All waiting
    /// pods get a place, or, where only [`Gang::min_available`] must, as many as fit.
    ///
    /// # Errors
    /// [`Waiting`] when the gang cannot start now.
    pub fn place(&mut self, gang: &Gang) -> Result<Placement, Waiting> {
        placement::place(self.space(), gang)
    }

    /// Takes all places of a placement, or none.
    ///
    /// # Errors
    /// When the ledger has changed so that one of them is no longer free.
    pub fn take(&mut self, placement: &Placement) -> Result<(), TakeError> {
        for (taken, (pod, assignment)) in placement.0.iter().enumerate() {
            if let Err(error) = self.take_one(pod, assignment) {
                for (pod, assignment) in &placement.0[..taken] {
                    self.release(pod);
                    for grant in &assignment.claims {
                        self.unplan(&ClaimKey::new(&pod.namespace, &grant.claim));
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Finds places for the waiting pods of a gang that has lost some, and takes them: near those that stayed, its
    /// own spare places included. A spare place whose room is used is given up, the others stay held.
    ///
    /// # Errors
    /// [`Waiting`] when there is no room even so; the spares are still held then.
    pub fn repair(&mut self, gang: &Gang) -> Result<Placement, Waiting> {
        let spares = self.release_spares(&gang.namespace, &gang.name);
        let found = self.place(&Gang { spares: 0, ..gang.clone() });
        if let Ok(placement) = &found {
            // Found on what is free, so it is there to take.
            for (pod, assignment) in &placement.0 {
                self.record(pod.clone(), assignment.clone());
                self.plan(pod, assignment);
            }
        }
        for (spare, assignment) in spares {
            // A spare on a lost node, or whose room was just used, is gone.
            let _gone = self.take_one(&spare, &assignment);
        }
        found
    }

    /// The spare places that a gang holds.
    pub fn spares<'a>(
        &'a self,
        namespace: &'a str,
        gang: &'a str,
    ) -> impl Iterator<Item = (&'a PodKey, &'a Assignment)> {
        let spares = self.spares.range(PodKey::spare(namespace, gang, 0)..);
        let own = spares.take_while(move |pod| pod.is_spare_of(namespace, gang));
        own.filter_map(|pod| Some((pod, self.assignment(pod)?)))
    }

    /// Gives the spare places of a gang back, which has ended; what they were.
    pub fn release_spares(&mut self, namespace: &str, gang: &str) -> Vec<(PodKey, Assignment)> {
        let held: Vec<(PodKey, Assignment)> =
            self.spares(namespace, gang).map(|(pod, assignment)| (pod.clone(), assignment.clone())).collect();
        for (pod, _) in &held {
            self.release(pod);
        }
        held
    }

    fn take_one(&mut self, pod: &PodKey, assignment: &Assignment) -> Result<(), TakeError> {
        let node = &assignment.node;
        let id = self.space.id(node).ok_or_else(|| TakeError::NodeGone(node.clone()))?;
        if self.assignment(pod) == Some(assignment) {
            return Err(already_taken(pod, assignment));
        }
        let left = self.free_on(id);
        if let Some(resource) = assignment.resources.lacking(&left.resources) {
            let resource = resource.to_owned();
            return Err(TakeError::TooLittle { node: node.clone(), resource, pod: pod.clone() });
        }
        let each = if assignment.gpu_share > 0 { assignment.gpu_share } else { WHOLE };
        if let Some(slot) = self.space.room(id).devices.first_without(&assignment.devices(), each) {
            return Err(TakeError::SlotTaken { node: node.clone(), slot: u32::from(slot) });
        }
        for grant in &assignment.claims {
            let of_one = |device: &PlannedDevice| Grant { claims: vec![vec![device.granted.clone()]] };
            let lacking = grant.devices.iter().find(|device| !self.space.has_granted(id, &of_one(device)));
            if let Some(device) = lacking {
                let (node, device) = (node.clone(), device.id.to_string());
                return Err(TakeError::DeviceTaken { node, device });
            }
        }
        self.record(pod.clone(), assignment.clone());
        self.plan(pod, assignment);
        Ok(())
    }
}

fn already_taken(pod: &PodKey, assignment: &Assignment) -> TakeError {
    let node = assignment.node.clone();
    match assignment.gpu_indices.first() {
        Some(slot) => TakeError::SlotTaken { node, slot: *slot },
        None => TakeError::TooLittle { node, resource: "pods".to_owned(), pod: pod.clone() },
    }
}

/// What is left on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    /// Amounts.
    pub resources: Resources,
    /// GPU slots nobody has.
    pub gpu_slots: BTreeSet<u32>,
}
