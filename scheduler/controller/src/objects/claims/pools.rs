//! From slices of pools to the devices that there are.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice, ResourceSliceSpec};
use muster_scheduler_core::Resources;
use muster_scheduler_core::claims::{ClaimedDevice, Consumption, DeviceId, Inventory, Reach};

use crate::objects::constraints;

/// A device as its driver publishes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PublishedDevice {
    pub(crate) id: DeviceId,
    pub(crate) reach: Reach,
    /// What selects the nodes that reach it, where it is not one node.
    pub(crate) node_selector: Option<NodeSelector>,
    pub(super) device: Device,
    /// Why it is not given to anybody.
    pub(super) unusable: Option<&'static str>,
    consumes: Vec<Consumption>,
}

/// All devices that are published.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Published {
    pub(crate) devices: Vec<PublishedDevice>,
    counters: Vec<i64>,
    incomplete: Vec<Reach>,
    /// Pools of which not all slices are there, as `driver/pool`.
    pub(crate) incomplete_pools: BTreeSet<String>,
}

impl Published {
    /// What the ledger is to know.
    pub(crate) fn inventory(&self) -> Inventory {
        let usable = self.devices.iter().filter(|device| device.unusable.is_none());
        let devices = usable.map(|device| ClaimedDevice {
            id: device.id.clone(),
            reach: device.reach.clone(),
            consumes: device.consumes.clone(),
        });
        Inventory {
            devices: devices.collect(),
            counters: self.counters.clone(),
            incomplete: self.incomplete.clone(),
        }
    }
}

/// The devices of all pools that are complete, each in its newest generation.
pub(crate) fn pools<'a>(slices: impl Iterator<Item = &'a ResourceSlice>) -> Published {
    let mut by_pool: BTreeMap<(&str, &str), Vec<&ResourceSliceSpec>> = BTreeMap::new();
    for slice in slices {
        let spec = &slice.spec;
        by_pool.entry((&spec.driver, &spec.pool.name)).or_default().push(spec);
    }
    let mut published = Published::default();
    for ((driver, pool), mut slices) in by_pool {
        let newest = slices.iter().map(|slice| slice.pool.generation).max().unwrap_or_default();
        slices.retain(|slice| slice.pool.generation == newest);
        let expected = slices.iter().map(|slice| slice.pool.resource_slice_count).max().unwrap_or_default();
        let names: Vec<&str> = slices
            .iter()
            .flat_map(|slice| slice.devices.iter().flatten())
            .map(|device| device.name.as_str())
            .collect();
        let different: BTreeSet<&str> = names.iter().copied().collect();
        if slices.len() as i64 == expected && different.len() == names.len() {
            published.add(driver, pool, &slices);
        } else {
            published.incomplete_pools.insert(format!("{driver}/{pool}"));
            let devices = slices
                .iter()
                .flat_map(|slice| slice.devices.iter().flatten().map(move |device| (slice, device)));
            let own = slices.iter().map(|slice| reach(slice, None));
            let reaches: Vec<Reach> =
                own.chain(devices.map(|(slice, device)| reach(slice, Some(device)))).flatten().collect();
            published.incomplete.extend(reaches);
        }
    }
    published
}

impl Published {
    fn add(&mut self, driver: &str, pool: &str, slices: &[&ResourceSliceSpec]) {
        let mut counters: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for set in slices.iter().flat_map(|slice| slice.shared_counters.iter().flatten()) {
            for (name, counter) in &set.counters {
                counters.insert((&set.name, name), self.counters.len());
                self.counters.push(amount(&counter.value.0).unwrap_or(0));
            }
        }
        let devices = || {
            slices.iter().flat_map(|slice| slice.devices.iter().flatten().map(move |device| (slice, device)))
        };
        let mut reaches = devices().map(|(slice, device)| reach(slice, Some(device)));
        let first = reaches.next().flatten();
        let on_one_node = matches!(first, Some(Reach::Node(_))) && reaches.all(|reach| reach == first);
        for (slice, device) in devices() {
            let Some(reach) = reach(slice, Some(device)) else { continue };
            let mut unusable = unusable(device);
            let mut consumes = Vec::new();
            for consumption in device.consumes_counters.iter().flatten() {
                for (name, counter) in &consumption.counters {
                    let known = counters.get(&(consumption.counter_set.as_str(), name.as_str()));
                    match (known, amount(&counter.value.0)) {
                        (Some(counter), Some(amount)) => {
                            consumes.push(Consumption { counter: *counter, amount });
                        }
                        _ => unusable = Some("use up counters that their pool does not have"),
                    }
                }
            }
            if !consumes.is_empty() && !on_one_node {
                unusable = Some("share counters with devices of other nodes");
            }
            self.devices.push(PublishedDevice {
                id: DeviceId {
                    driver: driver.to_owned(),
                    pool: pool.to_owned(),
                    device: device.name.clone(),
                },
                node_selector: device.node_selector.clone().or_else(|| slice.node_selector.clone()),
                reach,
                device: device.clone(),
                unusable,
                consumes,
            });
        }
    }
}

/// Thousandths of a counter; amounts that are beyond all counting are as much as can be counted.
fn amount(text: &str) -> Option<i64> {
    let mut amounts = Resources::new();
    amounts.add_quantity("counter", text).ok()?;
    Some(amounts.get("counter"))
}

/// Who reaches a device of a slice.
fn reach(slice: &ResourceSliceSpec, device: Option<&Device>) -> Option<Reach> {
    let own = device.filter(|_| slice.per_device_node_selection == Some(true));
    let (name, selector, all) = match own {
        Some(device) => (&device.node_name, &device.node_selector, device.all_nodes),
        None => (&slice.node_name, &slice.node_selector, slice.all_nodes),
    };
    if let Some(name) = name.as_ref().filter(|name| !name.is_empty()) {
        return Some(Reach::Node(name.clone()));
    }
    if let Some(selector) = selector {
        return Some(Reach::Selected(constraints::selected(selector)));
    }
    (all == Some(true)).then_some(Reach::Everywhere)
}

/// What about a device is not planned here, so that nobody gets it.
fn unusable(device: &Device) -> Option<&'static str> {
    if device.allow_multiple_allocations == Some(true) {
        return Some("can be given to several claims at once");
    }
    if device.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()) {
        return Some("are attached after they are chosen (bindingConditions)");
    }
    let mappings = device.node_allocatable_resource_mappings.as_ref();
    mappings.filter(|mappings| !mappings.is_empty()).map(|_| "use up resources of their node")
}
