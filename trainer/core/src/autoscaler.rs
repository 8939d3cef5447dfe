//! The autoscaler of an elastic job.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;

use crate::job::Job;
use crate::plan::ObjectAction;

/// What is to be done to the job's autoscaler while its pods are wanted.
pub(crate) fn keep(
    job: &Job,
    observed: Option<&HorizontalPodAutoscaler>,
) -> ObjectAction<HorizontalPodAutoscaler> {
    let wanted = job.framework.autoscaler(job);
    match (wanted, observed) {
        (None, None) => ObjectAction::Keep,
        (None, Some(_)) => ObjectAction::Delete,
        (Some(wanted), None) => ObjectAction::Create(wanted),
        (Some(wanted), Some(observed)) => {
            let mut updated = observed.clone();
            updated.spec.min_replicas = wanted.spec.min_replicas;
            updated.spec.max_replicas = wanted.spec.max_replicas;
            updated.spec.metrics = wanted.spec.metrics;
            updated.spec.scale_target_ref = wanted.spec.scale_target_ref;
            if updated == *observed { ObjectAction::Keep } else { ObjectAction::Update(updated) }
        }
    }
}
