//! Laws: quantities keep their value through text, selectors through parsing, and no JSON makes anything panic.

use muster_admission::quantity::Quantity;
use muster_admission::selectors::{FieldSelector, LabelSelector};
use muster_admission::{decode, defaults, prepare, printing, quota, validate};
use proptest::prelude::*;
use serde_json::{Value, json};

const KINDS: [(&str, &str); 33] = [
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Service"),
    ("v1", "Endpoints"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "PersistentVolume"),
    ("coordination.k8s.io/v1", "Lease"),
    ("v1", "Event"),
    ("events.k8s.io/v1", "Event"),
    ("policy/v1", "PodDisruptionBudget"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("autoscaling/v1", "Scale"),
    ("v1", "Namespace"),
    ("v1", "Node"),
    ("v1", "ResourceQuota"),
    ("v1", "LimitRange"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("networking.k8s.io/v1", "Ingress"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("demo.example/v1", "Widget"),
];

fn quantity_text() -> impl Strategy<Value = String> {
    let suffix =
        prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-3", "Ti"]);
    ("-?", 0_u32..1_000_000, prop::option::of(0_u32..1000), suffix).prop_map(
        |(sign, whole, fraction, suffix)| {
            let fraction = fraction.map(|fraction| format!(".{fraction:03}")).unwrap_or_default();
            format!("{}{whole}{fraction}{suffix}", if whole == 0 { "" } else { &sign })
        },
    )
}

/// Any JSON whose keys are those that real objects have, so that deep code is reached.
fn any_json() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 34] = [
        "metadata",
        "spec",
        "status",
        "template",
        "containers",
        "initContainers",
        "name",
        "image",
        "ports",
        "env",
        "volumes",
        "volumeMounts",
        "resources",
        "limits",
        "requests",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "selector",
        "matchLabels",
        "conditions",
        "type",
        "strategy",
        "livenessProbe",
        "data",
        "hard",
        "taints",
        "schedulingGates",
        "tolerations",
        "containerStatuses",
        "state",
        "jobTemplate",
        "lifecycle",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,8}".prop_map(Value::from),
        quantity_text().prop_map(Value::from),
        prop::sample::select(vec!["Always", "RollingUpdate", "Indexed", "NodePort", "Exists"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 80, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn quantities_keep_their_value_through_text(text in quantity_text()) {
        let quantity: Quantity = text.parse().unwrap();
        let printed = quantity.to_string();
        let again: Quantity = printed.parse().unwrap();
        prop_assert_eq!(quantity, again);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn quantities_are_ordered_like_numbers(left in -1_000_000_i64..1_000_000, right in -1_000_000_i64..1_000_000) {
        let (a, b) = (Quantity::milli(left), Quantity::milli(right));
        prop_assert_eq!(a.cmp(&b), left.cmp(&right));
        prop_assert_eq!(a.plus(b), Quantity::milli(left + right));
        prop_assert_eq!(a.minus(b), Quantity::milli(left - right));
    }

    #[test]
    fn quantities_never_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn selectors_mean_the_same_after_printing(
        terms in prop::collection::vec(("[a-c]", prop::sample::select(vec!["=", "!=", " in ", " notin "]), "[x-z]"), 0..4),
        labels in prop::collection::btree_map("[a-c]", "[x-z]", 0..3),
    ) {
        let terms: Vec<String> = terms
            .into_iter()
            .map(|(key, operator, value)| match operator.trim() {
                "in" | "notin" => format!("{key}{operator}({value},x)"),
                _ => format!("{key}{operator}{value}"),
            })
            .collect();
        let selector: LabelSelector = terms.join(",").parse().unwrap();
        let printed = selector.to_string();
        let again: LabelSelector = printed.parse().unwrap();
        prop_assert_eq!(again.to_string(), printed);
        let labels = json!(labels);
        prop_assert_eq!(selector.matches(&labels), again.matches(&labels));
    }

    #[test]
    fn selector_texts_never_panic(text in "[a-c!=<>(), \\\\]{0,20}|\\PC{0,20}") {
        let _ = text.parse::<LabelSelector>();
        let _ = FieldSelector::parse(&text);
        let _ = printing::JsonPath::parse(&text);
    }

    #[test]
    fn no_object_makes_any_kind_panic(object in any_json(), other in any_json()) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for (api_version, kind) in KINDS {
            let mut new = object.clone();
            let _ = decode::check(api_version, kind, &new);
            defaults::apply(api_version, kind, &mut new);
            let once = new.clone();
            defaults::apply(api_version, kind, &mut new);
            prop_assert_eq!(&once, &new, "defaults of {} are stable", kind);
            prepare::create(api_version, kind, &mut new);
            let _ = validate::create(api_version, kind, &new);
            prepare::update(api_version, kind, &other, &mut new, None);
            let _ = validate::update(api_version, kind, &other, &new, None);
            prepare::update(api_version, kind, &other, &mut new, Some("status"));
            let row = printing::row(api_version, kind, &new, now);
            prop_assert_eq!(row.len(), printing::columns(api_version, kind).len());
            let _ = quota::usage(api_version, kind, "pods", &new);
        }
    }
}
