//! Kubernetes quantities as numbers. Pure.

/// The value of a quantity in thousandths, e.g. `500m` is 500 and `1Ki` is 1,024,000.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let end = text.find(|symbol: char| !(symbol.is_ascii_digit() || matches!(symbol, '.' | '+' | '-')));
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1000, 1),
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
            (1000 * 10_i128.pow(power), 1)
        }
    };
    let negative = number.starts_with('-');
    let (whole, fraction) = number
        .trim_start_matches(['+', '-'])
        .split_once('.')
        .unwrap_or((number.trim_start_matches(['+', '-']), ""));
    let fraction = &fraction[..fraction.len().min(9)];
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = denominator.checked_mul(10_i128.pow(fraction.len() as u32))?;
    let product = digits.checked_mul(numerator)?;
    let value = product.div_euclid(scale) + i128::from(product.rem_euclid(scale) != 0);
    Some(if negative { -value } else { value })
}

/// The value of a quantity in whole units, rounded up.
pub(crate) fn units(text: &str) -> Option<i128> {
    milli(text).map(|milli| milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0))
}

/// The value in units of `divisor`, rounded up (`resourceFieldRef`).
pub(crate) fn divided(text: &str, divisor: &str) -> Option<i128> {
    let divisor = milli(divisor).filter(|divisor| *divisor > 0)?;
    let value = milli(text)?;
    Some(value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_kubernetes_does() {
        for (text, expected) in
            [("1", 1000), ("500m", 500), ("1.5", 1500), ("1Ki", 1_024_000), ("2e3", 2_000_000), ("0.1m", 1)]
        {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
        assert_eq!(milli("x"), None);
        assert_eq!(milli("1Q"), None);
        assert_eq!(units("128Mi"), Some(128 << 20));
        assert_eq!(divided("1500m", "1"), Some(2));
        assert_eq!(divided("1500m", "1m"), Some(1500));
        assert_eq!(divided("128Mi", "1Mi"), Some(128));
    }
}
