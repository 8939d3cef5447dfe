//! Which revision a template is, and which revisions nobody needs. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use super::Revisioned;
use crate::hash::name_hash;
use crate::owners::controller_reference;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How the present template becomes a revision.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// It is the newest one already.
    Newest(Arc<ControllerRevision>),
    /// It is an older one, which becomes the newest under this number: somebody rolled back.
    Again(Arc<ControllerRevision>, i64),
    /// It is new and gets this number.
    New(i64),
}

/// What a revision keeps: a strategic merge patch that puts the template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), json!("replace"));
    }
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Sorts revisions from the oldest on.
pub(crate) fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_key(|one| (one.revision, one.meta().creation_timestamp.clone(), one.name_any()));
}

/// Finds the revision of a template among the sorted ones.
pub(crate) fn step(sorted: &[Arc<ControllerRevision>], wanted: &PodTemplateSpec) -> Step {
    let last = sorted.last().map_or(0, |last| last.revision);
    let found = sorted.iter().rev().find(|one| template(one).as_ref() == Some(wanted));
    match found {
        Some(found) if found.revision == last => Step::Newest(found.clone()),
        Some(found) => Step::Again(found.clone(), last + 1),
        None => Step::New(last + 1),
    }
}

/// The revision of the owner's present template.
pub(crate) fn build<O: Revisioned>(
    owner: &O,
    template: &PodTemplateSpec,
    number: i64,
    collisions: i32,
) -> ControllerRevision {
    let hash = name_hash(template, collisions);
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(O::HASH_LABEL.to_owned(), hash.clone());
    let mut annotations = owner.meta().annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let name = owner.meta().name.as_deref().unwrap_or_default();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(template))),
        revision: number,
    }
}

/// The oldest revisions beyond the limit, of those that no pod follows.
pub(crate) fn surplus(
    sorted: &[Arc<ControllerRevision>],
    in_use: &BTreeSet<String>,
    limit: i32,
) -> Vec<Arc<ControllerRevision>> {
    let idle: Vec<_> = sorted.iter().filter(|one| !in_use.contains(&one.name_any())).collect();
    let extra = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.into_iter().take(extra).cloned().collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;

    use super::*;

    fn set(image: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "n", "uid": "u",
                          "annotations": { LAST_APPLIED: "{}", "note": "kept" } },
            "spec": { "selector": {}, "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": image }] },
            }},
        }))
        .unwrap()
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let set = set(image);
        let template = &set.spec.as_ref().unwrap().template;
        Arc::new(build(&set, template, number, 0))
    }

    #[test]
    fn a_revision_keeps_the_template_as_a_patch_that_puts_it_back() {
        let (one, set) = (revision("1", 1), set("1"));
        assert_eq!(template(&one), Some(set.spec.unwrap().template));
        assert_eq!(one.data.as_ref().unwrap().0["spec"]["template"]["$patch"], "replace");
        assert_eq!(one.annotations().keys().collect::<Vec<_>>(), ["note"]);
        let hash = &one.labels()["controller.kubernetes.io/hash"];
        assert_eq!((one.name_any(), &one.labels()["app"]), (format!("web-{hash}"), &"web".to_owned()));
    }

    #[test]
    fn a_template_that_was_there_before_becomes_the_newest_again() {
        let history = [revision("1", 1), revision("2", 2)];
        let wanted = |image: &str| set(image).spec.unwrap().template;
        assert_eq!(step(&history, &wanted("2")), Step::Newest(history[1].clone()));
        assert_eq!(step(&history, &wanted("1")), Step::Again(history[0].clone(), 3));
        assert_eq!(step(&history, &wanted("3")), Step::New(3));
        assert_eq!(step(&[], &wanted("3")), Step::New(1));
    }

    #[test]
    fn only_revisions_without_pods_are_forgotten_the_oldest_first() {
        let history: Vec<_> = (1..=4).map(|number| revision(&number.to_string(), number)).collect();
        let in_use = BTreeSet::from([history[0].name_any(), history[3].name_any()]);
        assert_eq!(surplus(&history, &in_use, 1), [history[1].clone()]);
        assert!(surplus(&history, &in_use, 2).is_empty());
    }
}
