//! What the failure of a pod means for its job. Pure.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

/// What a failed pod does to its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts towards the limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index fails for good.
    FailIndex,
    /// The job fails, for this reason.
    FailJob(String),
}

/// The first rule that the pod matches decides.
pub(crate) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    for (position, rule) in policy.iter().flat_map(|policy| policy.rules.iter()).enumerate() {
        let place = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let by_code = rule.on_exit_codes.as_ref().and_then(|wanted| exit_code(wanted, pod)).map(|(name, code)| {
            format!("Container {name} for pod {place} failed with exit code {code} matching {} rule at index {position}",
                rule.action)
        });
        let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
        let by_condition = || {
            let found = conditions.iter().find(|pattern| has_condition(pattern, pod))?;
            Some(format!(
                "Pod {place} has condition {} matching {} rule at index {position}",
                found.type_, rule.action
            ))
        };
        let Some(message) = by_code.or_else(by_condition) else { continue };
        return match rule.action.as_str() {
            "FailJob" => Verdict::FailJob(message),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn exit_code<'a>(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let statuses =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let code = |status: &'a ContainerStatus| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        Some((status.name.as_str(), code))
    };
    statuses.filter_map(code).find(|(name, code)| {
        let named = wanted.container_name.as_deref().is_none_or(|container| container == *name);
        let listed = wanted.values.contains(code);
        named && *code != 0 && if wanted.operator == "In" { listed } else { !listed }
    })
}

fn has_condition(pattern: &PodFailurePolicyOnPodConditionsPattern, pod: &Pod) -> bool {
    let wanted = pattern.status.as_deref().unwrap_or("True");
    crate::pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_matching_rule_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({ "rules": [
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] },
            { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        ]}))
        .unwrap();
        let pod = |code: i32, disrupted: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "p", "namespace": "n" },
                "status": {
                    "conditions": [{ "type": "DisruptionTarget", "status": disrupted }],
                    "containerStatuses": [{
                        "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                        "state": { "terminated": { "exitCode": code } },
                    }],
                },
            }))
            .unwrap()
        };
        assert_eq!(judge(Some(&policy), &pod(42, "True")), Verdict::Ignore);
        assert_eq!(judge(Some(&policy), &pod(1, "False")), Verdict::Count);
        let message = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(Some(&policy), &pod(42, "False")), Verdict::FailJob(message.into()));
    }
}
