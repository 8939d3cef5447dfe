//! When a cron job is due: schedules as Kubernetes reads them, in a time zone.
//!
//! General cron libraries accept more than Kubernetes does (seconds, `L`, `W`, Sunday as 7) and treat the hours of a
//! clock change otherwise, so that a manifest would mean one thing here and another on a cluster.

mod parse;
mod zone;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

pub use parse::ScheduleError;
pub use zone::time_zone;

/// A schedule that is never due (a 30th of February) is noticed after so many years.
const YEARS: i16 = 5;

/// When something is due again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Due);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    /// At the minutes that all fields name.
    Fields(Fields),
    /// This long after the last time.
    Every(SignedDuration),
}

/// One bit for every value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// The field said `*` or `?`: of the two fields about days, the other one decides.
    any: bool,
}

impl Field {
    fn holds(self, value: i8) -> bool {
        self.bits & (1 << value) != 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl Fields {
    fn hold_on(&self, date: Date) -> bool {
        let day = self.day.holds(date.day());
        let weekday = self.weekday.holds(date.weekday().to_sunday_zero_offset());
        // Two restrictions of days are alternatives, as in every cron since the first.
        let days = if self.day.any || self.weekday.any { day && weekday } else { day || weekday };
        days && self.month.holds(date.month())
    }

    /// The first whole minute after `after` whose clock reading in the zone all fields hold for. Readings that a clock
    /// change leaves out are never due, those that it repeats twice.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut moment = Timestamp::from_second(minute * 60).ok()?;
        let last_year = zone.to_datetime(moment).year().saturating_add(YEARS);
        loop {
            let reading = zone.to_datetime(moment);
            if reading.year() > last_year {
                return None;
            }
            if !self.hold_on(reading.date()) {
                let next_day = reading.date().tomorrow().ok()?.to_datetime(Time::midnight());
                let midnight = zone.to_ambiguous_timestamp(next_day).compatible().ok()?;
                // Clocks that go back over midnight have the old day once more.
                moment = midnight.max(moment.checked_add(1.minute()).ok()?);
            } else if !self.hour.holds(reading.hour()) {
                moment = moment.checked_add(i64::from(60 - reading.minute()).minutes()).ok()?;
            } else if self.minute.holds(reading.minute()) {
                return Some(moment);
            } else {
                moment = moment.checked_add(1.minute()).ok()?;
            }
        }
    }
}

impl Schedule {
    /// Reads five fields (minute, hour, day, month, weekday), a macro such as `@daily`, or `@every 1h30m`.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        parse::schedule(text).map(Self)
    }

    /// How long after the last time something is due, if that alone decides.
    pub fn every(&self) -> Option<SignedDuration> {
        match self.0 {
            Due::Fields(_) => None,
            Due::Every(pause) => Some(pause),
        }
    }

    /// The first time after `after` that something is due; none if that is never.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Due::Fields(fields) => fields.next(after, zone),
            Due::Every(pause) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*pause).ok(),
        }
    }
}

#[cfg(test)]
mod tests;
