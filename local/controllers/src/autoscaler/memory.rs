//! What an autoscaler remembers of its past looks: what it recommended, and by how much it scaled. Pure.

use jiff::{SignedDuration, Timestamp};

/// The past of one autoscaler. It is not written down: after a restart the number of pods found counts as recommended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Memory {
    recommended: Vec<Event>,
    scaled: Vec<Event>,
}

/// A number at a time: pods recommended, or pods added (removed when negative).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    at: Timestamp,
    number: i32,
}

fn since(events: &[Event], now: Timestamp, span: SignedDuration) -> impl Iterator<Item = i32> {
    let within = move |event: &&Event| now.duration_since(event.at) < span;
    events.iter().filter(within).map(|event| event.number)
}

impl Memory {
    /// At the first look the number of pods found counts as recommended, so that nothing is hurried after a restart.
    pub(super) fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommend(replicas, now);
        }
    }

    /// Remembers a recommendation as it was before any limit.
    pub(super) fn recommend(&mut self, replicas: i32, now: Timestamp) {
        self.recommended.push(Event { at: now, number: replicas });
    }

    /// Remembers that so many pods were added, or removed when negative.
    pub(super) fn scale(&mut self, change: i32, now: Timestamp) {
        self.scaled.push(Event { at: now, number: change });
    }

    /// The least that was recommended in the last `span`, and `present`.
    pub(super) fn least(&self, present: i32, now: Timestamp, span: SignedDuration) -> i32 {
        since(&self.recommended, now, span).fold(present, i32::min)
    }

    /// The most that was recommended in the last `span`, and `present`.
    pub(super) fn most(&self, present: i32, now: Timestamp, span: SignedDuration) -> i32 {
        since(&self.recommended, now, span).fold(present, i32::max)
    }

    /// Pods added in the last `span`, less those removed.
    pub(super) fn change(&self, now: Timestamp, span: SignedDuration) -> i32 {
        since(&self.scaled, now, span).fold(0, i32::saturating_add)
    }

    /// Forgets what nothing looks back at any more. The newest recommendation stays: it shows that there was a look.
    pub(super) fn forget(&mut self, now: Timestamp, recommended: SignedDuration, scaled: SignedDuration) {
        let newest = self.recommended.last().copied();
        self.recommended.retain(|event| now.duration_since(event.at) < recommended);
        if self.recommended.is_empty() {
            self.recommended.extend(newest);
        }
        self.scaled.retain(|event| now.duration_since(event.at) < scaled);
    }
}
