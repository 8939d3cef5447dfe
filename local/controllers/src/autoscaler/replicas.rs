//! How many pods one metric asks for. Pure; the rules are those of kube-controller-manager's replica calculator.

use std::collections::BTreeMap;

use super::group::{Group, MissingRequest};
use super::rules::Behavior;

/// What a metric is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Goal {
    /// So many hundredths of what the pods ask for, which is given in thousandths of a unit.
    Utilization { percent: i32, requests: BTreeMap<String, i64> },
    /// So many thousandths of a unit a pod.
    Average { milli: i64 },
}

/// What a metric asks for, and what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Hundredths of the requests, when those are the goal.
    pub(super) utilization: Option<i32>,
    /// Thousandths of a unit a pod.
    pub(super) average_milli: i64,
}

/// Why a metric says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CalculationError {
    /// None of the pods works yet.
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoneReady,
    /// There is nothing to divide by.
    #[error("no metrics returned matched known pods")]
    NoRequests,
    /// A container asks for nothing.
    #[error(transparent)]
    Request(#[from] MissingRequest),
}

/// What is measured, as a share of the goal.
struct Ratio {
    of_goal: f64,
    utilization: Option<i32>,
    average_milli: i64,
}

impl Goal {
    fn ratio(&self, used: &BTreeMap<String, i64>) -> Result<Ratio, CalculationError> {
        match self {
            Self::Average { milli } => {
                let total: i64 = used.values().sum();
                let average_milli = total / used.len().max(1) as i64;
                Ok(Ratio {
                    of_goal: average_milli as f64 / (*milli).max(1) as f64,
                    utilization: None,
                    average_milli,
                })
            }
            Self::Utilization { percent, requests } => {
                let known: Vec<(i64, i64)> =
                    used.iter().filter_map(|(pod, used)| Some((*used, *requests.get(pod)?))).collect();
                let (total, requested) = known.iter().fold((0, 0), |sum, pod| (sum.0 + pod.0, sum.1 + pod.1));
                if requested == 0 {
                    return Err(CalculationError::NoRequests);
                }
                let utilization = i32::try_from(total * 100 / requested).unwrap_or(i32::MAX);
                Ok(Ratio {
                    of_goal: f64::from(utilization) / f64::from((*percent).max(1)),
                    utilization: Some(utilization),
                    average_milli: total / known.len() as i64,
                })
            }
        }
    }

    /// What a pod that was not measured is taken to use, so that there are not fewer pods because of it.
    fn at_least(&self, pod: &str) -> i64 {
        match self {
            Self::Average { milli } => *milli,
            Self::Utilization { percent, requests } => {
                requests.get(pod).copied().unwrap_or(0) * i64::from((*percent).max(100)) / 100
            }
        }
    }
}

/// How many pods a metric asks for, when there are to be `current` now.
pub(super) fn propose(
    current: i32,
    group: &Group,
    goal: &Goal,
    behavior: &Behavior,
) -> Result<Proposal, CalculationError> {
    if group.ready.is_empty() {
        return Err(CalculationError::NoneReady);
    }
    let measured = goal.ratio(&group.ready)?;
    let answer = |replicas| Proposal {
        replicas,
        utilization: measured.utilization,
        average_milli: measured.average_milli,
    };
    let ratio = measured.of_goal;
    let more_while_some_start = ratio > 1.0 && !group.unready.is_empty();
    if !more_while_some_start && group.missing.is_empty() {
        let wanted = if behavior.tolerates(ratio) { current } else { times(ratio, group.ready.len()) };
        return Ok(answer(wanted));
    }
    // Who was not measured is taken to speak against any change.
    let mut supposed = group.ready.clone();
    for pod in &group.missing {
        if ratio < 1.0 {
            supposed.insert(pod.clone(), goal.at_least(pod));
        } else if ratio > 1.0 {
            supposed.insert(pod.clone(), 0);
        }
    }
    if more_while_some_start {
        supposed.extend(group.unready.iter().map(|pod| (pod.clone(), 0)));
    }
    let then = goal.ratio(&supposed)?.of_goal;
    let wanted = times(then, supposed.len());
    let turns = (ratio < 1.0 && (then > 1.0 || wanted > current))
        || (ratio > 1.0 && (then < 1.0 || wanted < current));
    Ok(answer(if behavior.tolerates(then) || turns { current } else { wanted }))
}

fn times(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

#[cfg(test)]
mod tests;
