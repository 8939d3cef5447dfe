//! Whether the definitions of JobSets, training jobs and runtimes accept and reject what upstream's do.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use muster_trainer_api::jobset::{self, JobSet};
use muster_trainer_api::schema::Parts;
use muster_trainer_api::train_job::{self, ClusterTrainingRuntime, TrainJob};
use serde_json::{Value, json};

use crate::crds::{differences, shared};

fn compare(ours: CustomResourceDefinition, file: &str, expected: &[&str]) {
    let Some(shared) = shared() else { return };
    let file = shared.join("upstream/crds").join(file);
    let theirs: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    // Numbers of both as the type has them.
    let theirs: CustomResourceDefinition = serde_json::from_value(theirs).unwrap();
    let [ours, theirs] = [ours, theirs].map(|definition| serde_json::to_value(definition).unwrap());
    let mut found = BTreeSet::new();
    differences("spec", &ours["spec"], &theirs["spec"], &mut found);
    let expected: BTreeSet<_> = expected.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(found, expected, "{}", ours["metadata"]["name"]);
}

#[test]
fn the_definition_of_jobset_does_not_differ_from_upstream() {
    compare(jobset::crd(&Parts::load().unwrap()).unwrap(), "jobset/jobset.x-k8s.io_jobsets.yaml", &[]);
}

#[test]
fn the_definitions_of_training_jobs_differ_from_upstream_only_on_purpose() {
    // A negative number of jobs is refused in the runtime already, not only in the JobSet made of it.
    const REPLICAS: &str =
        "spec.versions[0].schema.openAPIV3Schema.spec.template.spec.replicatedJobs.items.replicas.minimum";
    for definition in train_job::crds(&Parts::load().unwrap()) {
        let definition = definition.unwrap();
        let plural = definition.spec.names.plural.clone();
        let expected: &[&str] = if plural == "trainjobs" { &[] } else { &[REPLICAS] };
        compare(definition, &format!("trainer-v2/trainer.kubeflow.org_{plural}.yaml"), expected);
    }
}

fn template() -> Value {
    json!({"spec": {"parallelism": 2, "template": {"spec": {"containers": [{"name": "node", "image": "host"}]}}}})
}

#[test]
fn what_is_read_of_a_jobset_is_written_again() {
    let manifest = json!({
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "train", "namespace": "team"},
        "spec": {
            "replicatedJobs": [{"name": "node", "groupName": "g", "replicas": 2, "template": template(),
                "dependsOn": [{"name": "data", "status": "Complete"}]}],
            "network": {"enableDNSHostnames": true, "subdomain": "s", "publishNotReadyAddresses": false},
            "successPolicy": {"operator": "Any", "targetReplicatedJobs": ["node"]},
            "failurePolicy": {"maxRestarts": 1, "restartStrategy": "BlockingRecreate", "rules": [{
                "name": "r", "action": "RestartJobAndIgnoreMaxRestarts", "onJobFailureReasons": ["PodFailurePolicy"],
                "onJobFailureMessagePatterns": ["."], "targetReplicatedJobs": ["node"]}]},
            "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
            "suspend": false,
            "coordinator": {"replicatedJob": "node", "jobIndex": 1, "podIndex": 1},
            "managedBy": "jobset.sigs.k8s.io/jobset-controller",
            "ttlSecondsAfterFinished": 5,
            "volumeClaimPolicies": [{"retentionPolicy": {"whenDeleted": "Retain"}}],
        },
        "status": {
            "conditions": [{"type": "Completed", "status": "True", "reason": "AllJobsCompleted", "message": "m",
                "lastTransitionTime": "2026-11-20T10:00:00Z"}],
            "restarts": 1, "restartsCountTowardsMax": 1, "terminalState": "Completed",
            "replicatedJobsStatus": [{"name": "node", "ready": 0, "succeeded": 2, "failed": 0, "active": 0,
                "suspended": 0, "jobRestarts": [1, 0], "jobRestartsCountTowardsMax": [0, 0]}],
        },
    });
    let set: JobSet = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(set).unwrap(), manifest);
}

#[test]
fn what_is_read_of_a_training_job_is_written_again() {
    let source =
        json!({"storageUri": "hf://a/b", "env": [{"name": "A", "value": "b"}], "secretRef": {"name": "s"}});
    let manifest = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "train", "namespace": "team"},
        "spec": {
            "runtimeRef": {"name": "torch-distributed", "apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime"},
            "initializer": {"dataset": source, "model": source},
            "trainer": {"image": "i", "command": ["c"], "args": ["a"], "env": [{"name": "A"}], "numNodes": 2,
                "resourcesPerNode": {"limits": {"cpu": "1"}}, "numProcPerNode": 2},
            "runtimePatches": [{"manager": "kueue", "time": "2026-11-20T10:00:00Z", "trainingRuntimeSpec": {"template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": {
                    "nodeSelector": {"zone": "a"}, "containers": [{"name": "node", "env": [{"name": "B"}]}],
                }}}}}]}}}}],
            "suspend": true, "activeDeadlineSeconds": 60,
            "managedBy": "trainer.kubeflow.org/trainjob-controller",
        },
        "status": {
            "jobsStatus": [{"name": "node", "ready": 1, "succeeded": 0, "failed": 0, "active": 1, "suspended": 0}],
            "trainerStatus": {"progressPercentage": 10, "estimatedRemainingSeconds": 9,
                "metrics": [{"name": "loss", "value": "0.5"}], "lastUpdatedTime": "2026-11-20T10:00:00Z"},
        },
    });
    let job: TrainJob = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(job).unwrap(), manifest);
}

#[test]
fn what_is_read_of_a_runtime_is_written_again() {
    let manifest = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "torch", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {"envInjection": {"targets": [{"jobName": "j", "containerNames": ["c"]}]}}},
            "podGroupPolicy": {"volcano": {"networkTopology": {"mode": "soft", "highestTierAllowed": 2}}},
            "template": {"metadata": {"annotations": {"a": "b"}}, "spec": {"replicatedJobs": [{"name": "node", "template": template()}]}},
        },
    });
    let runtime: ClusterTrainingRuntime = serde_json::from_value(manifest.clone()).unwrap();
    assert_eq!(serde_json::to_value(runtime).unwrap(), manifest);
}
