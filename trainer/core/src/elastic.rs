//! Jobs whose number of workers may change while they run.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use muster_trainer_api::ReplicaSpec;
use muster_trainer_api::names::{GROUP, VERSION};

use crate::job::Job;
use crate::kind::Kind;
use crate::validation::FieldError;

/// The replica type whose number changes.
pub(crate) const WORKER: &str = "Worker";

/// The numbers of workers that an elastic policy names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) min_replicas: Option<i32>,
    pub(crate) max_replicas: Option<i32>,
}

impl Bounds {
    /// The fewest and the most workers: one that is not named is the other, and without any it is what the job has.
    pub(crate) fn of(self, workers: i32) -> (i32, i32) {
        match (self.min_replicas, self.max_replicas) {
            (Some(fewest), Some(most)) => (fewest, most),
            (Some(one), None) | (None, Some(one)) => (one, one),
            (None, None) => (workers, workers),
        }
    }

    /// Checks a policy: there are workers to be more or fewer, and the bounds are in order.
    pub(crate) fn validate(
        self,
        kind: &Kind,
        replica_specs: &BTreeMap<&'static str, ReplicaSpec>,
        errors: &mut Vec<FieldError>,
    ) {
        if !replica_specs.contains_key(WORKER) {
            errors.push(FieldError::new(
                "spec.elasticPolicy",
                format!("an elastic job needs workers: add spec.{}[{WORKER}]", kind.replica_specs),
            ));
        }
        if let (Some(fewest), Some(most)) = (self.min_replicas, self.max_replicas)
            && fewest > most
        {
            errors.push(FieldError::new(
                "spec.elasticPolicy.minReplicas",
                format!("must not exceed maxReplicas, {fewest} is more than {most}"),
            ));
        }
    }

    /// The autoscaler of a job whose policy names metrics.
    pub(crate) fn autoscaler(self, job: &Job, metrics: &[MetricSpec]) -> Option<HorizontalPodAutoscaler> {
        let workers = job.replica(WORKER).filter(|_| !metrics.is_empty())?;
        let (fewest, most) = self.of(workers.count);
        Some(HorizontalPodAutoscaler {
            metadata: ObjectMeta {
                name: Some(job.name().to_owned()),
                namespace: Some(job.namespace().to_owned()),
                owner_references: Some(vec![job.owner_reference()]),
                ..ObjectMeta::default()
            },
            spec: HorizontalPodAutoscalerSpec {
                scale_target_ref: CrossVersionObjectReference {
                    api_version: Some(format!("{GROUP}/{VERSION}")),
                    kind: job.kind.name.to_owned(),
                    name: job.name().to_owned(),
                },
                min_replicas: Some(fewest),
                max_replicas: most,
                metrics: Some(metrics.to_vec()),
                ..HorizontalPodAutoscalerSpec::default()
            },
            status: None,
        })
    }
}
