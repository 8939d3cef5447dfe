//! The string formats that Kubernetes checks in custom objects.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

/// Whether `text` has the format; formats that Kubernetes does not check always match.
pub(crate) fn matches(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "duration" => duration_nanoseconds(text).is_some(),
        "byte" => STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID.is_match(text) && version(text) == Some('3'),
        "uuid4" => UUID.is_match(text) && version(text) == Some('4'),
        "uuid5" => UUID.is_match(text) && version(text) == Some('5'),
        "uri" => URI.is_match(text),
        "email" => EMAIL.is_match(text),
        "hostname" => text.len() <= 253 && HOSTNAME.is_match(text),
        "mac" => MAC.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "bsonobjectid" => OBJECT_ID.is_match(text),
        _ => true,
    }
}

/// A pattern written in this file; that it is valid is tested.
macro_rules! pattern {
    ($name:ident, $text:literal) => {
        static $name: Pattern = Pattern(LazyLock::new(|| Regex::new($text).ok()));
    };
}

struct Pattern(LazyLock<Option<Regex>>);

impl Pattern {
    fn is_match(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

pattern!(UUID, r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$");
pattern!(URI, r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s]+$|^/[^\s]*$");
pattern!(EMAIL, r"^[^@\s<>]+@[^@\s<>]+$");
pattern!(
    HOSTNAME,
    r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?$"
);
pattern!(MAC, r"(?i)^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$|^([0-9a-f]{4}\.){2}[0-9a-f]{4}$");
pattern!(HEX_COLOR, r"(?i)^#?([0-9a-f]{3}|[0-9a-f]{6})$");
pattern!(OBJECT_ID, r"(?i)^[0-9a-f]{24}$");
pattern!(DATE_TIME, r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:?\d{2})$");

fn version(uuid: &str) -> Option<char> {
    uuid.chars().filter(|character| *character != '-').nth(12)
}

fn is_date_time(text: &str) -> bool {
    DATE_TIME.is_match(text) && text.parse::<jiff::Timestamp>().is_ok()
}

/// The nanoseconds of a duration, as Go writes it (`1h2m3.5s`) or in words (`3 days`).
pub(crate) fn duration_nanoseconds(text: &str) -> Option<i64> {
    go_duration(text).or_else(|| duration_in_words(text))
}

const SECOND: i128 = 1_000_000_000;

fn go_duration(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i128;
    while !rest.is_empty() && rest != "0" {
        let digit = |character: char| character.is_ascii_digit() || character == '.';
        let (number, tail) = rest.split_at(rest.find(|character| !digit(character))?);
        let (unit, tail) = tail.split_at(tail.find(digit).unwrap_or(tail.len()));
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => SECOND / 1_000_000,
            "ms" => SECOND / 1_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || whole.len() > 19 || fraction.contains('.') {
            return None;
        }
        // More places than these are less than a nanosecond of an hour.
        let fraction = fraction.get(..15).unwrap_or(fraction);
        let places = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        total += mantissa * unit / places;
        rest = tail;
    }
    i64::try_from(if text.starts_with('-') { -total } else { total }).ok()
}

fn duration_in_words(text: &str) -> Option<i64> {
    let text = text.trim().to_lowercase();
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit())?);
    let unit = unit.trim_start();
    let unit = match unit.strip_suffix('s').filter(|unit| !matches!(*unit, "" | "n" | "u" | "µ" | "m")) {
        Some(singular) => singular,
        None => unit,
    };
    let unit = match unit {
        "ns" | "nano" => 1,
        "us" | "µs" | "micro" => SECOND / 1_000_000,
        "ms" | "milli" => SECOND / 1_000,
        "s" | "sec" | "second" => SECOND,
        "m" | "min" | "minute" => 60 * SECOND,
        "h" | "hr" | "hour" => 3_600 * SECOND,
        "d" | "day" => 86_400 * SECOND,
        "w" | "wk" | "week" => 7 * 86_400 * SECOND,
        _ => return None,
    };
    i64::try_from(i128::from(number.parse::<i64>().ok()?) * unit).ok()
}

/// Whether `text` is an address with a prefix length.
pub(crate) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(length) = length.parse::<u8>() else { return false };
    address.parse::<Ipv4Addr>().is_ok() && length <= 32
        || address.parse::<Ipv6Addr>().is_ok() && length <= 128
}

#[cfg(test)]
mod tests {
    use super::{duration_nanoseconds, matches};

    #[test]
    fn formats() {
        for (format, good, bad) in [
            ("date-time", "2026-11-20T23:53:56Z", "2026-11-20"),
            ("date", "2026-11-20", "2026-13-20"),
            ("duration", "1h2m3.5s", "soon"),
            ("byte", "YWJj", "*"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uuid", "08f59dd8-3b43-4f38-ae58-7c0b30ff8ae4", "08f59dd8"),
            ("uuid4", "08f59dd8-3b43-4f38-ae58-7c0b30ff8ae4", "08f59dd8-3b43-3f38-ae58-7c0b30ff8ae4"),
            ("uri", "https://example.com/x", "no uri"),
            ("email", "a@example.com", "a"),
            ("hostname", "example.com", "-x"),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("hexcolor", "#ff0000", "red"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "1"),
        ] {
            assert!(matches(format, good), "{format} {good}");
            assert!(!matches(format, bad), "{format} {bad}");
        }
        assert!(matches("int32", "anything"));
    }

    #[test]
    fn durations_are_read_to_the_nanosecond() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("-1.5h", -5_400_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("0.000000001s", 1),
            (".5ms", 500_000),
            ("1us", 1_000),
            ("3 days", 259_200_000_000_000),
            ("2 ms", 2_000_000),
            ("1 Week", 604_800_000_000_000),
        ] {
            assert_eq!(duration_nanoseconds(text), Some(nanoseconds), "{text}");
        }
        for text in
            ["", "-", "1", "1h2", "h", "1.2.3s", ".s", "3 moons", "99999999h", "99999999999999999999s"]
        {
            assert_eq!(duration_nanoseconds(text), None, "{text}");
        }
    }
}
