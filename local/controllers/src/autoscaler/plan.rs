//! What an autoscaler does at one look. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::conditions::{self, About};
use super::memory::Memory;
use super::metric::{Answer, Measured, Unusable, ask};
use super::pace::{Limit, Wish, pace};
use super::rules::Behavior;
use super::usage::PodMetricsList;
use crate::events::Severity;

/// What is to be told as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) severity: Severity,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why it is not known which pods are scaled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectorError {
    /// The target tells none.
    #[error("selector is required")]
    Missing,
    /// It cannot be read.
    #[error("couldn't convert selector into a corresponding internal selector object: {0}")]
    Unreadable(String),
    /// Others scale some of the pods too.
    #[error("pods by selector {selector} are controlled by multiple HPAs: {others:?}")]
    Ambiguous { selector: String, others: Vec<String> },
}

impl SelectorError {
    /// Reasons of the event and of the condition.
    fn reasons(&self) -> (&'static str, &'static str) {
        match self {
            Self::Missing => ("SelectorRequired", "InvalidSelector"),
            Self::Unreadable(_) => ("InvalidSelector", "InvalidSelector"),
            Self::Ambiguous { .. } => ("AmbiguousSelector", "AmbiguousSelector"),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Missing => "the HPA target's scale is missing a selector".to_owned(),
            other => other.to_string(),
        }
    }
}

/// What is known at one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation<'a> {
    pub(super) autoscaler: &'a HorizontalPodAutoscaler,
    /// How many pods the target is to have now.
    pub(super) current: i32,
    /// The target's pods.
    pub(super) pods: Result<&'a [Arc<Pod>], &'a SelectorError>,
    /// What the pods of the namespace use, or why that is not known.
    pub(super) usage: Result<&'a PodMetricsList, &'a str>,
    pub(super) now: Timestamp,
}

/// A new number of pods, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rescale {
    pub(super) replicas: i32,
    pub(super) why: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) rescale: Option<Rescale>,
    pub(super) notes: Vec<Note>,
    /// Complete but for what [`Plan::rescaled`] adds.
    pub(super) status: HorizontalPodAutoscalerStatus,
    pub(super) memory: Memory,
}

/// What the metrics say together.
struct Asked {
    replicas: i32,
    /// The metric that asks for most.
    name: String,
}

/// The status when the target's number cannot be read.
pub(super) fn unreadable(
    autoscaler: &HorizontalPodAutoscaler,
    why: &str,
    now: Timestamp,
) -> (HorizontalPodAutoscalerStatus, Note) {
    let mut status = autoscaler.status.clone().unwrap_or_default();
    let message = format!("the HPA controller was unable to get the target's current scale: {why}");
    let conditions = status.conditions.get_or_insert_default();
    conditions::set(conditions, About::AbleToScale, false, "FailedGetScale", message, now);
    let note = Note { severity: Severity::Warning, reason: "FailedGetScale", message: why.to_owned() };
    (status, note)
}

/// Decides.
pub(super) fn plan(observed: &Observation<'_>, mut memory: Memory) -> Plan {
    let Observation { autoscaler, current, now, .. } = *observed;
    let spec = &autoscaler.spec;
    let (fewest, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    memory.begin(current, now);
    let mut plan = Plan { rescale: None, notes: Vec::new(), status: begin(observed), memory };
    plan.say(
        About::AbleToScale,
        true,
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
        now,
    );
    if current == 0 && fewest != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        plan.say(About::ScalingActive, false, "ScalingDisabled", message, now);
    } else if current > most {
        plan.rescale =
            Some(Rescale { replicas: most, why: "Current number of replicas above Spec.MaxReplicas".into() });
    } else if current < fewest {
        let why = "Current number of replicas below Spec.MinReplicas".into();
        plan.rescale = Some(Rescale { replicas: fewest, why });
    } else {
        plan.follow_metrics(observed, fewest);
    }
    if let Some(rescale) = &plan.rescale {
        plan.status.desired_replicas = rescale.replicas;
    }
    plan
}

/// A status with what is not decided at this look.
fn begin(observed: &Observation<'_>) -> HorizontalPodAutoscalerStatus {
    let before = observed.autoscaler.status.clone().unwrap_or_default();
    HorizontalPodAutoscalerStatus {
        current_replicas: Some(observed.current),
        desired_replicas: observed.current,
        observed_generation: observed.autoscaler.metadata.generation,
        current_metrics: None,
        ..before
    }
}

impl Plan {
    fn say(&mut self, about: About, is_true: bool, reason: &str, message: impl Into<String>, now: Timestamp) {
        let conditions = self.status.conditions.get_or_insert_default();
        conditions::set(conditions, about, is_true, reason, message, now);
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note { severity: Severity::Warning, reason, message });
    }

    fn follow_metrics(&mut self, observed: &Observation<'_>, fewest: i32) {
        let Observation { autoscaler, current, now, .. } = *observed;
        let behavior = Behavior::of(autoscaler);
        let Some(asked) = self.ask_all(observed, &behavior) else { return };
        let wish = Wish {
            current,
            desired: asked.replicas,
            fewest,
            most: autoscaler.spec.max_replicas,
            behavior: &behavior,
            memory: &self.memory,
            now,
        };
        let paced = pace(&wish);
        self.memory.recommend(asked.replicas, now);
        let windows = behavior.up.window.max(behavior.down.window);
        let periods = behavior.up.longest_period().max(behavior.down.longest_period());
        self.memory.forget(now, windows.max(SignedDuration::from_secs(1)), periods);
        let (reason, message) = paced.stabilized.words();
        self.say(About::AbleToScale, true, reason, message, now);
        let (reason, message) = paced.limit.words();
        self.say(About::ScalingLimited, paced.limit != Limit::None, reason, message, now);
        if paced.replicas != current {
            let why = if asked.replicas > current {
                format!("{} above target", asked.name)
            } else {
                "All metrics below target".to_owned()
            };
            self.rescale = Some(Rescale { replicas: paced.replicas, why });
        }
    }

    /// What the metric asks for that asks for most. Metrics that say nothing never make pods fewer.
    fn ask_all(&mut self, observed: &Observation<'_>, behavior: &Behavior) -> Option<Asked> {
        let Observation { autoscaler, current, pods, usage, now } = *observed;
        let pods = match pods {
            Ok(pods) => pods,
            Err(error) => {
                let (event, condition) = error.reasons();
                self.warn(event, error.to_string());
                self.say(About::ScalingActive, false, condition, error.message(), now);
                self.warn("FailedComputeMetricsReplicas", error.to_string());
                return None;
            }
        };
        let namespace = autoscaler.namespace().unwrap_or_default();
        let measured = Measured { namespace: &namespace, pods, usage, current, behavior, now };
        let metrics = autoscaler.spec.metrics.as_deref().unwrap_or_default();
        let answers: Vec<Result<Answer, Unusable>> =
            metrics.iter().map(|metric| ask(metric, &measured)).collect();
        let shown = answers.iter().map(|answer| match answer {
            Ok(answer) => answer.status.clone(),
            // A place that says nothing, so that the others stand where their metrics do.
            Err(_) => MetricStatus::default(),
        });
        self.status.current_metrics = Some(shown.collect());
        let unusable: Vec<&Unusable> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        for metric in &unusable {
            self.warn(metric.reason, metric.message.clone());
        }
        let highest = answers.iter().flatten().rev().max_by_key(|answer| answer.replicas);
        if let Some(first) = unusable.first() {
            let message = format!(
                "invalid metrics ({} invalid out of {}), first error is: {first}",
                unusable.len(),
                metrics.len()
            );
            if highest.is_none_or(|highest| highest.replicas < current) {
                let told = format!("the HPA was unable to compute the replica count: {first}");
                self.say(About::ScalingActive, false, first.reason, told, now);
                self.warn("FailedComputeMetricsReplicas", message);
                return None;
            }
        }
        let highest = highest?;
        let message =
            format!("the HPA was able to successfully calculate a replica count from {}", highest.name);
        self.say(About::ScalingActive, true, "ValidMetricFound", message, now);
        Some(Asked { replicas: highest.replicas, name: highest.name.clone() })
    }

    /// Tells how the change of the number ended.
    pub(super) fn rescaled(&mut self, outcome: Result<(), &str>, now: Timestamp) {
        let Some(Rescale { replicas, why }) = self.rescale.clone() else { return };
        let current = self.status.current_replicas.unwrap_or_default();
        match outcome {
            Ok(()) => {
                let message = format!("the HPA controller was able to update the target scale to {replicas}");
                self.say(About::AbleToScale, true, "SucceededRescale", message, now);
                self.notes.push(Note {
                    severity: Severity::Normal,
                    reason: "SuccessfulRescale",
                    message: format!("New size: {replicas}; reason: {why}"),
                });
                self.memory.scale(replicas.saturating_sub(current), now);
                self.status.last_scale_time = Some(Time(now));
            }
            Err(error) => {
                let message = format!("the HPA controller was unable to update the target scale: {error}");
                self.say(About::AbleToScale, false, "FailedUpdateScale", message, now);
                self.warn("FailedRescale", format!("New size: {replicas}; reason: {why}; error: {error}"));
                self.status.desired_replicas = current;
            }
        }
    }
}

#[cfg(test)]
mod tests;
