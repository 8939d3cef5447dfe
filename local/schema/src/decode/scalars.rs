//! Scalars with a form of their own, judged in the words of Kubernetes' decoder.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

const NOT_A_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Whether `text` is a resource quantity such as `500m`, `2Gi` or `1e3`.
pub(super) fn quantity(text: &str) -> Result<(), &'static str> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let whole = digits(unsigned);
    let (number, suffix) = match unsigned[whole..].strip_prefix('.') {
        Some(rest) => unsigned.split_at(whole + 1 + digits(rest)),
        None => unsigned.split_at(whole),
    };
    let unit = suffix.trim_start_matches(|letter| "eEinumkKMGTP".contains(letter));
    let exponent = unit.strip_prefix(['+', '-']).unwrap_or(unit);
    if text.is_empty() || exponent.len() != digits(exponent) {
        return Err(NOT_A_QUANTITY);
    }
    if !number.contains(|letter: char| letter.is_ascii_digit()) {
        return Err("unable to parse numeric part of quantity");
    }
    let known = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi"
        | "Ei" => true,
        _ => suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| exponent.parse::<i32>().is_ok()),
    };
    if known { Ok(()) } else { Err("unable to parse quantity's suffix") }
}

/// Whether `text` is RFC 3339 time, as Go's `time.Parse` sees it.
pub(super) fn time(text: &str) -> Result<(), String> {
    if text.parse::<Timestamp>().is_ok() {
        return Ok(());
    }
    const PARTS: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ];
    let layout = "2006-01-02T15:04:05Z07:00";
    let failed = |rest: &str, part: &str| {
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}")
    };
    let mut rest = text;
    for (part, digits) in PARTS {
        let fits = if digits == 0 {
            rest.strip_prefix(part)
        } else {
            rest.split_at_checked(digits)
                .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
                .map(|(_, rest)| rest)
        };
        match fits {
            Some(shorter) => rest = shorter,
            None => return Err(failed(rest, part)),
        }
    }
    if rest.starts_with(['Z', '+', '-', '.']) {
        return Err(format!("parsing time {text:?}: day, hour, minute or second out of range"));
    }
    Err(failed(rest, "Z07:00"))
}

/// Whether `text` is standard base64 with padding; line ends are skipped.
pub(super) fn base64(text: &str) -> Result<(), String> {
    let clean: String = text.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    let Err(error) = STANDARD.decode(&clean) else { return Ok(()) };
    let place = match error {
        base64::DecodeError::InvalidByte(place, _) | base64::DecodeError::InvalidLastSymbol(place, _) => {
            place
        }
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => clean.len(),
    };
    Err(format!("illegal base64 data at input byte {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for good in ["0", "1", "-1", "+2.5", "500m", "2Gi", "1e3", "1E-3", ".5", "5.", "1E", "100n"] {
            assert_eq!(quantity(good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("abc", NOT_A_QUANTITY),
            ("", NOT_A_QUANTITY),
            ("1 Gi", NOT_A_QUANTITY),
            ("1Gib", NOT_A_QUANTITY),
            ("1KK", "unable to parse quantity's suffix"),
            ("1K", "unable to parse quantity's suffix"),
            ("Gi", "unable to parse numeric part of quantity"),
        ] {
            assert_eq!(quantity(bad), Err(reason), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time("2024-02-29T12:00:00Z"), Ok(()));
        assert_eq!(time("2024-02-29T12:00:00.123456+01:00"), Ok(()));
        let layout = "2006-01-02T15:04:05Z07:00";
        assert_eq!(
            time("abc").unwrap_err(),
            format!("parsing time \"abc\" as \"{layout}\": cannot parse \"abc\" as \"2006\"")
        );
        assert_eq!(
            time("2024-1").unwrap_err(),
            format!("parsing time \"2024-1\" as \"{layout}\": cannot parse \"1\" as \"01\"")
        );
    }

    #[test]
    fn base64_names_the_place() {
        assert_eq!(base64("aGk="), Ok(()));
        assert_eq!(base64("aGk!").unwrap_err(), "illegal base64 data at input byte 3");
    }
}
