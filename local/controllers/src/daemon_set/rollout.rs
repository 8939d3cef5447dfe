//! How the pods of a daemon set come to follow its present template. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;

use super::plan::{Look, Plan};
use crate::amount::{Rounding, resolve};

/// How fast the pods of a set may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Whether a person, not the controller, deletes old pods.
    pub on_delete: bool,
    /// How many nodes may have a pod of the new template beside the old one.
    pub surge: i32,
    /// How many nodes may be without an available pod.
    pub unavailable: i32,
}

/// The pace of a set that should have so many pods.
pub(crate) fn pace(set: &DaemonSet, desired: i32) -> Pace {
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Pace { on_delete: true, surge: 0, unavailable: 0 };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let surge = resolve(surge, desired, Rounding::Up).unwrap_or(0);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let mut unavailable = resolve(unavailable, desired, Rounding::Up).unwrap_or(1);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Pace { on_delete: false, surge, unavailable }
}

/// Adds the next step of the rollout to a plan.
pub(super) fn roll(look: &Look<'_>, pace: Pace, plan: &mut Plan) {
    match pace {
        Pace { on_delete: true, .. } => {}
        Pace { surge: 0, .. } => replace(look, pace.unavailable, plan),
        Pace { .. } => surge(look, pace.surge, plan),
    }
}

/// Old pods go, so that new ones come in their place. One that is not available can go at once.
fn replace(look: &Look<'_>, allowed: i32, plan: &mut Plan) {
    let mut left = allowed;
    let mut candidates: Vec<&Arc<Pod>> = Vec::new();
    for (_, pods) in look.running() {
        match pods.as_slice() {
            [pod] if look.is_available(pod) => {
                if !look.is_new(pod) {
                    candidates.push(pod);
                }
            }
            [pod] => {
                left -= 1;
                if !look.is_new(pod) {
                    plan.delete.push(Arc::clone(pod));
                }
            }
            _ => left -= 1,
        }
    }
    plan.delete.extend(candidates.into_iter().take(usize::try_from(left).unwrap_or(0)).cloned());
}

/// New pods come beside the old ones, which go when the new ones are available.
fn surge(look: &Look<'_>, allowed: i32, plan: &mut Plan) {
    let mut left = allowed;
    let mut candidates: Vec<&str> = Vec::new();
    for (node, pods) in look.running() {
        let new = pods.iter().find(|pod| look.is_new(pod));
        let old = pods.iter().find(|pod| !look.is_new(pod));
        match (new, old) {
            (None, Some(old)) if look.is_available(old) => candidates.push(node),
            // There is nothing to wait for.
            (None, Some(_)) => plan.create.push(node.to_owned()),
            (Some(new), Some(_)) if !look.is_available(new) => left -= 1,
            _ => {}
        }
    }
    let chosen = candidates.into_iter().take(usize::try_from(left).unwrap_or(0));
    plan.create.extend(chosen.map(str::to_owned));
}
