//! Nodes, namespaces, events, quotas, access rules and the like.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::since;
use super::{
    AGE, Column, NAME, Printed, age, count, integer_column, name, or_none, text_column, wide_column,
};
use crate::json::{at, entries, flag, integer, is_zero, list, text};

pub(super) const KINDS: &[Printed] = &[
    Printed {
        group: "",
        kind: "Namespace",
        columns: &[NAME, text_column("Status", "Whether the namespace is in use or ending."), AGE],
        row: |object, now| {
            vec![name(object), json!(text(at(object, &["status"]), "phase")), age(object, now)]
        },
    },
    Printed {
        group: "",
        kind: "ServiceAccount",
        columns: &[NAME, text_column("Secrets", "How many secrets the account may use."), AGE],
        row: |object, now| vec![name(object), json!(list(object, "secrets").len()), age(object, now)],
    },
    Printed { group: "", kind: "Node", columns: NODE, row: node },
    Printed { group: "", kind: "Event", columns: EVENT, row: event },
    Printed {
        group: "",
        kind: "ResourceQuota",
        columns: &[
            NAME,
            text_column("Request", "What is used of each limited request."),
            text_column("Limit", "What is used of each limited limit."),
            AGE,
        ],
        row: resource_quota,
    },
    Printed {
        group: "coordination.k8s.io",
        kind: "Lease",
        columns: &[NAME, text_column("Holder", "Who holds the lease."), AGE],
        row: |object, now| {
            vec![name(object), json!(text(at(object, &["spec"]), "holderIdentity")), age(object, now)]
        },
    },
    Printed {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        columns: &[
            NAME,
            integer_column("Value", "The priority; higher goes first."),
            Column { cell_type: "boolean", ..text_column("Global-Default", "Whether pods get it unasked.") },
            AGE,
            text_column("PreemptionPolicy", "Whether pods may displace others."),
        ],
        row: |object, now| {
            vec![
                name(object),
                count(at(object, &["value"])),
                json!(flag(object, "globalDefault")),
                age(object, now),
                json!(text(object, "preemptionPolicy")),
            ]
        },
    },
    Printed { group: "rbac.authorization.k8s.io", kind: "RoleBinding", columns: BINDING, row: role_binding },
    Printed {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        columns: BINDING,
        row: role_binding,
    },
];

const NODE: &[Column] = &[
    NAME,
    text_column("Status", "Whether the node is ready, and takes pods."),
    text_column("Roles", "The node's roles."),
    AGE,
    text_column("Version", "The version of the node's agent."),
    wide_column("Internal-IP", "The node's address within the cluster."),
    wide_column("External-IP", "The node's address outside the cluster."),
    wide_column("OS-Image", "The node's operating system."),
    wide_column("Kernel-Version", "The node's kernel."),
    wide_column("Container-Runtime", "What runs the node's containers."),
];

const EVENT: &[Column] = &[
    text_column("Last Seen", "How long ago it last happened."),
    text_column("Type", "Normal or Warning."),
    text_column("Reason", "Why, in one word."),
    text_column("Object", "What it happened to."),
    wide_column("Subobject", "The part of the object."),
    wide_column("Source", "Who reported it."),
    text_column("Message", "What happened."),
    wide_column("First Seen", "How long ago it first happened."),
    wide_column("Count", "How often it happened."),
    Column { priority: 1, ..NAME },
];

const BINDING: &[Column] = &[
    NAME,
    text_column("Role", "The role that is granted."),
    AGE,
    wide_column("Users", "Users who have it."),
    wide_column("Groups", "Groups that have it."),
    wide_column("ServiceAccounts", "Service accounts that have it."),
];

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(object, &["spec"]), at(object, &["status"]));
    let info = at(status, &["nodeInfo"]);
    let ready = list(status, "conditions").iter().find(|condition| text(condition, "type") == "Ready");
    let mut state = match ready {
        Some(condition) if text(condition, "status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(spec, "unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries(at(object, &["metadata"]), "labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found = list(status, "addresses").iter().find(|address| text(address, "type") == kind);
        json!(found.map_or("<none>", |address| text(address, "address")))
    };
    let known = |key| {
        let value = text(info, key);
        json!(if value.is_empty() { "<unknown>" } else { value })
    };
    vec![
        name(object),
        json!(state),
        json!(or_none(&roles.join(","))),
        age(object, now),
        json!(text(info, "kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ]
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let series = at(object, &["series"]);
    let (first, last) = (at(object, &["firstTimestamp"]), at(object, &["lastTimestamp"]));
    let first = if is_zero(first) { at(object, &["eventTime"]) } else { first };
    let mut last = if is_zero(last) { first } else { last };
    let mut times = integer(object, "count").unwrap_or_default().max(1);
    if series.is_object() {
        last = at(series, &["lastObservedTime"]);
        times = integer(series, "count").unwrap_or_default();
    }
    let target = at(object, &["involvedObject"]);
    let kind = text(target, "kind").to_lowercase();
    let target_name = text(target, "name");
    let source = at(object, &["source"]);
    let filled = |first: &'static str, second: &'static str| match text(source, first) {
        "" => text(object, second),
        value => value,
    };
    let (component, instance) =
        (filled("component", "reportingComponent"), filled("host", "reportingInstance"));
    vec![
        json!(since(last, now)),
        json!(text(object, "type")),
        json!(text(object, "reason")),
        json!(if target_name.is_empty() { kind } else { format!("{kind}/{target_name}") }),
        json!(text(target, "fieldPath")),
        json!(if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") }),
        json!(text(object, "message").trim()),
        json!(since(first, now)),
        json!(times),
        name(object),
    ]
}

fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in entries(at(object, &["status"]), "hard") {
        let used = text(at(object, &["status", "used"]), resource);
        let used = if used.is_empty() { "0" } else { used };
        let part = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.starts_with("limits") { limits.push(part) } else { requests.push(part) }
    }
    vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)]
}

fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = at(object, &["roleRef"]);
    let of_kind = |kind: &str| -> Vec<&Value> {
        list(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind).collect()
    };
    let names = |kind: &str| {
        json!(of_kind(kind).into_iter().map(|subject| text(subject, "name")).collect::<Vec<_>>().join(", "))
    };
    let accounts: Vec<String> = of_kind("ServiceAccount")
        .into_iter()
        .map(|subject| format!("{}/{}", text(subject, "namespace"), text(subject, "name")))
        .collect();
    vec![
        name(object),
        json!(format!("{}/{}", text(role, "kind"), text(role, "name"))),
        age(object, now),
        names("User"),
        names("Group"),
        json!(accounts.join(", ")),
    ]
}
