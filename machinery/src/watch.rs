//! How every watch of Muster pauses before it tries again.

use std::time::Duration;

use kube::Resource;
use kube::runtime::utils::Backoff;

/// The first pause after a watch broke, before jitter.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: an API server that is back is noticed at most so much later.
const LONGEST: Duration = Duration::from_secs(2);
/// By how much the pause grows.
const FACTOR: u32 = 2;

/// Pauses for `WatchStreamExt::backoff`: 100 ms at first, doubling up to 2 s, and from the beginning after a success.
/// Each is cut by up to a half at random, so that watches do not come back all at once.
///
/// The default of `kube` grows to 30 s. That spares a server with thousands of clients; ours have few, and each second
/// is one in which a part does not know what the cluster looks like.
pub fn backoff() -> impl Backoff + use<> {
    Pauses { next: FIRST }
}

/// For `WatchStreamExt::modify` before a cache: forgets which manager wrote which field. Parsed, that is larger than
/// the rest of a pod or a job, and no controller asks. An object that is written back without it keeps its managers.
pub fn without_managers<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// For `WatchStreamExt::modify` before objects are kept as they come: without their managers, and without the room to
/// spare that lists have after they were parsed, which may be three times what a list holds.
pub fn as_kept<K: Resource + Clone>(object: &mut K) {
    without_managers(object);
    // Only a copy has no such room, at any depth.
    *object = object.clone();
}

struct Pauses {
    next: Duration,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = (whole * FACTOR).min(LONGEST);
        Some(whole.mul_f64(rand::random_range(0.5..=1.0)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut pauses = backoff();
        for whole in [100, 200, 400, 800, 1600, 2000, 2000, 2000] {
            let (pause, whole) = (pauses.next().unwrap(), Duration::from_millis(whole));
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
        pauses.reset();
        assert!(pauses.next().unwrap() <= FIRST);
    }
}
