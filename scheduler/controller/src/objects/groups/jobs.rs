//! Jobs whose pods are a gang because their owner asks for it (`muster.dev/gang-by`).

use serde_json::Value;

use super::{ForeignGroup, count, list, text};

/// As many pods as run at once: the parallelism, or what is left to complete.
pub(super) fn job(mut group: ForeignGroup, spec: &Value, status: &Value) -> ForeignGroup {
    group.min_available = at_once(spec).and_then(|at_once| {
        let left = count(spec, "completions", usize::MAX)?.saturating_sub(count(status, "succeeded", 0)?);
        Ok(at_once.min(left).max(1))
    });
    group
}

fn at_once(spec: &Value) -> Result<usize, String> {
    Ok(count(spec, "parallelism", 1)?.min(count(spec, "completions", usize::MAX)?))
}

/// All pods of all jobs that are not done; where jobs start one after the other, only each replicated job can be a gang.
pub(super) fn job_set(mut group: ForeignGroup, spec: &Value, status: &Value) -> ForeignGroup {
    let ordered = spec["startupPolicy"]["startupPolicyOrder"] == "InOrder";
    let dependent = list(&spec["replicatedJobs"]).any(|job| list(&job["dependsOn"]).next().is_some());
    let pods = |job: &Value| -> Result<usize, String> {
        let status = list(&status["replicatedJobsStatus"]).find(|status| status["name"] == job["name"]);
        let done = status.map_or(Ok(0), |status| count(status, "succeeded", 0))?;
        Ok(count(job, "replicas", 1)?.saturating_sub(done) * at_once(&job["template"]["spec"])?)
    };
    let mut together = Ok(0);
    for job in list(&spec["replicatedJobs"]) {
        let (name, pods) = (text(job, "name").unwrap_or_default(), pods(job));
        if let Ok(pods) = &pods {
            group.parts.push((name, (*pods).max(1)));
        }
        together = together.and_then(|together: usize| Ok(together + pods?));
    }
    group.min_available = if group.parts.len() > 1 && (ordered || dependent) {
        let key = &group.key;
        Err(format!(
            "{key} starts its jobs one after the other, so all of them cannot start together; write ReplicatedJob in muster.dev/gang-by"
        ))
    } else {
        together.map(|together| together.max(1))
    };
    group
}

/// The head and the workers; of an autoscaled cluster those that it always has.
pub(super) fn ray_cluster(mut group: ForeignGroup, spec: &Value) -> ForeignGroup {
    let replicas = if spec["enableInTreeAutoscaling"] == true { "minReplicas" } else { "replicas" };
    let workers = list(&spec["workerGroupSpecs"]).filter(|workers| workers["suspend"] != true);
    let least = workers.map(|workers| {
        let fewest = count(workers, "minReplicas", 0)?;
        Ok(count(workers, replicas, fewest)? * count(workers, "numOfHosts", 1)?)
    });
    group.min_available = least.sum::<Result<usize, String>>().map(|workers| workers + 1);
    group
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::json;

    use super::super::GroupKind;
    use super::*;

    fn read(kind: GroupKind, object: Value) -> ForeignGroup {
        let mut object: DynamicObject = serde_json::from_value(object).unwrap();
        object.metadata.name = Some("j".into());
        object.metadata.namespace = Some("team".into());
        ForeignGroup::read(kind, &object)
    }

    fn least(kind: GroupKind, object: Value) -> Result<usize, String> {
        read(kind, object).min_available
    }

    #[test]
    fn a_job_is_as_many_pods_as_run_at_once() {
        let job = |spec: Value| least(GroupKind::Job, json!({"spec": spec, "status": {"succeeded": 2}}));
        assert_eq!(job(json!({"parallelism": 4, "completions": 8})), Ok(4));
        assert_eq!(job(json!({"parallelism": 4, "completions": 5})), Ok(3));
        assert_eq!(job(json!({})), Ok(1));
    }

    #[test]
    fn a_job_set_is_all_of_its_pods_unless_it_starts_them_in_order() {
        let jobs = |more: Value| {
            let mut object = json!({"spec": {"replicatedJobs": [
                {"name": "driver", "template": {"spec": {"parallelism": 1, "completions": 1}}},
                {"name": "workers", "replicas": 2, "template": {"spec": {"parallelism": 4}}},
            ]}});
            object["spec"]["startupPolicy"] = more;
            read(GroupKind::JobSet, object)
        };
        let together = jobs(Value::Null);
        assert_eq!((together.least(None), together.least(Some("workers"))), (Ok(9), Ok(8)));
        assert_eq!(together.least(Some("x")), Err("JobSet.jobset.x-k8s.io team/j has no part x".into()));
        let ordered = jobs(json!({"startupPolicyOrder": "InOrder"}));
        assert!(ordered.least(None).unwrap_err().ends_with("write ReplicatedJob in muster.dev/gang-by"));
        assert_eq!(ordered.least(Some("driver")), Ok(1));
    }

    #[test]
    fn a_job_set_does_without_its_jobs_that_are_done() {
        let jobs = read(
            GroupKind::JobSet,
            json!({"spec": {"replicatedJobs": [
                {"name": "driver", "template": {"spec": {"parallelism": 1}}},
                {"name": "workers", "replicas": 3, "template": {"spec": {"parallelism": 4}}}]},
                "status": {"replicatedJobsStatus": [
                    {"name": "workers", "succeeded": 2, "active": 1}, {"name": "driver", "succeeded": 1}]}}),
        );
        assert_eq!((jobs.least(None), jobs.least(Some("workers"))), (Ok(4), Ok(4)));
    }

    #[test]
    fn a_ray_cluster_is_its_head_and_the_workers_it_always_has() {
        let cluster = |autoscaled: bool| {
            least(
                GroupKind::RayCluster,
                json!({"spec": {"enableInTreeAutoscaling": autoscaled, "workerGroupSpecs": [
                    {"groupName": "a", "replicas": 4, "minReplicas": 2, "numOfHosts": 2},
                    {"groupName": "b", "replicas": 1, "suspend": true},
                ]}}),
            )
        };
        assert_eq!((cluster(false), cluster(true)), (Ok(9), Ok(5)));
    }
}
