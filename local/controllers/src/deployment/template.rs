//! Pod templates of deployments, and which replica set runs one. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt as _;

use crate::hash::name_hash;
use crate::owners::controller_reference;

/// Label that keeps apart the pods of a deployment's replica sets.
pub(crate) const HASH: &str = "pod-template-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether the set runs this template.
pub(crate) fn runs(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(mut own) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else { return false };
    let mut wanted = template.clone();
    for side in [&mut own, &mut wanted] {
        let metadata = side.metadata.get_or_insert_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH);
        }
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
    }
    own == wanted
}

/// Annotations that a replica set has from its deployment.
pub(crate) fn inherited(deployment: &Deployment) -> BTreeMap<String, String> {
    let own = |key: &String| key != LAST_APPLIED && !key.starts_with("deployment.kubernetes.io/");
    deployment
        .annotations()
        .iter()
        .filter(|(key, _)| own(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A replica set for the deployment's present template, without replicas.
pub(crate) fn build(deployment: &Deployment) -> Option<ReplicaSet> {
    let spec = deployment.spec.as_ref()?;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = name_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    Some(ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(inherited(deployment)),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_is_found_again_by_its_template() {
        let deployment = |image: &str| -> Deployment {
            serde_json::from_value(json!({
                "metadata": { "name": "d", "namespace": "n", "uid": "u" },
                "spec": {
                    "selector": { "matchLabels": { "a": "b" } },
                    "template": {
                        "metadata": { "labels": { "a": "b" } },
                        "spec": { "containers": [{ "name": "c", "image": image }] },
                    },
                },
            }))
            .unwrap()
        };
        let set = build(&deployment("1")).unwrap();
        assert!(runs(&set, &deployment("1").spec.unwrap().template));
        assert!(!runs(&set, &deployment("2").spec.unwrap().template));
    }
}
