//! Kubernetes resource quantities: exact decimal or binary numbers with a suffix (`100m`, `1.5Gi`, `2e3`).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// Why a text is no quantity. The wording is what clients of Kubernetes see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not have the form of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    /// The number is fine but nothing known follows it.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How a quantity prefers to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Powers of 1024: `Ki`, `Mi`, ...
    Binary,
    /// Powers of 1000: `m`, `k`, `M`, ...
    Decimal,
    /// An exponent of ten: `2e3`.
    Exponent,
}

/// A resource quantity, exact to one billionth (finer parts are rounded away from zero, as Kubernetes does).
///
/// Two quantities compare by value, whatever their format.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
/// Values are capped where Kubernetes caps them, at 2^63-1 whole units.
const LIMIT: i128 = (i64::MAX as i128) * NANO;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// A whole number of units.
    pub fn units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::Decimal }
    }

    /// Thousandths of a unit, as for CPU shares.
    pub fn milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * 1_000_000, format: Format::Decimal }
    }

    /// The value of a JSON text or number; `None` for anything that is no quantity.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        }
    }

    /// The value in whole units, rounded up (away from zero).
    pub fn value(self) -> i64 {
        divide_away_from_zero(self.nanos, NANO) as i64
    }

    /// The value in thousandths of a unit, rounded up (away from zero), capped at the largest `i64`.
    pub fn milli_value(self) -> i64 {
        let milli = divide_away_from_zero(self.nanos, 1_000_000);
        i64::try_from(milli).unwrap_or(if milli < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether it is a whole number of units.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The same value with parts below one thousandth rounded up, as resource lists are stored.
    #[must_use]
    pub fn round_up_to_milli(self) -> Self {
        Self { nanos: divide_away_from_zero(self.nanos, 1_000_000) * 1_000_000, ..self }
    }

    /// The sum; it takes this quantity's format unless this one is zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT), format }
    }

    /// The difference; it takes this quantity's format unless this one is zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self { nanos: -other.nanos, ..other })
    }
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let (quotient, remainder) = (value / by, value % by);
    if remainder == 0 { quotient } else { quotient + remainder.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let negative = text.starts_with('-');
        let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        let (format, multiplier) = parse_suffix(suffix)?;
        let magnitude = scaled(whole, fraction, multiplier);
        let nanos = if negative { -magnitude } else { magnitude };
        // A binary quantity below one unit cannot be written with a binary suffix.
        let format = if format == Format::Binary && nanos.abs() < NANO && nanos != 0 {
            Format::Decimal
        } else {
            format
        };
        Ok(Self { nanos, format })
    }
}

/// What a suffix multiplies by: a power of two, or a power of ten.
enum Multiplier {
    Two(u32),
    Ten(i32),
}

fn parse_suffix(suffix: &str) -> Result<(Format, Multiplier), QuantityError> {
    if suffix.is_empty() {
        return Ok((Format::Decimal, Multiplier::Ten(0)));
    }
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Binary, Multiplier::Two(*power)));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Format::Decimal, Multiplier::Ten(*power)));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
            let power = exponent.parse::<i32>().map_err(|_| QuantityError::Form)?;
            return Ok((Format::Exponent, Multiplier::Ten(power.clamp(-1000, 1000))));
        }
    }
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        Err(QuantityError::Suffix)
    } else {
        Err(QuantityError::Form)
    }
}

/// `whole.fraction * multiplier` in billionths, rounded up and capped.
fn scaled(whole: &str, fraction: &str, multiplier: Multiplier) -> i128 {
    // The value is digits * 10^exponent * 2^binary billionths.
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let (binary, power) = match multiplier {
        Multiplier::Two(binary) => (binary, 0),
        Multiplier::Ten(power) => (0, power),
    };
    let mut exponent = power + 9 - fraction.len() as i32;
    let mut inexact = false;
    let mut mantissa: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if mantissa >= LIMIT {
            // More digits than can matter: they only shift the number or round it up.
            exponent += 1;
            inexact |= digit != b'0';
            continue;
        }
        mantissa = mantissa * 10 + i128::from(digit - b'0');
    }
    if mantissa == 0 {
        return 0;
    }
    let mut value = mantissa;
    // Divide the factors two out first where they cancel, to stay within 128 bits.
    for _ in 0..binary {
        if value > i128::MAX / 2 {
            return LIMIT;
        }
        value *= 2;
    }
    while exponent > 0 {
        value = value.saturating_mul(10);
        exponent -= 1;
        if value >= LIMIT {
            return LIMIT;
        }
    }
    while exponent < 0 && value > 0 {
        inexact |= value % 10 != 0;
        value /= 10;
        exponent += 1;
    }
    if inexact {
        value += 1;
    }
    value.min(LIMIT)
}

/// The canonical text: the largest suffix that needs no fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.is_integer() {
            let mut units = self.nanos / NANO;
            let mut suffix = "";
            for (name, _) in BINARY {
                if units % 1024 != 0 {
                    break;
                }
                units /= 1024;
                suffix = name;
            }
            return write!(f, "{units}{suffix}");
        }
        let (mut value, mut power) = (self.nanos, -9);
        while value % 1000 == 0 && power < 18 {
            value /= 1000;
            power += 3;
        }
        if self.format == Format::Exponent {
            return if power == 0 { write!(f, "{value}") } else { write!(f, "{value}e{power}") };
        }
        let suffix = DECIMAL.iter().find(|(_, known)| *known == power).map_or("", |(name, _)| name);
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Quantity, QuantityError};

    #[test]
    fn quantities_print_in_their_canonical_form() {
        for (text, expected) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("100k", "100k"),
            ("1000000", "1M"),
            ("2e3", "2e3"),
            ("-3", "-3"),
            ("0.1Ki", "102400m"),
            ("12345678901234567890", "9223372036854775807"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), expected, "{text}");
        }
        assert_eq!("abc".parse::<Quantity>(), Err(QuantityError::Form));
        assert_eq!("1mm".parse::<Quantity>(), Err(QuantityError::Suffix));
        assert_eq!("".parse::<Quantity>(), Err(QuantityError::Form));
    }
}
