//! Requests and limits.

use serde_json::Value;

use crate::field::{Errors, FieldError, Path};
use crate::json::entries;
use crate::names;
use crate::quantity::Quantity;

/// Whether a resource is one that nodes advertise beyond Kubernetes' own, such as `nvidia.com/gpu`.
pub(super) fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// Whether more may be requested than there is: not for whole things like devices.
fn can_overcommit(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

/// Checks the requests and limits of a container or pod.
pub(super) fn requirements(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let limits_path = path.field("limits");
    let requests_path = path.field("requests");
    for (name, limit) in entries(resources, "limits") {
        amount(name, limit, &limits_path.key(name), errors);
    }
    for (name, request) in entries(resources, "requests") {
        amount(name, request, &requests_path.key(name), errors);
        let Some(request) = Quantity::from_json(request) else { continue };
        let limit = resources.get("limits").and_then(|limits| limits.get(name)).and_then(Quantity::from_json);
        match limit {
            Some(limit) if request != limit && !can_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&requests_path, request.to_string(), detail));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&requests_path, request.to_string(), detail));
            }
            None if !can_overcommit(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_path, detail));
            }
            _ => {}
        }
    }
}

fn amount(name: &str, value: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(path, name, names::qualified_name(name));
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
    let Some(quantity) = Quantity::from_json(value) else { return };
    self::quantity(quantity, path, errors);
    if is_extended(name) && !quantity.is_integer() {
        errors.push(FieldError::invalid(path, quantity.to_string(), "must be an integer"));
    }
}

/// A quantity that may not be below zero.
pub(super) fn quantity(quantity: Quantity, path: &Path<'_>, errors: &mut Errors) {
    if quantity.is_negative() {
        errors.push(FieldError::invalid(path, quantity.to_string(), "must be greater than or equal to 0"));
    }
}
