//! What makes a pod that of one ordinal: its name, labels and claims. Pure.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::history::REVISION_LABEL;
use crate::owners::controller_reference;

/// Label with the pod's own name, by which a service finds one pod alone.
pub(crate) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal.
pub(crate) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The first ordinal.
pub(crate) fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// How many pods the set wants.
pub(crate) fn wanted(spec: &StatefulSetSpec) -> i32 {
    spec.replicas.unwrap_or(1).max(0)
}

/// The name of the pod of an ordinal.
pub(crate) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name_any())
}

/// The ordinal of a pod, if its name is one that the set gives.
pub(crate) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let ordinal: i32 = digits.parse().ok()?;
    // Neither `web-+1`, `web--1` nor `web-01`.
    (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
}

/// The revision that the pod follows.
pub(crate) fn revision(pod: &Pod) -> &str {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_LABEL)).map(String::as_str).unwrap_or_default()
}

/// The labels that every pod of the set carries, and a person may have removed.
fn mark(pod: &mut Pod, ordinal: i32) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name);
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
}

/// Whether the pod still carries its labels.
pub(crate) fn is_marked(set: &StatefulSet, pod: &Pod) -> bool {
    let mut marked = pod.clone();
    if let Some(ordinal) = ordinal(set, pod) {
        mark(&mut marked, ordinal);
    }
    marked.metadata.labels == pod.metadata.labels
}

/// The pod of an ordinal, after `template`, which is that of `revision`.
pub(crate) fn pod(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    let name = pod_name(set, ordinal);
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let own = claims(set, ordinal);
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !own.iter().any(|(template, _)| *template == volume.name));
    volumes.extend(own.into_iter().map(|(template, claim)| Volume {
        name: template,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.name_any(),
            read_only: Some(false),
        }),
        ..Volume::default()
    }));
    spec.volumes = spec.volumes.filter(|volumes| !volumes.is_empty());
    let mut labels = given.labels.unwrap_or_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: set.namespace(),
            labels: Some(labels),
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    mark(&mut pod, ordinal);
    pod
}

/// The claims of an ordinal, each with the name of its template.
pub(crate) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let claim = |template: &PersistentVolumeClaim| {
        let name = template.name_any();
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{}", pod_name(set, ordinal))),
                namespace: set.namespace(),
                labels: Some(labels),
                annotations: template.metadata.annotations.clone(),
                finalizers: template.metadata.finalizers.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        };
        (name, claim)
    };
    spec.volume_claim_templates.iter().flatten().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "n", "uid": "u" },
            "spec": {
                "serviceName": "peers", "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c" }],
                              "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] },
                },
                "volumeClaimTemplates": [{ "metadata": { "name": "data", "labels": { "tier": "disk" } } }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_knows_its_name_its_peers_and_its_claims() {
        let set = set();
        let template = set.spec.as_ref().unwrap().template.clone();
        let pod = pod(&set, 7, &template, "web-abc");
        assert_eq!((pod.name_any().as_str(), ordinal(&set, &pod)), ("web-7", Some(7)));
        let labels = ["app", POD_NAME, POD_INDEX, REVISION_LABEL].map(|key| pod.labels()[key].as_str());
        assert_eq!(labels, ["web", "web-7", "7", "web-abc"]);
        assert!(is_marked(&set, &pod));
        let spec = pod.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-7"), Some("peers")));
        let volumes = json!(spec.volumes.unwrap());
        assert_eq!(volumes[0]["name"], "tmp", "a claim takes the place of the template's volume");
        assert_eq!(volumes[1]["persistentVolumeClaim"]["claimName"], "data-web-7");
        let claim = &claims(&set, 7)[0].1;
        assert_eq!((claim.labels()["tier"].as_str(), claim.labels()["app"].as_str()), ("disk", "web"));
    }

    #[test]
    fn only_names_that_the_set_gives_are_its_pods() {
        let named = |name: &str| Pod {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            ..Pod::default()
        };
        for name in ["web", "web-", "web-x", "web-01", "web-+1", "web--1", "webs-1", "other-1"] {
            assert_eq!(ordinal(&set(), &named(name)), None, "{name}");
        }
        assert_eq!(ordinal(&set(), &named("web-0")), Some(0));
        assert!(!is_marked(&set(), &named("web-0")));
    }
}
