//! The launcher's Job.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use muster_trainer_api::{RestartPolicy, label};

use super::job::MpiJob;
use super::labels::Role;
use crate::gang;
use crate::plan::Options;

impl MpiJob {
    /// The launcher of this generation; `spent` failures of earlier ones count against its backoff limit.
    pub(super) fn launcher_job(&self, generation: u64, spent: u32, options: &Options) -> Option<Job> {
        let launcher = self.launcher()?;
        let name = self.launcher_name();
        let (mut template, main) = self.prepared(&launcher.template, Role::Launcher, name.clone(), options);
        let spec = template.spec.get_or_insert_default();
        let restart_policy = match launcher.restart_policy {
            RestartPolicy::OnFailure | RestartPolicy::Always => "OnFailure",
            _ => "Never",
        };
        spec.restart_policy = Some(restart_policy.to_owned());
        self.mount_configuration(spec, main);
        if let Some(source) = &options.mpi.agent {
            self.bring_agent(spec, main, source);
        }
        let mut labels = self.role_labels(Role::Launcher);
        labels.insert(label::GANG_GENERATION.to_owned(), generation.to_string());
        let limit = self.backoff_limit().saturating_sub(i32::try_from(spent).unwrap_or(i32::MAX)).max(0);
        Some(Job {
            metadata: self.metadata(name, labels),
            spec: Some(JobSpec {
                active_deadline_seconds: self.job.run_policy.active_deadline_seconds,
                backoff_limit: Some(limit),
                pod_failure_policy: self.failure_policy(&launcher.restart_policy),
                pod_replacement_policy: Some("Failed".to_owned()),
                template: self.in_gang(template, options),
                ..JobSpec::default()
            }),
            status: None,
        })
    }

    /// Which failures of the launcher's pods count otherwise than one of a number that is limited. Kubernetes allows none
    /// of this for pods that are restarted in place.
    fn failure_policy(&self, policy: &RestartPolicy) -> Option<PodFailurePolicy> {
        if !matches!(policy, RestartPolicy::Never | RestartPolicy::ExitCode) {
            return None;
        }
        let taken = self.requeue.then(count_no_disruption);
        let code = (*policy == RestartPolicy::ExitCode).then(fail_below_128);
        let rules: Vec<PodFailurePolicyRule> = taken.into_iter().chain(code).collect();
        (!rules.is_empty()).then_some(PodFailurePolicy { rules })
    }

    /// The template of a member of the job's gang.
    fn in_gang(&self, template: PodTemplateSpec, options: &Options) -> PodTemplateSpec {
        let Some(launcher) = self.launcher() else { return template };
        let metadata = template.metadata.unwrap_or_default();
        let mut pod = Pod { metadata, spec: template.spec, status: None };
        gang::join(&self.job, launcher, 0, &options.gang_scheduler, &mut pod);
        PodTemplateSpec { metadata: Some(pod.metadata), spec: pod.spec }
    }
}

/// What the cluster takes is not a failure of the launcher.
fn count_no_disruption() -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".to_owned(),
            status: Some("True".to_owned()),
        }]),
        ..PodFailurePolicyRule::default()
    }
}

/// Exit codes below 128 end the job, as the restart policy `ExitCode` has it.
fn fail_below_128() -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: None,
            operator: "In".to_owned(),
            values: (1..128).collect(),
        }),
        ..PodFailurePolicyRule::default()
    }
}
