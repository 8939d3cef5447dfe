//! How long jobs run: declared, learned from those like them, or supposed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Milliseconds;

/// Finished jobs that are remembered for each kind of job.
const REMEMBERED: usize = 64;
/// So many finished jobs of a kind are believed.
const ENOUGH: usize = 5;

/// What an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The job's own limit.
    Declared,
    /// Finished jobs like it.
    Learned,
    /// Nothing: a default. Nobody should be told a time that rests on it.
    Supposed,
}

/// How long a job will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Milliseconds, at least 1.
    pub length: Milliseconds,
    /// What it rests on.
    pub basis: Basis,
}

/// What is known of a job before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traits {
    /// Who submitted it.
    pub user: String,
    /// Name of its queue.
    pub queue: String,
    /// Name of the job without what numbers it, see [`family`].
    pub family: String,
    /// Declared limit.
    pub limit: Option<Milliseconds>,
}

/// A job's name without trailing numbers and hashes: `llama-7b-run-00412` and `llama-7b-run-00413` are alike.
pub fn family(name: &str) -> &str {
    let mut name = name;
    loop {
        let shorter = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        let shorter = shorter.trim_end_matches(['-', '_', '.', '/']);
        let shorter = match shorter.rsplit_once('-') {
            Some((front, hash)) if looks_random(hash) => front,
            _ => shorter,
        };
        if shorter == name || shorter.is_empty() {
            return name;
        }
        name = shorter;
    }
}

/// Whether a part of a name was made up by a machine: letters and digits mixed.
fn looks_random(part: &str) -> bool {
    let digits = part.chars().filter(char::is_ascii_digit).count();
    part.len() >= 5
        && digits > 0
        && part.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
}

#[derive(Debug, Clone, Default)]
struct Memory {
    /// Sorted, together with the order in which they came.
    lengths: Vec<(f64, u64)>,
    came: u64,
}

impl Memory {
    fn remember(&mut self, length: f64) {
        if self.lengths.len() == REMEMBERED
            && let Some(oldest) = self.lengths.iter().enumerate().min_by_key(|(_, entry)| entry.1)
        {
            let index = oldest.0;
            self.lengths.remove(index);
        }
        let place = self.lengths.partition_point(|(known, _)| *known < length);
        self.lengths.insert(place, (length, self.came));
        self.came += 1;
    }

    /// The quantile of those above `floor`; `None` when too few are.
    fn quantile(&self, quantile: f64, floor: f64) -> Option<f64> {
        let above = self.lengths.partition_point(|(known, _)| *known <= floor);
        let known = &self.lengths[above..];
        let enough = if floor > 0.0 { 2 } else { ENOUGH };
        let index = ((known.len() as f64 * quantile) as usize).min(known.len().checked_sub(1)?);
        (known.len() >= enough).then(|| known[index].0)
    }
}

/// Learns how long jobs run.
#[derive(Debug, Clone)]
pub struct Estimator {
    /// What is supposed of a job of which nothing is known.
    pub default_length: Milliseconds,
    /// Which quantile of the finished jobs is the estimate, from 0 to 1.
    pub quantile: f64,
    /// Whether declared limits are corrected by what jobs of the same user or family make of theirs.
    pub correct_limits: bool,
    lengths: BTreeMap<[String; 3], Memory>,
    /// What part of their limit jobs used.
    parts: BTreeMap<[String; 3], Memory>,
    observed: u64,
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            default_length: 24 * 3600 * 1000,
            quantile: 0.75,
            correct_limits: true,
            lengths: BTreeMap::new(),
            parts: BTreeMap::new(),
            observed: 0,
        }
    }
}

/// From the most alike to everybody; an empty string stands for any.
fn kinds(traits: &Traits) -> [[String; 3]; 5] {
    let any = String::new;
    let Traits { user, queue, family, .. } = traits;
    [
        [user.clone(), queue.clone(), family.clone()],
        [any(), queue.clone(), family.clone()],
        [user.clone(), any(), any()],
        [any(), queue.clone(), any()],
        [any(), any(), any()],
    ]
}

impl Estimator {
    /// A job ran to its end.
    pub fn observe(&mut self, traits: &Traits, ran: Milliseconds) {
        self.observed += 1;
        for kind in kinds(traits) {
            if let Some(limit) = traits.limit {
                let part = ran.max(1) as f64 / limit.max(1) as f64;
                self.parts.entry(kind.clone()).or_default().remember(part);
            }
            self.lengths.entry(kind).or_default().remember(ran.max(1) as f64);
        }
    }

    /// How many jobs were observed.
    pub fn observed(&self) -> u64 {
        self.observed
    }

    /// How long a job will run from its start.
    pub fn estimate(&self, traits: &Traits) -> Estimate {
        self.beyond(traits, 0)
    }

    /// How long a job will run in all that has run for `elapsed` already: those like it that ended sooner do not
    /// count, and a job that outruns everything known is supposed to run as long again.
    pub fn beyond(&self, traits: &Traits, elapsed: Milliseconds) -> Estimate {
        let learned = |known: &BTreeMap<[String; 3], Memory>, floor: f64| {
            kinds(traits).iter().find_map(|kind| known.get(kind)?.quantile(self.quantile, floor))
        };
        let longer = |length: f64| (length as Milliseconds).max(1);
        if let Some(limit) = traits.limit.map(|limit| limit.max(1)) {
            let floor = elapsed as f64 / limit as f64;
            if self.correct_limits
                && let Some(part) = learned(&self.parts, floor)
            {
                let length = longer((part * limit as f64).round());
                if length > elapsed {
                    return Estimate { length, basis: Basis::Learned };
                }
            }
            if limit > elapsed {
                return Estimate { length: limit, basis: Basis::Declared };
            }
        } else if let Some(length) = learned(&self.lengths, elapsed as f64).map(longer)
            && length > elapsed
        {
            return Estimate { length, basis: Basis::Learned };
        }
        Estimate { length: self.default_length.max(elapsed.saturating_mul(2)), basis: Basis::Supposed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(name: &str, limit: Option<Milliseconds>) -> Traits {
        Traits { user: "ada".into(), queue: "team".into(), family: family(name).into(), limit }
    }

    #[test]
    fn numbers_and_hashes_do_not_make_a_family() {
        assert_eq!(family("llama-7b-run-00412"), "llama-7b-run");
        assert_eq!(family("train-x7k2p"), "train");
        assert_eq!(family("ResNet-18"), "ResNet");
        assert_eq!(family("1234"), "1234");
    }

    #[test]
    fn declared_then_learned_then_supposed() {
        let mut estimator = Estimator { quantile: 0.5, ..Estimator::default() };
        let plain = traits("train-1", None);
        assert_eq!(estimator.estimate(&plain).basis, Basis::Supposed);
        for length in [100, 110, 120, 130, 1_000_000] {
            estimator.observe(&plain, length);
        }
        let learned = Estimate { length: 120, basis: Basis::Learned };
        assert_eq!(estimator.estimate(&traits("train-2", None)), learned, "one outlier changes nothing");
        let declared = Estimate { length: 500, basis: Basis::Declared };
        assert_eq!(estimator.estimate(&traits("train-2", Some(500))), declared);
    }

    #[test]
    fn limits_ten_times_too_long_are_seen_through() {
        let mut estimator = Estimator::default();
        for length in [100, 200, 300, 400, 500, 600] {
            estimator.observe(&traits("a-1", Some(length * 10)), length);
        }
        assert_eq!(estimator.estimate(&traits("b-1", Some(5000))).length, 500);
    }

    #[test]
    fn a_job_that_outruns_its_limit_is_estimated_anew() {
        let estimator = Estimator::default();
        let overrun = estimator.beyond(&traits("a", Some(100)), 150);
        assert!(overrun.length > 150 && overrun.basis == Basis::Supposed, "{overrun:?}");
    }
}
