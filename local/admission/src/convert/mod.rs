//! Objects that are stored in one API version and shown in another too.

mod autoscaler;
mod event;

pub use event::event;
use serde_json::Value;

/// Whether objects of the API version are stored in another form.
pub fn is_view(api_version: &str) -> bool {
    matches!(api_version, "events.k8s.io/v1" | "autoscaling/v1")
}

/// Turns a stored object into the form of an API version.
pub fn to_view(api_version: &str, object: &mut Value) {
    match api_version {
        "events.k8s.io/v1" => event(api_version, object),
        "autoscaling/v1" => autoscaler::to_v1(object),
        _ => {}
    }
}

/// Turns an object of an API version into the form in which it is stored, complete with the defaults of that form.
pub fn to_stored(api_version: &str, object: &mut Value) {
    match api_version {
        "events.k8s.io/v1" => event("v1", object),
        "autoscaling/v1" => autoscaler::to_v2(object),
        _ => {}
    }
}
