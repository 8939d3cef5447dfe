//! Amounts that are a number or a percentage. Pure.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What becomes of the fraction of a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// One more.
    Up,
    /// None.
    Down,
}

/// The number that a field says, of `total`; none when it is not set.
pub(crate) fn resolve(value: Option<&IntOrString>, total: i32, rounding: Rounding) -> Option<i32> {
    Some(match value? {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let exact = percent * i64::from(total);
            ((if rounding == Rounding::Up { exact + 99 } else { exact }) / 100) as i32
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_as_asked() {
        let percent = IntOrString::String("25%".into());
        assert_eq!(resolve(Some(&percent), 3, Rounding::Up), Some(1));
        assert_eq!(resolve(Some(&percent), 3, Rounding::Down), Some(0));
        assert_eq!(resolve(Some(&IntOrString::Int(2)), 3, Rounding::Down), Some(2));
        assert_eq!(resolve(None, 3, Rounding::Up), None);
    }
}
