//! Kinds that run pods, and those that scale and protect them.

use serde_json::{Value, json};

use super::pod::template;
use crate::json::{Fields, is_zero, missing, object, object_if, objects, zero};

pub(super) fn deployment(deployment: &mut Fields) {
    if let Some(spec) = object(deployment, "spec") {
        missing(spec, "replicas", 1);
        if let Some(strategy) = object(spec, "strategy") {
            zero(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = object(strategy, "rollingUpdate")
            {
                missing(rolling, "maxUnavailable", "25%");
                missing(rolling, "maxSurge", "25%");
            }
        }
        missing(spec, "revisionHistoryLimit", 10);
        missing(spec, "progressDeadlineSeconds", 600);
        template(spec, "template");
    }
    object(deployment, "status");
}

/// Also replication controllers.
pub(super) fn replica_set(set: &mut Fields) {
    if let Some(spec) = object(set, "spec") {
        missing(spec, "replicas", 1);
        template(spec, "template");
    }
    if let Some(status) = object(set, "status") {
        missing(status, "replicas", 0);
    }
}

pub(super) fn stateful_set(set: &mut Fields) {
    if let Some(spec) = object(set, "spec") {
        zero(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = object(spec, "updateStrategy") {
            zero(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = object(strategy, "rollingUpdate")
            {
                missing(rolling, "partition", 0);
            }
        }
        if let Some(retention) = object(spec, "persistentVolumeClaimRetentionPolicy") {
            zero(retention, "whenDeleted", "Retain");
            zero(retention, "whenScaled", "Retain");
        }
        missing(spec, "replicas", 1);
        missing(spec, "revisionHistoryLimit", 10);
        missing(spec, "serviceName", "");
        template(spec, "template");
        for claim in objects(spec, "volumeClaimTemplates") {
            zero(claim, "apiVersion", "v1");
            zero(claim, "kind", "PersistentVolumeClaim");
            super::storage::claim(claim);
        }
    }
    if let Some(status) = object(set, "status") {
        missing(status, "replicas", 0);
        missing(status, "availableReplicas", 0);
    }
}

pub(super) fn daemon_set(set: &mut Fields) {
    if let Some(spec) = object(set, "spec") {
        if let Some(strategy) = object(spec, "updateStrategy") {
            zero(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = object(strategy, "rollingUpdate")
            {
                missing(rolling, "maxUnavailable", 1);
                missing(rolling, "maxSurge", 0);
            }
        }
        missing(spec, "revisionHistoryLimit", 10);
        template(spec, "template");
    }
    if let Some(status) = object(set, "status") {
        for key in ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"] {
            missing(status, key, 0);
        }
    }
}

pub(super) fn job(job: &mut Fields) {
    let mut labels = Value::Null;
    if let Some(spec) = object(job, "spec") {
        if spec.get("completions").is_none_or(Value::is_null)
            && spec.get("parallelism").is_none_or(Value::is_null)
        {
            missing(spec, "completions", 1);
        }
        missing(spec, "parallelism", 1);
        let per_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
        missing(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
        zero(spec, "completionMode", "NonIndexed");
        missing(spec, "suspend", false);
        missing(spec, "manualSelector", false);
        let has_failure_policy = spec.get("podFailurePolicy").is_some_and(|policy| !policy.is_null());
        missing(
            spec,
            "podReplacementPolicy",
            if has_failure_policy { "Failed" } else { "TerminatingOrFailed" },
        );
        if let Some(policy) = object_if(spec, "podFailurePolicy") {
            for rule in objects(policy, "rules") {
                for pattern in objects(rule, "onPodConditions") {
                    zero(pattern, "status", "True");
                }
            }
        }
        template(spec, "template");
        labels = spec["template"]["metadata"]["labels"].clone();
    }
    if !is_zero(&labels)
        && let Some(metadata) = object(job, "metadata")
    {
        zero(metadata, "labels", labels);
    }
    object(job, "status");
}

pub(super) fn cron_job(job: &mut Fields) {
    if let Some(spec) = object(job, "spec") {
        zero(spec, "concurrencyPolicy", "Allow");
        missing(spec, "suspend", false);
        missing(spec, "successfulJobsHistoryLimit", 3);
        missing(spec, "failedJobsHistoryLimit", 1);
        if let Some(job_template) = object(spec, "jobTemplate") {
            object(job_template, "metadata");
            if let Some(spec) = object(job_template, "spec") {
                template(spec, "template");
            }
        }
    }
    object(job, "status");
}

pub(super) fn autoscaler_v1(autoscaler: &mut Fields) {
    if let Some(spec) = object(autoscaler, "spec") {
        missing(spec, "minReplicas", 1);
    }
    if let Some(status) = object(autoscaler, "status") {
        missing(status, "currentReplicas", 0);
        missing(status, "desiredReplicas", 0);
    }
}

pub(super) fn autoscaler(autoscaler: &mut Fields) {
    if let Some(spec) = object(autoscaler, "spec") {
        missing(spec, "minReplicas", 1);
        zero(
            spec,
            "metrics",
            json!([{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
            }]),
        );
        if let Some(behavior) = object_if(spec, "behavior") {
            scaling_rules(
                behavior,
                "scaleUp",
                &json!({"stabilizationWindowSeconds": 0, "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15}
                ]}),
            );
            scaling_rules(
                behavior,
                "scaleDown",
                &json!({"policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            );
        }
    }
    if let Some(status) = object(autoscaler, "status") {
        status.entry("currentMetrics").or_insert(Value::Null);
        missing(status, "desiredReplicas", 0);
    }
}

fn scaling_rules(behavior: &mut Fields, key: &str, defaults: &Value) {
    let Some(rules) = object(behavior, key) else { return };
    missing(rules, "selectPolicy", "Max");
    for (key, value) in defaults.as_object().into_iter().flatten() {
        missing(rules, key, value.clone());
    }
}

pub(super) fn disruption_budget(budget: &mut Fields) {
    object(budget, "spec");
    if let Some(status) = object(budget, "status") {
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            missing(status, key, 0);
        }
    }
}
