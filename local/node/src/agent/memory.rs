//! Answers of the API that many pods need within moments.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// An answer is not used for longer.
const AGE: Duration = Duration::from_secs(5);

/// Remembers values for a short time.
#[derive(Debug)]
pub(super) struct ShortMemory<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K, V> Default for ShortMemory<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K: Eq + Hash, V: Clone> ShortMemory<K, V> {
    /// What was put in lately.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock();
        let (_, value) = entries.get(key).filter(|(since, _)| now.duration_since(*since) < AGE)?;
        Some(value.clone())
    }

    /// Remembers a value and forgets those that are too old.
    pub(super) fn put(&self, key: K, value: V, now: Instant) {
        let mut entries = self.entries.lock();
        entries.retain(|_, (since, _)| now.duration_since(*since) < AGE);
        entries.insert(key, (now, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_forgotten() {
        let memory = ShortMemory::default();
        let now = Instant::now();
        memory.put("a", 1, now);
        assert_eq!(memory.get(&"a", now), Some(1));
        assert_eq!(memory.get(&"a", now + AGE), None);
        memory.put("b", 2, now + AGE);
        assert_eq!(memory.entries.lock().len(), 1);
    }
}
