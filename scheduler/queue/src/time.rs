//! Moments and lengths of time, passed in by the caller; nothing here reads a clock.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// A length of time in milliseconds.
pub type Milliseconds = i64;

/// A moment: milliseconds since an epoch of the caller's choosing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// A moment that never comes.
    pub const NEVER: Self = Self(i64::MAX);

    /// Milliseconds from `earlier` until this moment; 0 when it is not earlier.
    pub fn since(self, earlier: Self) -> Milliseconds {
        self.0.saturating_sub(earlier.0).max(0)
    }
}

impl Add<Milliseconds> for Time {
    type Output = Self;

    fn add(self, length: Milliseconds) -> Self {
        Self(self.0.saturating_add(length))
    }
}

impl Sub<Milliseconds> for Time {
    type Output = Self;

    fn sub(self, length: Milliseconds) -> Self {
        Self(self.0.saturating_sub(length))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ms", self.0)
    }
}
