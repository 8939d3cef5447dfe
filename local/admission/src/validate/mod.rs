//! Validation of the built-in kinds: what a Kubernetes 1.36 server refuses, in its words and its order.

mod meta;

use serde_json::Value;

use crate::field::{Errors, FieldError};
use crate::group;

/// Everything wrong with an object that is about to be created (after defaults and preparation).
pub fn create(api_version: &str, kind: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::create(group(api_version), kind, object, &mut errors);
    errors.into_vec()
}

/// Everything wrong with the replacement of `old` by `new`, written through `subresource` if any.
pub fn update(
    api_version: &str,
    kind: &str,
    old: &Value,
    new: &Value,
    _subresource: Option<&str>,
) -> Vec<FieldError> {
    let mut errors = Errors::new();
    meta::update(group(api_version), kind, old, new, &mut errors);
    errors.into_vec()
}
