//! What a claim asks for, resolved to the devices that are published.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClass, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceTaint,
    DeviceToleration, ResourceClaimSpec,
};
use muster_scheduler_core::claims::{
    Alternative, Amount, AttributeValues, ClaimDemand, ClaimRequest, Constraint, DeviceNumber, DeviceSet,
};

use super::attributes;
use super::pools::{Published, PublishedDevice};
use super::selector::Selectors;

/// The most devices that a claim can have.
const MOST_DEVICES: i64 = 32;

/// What claims are resolved with.
pub(crate) struct Catalogue<'a> {
    pub(crate) classes: &'a BTreeMap<String, DeviceClass>,
    pub(crate) published: &'a Published,
    /// Numbers of the devices, in their order.
    pub(crate) numbers: &'a [DeviceNumber],
}

/// Why a claim cannot be placed whatever is free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unplaceable {
    /// It is not there, and may come.
    #[error("DeviceClass {0} does not exist; create it, or name another")]
    NoClass(String),
    /// It is written so that it cannot be understood or is not supported.
    #[error("{0}")]
    Problem(String),
}

impl Unplaceable {
    fn problem(request: &str, why: impl std::fmt::Display) -> Self {
        Self::Problem(format!("request {request}: {why}"))
    }
}

/// One request or alternative as it is written.
struct Wish<'a> {
    name: String,
    class: &'a str,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    mode: Option<&'a str>,
    count: Option<i64>,
    capacity: Option<&'a CapacityRequirements>,
    admin: bool,
}

/// What a claim asks for.
pub(crate) fn wanted(
    spec: &ResourceClaimSpec,
    catalogue: &Catalogue<'_>,
) -> Result<ClaimDemand, Unplaceable> {
    let Some(devices) = &spec.devices else { return Ok(ClaimDemand::new(Vec::new(), Vec::new())) };
    let mut requests = Vec::new();
    for request in devices.requests.iter().flatten() {
        requests.push(catalogue.request(request)?);
    }
    let constraints: Result<_, _> =
        devices.constraints.iter().flatten().map(|constraint| catalogue.constraint(constraint)).collect();
    Ok(ClaimDemand::new(requests, constraints?))
}

impl Catalogue<'_> {
    fn request(&self, request: &DeviceRequest) -> Result<ClaimRequest, Unplaceable> {
        let name = &request.name;
        if let Some(exactly) = &request.exactly {
            let wish = Wish {
                name: name.clone(),
                class: &exactly.device_class_name,
                selectors: exactly.selectors.as_deref().unwrap_or_default(),
                tolerations: exactly.tolerations.as_deref().unwrap_or_default(),
                mode: exactly.allocation_mode.as_deref(),
                count: exactly.count,
                capacity: exactly.capacity.as_ref(),
                admin: exactly.admin_access == Some(true),
            };
            return Ok(ClaimRequest { alternatives: vec![self.alternative(&wish)?] });
        }
        let mut alternatives = Vec::new();
        for one in request.first_available.iter().flatten() {
            alternatives.push(self.alternative(&Wish {
                name: format!("{name}/{}", one.name),
                class: &one.device_class_name,
                selectors: one.selectors.as_deref().unwrap_or_default(),
                tolerations: one.tolerations.as_deref().unwrap_or_default(),
                mode: one.allocation_mode.as_deref(),
                count: one.count,
                capacity: one.capacity.as_ref(),
                admin: false,
            })?);
        }
        if alternatives.is_empty() {
            let why = "it says neither `exactly` nor `firstAvailable`, the only kinds that are known";
            return Err(Unplaceable::problem(name, why));
        }
        Ok(ClaimRequest { alternatives })
    }

    fn alternative(&self, wish: &Wish<'_>) -> Result<Alternative, Unplaceable> {
        let problem = |why: String| Unplaceable::problem(&wish.name, why);
        let class =
            self.classes.get(wish.class).ok_or_else(|| Unplaceable::NoClass(wish.class.to_owned()))?;
        if wish.capacity.is_some_and(|capacity| capacity.requests.is_some()) {
            return Err(problem("Muster does not divide devices by capacity; remove `capacity`".to_owned()));
        }
        let amount = match wish.mode {
            None | Some("" | "ExactCount") => {
                let count = wish.count.unwrap_or(1);
                if !(1..=MOST_DEVICES).contains(&count) {
                    return Err(problem(format!("count is {count}; it must be 1 to {MOST_DEVICES}")));
                }
                Amount::Exactly(count as u32)
            }
            Some("All") => Amount::All,
            Some(other) => {
                let why = format!("allocationMode is `{other}`; it must be ExactCount or All");
                return Err(problem(why));
            }
        };
        let of_class = class.spec.selectors.iter().flatten();
        let selectors = Selectors::compile(of_class.chain(wish.selectors)).map_err(problem)?;
        let (mut devices, mut barred) = (DeviceSet::default(), DeviceSet::default());
        let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
        for (device, number) in self.published.devices.iter().zip(self.numbers) {
            if !selectors.hold(device).map_err(problem)? {
                continue;
            }
            match device.unusable {
                Some(why) => *left_out.entry(why).or_default() += 1,
                None if bars(device, wish.tolerations) => barred.insert(*number),
                None => devices.insert(*number),
            }
        }
        if devices.iter().next().is_none()
            && let Some((why, count)) = left_out.into_iter().next()
        {
            let why = format!("Muster does not place the {count} devices that it asks for, as they {why}");
            return Err(problem(why));
        }
        Ok(Alternative { name: wish.name.clone(), devices, barred, amount, admin: wish.admin })
    }

    fn constraint(&self, constraint: &DeviceConstraint) -> Result<Constraint, Unplaceable> {
        let unknown = || {
            let why = "a constraint is not of matchAttribute, the only kind that Muster plans with";
            Unplaceable::Problem(why.to_owned())
        };
        let attribute = constraint.match_attribute.as_ref().ok_or_else(unknown)?;
        if constraint.distinct_attribute.is_some() {
            return Err(unknown());
        }
        let mut known: Vec<&k8s_openapi::api::resource::v1::DeviceAttribute> = Vec::new();
        let mut values = AttributeValues::new();
        for (device, number) in self.published.devices.iter().zip(self.numbers) {
            let Some(value) = attributes::named(&device.device, &device.id.driver, attribute) else {
                continue;
            };
            let index = known.iter().position(|other| *other == value).unwrap_or_else(|| {
                known.push(value);
                known.len() - 1
            });
            values.insert(*number, index as u32);
        }
        Ok(Constraint { requests: constraint.requests.clone().unwrap_or_default(), values })
    }
}

/// Whether a taint of the device keeps away whoever does not tolerate it.
fn bars(device: &PublishedDevice, tolerations: &[DeviceToleration]) -> bool {
    let keeps_away = |taint: &&DeviceTaint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let mut taints = device.device.taints.iter().flatten().filter(keeps_away);
    taints.any(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() && exists || key == taint.key)
        && (exists || text(&toleration.value) == text(&taint.value))
}
