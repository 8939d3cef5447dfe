//! What the status of a namespace says while it ends. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What is left in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Objects, by resource (`pods.`, `jobs.batch`).
    pub objects: BTreeMap<String, usize>,
    /// Objects that wait for a finalizer, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

impl Remains {
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

fn listing(counts: &BTreeMap<String, usize>, between: &str) -> String {
    let mut text = String::new();
    for (name, count) in counts {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{name}{between}{count} resource instances");
    }
    text
}

/// The conditions of a namespace that holds `remains`; times stay where nothing changed.
pub(crate) fn conditions(
    before: &[NamespaceCondition],
    remains: &Remains,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let remaining = if remains.objects.is_empty() {
        ("False", "ContentRemoved", "All content successfully removed".into())
    } else {
        let list = listing(&remains.objects, " has ");
        ("True", "SomeResourcesRemain", format!("Some resources are remaining: {list}"))
    };
    let finalizers = if remains.finalizers.is_empty() {
        ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".into())
    } else {
        let list = listing(&remains.finalizers, " in ");
        (
            "True",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {list}"),
        )
    };
    let rows: [(&str, (&str, &str, String)); 5] = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("False", "ResourcesDiscovered", "All resources successfully discovered".into()),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".into()),
        ),
        (
            "NamespaceDeletionContentFailure",
            (
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into(),
            ),
        ),
        ("NamespaceContentRemaining", remaining),
        ("NamespaceFinalizersRemaining", finalizers),
    ];
    let condition = |(type_, (status, reason, message)): (&str, (&str, &str, String))| {
        let old = before.iter().find(|old| old.type_ == type_ && old.status == status);
        NamespaceCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
        }
    };
    rows.into_iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_remains_and_keep_their_times() {
        let remains = Remains {
            objects: BTreeMap::from([("configmaps.".into(), 1)]),
            finalizers: BTreeMap::from([("demo.example/hold".into(), 1)]),
        };
        let first = conditions(&[], &remains, Timestamp::UNIX_EPOCH);
        assert_eq!(
            first[3].message.as_deref(),
            Some("Some resources are remaining: configmaps. has 1 resource instances")
        );
        assert_eq!(
            first[4].message.as_deref(),
            Some(
                "Some content in the namespace has finalizers remaining: demo.example/hold in 1 resource instances"
            )
        );
        let later = Timestamp::from_second(100).unwrap();
        assert_eq!(conditions(&first, &remains, later), first);
        let last = conditions(&first, &Remains::default(), later);
        assert_eq!(last[3].status, "False");
        assert_eq!(last[3].last_transition_time, Some(Time(later)));
        assert_eq!(last[0].last_transition_time, Some(Time(Timestamp::UNIX_EPOCH)));
    }
}
