//! Amounts of resources, as exact thousandths.

use std::collections::BTreeMap;
use std::fmt;

/// The extended resource of whole GPUs.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// Why a quantity could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a quantity such as 500m, 2, 1.5 or 16Gi")]
pub struct ParseQuantityError(String);

/// Amounts by resource name, in thousandths of the unit (`cpu` 500m is 500, `memory` 1 is 1000); absent is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// No resources.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `thousandths` of `name` added.
    #[must_use]
    pub fn with(mut self, name: &str, thousandths: i64) -> Self {
        self.add_amount(name, thousandths);
        self
    }

    /// The same without `name`.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut others = self.clone();
        others.0.remove(name);
        others
    }

    /// Reads a Kubernetes quantity and adds it.
    ///
    /// # Errors
    /// When the text is not a quantity.
    pub fn add_quantity(&mut self, name: &str, quantity: &str) -> Result<(), ParseQuantityError> {
        self.add_amount(name, parse_thousandths(quantity)?);
        Ok(())
    }

    /// The amount of a resource in thousandths.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Names and amounts in thousandths; amounts of 0 are left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.add_amount(name, amount);
        }
    }

    /// Takes an amount away; may go below zero, which [`Resources::fits_in`] then shows.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.add_amount(name, amount.saturating_neg());
        }
    }

    /// The larger amount of each resource.
    pub fn maximum(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            if amount > self.get(name) {
                self.0.insert(name.to_owned(), amount);
            }
        }
    }

    /// Whether `free` holds at least this much of everything asked for.
    pub fn fits_in(&self, free: &Self) -> bool {
        self.lacking(free).is_none()
    }

    /// The first resource of which `free` has too little.
    pub fn lacking(&self, free: &Self) -> Option<&str> {
        self.iter().find(|(name, amount)| *amount > 0 && *amount > free.get(name)).map(|(name, _)| name)
    }

    fn add_amount(&mut self, name: &str, thousandths: i64) {
        let amount = self.get(name).saturating_add(thousandths);
        if amount == 0 {
            self.0.remove(name);
        } else {
            self.0.insert(name.to_owned(), amount);
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.iter().map(|(name, amount)| format!("{name} {}", amount_text(name, amount))).collect();
        formatter.write_str(&parts.join(", "))
    }
}

/// An amount in thousandths as people write it.
pub fn amount_text(name: &str, thousandths: i64) -> String {
    const MEBIBYTE: i64 = 1000 << 20;
    if name == "memory" || name.ends_with("storage") {
        if thousandths >= 10 * (MEBIBYTE << 10) {
            return format!("{}Gi", thousandths / (MEBIBYTE << 10));
        }
        return format!("{}Mi", thousandths / MEBIBYTE);
    }
    if thousandths % 1000 == 0 { (thousandths / 1000).to_string() } else { format!("{thousandths}m") }
}

/// Reads a quantity as thousandths, rounded up as Kubernetes does.
fn parse_thousandths(text: &str) -> Result<i64, ParseQuantityError> {
    let error = || ParseQuantityError(text.to_owned());
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale: f64 = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E']).ok_or_else(error)?;
            10f64.powi(digits.parse().map_err(|_| error())?)
        }
    };
    if let (Ok(whole), true) = (number.parse::<i64>(), (1.0..9e15).contains(&scale)) {
        // Whole numbers stay exact.
        return whole.checked_mul(scale as i64).and_then(|units| units.checked_mul(1000)).ok_or_else(error);
    }
    let value: f64 = number.parse().map_err(|_| error())?;
    let thousandths = (value * scale * 1000.0 - 1e-6).ceil();
    if thousandths.is_finite() && thousandths.abs() < 9e18 { Ok(thousandths as i64) } else { Err(error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> i64 {
        parse_thousandths(text).unwrap()
    }

    #[test]
    fn quantities_are_read_exactly() {
        assert_eq!(parsed("500m"), 500);
        assert_eq!(parsed("1.5"), 1500);
        assert_eq!(parsed("2"), 2000);
        assert_eq!(parsed("16Gi"), (16 << 30) * 1000);
        assert_eq!(parsed("1e3"), 1_000_000);
        assert_eq!(parsed("1u"), 1, "too small amounts round up");
        for bad in ["", "x", "1Q", "--1", "1e"] {
            assert!(parse_thousandths(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lacking_names_the_resource() {
        let need = Resources::new().with("cpu", 500).with("nvidia.com/gpu", 2000);
        let free = Resources::new().with("cpu", 1000).with("nvidia.com/gpu", 1000);
        assert_eq!(need.lacking(&free), Some("nvidia.com/gpu"));
        assert!(Resources::new().fits_in(&free));
        assert_eq!(need.to_string(), "cpu 500m, nvidia.com/gpu 2");
    }
}
