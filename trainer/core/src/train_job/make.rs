//! How a job's JobSet and what goes with it are created, and changed while it is suspended.

use muster_trainer_api::jobset::JobSet;
use muster_trainer_api::train_job::names::GROUP;
use muster_trainer_api::train_job::reason;
use serde_json::{Value, json};

use super::budget;
use super::made::{self, mark, marked};
use super::plan::{JobSetChange, SshKeys};
use super::planner::{Planner, UNWATCHED};
use super::render::{Rendered, metadata, render_for};
use super::runtime::{RuntimeSeen, runtime_of};
use super::validation::validate;
use crate::plan::EventType;

/// Why no JobSet can be made.
enum Refused {
    /// Of something that may come yet.
    Waits(String),
    /// Of something that stays, by this reason.
    Fails(&'static str, String),
}

impl Planner<'_> {
    pub(super) fn make(&mut self, jobset: Option<&JobSet>) {
        if self.observed.jobset.is_some() && jobset.is_none() {
            let name = self.job.metadata.name.as_deref().unwrap_or_default();
            let message =
                format!("a JobSet {name} exists and belongs to another; delete it or rename the job");
            self.look_again_after(UNWATCHED);
            return self.tell(EventType::Warning, "JobSetNameTaken", message);
        }
        let rendered = match self.rendered(jobset) {
            Ok(rendered) => Some(rendered),
            // What exists was made of what was right then, and can be suspended and resumed whatever is there now.
            Err(Refused::Waits(_)) if jobset.is_some() => None,
            Err(Refused::Waits(message)) => {
                return self.tell(EventType::Warning, reason::RUNTIME_NOT_FOUND, message);
            }
            Err(Refused::Fails(reason, message)) if jobset.is_some() => {
                self.tell(EventType::Warning, reason, message);
                None
            }
            Err(Refused::Fails(reason, message)) => return self.fail(reason, message),
        };
        match (jobset, rendered) {
            (None, Some(rendered)) => self.create(rendered),
            (Some(set), rendered) => self.change(set, rendered),
            (None, None) => {}
        }
    }

    fn rendered(&self, jobset: Option<&JobSet>) -> Result<Rendered, Refused> {
        let Some(key) = runtime_of(self.job) else {
            let reference = &self.job.spec.runtime_ref;
            let message = format!(
                "spec.runtimeRef names a {} of {}; use ClusterTrainingRuntime or TrainingRuntime of {GROUP}",
                reference.kind.as_deref().unwrap_or_default(),
                reference.api_group.as_deref().unwrap_or_default(),
            );
            return Err(Refused::Fails(reason::RUNTIME_NOT_SUPPORTED, message));
        };
        let RuntimeSeen::Found(runtime) = self.observed.runtime else {
            return Err(Refused::Waits(format!("waits for {key}, which spec.runtimeRef names")));
        };
        let errors = validate(self.job, runtime);
        if !errors.is_empty() {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            let message = format!("the job is not valid: {}", errors.join("; "));
            return Err(Refused::Fails(reason::INVALID, message));
        }
        Ok(render_for(self.job, runtime, self.scheduler, self.observed.status_server, jobset))
    }

    fn create(&mut self, rendered: Rendered) {
        if let Some(hostfile) = &rendered.hostfile
            && self.observed.hostfile.is_none_or(|seen| seen.data != hostfile.data)
        {
            self.plan.apply_surroundings.push(json!(hostfile));
        }
        self.surround(&rendered);
        let mut wanted = rendered.jobset;
        let digest = made::digest_of_changeable(&wanted.spec);
        let marks = wanted.metadata.annotations.get_or_insert_default();
        marks.insert(mark::RENDERED.to_owned(), digest);
        marks.insert(mark::MADE_OF.to_owned(), rendered.made_of);
        if let Some(seconds) = rendered.ttl_seconds {
            marks.insert(mark::TTL.to_owned(), seconds.to_string());
        }
        budget::charge(&mut wanted, budget::remembered(self.job));
        self.plan.create_jobset = Some(wanted);
    }

    /// Brings what may change in a JobSet that exists in line with the job and its runtime.
    fn change(&mut self, set: &JobSet, rendered: Option<Rendered>) {
        let mut wanted = set.clone();
        wanted.spec.suspend = Some(self.is_suspended());
        let mut is_outdated = false;
        if let Some(rendered) = rendered {
            // Its hosts are those of the nodes that were made.
            if let Some(hostfile) = rendered.hostfile.as_ref().filter(|_| self.observed.hostfile.is_none()) {
                self.plan.apply_surroundings.push(json!(hostfile));
            }
            self.surround(&rendered);
            is_outdated = marked(set, mark::MADE_OF).is_some_and(|made_of| *made_of != rendered.made_of);
            let digest = made::digest_of_changeable(&rendered.jobset.spec);
            // Compared by what was written: what others add to it is theirs.
            if marked(set, mark::RENDERED) != Some(&digest) {
                wanted.spec.replicated_jobs = rendered.jobset.spec.replicated_jobs;
                wanted.metadata.annotations.get_or_insert_default().insert(mark::RENDERED.to_owned(), digest);
            }
        }
        let is_same = set.spec.suspend.unwrap_or(false) == self.is_suspended()
            && marked(set, mark::RENDERED) == marked(&wanted, mark::RENDERED);
        if is_same {
            return;
        }
        if is_outdated {
            let message = "the runtime or spec.runtimePatches differ from what the JobSet was made of; of a JobSet that \
                exists only labels, annotations, nodeSelector, tolerations and schedulingGates of pods change. Create the job anew to \
                have the rest";
            self.tell(EventType::Warning, "JobSetKept", message.to_owned());
        }
        let name = set.metadata.name.clone().unwrap_or_default();
        self.plan.change_jobset = Some(JobSetChange { name, patch: made::changes(set, &wanted) });
    }

    /// What a JobSet needs to be there, other than hosts.
    fn surround(&mut self, rendered: &Rendered) {
        if let Some(name) = rendered.ssh_secret.clone().filter(|_| !self.observed.has_ssh_secret) {
            self.plan.create_ssh_keys = Some(SshKeys { metadata: metadata(self.job, name) });
        }
        if let Some(group) = &rendered.pod_group
            && !self.observed.pod_group.is_some_and(|seen| shows(&seen["spec"], &group["spec"]))
        {
            self.plan.apply_surroundings.push(group.clone());
        }
    }
}

/// Whether an object has every field that is wanted of it.
fn shows(seen: &Value, wanted: &Value) -> bool {
    wanted.as_object().is_none_or(|wanted| wanted.iter().all(|(field, value)| seen.get(field) == Some(value)))
}
