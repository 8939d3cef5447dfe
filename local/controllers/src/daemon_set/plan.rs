//! Which nodes get a pod of a daemon set and which lose theirs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use super::eligibility::{self, Eligibility};
use super::pod::{follows, is_bound, node_of};
use super::rollout::{self, Pace};
use crate::pods::{is_finished, is_ready, is_terminating, phase, until_available};

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that failed, with their node: deleted after a pause, so that nothing fails in a circle.
    pub failed: Vec<(String, Arc<Pod>)>,
    /// The status to write.
    pub status: DaemonSetStatus,
    /// When a ready pod becomes available.
    pub again: Option<Duration>,
}

/// What is known while a plan is made.
pub(super) struct Look<'a> {
    hash: &'a str,
    now: Timestamp,
    min_ready: i32,
    /// The pods of every node of the cluster.
    nodes: Vec<(String, Eligibility, Vec<&'a Arc<Pod>>)>,
}

/// Decides what the set needs, given the cluster's nodes and the pods that it controls. `hash` is that of the present
/// template.
pub(crate) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let known: BTreeSet<&str> = nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    let mut plan = Plan::default();
    for pod in pods {
        match node_of(pod).filter(|name| known.contains(name)) {
            Some(node) => by_node.entry(node).or_default().push(pod),
            // Its node is gone before the scheduler bound it.
            None if !is_bound(pod) && !is_terminating(pod) => plan.delete.push(pod.clone()),
            None => {}
        }
    }
    let tolerant = eligibility::tolerant(set);
    let nodes = nodes.iter().map(|node| {
        let name = node.name_any();
        let mut own = by_node.remove(name.as_str()).unwrap_or_default();
        own.sort_by_key(|pod| (!is_bound(pod), pod.metadata.creation_timestamp.clone(), pod.name_any()));
        let eligibility = eligibility::judge(&tolerant, node);
        (name, eligibility, own)
    });
    let look = Look { hash, now, min_ready: spec.min_ready_seconds.unwrap_or(0), nodes: nodes.collect() };
    plan.status = look.status(set);
    plan.again = look.until_next_available();
    if set.metadata.deletion_timestamp.is_some() {
        plan.delete.clear();
        return plan;
    }
    let pace = rollout::pace(set, plan.status.desired_number_scheduled);
    look.manage(pace, &mut plan);
    // A set settles which nodes have pods before it changes what they run.
    if plan.create.is_empty() && plan.delete.is_empty() {
        rollout::roll(&look, pace, &mut plan);
    }
    plan
}

impl<'a> Look<'a> {
    pub(super) fn is_new(&self, pod: &Pod) -> bool {
        follows(pod, self.hash)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        until_available(pod, self.min_ready, self.now).is_some_and(|left| left.is_zero())
    }

    /// The nodes that run a pod, each with its pods that neither ended nor are about to.
    pub(super) fn running(&self) -> impl Iterator<Item = (&str, Vec<&'a Arc<Pod>>)> {
        let nodes = self.nodes.iter().filter(|(_, eligibility, _)| *eligibility == Eligibility::Runs);
        nodes.map(|(name, _, pods)| {
            let alive = pods.iter().filter(|pod| !is_terminating(pod) && !is_finished(pod));
            (name.as_str(), alive.copied().collect())
        })
    }

    /// Gives every node the pods that it should have, whatever template they follow.
    fn manage(&self, pace: Pace, plan: &mut Plan) {
        for (name, eligibility, pods) in &self.nodes {
            let staying = pods.iter().copied().filter(|pod| !is_terminating(pod));
            match eligibility {
                Eligibility::Never => plan.delete.extend(staying.cloned()),
                Eligibility::Runs if pods.is_empty() => plan.create.push(name.clone()),
                Eligibility::Runs | Eligibility::Keeps => {
                    let (ended, alive): (Vec<_>, Vec<_>) = staying.partition(|pod| is_finished(pod));
                    for pod in ended {
                        match phase(pod) {
                            "Failed" => plan.failed.push((name.clone(), pod.clone())),
                            _ => plan.delete.push(pod.clone()),
                        }
                    }
                    self.thin_out(pace, &alive, plan);
                }
            }
        }
    }

    /// One pod stays on a node; while a rollout surges, one of the old template and one of the new.
    fn thin_out(&self, pace: Pace, alive: &[&'a Arc<Pod>], plan: &mut Plan) {
        if pace.surge == 0 {
            plan.delete.extend(alive.iter().skip(1).map(|pod| (*pod).clone()));
            return;
        }
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = alive.iter().partition(|pod| self.is_new(pod));
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| (*pod).clone()));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            plan.delete.push((*old).clone());
        }
    }

    fn until_next_available(&self) -> Option<Duration> {
        let pods = self.nodes.iter().flat_map(|(_, _, pods)| pods);
        let waits = pods.filter_map(|pod| until_available(pod, self.min_ready, self.now));
        waits.filter(|wait| !wait.is_zero()).min().map(SignedDuration::unsigned_abs)
    }

    fn status(&self, set: &DaemonSet) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: set.status.as_ref().and_then(|status| status.collision_count),
            conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut available, mut updated) = (0, 0);
        for (_, eligibility, pods) in &self.nodes {
            let has_pod = !pods.is_empty();
            if *eligibility != Eligibility::Runs {
                status.number_misscheduled += i32::from(has_pod);
                continue;
            }
            status.desired_number_scheduled += 1;
            status.current_number_scheduled += i32::from(has_pod);
            status.number_ready += i32::from(pods.iter().any(|pod| is_ready(pod)));
            available += i32::from(pods.iter().any(|pod| self.is_available(pod)));
            updated += i32::from(pods.iter().any(|pod| self.is_new(pod) && !is_terminating(pod)));
        }
        let some = |count: i32| (count > 0).then_some(count);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status.updated_number_scheduled = some(updated);
        status
    }
}

#[cfg(test)]
mod tests;
