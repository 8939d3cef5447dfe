//! The status of a pod, computed from the state of its containers. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::plan::{self, Phase, Role, Run, Termination};

/// What of the pod is not a matter of single containers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overall {
    /// Set when the pod is over: true for Succeeded.
    pub(crate) finished: Option<bool>,
    /// Reason of the status, e.g. DeadlineExceeded.
    pub(crate) reason: Option<String>,
    /// Message of the status.
    pub(crate) message: Option<String>,
    /// When the node took the pod on.
    pub(crate) start_time: Option<Timestamp>,
    /// Address of the pod; present once its network stands.
    pub(crate) pod_ip: Option<String>,
    /// Address of the node.
    pub(crate) host_ip: String,
    /// The pod's init process runs.
    pub(crate) sandbox_ready: bool,
    /// The pod's uid and container list make the container ids.
    pub(crate) uid: String,
}

const OWN_CONDITIONS: [&str; 5] =
    ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// Whether the node alone says how this condition stands.
pub(crate) fn is_own_condition(kind: &str) -> bool {
    OWN_CONDITIONS.contains(&kind)
}

/// Computes the status; `pod` carries the one before, for conditions of others and times of transitions.
pub(crate) fn compute(pod: &Pod, runs: &[Run], overall: &Overall, now: Timestamp) -> PodStatus {
    let spec = pod.spec.as_ref();
    let statuses = |main: bool| {
        let list: Vec<ContainerStatus> = runs
            .iter()
            .filter(|run| (run.role == Role::Main) == main)
            .map(|run| container_status(spec, run, overall, now))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    PodStatus {
        phase: Some(phase(runs, overall).to_owned()),
        conditions: Some(conditions(pod, runs, overall, now)),
        container_statuses: statuses(true),
        init_container_statuses: statuses(false),
        reason: overall.reason.clone(),
        message: overall.message.clone(),
        start_time: overall.start_time.map(Time),
        pod_ip: overall.pod_ip.clone(),
        pod_ips: overall.pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        host_ip: Some(overall.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: overall.host_ip.clone() }]),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn phase(runs: &[Run], overall: &Overall) -> &'static str {
    match overall.finished {
        Some(true) => "Succeeded",
        Some(false) => "Failed",
        None => {
            let begun = |run: &Run| {
                run.is_running()
                    || matches!(run.phase, Phase::Ended(_))
                    || run.restarts > 0
                    || run.last.is_some()
            };
            let all_begun = runs.iter().filter(|run| run.role == Role::Main).all(begun);
            if all_begun && plan::is_initialized(runs) { "Running" } else { "Pending" }
        }
    }
}

fn conditions(pod: &Pod, runs: &[Run], overall: &Overall, now: Timestamp) -> Vec<PodCondition> {
    let before = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let initialized = plan::is_initialized(runs);
    let containers_ready =
        overall.finished.is_none() && runs.iter().filter(|run| run.role != Role::Init).all(Run::is_ready);
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed_gates: Vec<&str> = gates
        .map(|gate| gate.condition_type.as_str())
        .filter(|kind| !before.iter().any(|condition| condition.type_ == *kind && condition.status == "True"))
        .collect();
    let unready = |list: Vec<&str>| format!("containers with unready status: [{}]", list.join(" "));
    let completed = (overall.finished == Some(true)).then(|| ("PodCompleted".to_owned(), None));
    let failed = (overall.finished == Some(false)).then(|| ("PodFailed".to_owned(), None));
    let over = || completed.clone().or(failed.clone());
    let not_ready = || {
        let list = plan::names_without(runs, true, Run::is_ready);
        over().unwrap_or_else(|| ("ContainersNotReady".to_owned(), Some(unready(list))))
    };
    let because = |holds: bool, why: &dyn Fn() -> (String, Option<String>)| {
        if holds {
            (None, None)
        } else {
            let (reason, message) = why();
            (Some(reason), message)
        }
    };
    let incomplete = || {
        let list = plan::names_without(runs, false, |run| {
            run.is_started() || matches!(&run.phase, Phase::Ended(termination) if termination.code == 0)
        });
        let message = format!("containers with incomplete status: [{}]", list.join(" "));
        over().unwrap_or_else(|| ("ContainersNotInitialized".to_owned(), Some(message)))
    };
    let gated = || {
        let message = format!(
            "corresponding condition of pod readiness gate \"{}\" is not true",
            closed_gates.join(" ")
        );
        if containers_ready { ("ReadinessGatesNotReady".to_owned(), Some(message)) } else { not_ready() }
    };
    let initialized_reason = match &completed {
        Some((reason, _)) if initialized => (Some(reason.clone()), None),
        _ => because(initialized, &incomplete),
    };
    let ready = containers_ready && closed_gates.is_empty();
    let own = [
        (OWN_CONDITIONS[0], true, (None, None)),
        (OWN_CONDITIONS[1], overall.sandbox_ready, (None, None)),
        (OWN_CONDITIONS[2], initialized, initialized_reason),
        (OWN_CONDITIONS[3], containers_ready, because(containers_ready, &not_ready)),
        (OWN_CONDITIONS[4], ready, because(ready, &gated)),
    ];
    let mut list: Vec<PodCondition> = before
        .iter()
        .filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str()))
        .cloned()
        .collect();
    for (kind, holds, (reason, message)) in own {
        let status = if holds { "True" } else { "False" };
        let old = before.iter().find(|condition| condition.type_ == kind && condition.status == status);
        list.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        });
    }
    list
}

fn container_status(spec: Option<&PodSpec>, run: &Run, overall: &Overall, now: Timestamp) -> ContainerStatus {
    let container = spec.and_then(|spec| {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .find(|container| container.name == run.name)
    });
    let image = container.and_then(|container| container.image.clone()).unwrap_or_default();
    let id = |restarts: u32| format!("muster://{}/{}/{restarts}", overall.uid, run.name);
    let previous = run.restarts.saturating_sub(1);
    let mut last = run.last.as_ref().map(|termination| terminated(termination, id(previous)));
    let state = match &run.phase {
        Phase::Waiting { reason, message } => waiting(reason, message.clone()),
        Phase::Starting => match &run.last {
            Some(termination) if run.restarts > 0 => terminated(termination, id(previous)),
            _ => waiting("ContainerCreating", None),
        },
        Phase::Running { started } => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*started)) }),
            ..ContainerState::default()
        },
        Phase::Ended(termination) => match run.not_before {
            Some(at) if overall.finished.is_none() && at > now => {
                last = Some(terminated(termination, id(run.restarts)));
                let seconds = at.duration_since(termination.finished).as_secs();
                let message = format!("back-off {seconds}s restarting failed container={}", run.name);
                waiting("CrashLoopBackOff", Some(message))
            }
            _ => terminated(termination, id(run.restarts)),
        },
    };
    let begun = !matches!(run.phase, Phase::Waiting { .. } | Phase::Starting);
    ContainerStatus {
        name: run.name.clone(),
        image_id: if begun { format!("muster://{image}") } else { String::new() },
        image,
        container_id: begun.then(|| id(run.restarts)),
        ready: run.is_ready(),
        restart_count: run.restarts as i32,
        started: Some(run.is_started()),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn terminated(termination: &Termination, id: String) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: termination.code,
            reason: Some(termination.reason.clone()),
            message: termination.message.clone(),
            started_at: Some(Time(termination.started.unwrap_or(Timestamp::UNIX_EPOCH))),
            finished_at: Some(Time(termination.finished)),
            container_id: Some(id),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}
