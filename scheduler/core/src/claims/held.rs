//! Which claims hold which devices.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::device::DeviceNumber;

/// A claim by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ClaimKey {
    /// A claim's key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, Default)]
struct HeldClaim {
    /// Devices that the claim says that it has.
    allocated: Option<Vec<DeviceNumber>>,
    /// Devices that it is to have.
    planned: Option<Vec<DeviceNumber>>,
}

impl HeldClaim {
    /// What is written on the claim counts before what is planned for it.
    fn devices(&self) -> &[DeviceNumber] {
        self.allocated.as_ref().or(self.planned.as_ref()).map_or(&[], Vec::as_slice)
    }
}

/// How many claims hold a device more or fewer than before.
pub(crate) struct Shift {
    pub(crate) taken: Vec<DeviceNumber>,
    pub(crate) given_back: Vec<DeviceNumber>,
}

/// All claims that hold devices.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldClaims {
    held: BTreeMap<ClaimKey, HeldClaim>,
    /// By how many claims each device is held.
    taken: HashMap<DeviceNumber, u16>,
}

impl HeldClaims {
    fn change(&mut self, key: &ClaimKey, change: impl FnOnce(&mut HeldClaim)) -> Shift {
        let claim = self.held.entry(key.clone()).or_default();
        let before = claim.devices().to_vec();
        change(claim);
        let after = claim.devices().to_vec();
        if claim.allocated.is_none() && claim.planned.is_none() {
            self.held.remove(key);
        }
        if before == after {
            return Shift { taken: Vec::new(), given_back: Vec::new() };
        }
        for device in &before {
            if let Some(count) = self.taken.get_mut(device) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.taken.remove(device);
                }
            }
        }
        for device in &after {
            *self.taken.entry(*device).or_default() += 1;
        }
        Shift { taken: after, given_back: before }
    }

    pub(crate) fn allocate(&mut self, key: &ClaimKey, devices: Option<Vec<DeviceNumber>>) -> Shift {
        self.change(key, |claim| claim.allocated = devices)
    }

    pub(crate) fn plan(&mut self, key: &ClaimKey, devices: Option<Vec<DeviceNumber>>) -> Shift {
        self.change(key, |claim| claim.planned = devices)
    }

    /// The devices of a claim.
    pub(crate) fn devices(&self, key: &ClaimKey) -> &[DeviceNumber] {
        self.held.get(key).map_or(&[], HeldClaim::devices)
    }

    /// Whether devices are planned for a claim.
    pub(crate) fn is_planned(&self, key: &ClaimKey) -> bool {
        self.held.get(key).is_some_and(|claim| claim.planned.is_some())
    }

    /// By how many claims a device is held.
    pub(crate) fn count(&self, device: DeviceNumber) -> u16 {
        self.taken.get(&device).copied().unwrap_or(0)
    }
}
