use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn zone(name: &str) -> TimeZone {
    time_zone(name).unwrap()
}

/// The next times after `after`, as read in the zone.
fn times(schedule: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(zone_name));
    let next = |last: &Timestamp| schedule.next(*last, &zone);
    let due = std::iter::successors(next(&moment(after)), next).take(count);
    due.map(|due| zone.to_datetime(due).to_string()).collect()
}

#[test]
fn fields_name_the_minutes_that_are_due() {
    for (schedule, expected) in [
        ("* * * * *", ["2026-01-01T00:01:00", "2026-01-01T00:02:00"]),
        ("*/20 * * * *", ["2026-01-01T00:20:00", "2026-01-01T00:40:00"]),
        ("5/30 3 * * *", ["2026-01-01T03:05:00", "2026-01-01T03:35:00"]),
        ("0 9-17/8 * * mon-FRI", ["2026-01-01T09:00:00", "2026-01-01T17:00:00"]),
        ("30 6 1,15 * ?", ["2026-01-01T06:30:00", "2026-01-15T06:30:00"]),
        ("0 0 29 FEB *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("0 0 13 * 5", ["2026-01-02T00:00:00", "2026-01-09T00:00:00"]),
        ("0 0 */2 * 5", ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        ("0 0 * * 0", ["2026-01-04T00:00:00", "2026-01-11T00:00:00"]),
        ("@hourly", ["2026-01-01T01:00:00", "2026-01-01T02:00:00"]),
        ("@monthly", ["2026-02-01T00:00:00", "2026-03-01T00:00:00"]),
        ("@yearly", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("@every 1h30m", ["2026-01-01T01:30:00", "2026-01-01T03:00:00"]),
        ("@every 10ms", ["2026-01-01T00:00:01", "2026-01-01T00:00:02"]),
    ] {
        assert_eq!(times(schedule, "UTC", "2026-01-01T00:00:00Z", 2), expected, "{schedule}");
    }
    assert!(times("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1).is_empty(), "never");
}

#[test]
fn a_time_that_the_clocks_skip_is_not_due_and_one_that_they_repeat_is_due_twice() {
    let night = times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 2);
    assert_eq!(night, ["2026-03-28T02:30:00", "2026-03-30T02:30:00"]);
    let night = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3);
    assert_eq!(night, ["2026-10-25T02:30:00", "2026-10-25T02:30:00", "2026-10-26T02:30:00"]);
    let skipped_midnight = times("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", 1);
    assert_eq!(skipped_midnight, ["2026-09-07T00:00:00"]);
    let half_hour = times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00:00Z", 3);
    assert_eq!(half_hour, ["2026-04-05T01:45:00", "2026-04-05T01:45:00", "2026-04-06T01:45:00"]);
}

#[test]
fn what_cannot_be_read_is_refused_in_the_words_of_kubernetes() {
    for (schedule, message) in [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("@never", "unrecognized descriptor: @never"),
        ("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\""),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ("* * L * *", "failed to parse int from L: strconv.Atoi: parsing \"L\": invalid syntax"),
    ] {
        assert_eq!(Schedule::parse(schedule).unwrap_err().to_string(), message);
    }
    for unknown in ["Mars/Olympus", "europe/berlin", "Local", ""] {
        assert!(time_zone(unknown).is_none(), "{unknown}");
    }
}

proptest! {
    /// The next time is the first minute that holds, found here by looking at every minute.
    #[test]
    fn the_next_time_is_the_first_that_holds(
        start in 1_700_000_000_i64..1_900_000_000,
        minute in 0..60_i8,
        step in 1..9_i8,
        hour in 0..24_i8,
        place in 0..4_usize,
    ) {
        let zone = zone(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"][place]);
        let text = format!("{minute} {hour}/{step} * * *");
        let schedule = Schedule::parse(&text).unwrap();
        let start = Timestamp::from_second(start).unwrap();
        let Due::Fields(fields) = &schedule.0 else { unreachable!() };
        let holds = |moment: &Timestamp| {
            let reading = zone.to_datetime(*moment);
            fields.minute.holds(reading.minute()) && fields.hour.holds(reading.hour())
        };
        let first = Timestamp::from_second((start.as_second() / 60 + 1) * 60).unwrap();
        let minutes = std::iter::successors(Some(first), |last| last.checked_add(1.minute()).ok());
        prop_assert_eq!(schedule.next(start, &zone), minutes.take(3 * 24 * 60).find(holds));
    }

    /// No text makes the reader fail otherwise than with an error, and what is read is due later than it is asked for.
    #[test]
    fn any_text_is_read_or_refused(text in "[-@*?/, 0-9a-zA-Z]{0,24}", start in 0_i64..4_000_000_000) {
        if let Ok(schedule) = Schedule::parse(&text) {
            let start = Timestamp::from_second(start).unwrap();
            let next = schedule.next(start, &TimeZone::UTC);
            prop_assert!(next.is_none_or(|next| next > start));
        }
    }
}
