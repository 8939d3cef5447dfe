//! Attributes and capacities of devices by domain and name.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use muster_schema::cel::Variable;

/// An attribute as a value; `None` for a kind of value that is not known here.
pub(super) fn value(attribute: &DeviceAttribute) -> Option<Variable> {
    let DeviceAttribute { bool, bools, int, ints, string, strings, version, versions } = attribute;
    let list = |items: Vec<Variable>| Variable::List(items);
    if let Some(value) = bool {
        return Some(Variable::Bool(*value));
    }
    if let Some(value) = int {
        return Some(Variable::Int(*value));
    }
    if let Some(text) = string {
        return Some(Variable::Text(text.clone()));
    }
    if let Some(text) = version {
        return Some(Variable::Version(text.clone()));
    }
    if let Some(values) = bools {
        return Some(list(values.iter().map(|value| Variable::Bool(*value)).collect()));
    }
    if let Some(values) = ints {
        return Some(list(values.iter().map(|value| Variable::Int(*value)).collect()));
    }
    if let Some(texts) = strings {
        return Some(list(texts.iter().cloned().map(Variable::Text).collect()));
    }
    versions.as_ref().map(|texts| list(texts.iter().cloned().map(Variable::Version).collect()))
}

/// Domain and name of an attribute or capacity; names without a domain are in the driver's.
fn qualified<'a>(name: &'a str, driver: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((driver, name))
}

/// The attribute of a full name, such as `resource.kubernetes.io/pcieRoot`.
pub(super) fn named<'a>(device: &'a Device, driver: &str, full: &str) -> Option<&'a DeviceAttribute> {
    let wanted = qualified(full, driver);
    let attributes = device.attributes.iter().flatten();
    attributes.into_iter().find(|(name, _)| qualified(name, driver) == wanted).map(|(_, attribute)| attribute)
}

/// Values by domain and name, with an empty entry for each domain of `domains`.
fn by_domain<'a>(
    values: impl Iterator<Item = (&'a String, Variable)>,
    driver: &str,
    domains: &[String],
) -> Variable {
    let mut all: BTreeMap<String, BTreeMap<String, Variable>> =
        domains.iter().map(|domain| (domain.clone(), BTreeMap::new())).collect();
    for (name, value) in values {
        let (domain, name) = qualified(name, driver);
        all.entry(domain.to_owned()).or_default().insert(name.to_owned(), value);
    }
    Variable::Map(all.into_iter().map(|(domain, values)| (domain, Variable::Map(values))).collect())
}

/// The device as selectors see it. What a selector may look for in vain is there and empty: `domains`.
pub(super) fn variable(device: &Device, driver: &str, domains: &[String]) -> Variable {
    let attributes = device.attributes.iter().flatten();
    let attributes = attributes.filter_map(|(name, attribute)| Some((name, value(attribute)?)));
    let capacities = device.capacity.iter().flatten();
    let capacities = capacities.map(|(name, capacity)| (name, Variable::Quantity(capacity.value.0.clone())));
    let shared = device.allow_multiple_allocations.unwrap_or(false);
    Variable::Map(BTreeMap::from([
        ("driver".to_owned(), Variable::Text(driver.to_owned())),
        ("attributes".to_owned(), by_domain(attributes, driver, domains)),
        ("capacity".to_owned(), by_domain(capacities, driver, domains)),
        ("allowMultipleAllocations".to_owned(), Variable::Bool(shared)),
    ]))
}
