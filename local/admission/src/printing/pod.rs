//! Pods: readiness, one word for the state, restarts.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::{between, time};
use super::{AGE, Column, NAME, Printed, age, name, or_none, text_column, wide_column};
use crate::json::{at, flag, has, integer, list, text};

pub(super) const KINDS: &[Printed] = &[Printed { group: "", kind: "Pod", columns: COLUMNS, row }];

const COLUMNS: &[Column] = &[
    NAME,
    text_column("Ready", "How many of the pod's containers are ready."),
    text_column("Status", "The state of the pod and its containers in one word."),
    text_column("Restarts", "How often containers were restarted, and when the last one was."),
    AGE,
    wide_column("IP", "The pod's address."),
    wide_column("Node", "The node that the pod is bound to."),
    wide_column("Nominated Node", "The node that room is being made on for the pod."),
    wide_column("Readiness Gates", "How many of the pod's readiness gates are open."),
];

/// Restarts so far and the end of the last run before one.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += integer(container, "restartCount").unwrap_or_default();
        self.last = self.last.max(time(at(container, &["lastState", "terminated", "finishedAt"])));
    }
}

/// What the containers of a pod say about it.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (at(pod, &["spec"]), at(pod, &["status"]));
    let summary = summary(pod);
    let restarts = match summary.restarts {
        Restarts { count, last: Some(last) } if count != 0 => format!("{count} ({} ago)", between(last, now)),
        Restarts { count, .. } => count.to_string(),
    };
    let address = match list(status, "podIPs").first() {
        Some(first) => text(first, "ip"),
        None => text(status, "podIP"),
    };
    let gates = list(spec, "readinessGates");
    let open = gates.iter().filter(|gate| condition(status, text(gate, "conditionType"))).count();
    let gates = if gates.is_empty() { "<none>".to_owned() } else { format!("{open}/{}", gates.len()) };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or_none(address)),
        json!(or_none(text(spec, "nodeName"))),
        json!(or_none(text(status, "nominatedNodeName"))),
        json!(gates),
    ]
}

/// Whether a condition is true.
fn condition(status: &Value, name: &str) -> bool {
    list(status, "conditions")
        .iter()
        .any(|condition| text(condition, "type") == name && text(condition, "status") == "True")
}

fn summary(pod: &Value) -> Summary {
    let (spec, status) = (at(pod, &["spec"]), at(pod, &["status"]));
    let phase = text(status, "phase");
    let mut reason = match text(status, "reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = |condition: &Value| {
        text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated"
    };
    if list(status, "conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut reason);
    }
    let sidecars: Vec<&str> = list(spec, "initContainers")
        .iter()
        .filter(|container| text(container, "restartPolicy") == "Always")
        .map(|container| text(container, "name"))
        .collect();
    let mut result = Summary {
        ready: 0,
        total: list(spec, "containers").len() + sidecars.len(),
        reason,
        restarts: Restarts::default(),
    };
    let sidecar_restarts = initialization(spec, status, &sidecars, &mut result);
    if let Some(restarts) = sidecar_restarts {
        result.restarts = restarts;
        running(status, &mut result);
    }
    if has(at(pod, &["metadata"]), "deletionTimestamp") {
        if text(status, "reason") == "NodeLost" {
            "Unknown".clone_into(&mut result.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut result.reason);
        }
    }
    result
}

/// The state of the init containers. The restarts of sidecars are returned once the pod is initialized: from then on only
/// they count.
fn initialization(
    spec: &Value,
    status: &Value,
    sidecars: &[&str],
    summary: &mut Summary,
) -> Option<Restarts> {
    let total = list(spec, "initContainers").len();
    let mut of_sidecars = Restarts::default();
    for (index, container) in list(status, "initContainerStatuses").iter().enumerate() {
        summary.restarts.add(container);
        let is_sidecar = sidecars.contains(&text(container, "name"));
        if is_sidecar {
            of_sidecars.add(container);
        }
        let terminated = at(container, &["state", "terminated"]);
        let waiting = text(at(container, &["state", "waiting"]), "reason");
        if terminated.is_object() && integer(terminated, "exitCode").unwrap_or_default() == 0 {
            continue;
        }
        if is_sidecar && flag(container, "started") {
            summary.ready += usize::from(flag(container, "ready"));
            continue;
        }
        summary.reason = if terminated.is_object() {
            format!("Init:{}", exit_reason(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{total}")
        };
        return condition(status, "Initialized").then_some(of_sidecars);
    }
    Some(of_sidecars)
}

fn running(status: &Value, summary: &mut Summary) {
    let mut any_running = false;
    for container in list(status, "containerStatuses").iter().rev() {
        summary.restarts.add(container);
        let waiting = text(at(container, &["state", "waiting"]), "reason");
        let terminated = at(container, &["state", "terminated"]);
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if terminated.is_object() {
            summary.reason = exit_reason(terminated);
        } else if flag(container, "ready") && has(at(container, &["state"]), "running") {
            any_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && any_running {
        let word = if condition(status, "Ready") { "Running" } else { "NotReady" };
        word.clone_into(&mut summary.reason);
    }
}

fn exit_reason(terminated: &Value) -> String {
    match (text(terminated, "reason"), integer(terminated, "signal").unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", integer(terminated, "exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
