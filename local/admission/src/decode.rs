//! What typed decoding refuses beyond the schema: texts that are no quantity, no base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::json::{at, entries, list};
use crate::quantity::{Quantity, QuantityError};
use crate::{defaults, group};

/// Why an object cannot be decoded as its kind. The server answers 400 with
/// `KIND in version "VERSION" cannot be handled as a KIND: ` before this text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A resource list holds something that is no quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// A secret's data, or a config map's binary data, is not base64.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
}

/// Checks the texts of an object that Kubernetes parses while it decodes.
pub fn check(api_version: &str, kind: &str, object: &Value) -> Result<(), DecodeError> {
    match (group(api_version), kind) {
        ("", "Secret") => check_base64(object, "data")?,
        ("", "ConfigMap") => check_base64(object, "binaryData")?,
        ("", "ResourceQuota") => check_quantities(at(object, &["spec"]), "hard")?,
        ("", "Node") => check_quantities(at(object, &["status"]), "capacity")?,
        ("", "PersistentVolumeClaim") => check_requirements(at(object, &["spec", "resources"]))?,
        ("", "PersistentVolume") => check_quantities(at(object, &["spec"]), "capacity")?,
        _ => {
            if let Some(path) = defaults::pod_spec_path(api_version, kind) {
                let spec = at(object, path);
                for name in ["initContainers", "containers"] {
                    for container in list(spec, name) {
                        check_requirements(at(container, &["resources"]))?;
                    }
                }
                check_quantities(spec, "overhead")?;
                check_requirements(at(spec, &["resources"]))?;
            }
        }
    }
    Ok(())
}

fn check_requirements(resources: &Value) -> Result<(), DecodeError> {
    check_quantities(resources, "limits")?;
    check_quantities(resources, "requests")
}

fn check_quantities(holder: &Value, key: &str) -> Result<(), DecodeError> {
    for (_, value) in entries(holder, key) {
        match value {
            Value::String(text) => text.trim().parse::<Quantity>()?,
            Value::Number(number) => number.to_string().parse::<Quantity>()?,
            _ => continue,
        };
    }
    Ok(())
}

fn check_base64(object: &Value, key: &str) -> Result<(), DecodeError> {
    for (_, value) in entries(object, key) {
        let Some(text) = value.as_str() else { continue };
        if let Err(error) = STANDARD.decode(text) {
            let byte = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
            };
            return Err(DecodeError::Base64(byte));
        }
    }
    Ok(())
}
