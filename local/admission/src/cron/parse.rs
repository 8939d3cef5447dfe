//! Reads schedules. The messages are those of a Kubernetes server.

use jiff::SignedDuration;

use super::{Due, Field, Fields};

/// Why a schedule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There is nothing to read.
    #[error("empty spec string")]
    Empty,
    /// Not five fields.
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    FieldCount(Vec<String>),
    /// An unknown macro.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// `@every` with something that is no duration.
    #[error("failed to parse duration {whole}: time: invalid duration \"{duration}\"")]
    Duration {
        /// The whole schedule.
        whole: String,
        /// What follows `@every`.
        duration: String,
    },
    /// A range with two hyphens.
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    /// A range with two steps.
    #[error("too many slashes: {0}")]
    Slashes(String),
    /// Neither a number nor a name.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing \"{0}\": invalid syntax")]
    Number(String),
    /// A range that starts too early.
    #[error("beginning of range ({value}) below minimum ({minimum}): {part}")]
    BelowMinimum {
        /// Where it starts.
        value: u64,
        /// The least value of the field.
        minimum: u64,
        /// The range.
        part: String,
    },
    /// A range that ends too late.
    #[error("end of range ({value}) above maximum ({maximum}): {part}")]
    AboveMaximum {
        /// Where it ends.
        value: u64,
        /// The greatest value of the field.
        maximum: u64,
        /// The range.
        part: String,
    },
    /// A range that ends before it starts.
    #[error("beginning of range ({start}) beyond end of range ({end}): {part}")]
    Backwards {
        /// Where it starts.
        start: u64,
        /// Where it ends.
        end: u64,
        /// The range.
        part: String,
    },
    /// A step of zero.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
}

/// The values that a field may have.
struct Bounds {
    least: u64,
    greatest: u64,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const BOUNDS: [Bounds; 5] = [
    Bounds { least: 0, greatest: 59, names: &[] },
    Bounds { least: 0, greatest: 23, names: &[] },
    Bounds { least: 1, greatest: 31, names: &[] },
    Bounds { least: 1, greatest: 12, names: &MONTHS },
    Bounds { least: 0, greatest: 6, names: &WEEKDAYS },
];

pub(super) fn schedule(text: &str) -> Result<Due, ScheduleError> {
    if text.trim().is_empty() {
        return Err(ScheduleError::Empty);
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = words.as_slice() else {
        return Err(ScheduleError::FieldCount(words.into_iter().map(str::to_owned).collect()));
    };
    let [minutes, hours, days, months, weekdays] = &BOUNDS;
    Ok(Due::Fields(Fields {
        minute: field(minute, minutes)?,
        hour: field(hour, hours)?,
        day: field(day, days)?,
        month: field(month, months)?,
        weekday: field(weekday, weekdays)?,
    }))
}

fn descriptor(text: &str) -> Result<Due, ScheduleError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(ScheduleError::Descriptor(text.to_owned()));
            };
            let duration = duration(every).ok_or_else(|| ScheduleError::Duration {
                whole: text.to_owned(),
                duration: every.to_owned(),
            })?;
            return Ok(Due::Every(SignedDuration::from_secs(duration.as_secs().max(1))));
        }
    };
    schedule(fields)
}

/// A duration in Go's notation, such as `1h30m` or `1.5s`.
fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut seconds = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

/// A list of ranges.
fn field(text: &str, bounds: &Bounds) -> Result<Field, ScheduleError> {
    let mut all = Field { bits: 0, any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, bounds)?;
        all = Field { bits: all.bits | one.bits, any: all.any || one.any };
    }
    Ok(all)
}

/// `*`, `3`, `1-5`, each with a step if `/` follows: `3/10` means from 3 on.
fn range(part: &str, bounds: &Bounds) -> Result<Field, ScheduleError> {
    let pieces: Vec<&str> = part.split('/').collect();
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let mut any = matches!(ends[0], "*" | "?");
    let (start, mut end) = match ends.as_slice() {
        _ if any => (bounds.least, bounds.greatest),
        [only] => (value(only, bounds)?, value(only, bounds)?),
        [first, last] => (value(first, bounds)?, value(last, bounds)?),
        _ => return Err(ScheduleError::Hyphens(part.to_owned())),
    };
    let step = match pieces.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = bounds.greatest;
            }
            let step = number(step)?;
            any &= step <= 1;
            step
        }
        _ => return Err(ScheduleError::Slashes(part.to_owned())),
    };
    let part = || part.to_owned();
    if start < bounds.least {
        return Err(ScheduleError::BelowMinimum { value: start, minimum: bounds.least, part: part() });
    }
    if end > bounds.greatest {
        return Err(ScheduleError::AboveMaximum { value: end, maximum: bounds.greatest, part: part() });
    }
    if start > end {
        return Err(ScheduleError::Backwards { start, end, part: part() });
    }
    if step == 0 {
        return Err(ScheduleError::Step(part()));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok(Field { bits: (start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value), any })
}

fn value(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let name = bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text));
    name.map_or_else(|| number(text), |position| Ok(position as u64 + bounds.least))
}

fn number(text: &str) -> Result<u64, ScheduleError> {
    text.parse().map_err(|_| ScheduleError::Number(text.to_owned()))
}
