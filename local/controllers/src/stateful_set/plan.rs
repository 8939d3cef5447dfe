//! Which pod of a stateful set comes or goes next. Pure.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus,
};
use k8s_openapi::api::core::v1::Pod;

use super::identity::{self, ordinal, revision};
use crate::amount::{Rounding, resolve};
use crate::pods::{is_finished, is_ready, is_terminating, phase, until_available};

/// The names of the two revisions between which a set may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    /// That of the pods before the rollout.
    pub current: &'a str,
    /// That of the present template.
    pub update: &'a str,
}

/// Which template a new pod follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// That of before the rollout: the pod is below the partition.
    Current,
    /// The present one.
    Update,
}

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Pods to create, by ordinal, after their claims.
    pub create: Vec<(i32, Follows)>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that lost labels of the set.
    pub mark: Vec<Arc<Pod>>,
    /// Pods that wait, perhaps for claims that are missing.
    pub furnish: Vec<i32>,
    /// The status to write.
    pub status: StatefulSetStatus,
    /// When a ready pod becomes available.
    pub again: Option<Duration>,
}

/// A pod and what counts of it.
struct Seen<'a> {
    ordinal: i32,
    pod: &'a Arc<Pod>,
}

/// What is known while a plan is made.
struct Look<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    names: Names<'a>,
    now: Timestamp,
    /// One place for each ordinal that the set wants, in order.
    wanted: Vec<(i32, Option<&'a Arc<Pod>>)>,
    /// Pods that are too many, the highest ordinal first.
    condemned: Vec<Seen<'a>>,
    plan: Plan,
}

/// Whether the set wants no pod of this ordinal.
pub(crate) fn is_condemned(spec: &StatefulSetSpec, ordinal: i32) -> bool {
    let index = i64::from(ordinal) - i64::from(identity::start(spec));
    !(0..i64::from(identity::wanted(spec))).contains(&index)
}

/// Decides what the set needs next, given the pods that it controls.
pub(crate) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], names: Names<'_>, now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let seen = pods.iter().filter_map(|pod| Some(Seen { ordinal: ordinal(set, pod)?, pod }));
    let (mut condemned, kept): (Vec<_>, Vec<_>) = seen.partition(|seen| is_condemned(spec, seen.ordinal));
    condemned.sort_by_key(|seen| std::cmp::Reverse(seen.ordinal));
    let start = identity::start(spec);
    let kept: BTreeMap<i32, &Arc<Pod>> = kept.into_iter().map(|seen| (seen.ordinal, seen.pod)).collect();
    let place = |ordinal: i32| (ordinal, kept.get(&ordinal).copied());
    let wanted = (start..start.saturating_add(identity::wanted(spec))).map(place).collect();
    let mut look = Look { set, spec, names, now, wanted, condemned, plan: Plan::default() };
    look.plan.status = look.status();
    look.plan.again = look.until_next_available();
    if set.metadata.deletion_timestamp.is_none() && look.fill().is_continue() && look.shrink().is_continue() {
        look.update();
    }
    look.plan
}

impl<'a> Look<'a> {
    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        phase(pod) == "Running"
            && !is_terminating(pod)
            && until_available(pod, self.min_ready(), self.now).is_some_and(|left| left.is_zero())
    }

    fn all(&self) -> impl Iterator<Item = &'a Arc<Pod>> {
        let wanted = self.wanted.iter().filter_map(|(_, pod)| *pod);
        wanted.chain(self.condemned.iter().map(|seen| seen.pod))
    }

    fn until_next_available(&self) -> Option<Duration> {
        let waits = self.all().filter_map(|pod| until_available(pod, self.min_ready(), self.now));
        waits.filter(|wait| !wait.is_zero()).min().map(SignedDuration::unsigned_abs)
    }

    /// Whether pods come and go one after the other.
    fn ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn rolling(&self) -> Option<RollingUpdateStatefulSetStrategy> {
        let strategy = self.spec.update_strategy.clone().unwrap_or_default();
        (strategy.type_.as_deref() != Some("OnDelete")).then(|| strategy.rolling_update.unwrap_or_default())
    }

    /// How many ordinals from the first on keep the template of before the rollout.
    fn partition(&self) -> Option<usize> {
        let partition = self.rolling()?.partition.unwrap_or(0);
        Some(usize::try_from(partition).unwrap_or(0))
    }

    /// Creates what is missing and replaces what ended.
    fn fill(&mut self) -> ControlFlow<()> {
        for (index, (ordinal, pod)) in self.wanted.clone().into_iter().enumerate() {
            let in_order = if let Some(pod) = pod {
                self.look_after(ordinal, pod)
            } else {
                let follows = match self.partition() {
                    Some(partition) if index < partition => Follows::Current,
                    _ => Follows::Update,
                };
                self.plan.create.push((ordinal, follows));
                false
            };
            if self.ordered() && !in_order {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Returns whether the next ordinal may have its turn.
    fn look_after(&mut self, ordinal: i32, pod: &Arc<Pod>) -> bool {
        if is_finished(pod) {
            if !is_terminating(pod) {
                self.plan.delete.push(pod.clone());
            }
            return false;
        }
        if phase(pod) == "Pending" && !is_terminating(pod) {
            self.plan.furnish.push(ordinal);
        }
        if !is_terminating(pod) && !identity::is_marked(self.set, pod) {
            self.plan.mark.push(pod.clone());
        }
        self.is_available(pod)
    }

    /// Deletes what is too many, the highest ordinal first.
    fn shrink(&mut self) -> ControlFlow<()> {
        let healthy = |pod: &Pod| phase(pod) == "Running" && is_ready(pod) && !is_terminating(pod);
        let sick = self.condemned.iter().rev().find(|seen| !healthy(seen.pod));
        let first_sick = sick.map(|seen| seen.ordinal);
        for seen in &self.condemned {
            if is_terminating(seen.pod) {
                if self.ordered() {
                    return ControlFlow::Break(());
                }
                continue;
            }
            // A pod that is not well holds up the others, unless it is the first that is not.
            if self.ordered() && !self.is_available(seen.pod) && first_sick != Some(seen.ordinal) {
                return ControlFlow::Break(());
            }
            self.plan.delete.push(seen.pod.clone());
            if self.ordered() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Deletes pods of an old revision, the highest ordinal first, as far as enough others are available.
    fn update(&mut self) {
        let (Some(rolling), Some(partition)) = (self.rolling(), self.partition()) else { return };
        let at_once = resolve(rolling.max_unavailable.as_ref(), self.wanted.len() as i32, Rounding::Down);
        let missing = self.wanted.iter().filter(|(_, pod)| pod.is_none_or(|pod| !self.is_available(pod)));
        let mut left = i64::from(at_once.unwrap_or(1).max(1)) - missing.count() as i64;
        for (_, pod) in self.wanted.iter().skip(partition).rev() {
            let Some(pod) = *pod else { continue };
            if is_terminating(pod) || is_finished(pod) || revision(pod) == self.names.update {
                continue;
            }
            // A pod that serves nobody costs nothing.
            if self.is_available(pod) {
                if left <= 0 {
                    continue;
                }
                left -= 1;
            }
            self.plan.delete.push(pod.clone());
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let count = |matches: &dyn Fn(&Pod) -> bool| self.all().filter(|pod| matches(pod)).count() as i32;
        let follow = |name: &str| count(&|pod| !is_terminating(pod) && revision(pod) == name);
        let some = |count: i32| (count > 0).then_some(count);
        let (replicas, updated) = (count(&|_| true), follow(self.names.update));
        let ready = count(&|pod| phase(pod) == "Running" && is_ready(pod));
        let wanted = identity::wanted(self.spec);
        let complete = self.rolling().is_some() && [replicas, updated, ready] == [wanted; 3];
        let (current, current_name) = if complete {
            (updated, self.names.update)
        } else {
            (follow(self.names.current), self.names.current)
        };
        let before = self.set.status.as_ref();
        StatefulSetStatus {
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: some(current),
            updated_replicas: some(updated),
            current_revision: Some(current_name.to_owned()),
            update_revision: Some(self.names.update.to_owned()),
            observed_generation: self.set.metadata.generation,
            collision_count: before.and_then(|status| status.collision_count).or(Some(0)),
            conditions: before.and_then(|status| status.conditions.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
