//! What this process has written and its caches may not show yet.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How long a created object may take to show up before it is taken to be gone again.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

#[derive(Debug, Default)]
struct Expected {
    /// Version of the job that was written last.
    job_version: Option<String>,
    created: BTreeSet<String>,
    created_at: Timestamp,
    /// Reconciliations that have failed in a row.
    failures: u32,
}

/// What is expected of each job, by its uid.
///
/// Kept in memory only: a new process starts from fresh lists and expects nothing.
#[derive(Debug, Default)]
pub(crate) struct Expectations(Mutex<HashMap<String, Expected>>);

impl Expectations {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the version of a job that was written.
    pub(crate) fn job_written(&self, uid: &str, version: Option<String>) {
        self.lock().entry(uid.to_owned()).or_default().job_version = version;
    }

    /// Whether the cache may hold an older version of the job than was written.
    pub(crate) fn is_job_stale(&self, uid: &str, cached: Option<&str>) -> bool {
        let mut all = self.lock();
        let Some(expected) = all.get_mut(uid) else { return false };
        if expected.job_version.as_deref() == cached {
            expected.job_version = None;
        }
        expected.job_version.is_some()
    }

    /// Remembers that an object is about to be created.
    pub(crate) fn creating(&self, uid: &str, name: &str, now: Timestamp) {
        let mut all = self.lock();
        let expected = all.entry(uid.to_owned()).or_default();
        expected.created.insert(name.to_owned());
        expected.created_at = now;
    }

    /// Forgets an object that was not created after all.
    pub(crate) fn not_created(&self, uid: &str, name: &str) {
        if let Some(expected) = self.lock().get_mut(uid) {
            expected.created.remove(name);
        }
    }

    /// How long to wait for the cache to show what was created, if it does not yet.
    pub(crate) fn wait(&self, uid: &str, shows: impl Fn(&str) -> bool, now: Timestamp) -> Option<Duration> {
        let mut all = self.lock();
        let expected = all.get_mut(uid)?;
        expected.created.retain(|name| !shows(name));
        if expected.created.is_empty() {
            return None;
        }
        let left = PATIENCE - now.duration_since(expected.created_at);
        if left.is_positive() {
            return Some(left.unsigned_abs());
        }
        expected.created.clear();
        None
    }

    /// Counts a failure; how many there have been in a row.
    pub(crate) fn failed(&self, uid: &str) -> u32 {
        let mut all = self.lock();
        let expected = all.entry(uid.to_owned()).or_default();
        expected.failures = expected.failures.saturating_add(1);
        expected.failures
    }

    /// Ends a row of failures.
    pub(crate) fn succeeded(&self, uid: &str) {
        if let Some(expected) = self.lock().get_mut(uid) {
            expected.failures = 0;
        }
    }

    /// Forgets jobs that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_objects_are_waited_for_but_not_forever() {
        let expectations = Expectations::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        expectations.creating("job", "pod-a", at(0));
        expectations.creating("job", "pod-b", at(0));
        assert_eq!(expectations.wait("job", |name| name == "pod-a", at(1)), Some(Duration::from_secs(4)));
        assert_eq!(expectations.wait("job", |_| false, at(5)), None);
        assert_eq!(expectations.wait("job", |_| false, at(5)), None);
        expectations.creating("job", "pod-c", at(6));
        expectations.not_created("job", "pod-c");
        assert_eq!(expectations.wait("job", |_| false, at(6)), None);
    }

    #[test]
    fn a_job_is_stale_until_the_written_version_shows() {
        let expectations = Expectations::default();
        expectations.job_written("job", Some("7".to_owned()));
        assert!(expectations.is_job_stale("job", Some("6")));
        assert!(!expectations.is_job_stale("job", Some("7")));
        assert!(!expectations.is_job_stale("job", Some("8")));
    }
}
