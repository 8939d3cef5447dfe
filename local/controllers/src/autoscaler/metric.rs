//! What one metric of an autoscaler asks for, and how its status shows it. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use kube::ResourceExt as _;
use muster_admission::quantity::Quantity;

use super::group::{self, Group};
use super::replicas::{CalculationError, Goal, Proposal, propose};
use super::rules::Behavior;
use super::usage::{Part, PodMetricsList, UsageError};

/// What is known when metrics are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured<'a> {
    pub(super) namespace: &'a str,
    /// The pods that are scaled.
    pub(super) pods: &'a [Arc<Pod>],
    /// What the pods of the namespace use, or why that is not known.
    pub(super) usage: Result<&'a PodMetricsList, &'a str>,
    /// How many pods there are to be now.
    pub(super) current: i32,
    pub(super) behavior: &'a Behavior,
    pub(super) now: Timestamp,
}

/// What a metric asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) replicas: i32,
    /// What the metric is called in events.
    pub(super) name: String,
    pub(super) status: MetricStatus,
}

/// Why a metric asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Unusable {
    /// Reason of the condition and the event.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A metric of pods, or of one container of them.
struct Resource<'a> {
    name: &'a str,
    part: Part<'a>,
    target: &'a MetricTarget,
}

#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("unable to get metrics for resource {resource}: {why}")]
    Unmeasured { resource: String, why: String },
    #[error(transparent)]
    Calculation(#[from] CalculationError),
}

/// Whether a metric is read from `metrics.k8s.io`.
pub(super) fn needs_usage(metric: &MetricSpec) -> bool {
    metric.resource.is_some() || metric.container_resource.is_some()
}

/// Works a metric out.
pub(super) fn ask(metric: &MetricSpec, measured: &Measured<'_>) -> Result<Answer, Unusable> {
    let custom = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    let refused = |reason, message| Err(Unusable { reason, message });
    match metric.type_.as_str() {
        "Resource" => {
            let reason = "FailedGetResourceMetric";
            let Some(source) = &metric.resource else { return refused(reason, unset("resource")) };
            let resource = Resource { name: &source.name, part: Part::Pod, target: &source.target };
            resource.ask(measured).map_err(|message| Unusable { reason, message })
        }
        "ContainerResource" => {
            let reason = "FailedGetContainerResourceMetric";
            let Some(source) = &metric.container_resource else {
                return refused(reason, unset("containerResource"));
            };
            let part = Part::Container(&source.container);
            let resource = Resource { name: &source.name, part, target: &source.target };
            resource.ask(measured).map_err(|message| Unusable { reason, message })
        }
        "Pods" => {
            let name = metric.pods.as_ref().map_or("", |source| &source.metric.name);
            refused("FailedGetPodsMetric", format!("unable to get metric {name}: {custom}"))
        }
        "Object" => {
            let name = metric.object.as_ref().map_or("", |source| &source.metric.name);
            let about = metric.object.as_ref().map_or_else(String::new, |source| {
                let object = &source.described_object;
                format!("{} on {} {}/{}", name, measured.namespace, object.kind, object.name)
            });
            refused("FailedGetObjectMetric", format!("unable to get metric {name}: {about}/{custom}"))
        }
        "External" => {
            let name = metric.external.as_ref().map_or("", |source| &source.metric.name);
            let namespace = measured.namespace;
            refused(
                "FailedGetExternalMetric",
                format!(
                    "unable to get external metric {namespace}/{name}: unable to fetch metrics from external metrics API: \
                     no external metrics API (external.metrics.k8s.io) registered"
                ),
            )
        }
        other => refused("InvalidMetricSourceType", format!("unknown metric source type {other:?}")),
    }
}

fn unset(field: &str) -> String {
    format!("the metric has no {field}, which its type asks for")
}

impl Resource<'_> {
    fn ask(&self, measured: &Measured<'_>) -> Result<Answer, String> {
        let resource = self.name;
        if let Some(average) = &self.target.average_value {
            let milli = average.0.parse::<Quantity>().map_or(0, Quantity::milli_value);
            let proposal = self.propose(measured, |_| Ok(Goal::Average { milli }));
            let proposal = proposal.map_err(|why| format!("failed to get {resource} usage: {why}"))?;
            return Ok(self.answer(proposal, format!("{resource} resource")));
        }
        let Some(percent) = self.target.average_utilization else {
            return Err(
                "invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                    .to_owned(),
            );
        };
        let goal = |pods: &[Arc<Pod>]| {
            let requests = group::requests(pods, resource, self.part).map_err(CalculationError::from)?;
            Ok(Goal::Utilization { percent, requests })
        };
        let proposal = self.propose(measured, goal);
        let proposal = proposal.map_err(|why| format!("failed to get {resource} utilization: {why}"))?;
        let of = if self.part == Part::Pod { "" } else { "container " };
        Ok(self.answer(proposal, format!("{resource} {of}resource utilization (percentage of request)")))
    }

    fn propose(
        &self,
        measured: &Measured<'_>,
        goal: impl Fn(&[Arc<Pod>]) -> Result<Goal, Unknown>,
    ) -> Result<Proposal, Unknown> {
        let unmeasured = |why: String| Unknown::Unmeasured { resource: self.name.to_owned(), why };
        let usage = measured
            .usage
            .map_err(|why| unmeasured(format!("unable to fetch metrics from resource metrics API: {why}")))?;
        let names: Vec<String> = measured.pods.iter().map(|pod| pod.name_any()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let samples = usage
            .samples(measured.namespace, &names, self.name, self.part, measured.now)
            .map_err(|why: UsageError| unmeasured(why.to_string()))?;
        let group = Group::of(measured.pods, &samples, self.name, measured.now);
        let goal = goal(measured.pods)?;
        Ok(propose(measured.current, &group, &goal, measured.behavior)?)
    }

    fn answer(&self, proposal: Proposal, name: String) -> Answer {
        let current = MetricValueStatus {
            average_utilization: proposal.utilization,
            average_value: Some(ApiQuantity(Quantity::milli(proposal.average_milli).to_string())),
            value: None,
        };
        let name_of_resource = self.name.to_owned();
        let status = match self.part {
            Part::Pod => MetricStatus {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricStatus { name: name_of_resource, current }),
                ..MetricStatus::default()
            },
            Part::Container(container) => MetricStatus {
                type_: "ContainerResource".to_owned(),
                container_resource: Some(ContainerResourceMetricStatus {
                    name: name_of_resource,
                    container: container.to_owned(),
                    current,
                }),
                ..MetricStatus::default()
            },
        };
        Answer { replicas: proposal.replicas, name, status }
    }
}
