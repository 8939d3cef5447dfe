//! In which order the groups of a set are started.

use muster_trainer_api::jobset::{DependsOnStatus, JobSetSpec, ReplicatedJobStatus, StartupOrder};

use super::children::replicas;

/// Whether groups start one after the other.
pub(crate) fn is_in_order(spec: &JobSetSpec) -> bool {
    spec.startup_policy.as_ref().is_some_and(|policy| policy.startup_policy_order == StartupOrder::InOrder)
}

/// Whether some group waits for another.
pub(crate) fn is_staged(spec: &JobSetSpec) -> bool {
    let waits = spec.replicated_jobs.iter().any(|group| !group.depends_on.is_empty());
    spec.replicated_jobs.len() > 1 && (is_in_order(spec) || waits)
}

/// Whether the Jobs of a group may run, given how those of all groups fare.
pub(crate) fn may_start(spec: &JobSetSpec, group: usize, statuses: &[ReplicatedJobStatus]) -> bool {
    let reached = |other: usize, wanted: DependsOnStatus| {
        let (wanted_jobs, status) = (replicas(&spec.replicated_jobs[other]), &statuses[other]);
        match wanted {
            DependsOnStatus::Ready => status.ready + status.succeeded + status.failed >= wanted_jobs,
            DependsOnStatus::Complete => status.succeeded >= wanted_jobs,
        }
    };
    let dependencies = spec.replicated_jobs[group].depends_on.iter().all(|dependency| {
        let other = spec.replicated_jobs.iter().position(|other| other.name == dependency.name);
        other.is_some_and(|other| reached(other, dependency.status))
    });
    dependencies && (!is_in_order(spec) || (0..group).all(|other| reached(other, DependsOnStatus::Ready)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(extra: serde_json::Value) -> JobSetSpec {
        let template = json!({"spec": {"template": {}}});
        let mut spec = json!({"replicatedJobs": [
            {"name": "data", "replicas": 2, "template": template},
            {"name": "node", "template": template},
        ]});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn status(ready: i32, succeeded: i32) -> [ReplicatedJobStatus; 2] {
        [ReplicatedJobStatus { ready, succeeded, ..Default::default() }, ReplicatedJobStatus::default()]
    }

    #[test]
    fn all_groups_start_at_once_unless_told_otherwise() {
        let spec = spec(json!({}));
        assert!(!is_staged(&spec));
        assert!(may_start(&spec, 1, &status(0, 0)));
    }

    #[test]
    fn in_order_a_group_waits_for_all_jobs_before_it() {
        let spec = spec(json!({"startupPolicy": {"startupPolicyOrder": "InOrder"}}));
        assert!(is_staged(&spec));
        assert!(may_start(&spec, 0, &status(0, 0)));
        assert!(!may_start(&spec, 1, &status(1, 0)));
        assert!(may_start(&spec, 1, &status(1, 1)));
    }

    #[test]
    fn a_dependency_is_ready_or_complete() {
        let mut spec = spec(json!({}));
        for (wanted, ready, complete) in [("Ready", true, true), ("Complete", false, true)] {
            spec.replicated_jobs[1].depends_on =
                serde_json::from_value(json!([{"name": "data", "status": wanted}])).unwrap();
            assert!(!may_start(&spec, 1, &status(1, 0)));
            assert_eq!(may_start(&spec, 1, &status(2, 0)), ready);
            assert_eq!(may_start(&spec, 1, &status(0, 2)), complete);
        }
    }
}
