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
        "duration" => is_duration(text),
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
pattern!(
    GO_DURATION,
    r"^[+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*$"
);
pattern!(
    WORD_DURATION,
    r"(?i)^\s*\d+\s*(ns|nano|us|µs|micro|ms|milli|s|sec|second|m|min|minute|h|hr|hour|d|day|w|wk|week)s?\s*$"
);

fn version(uuid: &str) -> Option<char> {
    uuid.chars().filter(|character| *character != '-').nth(12)
}

fn is_date_time(text: &str) -> bool {
    DATE_TIME.is_match(text) && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_duration(text: &str) -> bool {
    text == "0" || GO_DURATION.is_match(text) || WORD_DURATION.is_match(text)
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
    use super::matches;

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
}
