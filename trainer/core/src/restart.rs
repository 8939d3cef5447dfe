//! What is remembered of a job's restarts, in its annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;
use muster_trainer_api::annotation;

use crate::backoff::RestartBackoff;

/// The restarts of a job so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartState {
    /// The generation of pods that is current.
    pub generation: u64,
    /// Restarts that the job's own code has caused.
    pub counted: u32,
    /// Restarts that the infrastructure has caused.
    pub free: u32,
    /// Place of the latest restart in its streak, from 1.
    pub streak: u32,
    /// When the latest restart was decided.
    pub last: Option<Timestamp>,
    /// Uids of the failed pods that have been dealt with: those whose restart has been counted with restart scope
    /// `pod`, and those that the job does without.
    pub restarting_pods: BTreeSet<String>,
}

impl RestartState {
    /// Reads the annotations of a job; what cannot be read counts as absent.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Self {
        fn parse<T: FromStr>(annotations: Option<&BTreeMap<String, String>>, key: &str) -> Option<T> {
            annotations?.get(key)?.parse().ok()
        }
        let pods: Option<String> = parse(annotations, annotation::RESTARTING_PODS);
        Self {
            generation: parse(annotations, annotation::GANG_GENERATION).unwrap_or(0),
            counted: parse(annotations, annotation::RESTART_COUNT).unwrap_or(0),
            free: parse(annotations, annotation::INFRASTRUCTURE_RESTART_COUNT).unwrap_or(0),
            streak: parse(annotations, annotation::RESTART_STREAK).unwrap_or(0),
            last: parse(annotations, annotation::LAST_RESTART_TIME),
            restarting_pods: pods
                .iter()
                .flat_map(|pods| pods.split(','))
                .filter(|uid| !uid.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    fn written(&self) -> BTreeMap<String, String> {
        let mut written = BTreeMap::new();
        let mut insert = |key: &str, value: String| written.insert(key.to_owned(), value);
        if self.generation > 0 {
            insert(annotation::GANG_GENERATION, self.generation.to_string());
        }
        if self.counted > 0 {
            insert(annotation::RESTART_COUNT, self.counted.to_string());
        }
        if self.free > 0 {
            insert(annotation::INFRASTRUCTURE_RESTART_COUNT, self.free.to_string());
        }
        if self.streak > 0 {
            insert(annotation::RESTART_STREAK, self.streak.to_string());
        }
        if let Some(last) = self.last {
            insert(annotation::LAST_RESTART_TIME, last.to_string());
        }
        if !self.restarting_pods.is_empty() {
            let pods: Vec<_> = self.restarting_pods.iter().map(String::as_str).collect();
            insert(annotation::RESTARTING_PODS, pods.join(","));
        }
        written
    }

    /// The annotations to write so that a job that has `before` remembers this.
    pub(crate) fn changes(&self, before: &Self) -> BTreeMap<String, String> {
        let before = before.written();
        self.written().into_iter().filter(|(key, value)| before.get(key) != Some(value)).collect()
    }

    /// Counts a restart that is decided now; `lived_since` is when the pods that failed were started.
    pub(crate) fn count(
        &mut self,
        counted: u32,
        free: u32,
        now: Timestamp,
        lived_since: Option<Timestamp>,
        backoff: &RestartBackoff,
    ) {
        self.counted = self.counted.saturating_add(counted);
        self.free = self.free.saturating_add(free);
        let since = self.last.max(lived_since);
        let lived = since.map_or(0, |since| now.as_second().saturating_sub(since.as_second()));
        let long = lived >= i64::try_from(backoff.reset_after.as_secs()).unwrap_or(i64::MAX);
        self.streak = if long { 1 } else { self.streak.saturating_add(1) };
        self.last = Some(now);
    }

    /// The earliest time at which the latest restart may create pods.
    pub(crate) fn not_before(&self, backoff: &RestartBackoff) -> Option<Timestamp> {
        let delay = jiff::SignedDuration::try_from(backoff.delay(self.streak)).ok()?;
        self.last?.checked_add(delay).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let state = RestartState {
            generation: 3,
            counted: 2,
            free: 1,
            streak: 2,
            last: Some("2026-11-20T10:00:00.5Z".parse().unwrap()),
            restarting_pods: ["a".to_owned(), "b".to_owned()].into(),
        };
        let written = state.changes(&RestartState::default());
        assert_eq!(RestartState::read(Some(&written)), state);
        assert!(state.changes(&state).is_empty());
    }

    #[test]
    fn garbage_counts_as_absent() {
        let garbage = BTreeMap::from([(annotation::RESTART_COUNT.to_owned(), "many".to_owned())]);
        assert_eq!(RestartState::read(Some(&garbage)), RestartState::default());
    }

    #[test]
    fn a_long_life_ends_the_streak() {
        let backoff = RestartBackoff::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut state = RestartState::default();
        state.count(1, 0, at(10), Some(at(0)), &backoff);
        state.count(1, 0, at(20), Some(at(0)), &backoff);
        assert_eq!((state.counted, state.streak), (2, 2));
        assert_eq!(state.not_before(&backoff), Some(at(21)));
        state.count(0, 1, at(1000), Some(at(0)), &backoff);
        assert_eq!((state.counted, state.free, state.streak), (2, 1, 1));
        assert_eq!(state.not_before(&backoff), Some(at(1000)));
    }
}
