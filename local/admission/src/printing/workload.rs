//! Kinds that run pods, and those that scale and protect them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::{between, since, time};
use super::{
    AGE, CONTAINERS, Column, IMAGES, NAME, Printed, SELECTOR, age, count, integer_column, labels, name,
    template_cells, text_column,
};
use crate::json::{at, flag, has, integer, list, text};

const DESIRED: Column = integer_column("Desired", "How many pods there should be.");
const CURRENT: Column = integer_column("Current", "How many pods there are.");
const READY: Column = integer_column("Ready", "How many pods are ready.");
const READY_OF: Column = text_column("Ready", "How many pods are ready, of those that should be.");

pub(super) const KINDS: &[Printed] = &[
    Printed {
        group: "apps",
        kind: "Deployment",
        columns: &[
            NAME,
            READY_OF,
            text_column("Up-to-date", "How many pods follow the present template."),
            text_column("Available", "How many pods have been ready for long enough."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        row: deployment,
    },
    Printed {
        group: "apps",
        kind: "ReplicaSet",
        columns: &[NAME, DESIRED, CURRENT, READY, AGE, CONTAINERS, IMAGES, SELECTOR],
        row: replica_set,
    },
    Printed {
        group: "apps",
        kind: "StatefulSet",
        columns: &[NAME, READY_OF, AGE, CONTAINERS, IMAGES],
        row: stateful_set,
    },
    Printed {
        group: "apps",
        kind: "DaemonSet",
        columns: &[
            NAME,
            DESIRED,
            CURRENT,
            READY,
            integer_column("Up-to-date", "How many nodes run the present template."),
            integer_column("Available", "How many nodes' pods have been ready for long enough."),
            text_column("Node Selector", "The labels of nodes that run a pod."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        row: daemon_set,
    },
    Printed {
        group: "apps",
        kind: "ControllerRevision",
        columns: &[
            NAME,
            text_column("Controller", "Whose state it keeps."),
            integer_column("Revision", "Its number; the highest is the newest."),
            AGE,
        ],
        row: controller_revision,
    },
    Printed {
        group: "batch",
        kind: "Job",
        columns: &[
            NAME,
            text_column("Status", "The state of the job in one word."),
            text_column("Completions", "How many pods have succeeded, of those that should."),
            text_column("Duration", "How long the job took, or has taken so far."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        row: job,
    },
    Printed {
        group: "batch",
        kind: "CronJob",
        columns: &[
            NAME,
            text_column("Schedule", "When jobs start, in cron's notation."),
            text_column("Timezone", "The time zone of the schedule."),
            text_column("Suspend", "Whether no jobs start for now."),
            integer_column("Active", "How many jobs are running."),
            text_column("Last Schedule", "How long ago the last job started."),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
        row: cron_job,
    },
    Printed {
        group: "policy",
        kind: "PodDisruptionBudget",
        columns: &[
            NAME,
            text_column("Min Available", "How many pods must stay."),
            text_column("Max Unavailable", "How many pods may be missing."),
            integer_column("Allowed Disruptions", "How many pods may be evicted now."),
            AGE,
        ],
        row: disruption_budget,
    },
    Printed {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        columns: &[
            NAME,
            text_column("Reference", "What is scaled."),
            text_column("Targets", "Measured and wanted values."),
            text_column("MinPods", "The fewest pods."),
            text_column("MaxPods", "The most pods."),
            text_column("Replicas", "How many pods there are."),
            AGE,
        ],
        row: autoscaler,
    },
];

fn status(object: &Value) -> &Value {
    at(object, &["status"])
}

/// `ready/desired`.
fn ready_of(object: &Value) -> Value {
    let ready = integer(status(object), "readyReplicas").unwrap_or_default();
    json!(format!("{ready}/{}", integer(at(object, &["spec"]), "replicas").unwrap_or_default()))
}

fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, selector] = template_cells(object);
    vec![
        name(object),
        ready_of(object),
        count(at(status(object), &["updatedReplicas"])),
        count(at(status(object), &["availableReplicas"])),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, selector] = template_cells(object);
    vec![
        name(object),
        count(at(object, &["spec", "replicas"])),
        count(at(status(object), &["replicas"])),
        count(at(status(object), &["readyReplicas"])),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, _] = template_cells(object);
    vec![name(object), ready_of(object), age(object, now), containers, images]
}

fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, selector] = template_cells(object);
    let counted = |key: &str| count(at(status(object), &[key]));
    vec![
        name(object),
        counted("desiredNumberScheduled"),
        counted("currentNumberScheduled"),
        counted("numberReady"),
        counted("updatedNumberScheduled"),
        counted("numberAvailable"),
        labels(at(object, &["spec", "template", "spec", "nodeSelector"])),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = list(at(object, &["metadata"]), "ownerReferences");
    let owner = owners.iter().find(|owner| flag(owner, "controller")).map(|owner| {
        let (kind, group) = (text(owner, "kind"), crate::group(text(owner, "apiVersion")));
        let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        format!("{}/{}", kind.to_lowercase(), text(owner, "name"))
    });
    let owner = owner.unwrap_or_else(|| "<none>".to_owned());
    vec![name(object), json!(owner), count(at(object, &["revision"])), age(object, now)]
}

fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let [containers, images, selector] = template_cells(object);
    let (spec, status) = (at(object, &["spec"]), status(object));
    let holds = |name: &str| {
        list(status, "conditions")
            .iter()
            .any(|condition| text(condition, "type") == name && text(condition, "status") == "True")
    };
    let word = match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if has(at(object, &["metadata"]), "deletionTimestamp") => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let succeeded = integer(status, "succeeded").unwrap_or_default();
    let completions = match (integer(spec, "completions"), integer(spec, "parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, Some(parallelism)) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = time(at(status, &["startTime"]))
        .map(|start| between(start, time(at(status, &["completionTime"])).unwrap_or(now)))
        .unwrap_or_default();
    vec![
        name(object),
        json!(word),
        json!(completions),
        json!(duration),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(object, &["spec"]), status(object));
    let [containers, images, selector] = template_cells(at(spec, &["jobTemplate"]));
    let time_zone = if has(spec, "timeZone") { text(spec, "timeZone") } else { "<none>" };
    let last = at(status, &["lastScheduleTime"]);
    vec![
        name(object),
        json!(text(spec, "schedule")),
        json!(time_zone),
        json!(if flag(spec, "suspend") { "True" } else { "False" }),
        json!(list(status, "active").len()),
        json!(if last.is_null() { "<none>".to_owned() } else { since(last, now) }),
        age(object, now),
        containers,
        images,
        selector,
    ]
}

/// A number or percentage, `N/A` when not set.
fn amount(value: &Value) -> Value {
    match value {
        Value::Null => json!("N/A"),
        Value::String(text) => json!(text),
        other => json!(other.to_string()),
    }
}

fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(object, &["spec"]);
    vec![
        name(object),
        amount(at(spec, &["minAvailable"])),
        amount(at(spec, &["maxUnavailable"])),
        count(at(status(object), &["disruptionsAllowed"])),
        age(object, now),
    ]
}

fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(object, &["spec"]), status(object));
    let target = at(spec, &["scaleTargetRef"]);
    let current = list(status, "currentMetrics");
    let targets: Vec<String> = list(spec, "metrics")
        .iter()
        .enumerate()
        .map(|(index, metric)| metric_target(metric, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    let shown = targets.iter().take(2).cloned().collect::<Vec<_>>().join(", ");
    let targets = match targets.len() {
        0 => "<none>".to_owned(),
        1 | 2 => shown,
        all => format!("{shown} + {} more...", all - 2),
    };
    let minimum =
        integer(spec, "minReplicas").map_or_else(|| "<unset>".to_owned(), |minimum| minimum.to_string());
    vec![
        name(object),
        json!(format!("{}/{}", text(target, "kind"), text(target, "name"))),
        json!(targets),
        json!(minimum),
        count(at(spec, &["maxReplicas"])),
        count(at(status, &["currentReplicas"])),
        age(object, now),
    ]
}

/// `cpu: 40%/80%`, with `<unknown>` for what was not measured yet.
fn metric_target(metric: &Value, current: &Value) -> String {
    let source = match text(metric, "type") {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (wanted, measured) = (at(metric, &[source, "target"]), at(current, &[source, "current"]));
    let pick = |values: &Value| {
        if let Some(percent) = integer(values, "averageUtilization") {
            return Some(format!("{percent}%"));
        }
        ["averageValue", "value"].into_iter().find_map(|key| values.get(key)?.as_str().map(ToOwned::to_owned))
    };
    let measured = pick(measured).unwrap_or_else(|| "<unknown>".to_owned());
    let wanted = pick(wanted).unwrap_or_else(|| "<auto>".to_owned());
    match text(at(metric, &[source]), "name") {
        "" => format!("{measured}/{wanted}"),
        name => format!("{name}: {measured}/{wanted}"),
    }
}
