//! Devices as drivers publish them, and sets of them.

use std::collections::BTreeMap;
use std::fmt;

use crate::node::{Node, Requirement};

/// A device by its driver, pool and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The driver that publishes it.
    pub driver: String,
    /// The driver's pool that it is in.
    pub pool: String,
    /// Its name in the pool.
    pub device: String,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// A device's number in its [`Space`](crate::Space); it is never given to another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber(pub u32);

/// Which nodes reach a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The node of this name.
    Node(String),
    /// Nodes for which one of these terms holds.
    Selected(Vec<Vec<Requirement>>),
    /// All nodes.
    Everywhere,
}

impl Reach {
    /// Whether a node reaches it.
    pub fn includes(&self, node: &Node) -> bool {
        match self {
            Self::Node(name) => *name == node.name,
            Self::Selected(terms) => {
                terms.iter().any(|term| term.iter().all(|requirement| requirement.holds(node)))
            }
            Self::Everywhere => true,
        }
    }
}

/// How much of a counter that devices share one of them uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Consumption {
    /// The counter: an index into [`Inventory::counters`].
    pub counter: usize,
    /// How much, in the unit of the counter.
    pub amount: i64,
}

/// A device that can be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedDevice {
    /// Which it is.
    pub id: DeviceId,
    /// Who reaches it.
    pub reach: Reach,
    /// What it uses up of what it shares with other devices, as parts of one GPU do.
    pub consumes: Vec<Consumption>,
}

/// All devices that drivers publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The devices.
    pub devices: Vec<ClaimedDevice>,
    /// What there is of each counter that devices share, in units of its own.
    pub counters: Vec<i64>,
    /// Who reaches pools that are not known whole: nobody gets "all devices" there.
    pub incomplete: Vec<Reach>,
}

/// Devices by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DeviceSet {
    words: Vec<u64>,
}

impl DeviceSet {
    /// Whether the device is in it.
    pub fn contains(&self, device: DeviceNumber) -> bool {
        let (word, bit) = (device.0 as usize / 64, device.0 % 64);
        self.words.get(word).is_some_and(|bits| bits >> bit & 1 == 1)
    }

    /// Adds a device.
    pub fn insert(&mut self, device: DeviceNumber) {
        let (word, bit) = (device.0 as usize / 64, device.0 % 64);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << bit;
    }

    /// Its devices in order.
    pub fn iter(&self) -> impl Iterator<Item = DeviceNumber> {
        let bits = |(word, bits): (usize, &u64)| {
            let bits = *bits;
            let set = (0..64_u32).filter(move |bit| bits >> bit & 1 == 1);
            set.map(move |bit| DeviceNumber(word as u32 * 64 + bit))
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}

impl FromIterator<DeviceNumber> for DeviceSet {
    fn from_iter<T: IntoIterator<Item = DeviceNumber>>(devices: T) -> Self {
        let mut set = Self::default();
        devices.into_iter().for_each(|device| set.insert(device));
        set
    }
}

/// Values of an attribute by device, as numbers: equal values have equal numbers.
pub type AttributeValues = BTreeMap<DeviceNumber, u32>;
