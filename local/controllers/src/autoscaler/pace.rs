//! From what metrics ask for to what is done: not back and forth, not too fast, not beyond the bounds. Pure.

use jiff::{SignedDuration, Timestamp};

use super::memory::Memory;
use super::rules::{Behavior, Change, Rules, Select};

/// What is asked for, and what limits it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// How many pods there are to be now; within the bounds.
    pub(super) current: i32,
    /// How many the metrics ask for.
    pub(super) desired: i32,
    /// The fewest pods.
    pub(super) fewest: i32,
    /// The most pods.
    pub(super) most: i32,
    pub(super) behavior: &'a Behavior,
    /// Past recommendations; the present one is not among them.
    pub(super) memory: &'a Memory,
    pub(super) now: Timestamp,
}

/// Which past recommendation stands against the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stabilized {
    No,
    Up,
    Down,
}

/// What keeps the number from being what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    TooFew,
    TooMany,
    UpRate,
    DownRate,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paced {
    /// How many pods there are to be.
    pub(super) replicas: i32,
    pub(super) stabilized: Stabilized,
    pub(super) limit: Limit,
}

impl Stabilized {
    /// Reason and message of the condition `AbleToScale`.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::No => ("ReadyForNewScale", "recommended size matches current size"),
            Self::Up => (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            ),
            Self::Down => (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            ),
        }
    }
}

impl Limit {
    /// Reason and message of the condition `ScalingLimited`.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::None => ("DesiredWithinRange", "the desired count is within the acceptable range"),
            Self::TooFew => {
                ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
            }
            Self::TooMany => {
                ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
            }
            Self::UpRate => {
                ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
            }
            Self::DownRate => (
                "ScaleDownLimit",
                "the desired replica count is decreasing faster than the maximum scale rate",
            ),
        }
    }
}

/// Decides how many pods there are to be.
pub(super) fn pace(wish: &Wish<'_>) -> Paced {
    let (stable, stabilized) = stabilize(wish);
    let (replicas, limit) = if wish.behavior.is_default {
        // No hurry by a factor that a wrong measurement could not explain; down there is only the window.
        within(wish, stable, wish.fewest, wish.current.saturating_mul(2).max(4))
    } else if stable > wish.current {
        within(wish, stable, i32::MIN, highest(wish).max(wish.current))
    } else {
        within(wish, stable, lowest(wish).min(wish.current), i32::MAX)
    };
    Paced { replicas, stabilized, limit }
}

/// The number nearest to the present one that no recommendation of the windows speaks against.
fn stabilize(wish: &Wish<'_>) -> (i32, Stabilized) {
    let Wish { current, desired, behavior, memory, now, .. } = *wish;
    let up = memory.least(desired, now, behavior.up.window);
    let down = memory.most(desired, now, behavior.down.window);
    let stable = current.max(up).min(down);
    let stabilized = match stable == desired {
        true => Stabilized::No,
        false if desired >= current => Stabilized::Up,
        false => Stabilized::Down,
    };
    (stable, stabilized)
}

/// Keeps a number within the bounds of the autoscaler and of the rate, and says which of them it met.
fn within(wish: &Wish<'_>, wanted: i32, lowest: i32, highest: i32) -> (i32, Limit) {
    let least = if lowest > wish.fewest { (lowest, Limit::DownRate) } else { (wish.fewest, Limit::TooFew) };
    let most = if highest < wish.most { (highest, Limit::UpRate) } else { (wish.most, Limit::TooMany) };
    if wanted < least.0 {
        least
    } else if wanted > most.0 {
        most
    } else {
        (wanted, Limit::None)
    }
}

/// How many there were when a period began that ends now.
fn at_start(wish: &Wish<'_>, period: SignedDuration) -> i32 {
    wish.current.saturating_sub(wish.memory.change(wish.now, period))
}

fn allowed(wish: &Wish<'_>, rules: &Rules, of: impl Fn(i32, Change) -> i32) -> Vec<i32> {
    rules.policies.iter().map(|policy| of(at_start(wish, policy.period), policy.most)).collect()
}

/// The highest number that the rules allow now.
fn highest(wish: &Wish<'_>) -> i32 {
    let rules = &wish.behavior.up;
    let allowed = allowed(wish, rules, |start, most| match most {
        Change::Pods(pods) => start.saturating_add(pods),
        Change::Percent(percent) => {
            clamp((i64::from(start) * (100 + i64::from(percent)) + 99).div_euclid(100))
        }
    });
    let chosen = match rules.select {
        Select::Disabled => None,
        Select::Min => allowed.into_iter().min(),
        Select::Max => allowed.into_iter().max(),
    };
    chosen.unwrap_or(wish.current)
}

/// The lowest number that the rules allow now.
fn lowest(wish: &Wish<'_>) -> i32 {
    let rules = &wish.behavior.down;
    let allowed = allowed(wish, rules, |start, most| match most {
        Change::Pods(pods) => start.saturating_sub(pods),
        Change::Percent(percent) => clamp(i64::from(start) * (100 - i64::from(percent)) / 100),
    });
    // The least change leaves the most pods.
    let chosen = match rules.select {
        Select::Disabled => None,
        Select::Min => allowed.into_iter().max(),
        Select::Max => allowed.into_iter().min(),
    };
    chosen.unwrap_or(wish.current)
}

fn clamp(number: i64) -> i32 {
    number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests;
