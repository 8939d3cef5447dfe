//! What the status of a deployment says. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::rollout::pace;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A condition's status, reason and message.
type Row<'a> = (&'a str, &'a str, String);

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

fn reason<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a str> {
    find(status, type_)?.reason.as_deref()
}

fn set(
    status: &mut DeploymentStatus,
    type_: &str,
    (value, reason, message): Row<'_>,
    touch: bool,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let new = DeploymentCondition {
        type_: type_.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let Some(old) = conditions.iter_mut().find(|own| own.type_ == type_) else {
        conditions.push(new);
        return;
    };
    if old.status == new.status && old.reason == new.reason && old.message == new.message && !touch {
        return;
    }
    let since = (old.status == new.status).then(|| old.last_transition_time.clone()).flatten();
    *old = DeploymentCondition { last_transition_time: since.or(new.last_transition_time.clone()), ..new };
}

/// The replicas that sets should have and those that they have, are ready and available.
fn sum(sets: &[Arc<ReplicaSet>], count: impl Fn(&ReplicaSet) -> Option<i32>) -> i32 {
    sets.iter().filter_map(|set| count(set)).sum()
}

/// The status of a deployment whose sets are these, the new one among them; also says when to look again.
pub(crate) fn status(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
    created: bool,
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let old = deployment.status.clone().unwrap_or_default();
    let (_, pace) = pace(deployment);
    let of = |pick: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>| {
        sum(sets, |set| set.status.as_ref().and_then(pick))
    };
    let replicas = of(|status| Some(status.replicas));
    let (ready, available) = (of(|status| status.ready_replicas), of(|status| status.available_replicas));
    let updated = new.and_then(|new| new.status.as_ref()).map_or(0, |status| status.replicas);
    let wanted = sum(sets, |set| set.spec.as_ref()?.replicas);
    let count = |count: i32| (count > 0).then_some(count);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: count(replicas),
        updated_replicas: count(updated),
        ready_replicas: count(ready),
        available_replicas: count(available),
        unavailable_replicas: count(wanted - available),
        terminating_replicas: Some(of(|status| status.terminating_replicas)),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    };
    let enough = available >= pace.desired - pace.unavailable;
    let row: Row<'_> = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into())
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".into())
    };
    set(&mut status, AVAILABLE, row, false, now);
    let again = progress(deployment, &old, &mut status, new, created, now);
    (status, again)
}

fn progress(
    deployment: &Deployment,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&ReplicaSet>,
    created: bool,
    now: Timestamp,
) -> Option<Duration> {
    let spec = deployment.spec.as_ref()?;
    let deadline = spec.progress_deadline_seconds.filter(|seconds| *seconds < i32::MAX)?;
    let was = reason(old, PROGRESSING);
    if spec.paused == Some(true) {
        if was != Some(TIMED_OUT) && was != Some("DeploymentPaused") {
            let row = ("Unknown", "DeploymentPaused", "Deployment is paused".into());
            set(status, PROGRESSING, row, false, now);
        }
        return None;
    }
    if was == Some("DeploymentPaused") {
        set(
            status,
            PROGRESSING,
            ("Unknown", "DeploymentResumed", "Deployment is resumed".into()),
            false,
            now,
        );
    }
    let name = new.map(ResourceExt::name_any).unwrap_or_default();
    if created {
        let row = ("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""));
        set(status, PROGRESSING, row, false, now);
        return Some(Duration::from_secs(deadline.unsigned_abs().into()));
    }
    let desired = spec.replicas.unwrap_or(1);
    let counts = |status: &DeploymentStatus| {
        (
            status.updated_replicas.unwrap_or(0),
            status.ready_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
        )
    };
    let (updated, ready, available) = counts(status);
    let complete = new.is_some()
        && updated == desired
        && status.replicas.unwrap_or(0) == desired
        && available == desired;
    let before = counts(old);
    let old_left =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    let moved =
        updated > before.0 || ready > before.1 || available > before.2 || old_left(status) < old_left(old);
    let settled = reason(status, PROGRESSING) == Some(DONE) && status.replicas == status.updated_replicas;
    if complete {
        let row = ("True", DONE, format!("ReplicaSet \"{name}\" has successfully progressed."));
        set(status, PROGRESSING, row, false, now);
        return None;
    }
    if settled {
        return None;
    }
    if moved || reason(status, PROGRESSING).is_none() || reason(status, PROGRESSING) == Some(DONE) {
        let row = ("True", "ReplicaSetUpdated", format!("ReplicaSet \"{name}\" is progressing."));
        set(status, PROGRESSING, row, true, now);
    }
    let since = find(status, PROGRESSING)?.last_update_time.as_ref()?.0;
    let left = SignedDuration::from_secs(deadline.into()) - now.duration_since(since);
    if left > SignedDuration::ZERO {
        return Some(left.unsigned_abs());
    }
    let row = ("False", TIMED_OUT, format!("ReplicaSet \"{name}\" has timed out progressing."));
    set(status, PROGRESSING, row, false, now);
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "d", "generation": 2 },
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 60, "selector": {}, "template": {},
                "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            },
        }))
        .unwrap()
    }

    fn set(replicas: i32, available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "d-1" },
                "spec": { "replicas": replicas, "selector": {} },
                "status": { "replicas": replicas, "readyReplicas": available, "availableReplicas": available },
            }))
            .unwrap(),
        )
    }

    fn reasons(status: &DeploymentStatus) -> (&str, &str) {
        (reason(status, AVAILABLE).unwrap(), reason(status, PROGRESSING).unwrap())
    }

    #[test]
    fn a_rollout_progresses_completes_or_times_out() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut own = deployment(2);
        let half = set(2, 1);
        let (first, again) = status(&own, std::slice::from_ref(&half), Some(&half), false, at(0));
        assert_eq!(reasons(&first), ("MinimumReplicasUnavailable", "ReplicaSetUpdated"));
        assert_eq!((first.unavailable_replicas, again), (Some(1), Some(Duration::from_mins(1))));
        own.status = Some(first);
        let (late, _) = status(&own, std::slice::from_ref(&half), Some(&half), false, at(61));
        assert_eq!(reasons(&late).1, "ProgressDeadlineExceeded");
        let full = set(2, 2);
        let (last, again) = status(&own, std::slice::from_ref(&full), Some(&full), false, at(30));
        assert_eq!(reasons(&last), ("MinimumReplicasAvailable", "NewReplicaSetAvailable"));
        assert_eq!(again, None);
        own.status = Some(last.clone());
        assert_eq!(status(&own, std::slice::from_ref(&full), Some(&full), false, at(99)).0, last);
    }
}
