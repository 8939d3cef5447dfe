//! CEL selectors of devices.

use k8s_openapi::api::resource::v1::DeviceSelector;
use muster_schema::cel::Expression;

use super::attributes;
use super::pools::PublishedDevice;

/// Selectors of which all must hold.
pub(super) struct Selectors {
    compiled: Vec<(String, Expression)>,
    /// Whatever they may look a device's attributes up by.
    domains: Vec<String>,
}

impl Selectors {
    /// Compiles selectors; the error says which is wrong and why.
    pub(super) fn compile<'a>(selectors: impl Iterator<Item = &'a DeviceSelector>) -> Result<Self, String> {
        let mut all = Self { compiled: Vec::new(), domains: Vec::new() };
        for selector in selectors {
            let Some(cel) = &selector.cel else {
                return Err("a selector is not of CEL, the only kind that is known".to_owned());
            };
            let source = cel.expression.trim();
            let compiled = Expression::compile(source, &["device"])
                .map_err(|error| format!("selector `{source}` {error}"))?;
            all.domains.extend(compiled.texts());
            all.compiled.push((source.to_owned(), compiled));
        }
        Ok(all)
    }

    /// Whether all of them hold for a device.
    pub(super) fn hold(&self, device: &PublishedDevice) -> Result<bool, String> {
        if self.compiled.is_empty() {
            return Ok(true);
        }
        let variable = attributes::variable(&device.device, &device.id.driver, &self.domains);
        for (source, selector) in &self.compiled {
            match selector.holds(&[("device", &variable)]) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(format!("selector `{source}` {error}, for device {}", device.id)),
            }
        }
        Ok(true)
    }
}
