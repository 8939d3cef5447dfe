//! Which time of a schedule is due now. Pure.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use muster_admission::cron::Schedule;

/// Missed times from which on a person should hear of it.
const MANY: usize = 100;

/// A time that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// The latest one; those before it are not made up for.
    pub at: Timestamp,
    /// Whether more times passed than a clock that is right explains.
    pub many_missed: bool,
}

/// The latest time after `since`, up to `now`.
pub(crate) fn latest(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Option<Due> {
    if let Some(pause) = schedule.every() {
        return latest_of_every(pause, schedule.next(since, zone)?, now);
    }
    let mut times = times(schedule, zone, since, now);
    let last = times.by_ref().take(MANY).last()?;
    let Some(next) = times.next() else { return Some(Due { at: last, many_missed: false }) };
    // Long ago is not walked through minute by minute: the latest time is looked for from now backwards.
    let hours = [1, 24, 24 * 40, 24 * 366 * 5];
    let recent = hours.into_iter().filter_map(|hours| {
        let start = now.checked_sub(SignedDuration::from_hours(hours)).ok()?;
        self::times(schedule, zone, start.max(next), now).last()
    });
    Some(Due { at: recent.into_iter().next().unwrap_or(next), many_missed: true })
}

/// These times go on from the one before them, so they are counted and not looked for.
fn latest_of_every(pause: SignedDuration, first: Timestamp, now: Timestamp) -> Option<Due> {
    if first > now {
        return None;
    }
    let seconds = pause.as_secs().max(1);
    let more = now.duration_since(first).as_secs() / seconds;
    let at = first.checked_add(SignedDuration::from_secs(more.checked_mul(seconds)?)).ok()?;
    Some(Due { at, many_missed: usize::try_from(more).is_ok_and(|more| more >= MANY) })
}

fn times<'a>(
    schedule: &'a Schedule,
    zone: &'a TimeZone,
    since: Timestamp,
    now: Timestamp,
) -> impl Iterator<Item = Timestamp> + 'a {
    let next = |last: &Timestamp| schedule.next(*last, zone);
    std::iter::successors(next(&since), next).take_while(move |due| *due <= now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    proptest! {
        /// The latest time is the one that walking through all of them finds.
        #[test]
        fn the_latest_time_is_the_last_of_all(
            since in 1_700_000_000_i64..1_700_100_000,
            length in 0_i64..3_000_000,
            choice in 0..6_usize,
        ) {
            let schedules =
                ["* * * * *", "*/7 * * * *", "30 3 * * *", "0 0 1 * *", "@every 90s", "@every 26h"];
            let schedule = schedules[choice];
            let schedule = Schedule::parse(schedule).unwrap();
            let [since, now] = [since, since + length].map(|second| Timestamp::from_second(second).unwrap());
            let all: Vec<Timestamp> = times(&schedule, &TimeZone::UTC, since, now).collect();
            let found = latest(&schedule, &TimeZone::UTC, since, now);
            prop_assert_eq!(found.map(|due| due.at), all.last().copied());
            prop_assert_eq!(found.is_some_and(|due| due.many_missed), all.len() > MANY);
        }
    }
}
