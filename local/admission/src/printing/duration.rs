//! Ages as `kubectl get` shows them: one or two units, coarser the older.

use jiff::Timestamp;
use serde_json::Value;

/// A span of time in seconds in its short form: `5m`, `3h2m`, `2d`. Clocks may differ by a second; anything earlier is
/// `<invalid>`.
pub fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_name: &str, small: i64, small_name: &str| {
        let (whole, rest) = (seconds / large, seconds % large / small);
        if rest == 0 {
            format!("{whole}{large_name}")
        } else {
            format!("{whole}{large_name}{rest}{small_name}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        seconds if seconds < 2 * MINUTE => format!("{seconds}s"),
        seconds if seconds < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        seconds if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        seconds if seconds < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        seconds if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        seconds if seconds < 8 * DAY => two(DAY, "d", HOUR, "h"),
        seconds if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        seconds if seconds < 8 * YEAR => {
            let days = seconds / DAY;
            let (years, days) = (days / 365, days % 365);
            if days == 0 { format!("{years}y") } else { format!("{years}y{days}d") }
        }
        seconds => format!("{}y", seconds / YEAR),
    }
}

/// The time that a JSON text holds.
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// The span between two times in its short form.
pub(super) fn between(start: Timestamp, end: Timestamp) -> String {
    let milliseconds = end.as_millisecond().saturating_sub(start.as_millisecond());
    human(milliseconds / 1000)
}

/// How long ago a time was; `<unknown>` when it is not set.
pub(super) fn since(value: &Value, now: Timestamp) -> String {
    time(value).map_or_else(|| "<unknown>".to_owned(), |time| between(time, now))
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn durations_become_coarser_with_age() {
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_920, "3h2m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds} seconds");
        }
    }
}
