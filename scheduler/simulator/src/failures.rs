//! Nodes that fail and are repaired.

use muster_scheduler_queue::time::{Milliseconds, Time};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp, Weibull};
use serde::{Deserialize, Serialize};

/// How often nodes fail and how long repairs take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// Mean time between the failures of one node, in hours.
    pub mean_hours: f64,
    /// Shape of the Weibull distribution: below 1 failures come in clusters, 1 is a memoryless node.
    pub shape: f64,
    /// Mean time of a repair, in hours; exponential.
    pub repair_hours: f64,
}

/// A node goes, or comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Index of the node.
    pub node: usize,
    /// When it fails.
    pub from: Time,
    /// When it is back.
    pub to: Time,
}

const HOUR: f64 = 3_600_000.0;

impl Failures {
    /// All outages of `nodes` nodes that begin before `until`. Nothing when a figure is not above 0.
    pub fn outages(&self, nodes: usize, until: Time, seed: u64) -> Vec<Outage> {
        let scale = self.mean_hours * HOUR / gamma(1.0 + 1.0 / self.shape);
        let (Ok(life), Ok(repair)) =
            (Weibull::new(scale, self.shape), Exp::new(1.0 / (self.repair_hours * HOUR)))
        else {
            return Vec::new();
        };
        let mut random = StdRng::seed_from_u64(seed);
        let mut outages = Vec::new();
        for node in 0..nodes {
            let mut at = Time(0);
            loop {
                let from = at + life.sample(&mut random).max(1.0) as Milliseconds;
                if from >= until {
                    break;
                }
                let to = from + repair.sample(&mut random).max(1.0) as Milliseconds;
                outages.push(Outage { node, from, to });
                at = to;
            }
        }
        outages.sort_by_key(|outage| (outage.from, outage.node));
        outages
    }
}

/// The gamma function between 1 and 20 (Stirling's series after shifting up).
fn gamma(x: f64) -> f64 {
    let (mut shift, mut z) = (1.0, x);
    while z < 12.0 {
        shift *= z;
        z += 1.0;
    }
    let series = 1.0 + 1.0 / (12.0 * z) + 1.0 / (288.0 * z * z) - 139.0 / (51_840.0 * z * z * z);
    (std::f64::consts::TAU / z).sqrt() * (z / std::f64::consts::E).powf(z) * series / shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_is_right_where_it_is_known() {
        for (x, expected) in [(1.0, 1.0), (1.5, 0.886_226_925), (2.0, 1.0), (5.0, 24.0)] {
            assert!((gamma(x) / expected - 1.0).abs() < 1e-7, "{x}: {}", gamma(x));
        }
    }

    #[test]
    fn nodes_fail_as_often_as_they_should() {
        let failures = Failures { mean_hours: 100.0, shape: 0.8, repair_hours: 2.0 };
        let until = Time(10_000 * 3_600_000);
        let outages = failures.outages(50, until, 3);
        // 50 nodes for 10,000 hours, one failure in 102 hours each.
        assert!((4_600..5_200).contains(&outages.len()), "{}", outages.len());
        assert!(outages.iter().all(|outage| outage.from < outage.to && outage.from < until));
        assert_eq!(outages, failures.outages(50, until, 3));
        assert_ne!(outages, failures.outages(50, until, 4));
    }
}
