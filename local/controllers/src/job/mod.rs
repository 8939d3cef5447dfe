//! Runs jobs: pods until enough of them have succeeded or too many have failed.

mod backoff;
mod conditions;
mod failure_policy;
mod indexes;
mod per_index;
mod plan;
mod pod;
mod success_policy;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Client, Resource, ResourceExt as _};
use pod::{TRACKING, is_tracked};
use serde_json::{Value, json};

use crate::at_once;
use crate::claims::claimed;
use crate::error::{Result, gone_is_fine};
use crate::events::{Recorder, post_params};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::owners::controller_of;
use crate::pod_writer::PodWriter;
use crate::queue::Queue;
use crate::worker::Reconcile;

pub(crate) use conditions::{completed_at, is_finished};

const COMPONENT: &str = "job-controller";

/// What the job controller is asked to bring in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Task {
    /// A job.
    Job(Key),
    /// A pod that waits to be counted by a job that may be gone.
    Stray(Key),
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Job(key) | Self::Stray(key)) = self;
        key.fmt(formatter)
    }
}

/// The job controller.
pub(crate) struct Jobs {
    client: Client,
    recorder: Recorder,
    writer: PodWriter,
    cache: Arc<Informer<Job>>,
    pods: Arc<Informer<Pod>>,
    queue: Queue<Task>,
}

/// The job that controls the pod.
fn job_of(pod: &Pod) -> Option<Key> {
    let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == Job::kind(&()))?;
    Some(Key::new(pod.namespace().unwrap_or_default(), owner.name.clone()))
}

impl Jobs {
    pub(crate) fn new(client: Client, informers: &Informers, recorder: Recorder) -> Arc<Self> {
        let writer = PodWriter::new(client.clone(), recorder.clone(), informers.pods.clone(), COMPONENT);
        let controller = Arc::new(Self {
            client,
            recorder,
            writer,
            cache: informers.jobs.clone(),
            pods: informers.pods.clone(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.jobs.on_change(move |change| {
            let Some(job) = change.latest() else { return };
            own.queue.add(Task::Job(Key::of(&**job)));
            if change.new.is_none() {
                for pod in own.pods.controlled_by(&**job) {
                    own.queue.add(Task::Stray(Key::of(&*pod)));
                }
            }
        });
        let own = controller.clone();
        informers.pods.on_change(move |change| {
            let Some(pod) = change.latest() else { return };
            if let Some(job) = job_of(pod) {
                own.queue.add(Task::Job(job));
            }
            // Any job may want a pod that nobody controls.
            if controller_of(&pod.metadata).is_none() && !pod.labels().is_empty() {
                for job in own.cache.in_namespace(&pod.namespace().unwrap_or_default()) {
                    own.queue.add(Task::Job(Key::of(&*job)));
                }
            }
            if change.new.is_some() && is_tracked(pod) && own.owner(pod).is_none() {
                own.queue.add(Task::Stray(Key::of(&**pod)));
            }
        });
        controller
    }

    fn owner(&self, pod: &Pod) -> Option<Arc<Job>> {
        let uid = crate::owners::controller_uid(&pod.metadata);
        self.cache.get(&job_of(pod)?).filter(|job| job.metadata.uid.as_deref() == uid)
    }

    fn pods_api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Frees a pod whose job is gone.
    async fn free(&self, key: &Key) -> Result<()> {
        let Some(pod) = self.pods.get(key).filter(|pod| is_tracked(pod)) else { return Ok(()) };
        if let Some(job) = job_of(&pod) {
            let live = Api::<Job>::namespaced(self.client.clone(), &job.namespace)
                .get_metadata_opt(&job.name)
                .await?;
            let uid = crate::owners::controller_uid(&pod.metadata);
            if live.is_some_and(|live| live.metadata.uid.as_deref() == uid) {
                return Ok(());
            }
        }
        self.untrack(&pod).await
    }

    async fn untrack(&self, pod: &Pod) -> Result<()> {
        let rest: Vec<&String> = pod.finalizers().iter().filter(|own| *own != TRACKING).collect();
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        let patch = json!({ "metadata": {
            "uid": pod.uid(), "resourceVersion": pod.resource_version(), "finalizers": rest,
        }});
        let parameters = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
        let pods = self.pods_api(&pod.namespace().unwrap_or_default());
        gone_is_fine(pods.patch(&pod.name_any(), &parameters, &Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<Option<Duration>> {
        let pods = match job.spec.as_ref().and_then(|spec| spec.selector.as_ref()) {
            Some(selector) => claimed(&self.client, &self.pods, job, selector, Some(TRACKING)).await?,
            None => self.pods.controlled_by(job),
        };
        let plan = plan::plan(job, &pods, Timestamp::now());
        let namespace = job.namespace().unwrap_or_default();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &namespace);
        if job.status.as_ref() != Some(&plan.status) {
            let changed = Job { status: Some(plan.status.clone()), ..job.clone() };
            let written = jobs.replace_status(&job.name_any(), &post_params(), &changed).await?;
            for happening in &plan.happenings {
                let (severity, reason, message) = happening.event();
                self.recorder.tell(COMPONENT, job, severity, reason, message);
            }
            self.cache.shows(&written).await?;
        }
        at_once::for_each(plan.counted, async |pod| self.untrack(&pod).await).await?;
        at_once::for_each(plan.remove, async |removal| self.remove(job, removal).await).await?;
        at_once::for_each(plan.create, async |index| {
            let failures = index.and_then(|index| plan.failures.get(&index)).copied();
            let pod = pod::build(job, index, failures.unwrap_or(0));
            self.writer.create(job, &pod).await
        })
        .await?;
        if plan.delete_job {
            let parameters = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Foreground),
                preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            gone_is_fine(jobs.delete(&job.name_any(), &parameters).await)?;
        }
        Ok(plan.again)
    }

    async fn remove(&self, job: &Job, plan::Removal { pod, counts }: plan::Removal) -> Result<()> {
        if !counts {
            self.untrack(&pod).await?;
        }
        self.writer.delete(job, &pod).await
    }
}

impl Reconcile for Jobs {
    type Key = Task;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Task> {
        &self.queue
    }

    async fn reconcile(&self, task: &Task) -> Result<Option<Duration>> {
        let key = match task {
            Task::Job(key) => key,
            Task::Stray(key) => {
                self.free(key).await?;
                return Ok(None);
            }
        };
        let Some(job) = self.cache.get(key) else { return Ok(None) };
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if manager.is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(None);
        }
        self.run(&job).await
    }
}
