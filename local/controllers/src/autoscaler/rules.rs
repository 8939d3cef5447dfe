//! How fast an autoscaler may go, as `spec.behavior` says or leaves it. Pure.

use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};
use muster_admission::quantity::Quantity;

/// How far what is measured may be from what is wanted before anything is done.
const TOLERANCE: f64 = 0.1;
/// For how long the highest recommendation holds when nothing else is written.
const DOWN_WINDOW: i32 = 300;

/// Which of several policies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Select {
    /// The one that allows the greatest change.
    Max,
    /// The one that allows the least change.
    Min,
    /// None: no change in this direction.
    Disabled,
}

/// The greatest change in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) most: Change,
    pub(super) period: SignedDuration,
}

/// A change of the number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// So many pods.
    Pods(i32),
    /// So many hundredths of the pods that there were when the period began.
    Percent(i32),
}

/// What holds for one direction.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    /// How far back recommendations count.
    pub(super) window: SignedDuration,
    pub(super) select: Select,
    pub(super) policies: Vec<Policy>,
    /// Distance from the goal, as a share of it, at which nothing is done yet.
    pub(super) tolerance: f64,
}

/// What holds for both directions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Behavior {
    pub(super) up: Rules,
    pub(super) down: Rules,
    /// Nothing is written of it: pods may double at once, or become four.
    pub(super) is_default: bool,
}

fn seconds(seconds: i32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}

impl Rules {
    /// Reads rules; what they leave out is as the API server would have filled it in.
    fn read(written: Option<&HPAScalingRules>, window: i32, default: &[Policy]) -> Self {
        let policies = written.and_then(|rules| rules.policies.as_ref()).map(|policies| {
            let read = policies.iter().map(|policy| Policy {
                most: if policy.type_ == "Percent" {
                    Change::Percent(policy.value)
                } else {
                    Change::Pods(policy.value)
                },
                period: seconds(policy.period_seconds),
            });
            read.collect::<Vec<_>>()
        });
        let tolerance = written.and_then(|rules| rules.tolerance.as_ref()?.0.parse::<Quantity>().ok());
        Self {
            window: seconds(written.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(window)),
            select: match written.and_then(|rules| rules.select_policy.as_deref()) {
                Some("Disabled") => Select::Disabled,
                Some("Min") => Select::Min,
                _ => Select::Max,
            },
            policies: policies.filter(|policies| !policies.is_empty()).unwrap_or_else(|| default.to_vec()),
            tolerance: tolerance.map_or(TOLERANCE, |tolerance| tolerance.milli_value() as f64 / 1000.0),
        }
    }

    /// The longest time that any rule looks back at changes.
    pub(super) fn longest_period(&self) -> SignedDuration {
        self.policies.iter().map(|policy| policy.period).max().unwrap_or(SignedDuration::ZERO)
    }
}

impl Behavior {
    /// What an autoscaler says.
    pub(super) fn of(autoscaler: &HorizontalPodAutoscaler) -> Self {
        let written = autoscaler.spec.behavior.as_ref();
        let quarter = seconds(15);
        let double = Policy { most: Change::Percent(100), period: quarter };
        let four = Policy { most: Change::Pods(4), period: quarter };
        Self {
            up: Rules::read(written.and_then(|written| written.scale_up.as_ref()), 0, &[four, double]),
            down: Rules::read(
                written.and_then(|written| written.scale_down.as_ref()),
                DOWN_WINDOW,
                &[double],
            ),
            is_default: written.is_none(),
        }
    }

    /// Whether what is measured is near enough to what is wanted.
    pub(super) fn tolerates(&self, ratio: f64) -> bool {
        1.0 - self.down.tolerance <= ratio && ratio <= 1.0 + self.up.tolerance
    }
}
