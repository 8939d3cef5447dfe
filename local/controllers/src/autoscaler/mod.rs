//! Sets the number of pods of whatever has a `scale` subresource by what its pods use.
//!
//! The rules are those of kube-controller-manager's `horizontal-pod-autoscaling`. Metrics of `metrics.k8s.io` are read;
//! others need an adapter that the embedded API server does not have, which the autoscaler's conditions say.

mod conditions;
mod group;
mod memory;
mod metric;
mod pace;
mod plan;
mod replicas;
mod rules;
mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::{DynamicObject, Request};
use kube::{Client, ResourceExt as _};
use memory::Memory;
use muster_admission::selectors::LabelSelector;
use muster_machinery::clock::Clock;
use parking_lot::Mutex;
use plan::{Note, Observation, SelectorError};
use serde_json::{Value, json};
use tokio::time::timeout;
use usage::{METRICS_PATH, PodMetricsList};

use crate::catalogue::Catalogue;
use crate::error::{Error, Result, gone_is_fine};
use crate::events::{Recorder, post_params};
use crate::informer::{Informer, Key};
use crate::informers::Informers;
use crate::queue::Queue;
use crate::worker::Reconcile;

const COMPONENT: &str = "horizontal-pod-autoscaler";
/// Longest wait for measurements: they take the nodes a while.
const METRICS_DEADLINE: Duration = Duration::from_secs(30);

/// The controller of horizontal pod autoscalers.
pub(crate) struct Autoscalers {
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    /// Time between two looks at the same autoscaler.
    period: Duration,
    catalogue: Arc<Catalogue>,
    cache: Arc<Informer<HorizontalPodAutoscaler>>,
    pods: Arc<Informer<Pod>>,
    past: Mutex<HashMap<Key, Past>>,
    queue: Queue<Key>,
}

/// What is kept of an autoscaler between two looks.
#[derive(Debug, Clone, Default)]
struct Past {
    uid: Option<String>,
    memory: Memory,
    /// The selector of its pods, as its target told it last.
    selector: String,
}

/// The target of an autoscaler.
struct Target {
    api: Api<DynamicObject>,
    scale: Scale,
}

impl Target {
    fn replicas(&self) -> i32 {
        self.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
    }

    fn selector(&self) -> &str {
        self.scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default()
    }

    async fn set(&self, replicas: i32) -> kube::Result<()> {
        let mut scale = self.scale.clone();
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let name = scale.metadata.name.clone().unwrap_or_default();
        self.api.replace_scale(&name, &post_params(), &scale).await.map(|_| ())
    }
}

impl Autoscalers {
    pub(crate) fn new(
        client: Client,
        informers: &Informers,
        catalogue: Arc<Catalogue>,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        period: Duration,
    ) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            recorder,
            clock,
            period,
            catalogue,
            cache: informers.autoscalers.clone(),
            pods: informers.pods.clone(),
            past: Mutex::default(),
            queue: Queue::new(),
        });
        let own = controller.clone();
        informers.autoscalers.on_change(move |change| {
            let Some(autoscaler) = change.latest() else { return };
            let key = Key::of(&**autoscaler);
            match change.new {
                None => {
                    own.past.lock().remove(&key);
                }
                // Its own statuses are no reason for another look.
                Some(new) if change.old.is_none_or(|old| old.spec != new.spec) => own.queue.add(key),
                Some(_) => {}
            }
        });
        controller
    }

    /// What the autoscaler scales, or why that cannot be read.
    async fn target(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<Target, String> {
        let reference = &autoscaler.spec.scale_target_ref;
        let api_version = reference.api_version.as_deref().unwrap_or_default();
        let found = self.catalogue.find(api_version, &reference.kind).await;
        let kind = found.map_err(|error| match error {
            Error::UnknownKind { .. } => {
                let group = api_version.split_once('/').map_or("", |(group, _)| group);
                format!("no matches for kind {:?} in group {group:?}", reference.kind)
            }
            other => other.to_string(),
        })?;
        let api = kind.api(&self.client, &autoscaler.namespace().unwrap_or_default());
        let scale = api.get_scale(&reference.name).await.map_err(|error| words(&error))?;
        Ok(Target { api, scale })
    }

    /// The pods that a selector finds, unless another autoscaler scales some of them too.
    fn selected(&self, key: &Key, text: &str) -> Result<Vec<Arc<Pod>>, SelectorError> {
        if text.is_empty() {
            return Err(SelectorError::Missing);
        }
        let read = |text: &str| {
            text.parse::<LabelSelector>().map_err(|error| SelectorError::Unreadable(error.to_string()))
        };
        let selector = read(text)?;
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| selector.matches(&labels(pod)));
        let scales =
            |other: &str| read(other).is_ok_and(|other| pods.iter().any(|pod| other.matches(&labels(pod))));
        let past = self.past.lock();
        let mut others: Vec<String> = past
            .iter()
            .filter(|(other, past)| {
                other.namespace == key.namespace && *other != key && scales(&past.selector)
            })
            .map(|(other, _)| other.to_string())
            .collect();
        if others.is_empty() {
            return Ok(pods);
        }
        others.push(key.to_string());
        others.sort_unstable();
        Err(SelectorError::Ambiguous { selector: text.to_owned(), others })
    }

    /// What the pods of a namespace use, or why that is not known.
    async fn usage(&self, namespace: &str) -> Result<PodMetricsList, String> {
        let path = format!("{METRICS_PATH}/namespaces/{namespace}/pods");
        let request = Request::new(path).list(&ListParams::default()).map_err(|error| error.to_string())?;
        let answer = timeout(METRICS_DEADLINE, self.client.request(request)).await;
        let late = || format!("the nodes have not answered within {} s", METRICS_DEADLINE.as_secs());
        answer.map_err(|_| late())?.map_err(|error| words(&error))
    }

    fn tell(&self, autoscaler: &HorizontalPodAutoscaler, notes: Vec<Note>) {
        for Note { severity, reason, message } in notes {
            self.recorder.tell(COMPONENT, autoscaler, severity, reason, message);
        }
    }

    async fn write(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        status: &HorizontalPodAutoscalerStatus,
    ) -> Result<()> {
        if autoscaler.status.as_ref() == Some(status) {
            return Ok(());
        }
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.client.clone(), &autoscaler.namespace().unwrap_or_default());
        let mut status = serde_json::to_value(status)?;
        if let Some(fields) = status.as_object_mut() {
            fields.entry("currentMetrics").or_insert(Value::Null);
        }
        // Nobody else writes it, so that others' changes of the object are no obstacle.
        let parameters = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "metadata": { "uid": autoscaler.uid() }, "status": status }));
        let answer = api.patch_status(&autoscaler.name_any(), &parameters, &patch).await;
        if let Some(written) = gone_is_fine(answer)? {
            self.cache.shows(&written).await?;
        }
        Ok(())
    }

    /// The past of this very autoscaler, not of one that had its name.
    fn past_of(&self, key: &Key, autoscaler: &HorizontalPodAutoscaler, selector: &str) -> Past {
        let mut all = self.past.lock();
        let past = all.entry(key.clone()).or_default();
        if past.uid != autoscaler.metadata.uid {
            *past = Past { uid: autoscaler.uid(), ..Past::default() };
        }
        selector.clone_into(&mut past.selector);
        past.clone()
    }
}

impl Reconcile for Autoscalers {
    type Key = Key;

    const NAME: &'static str = COMPONENT;

    fn queue(&self) -> &Queue<Key> {
        &self.queue
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(autoscaler) = self.cache.get(key) else { return Ok(None) };
        let again = Some(self.period);
        let target = match self.target(&autoscaler).await {
            Ok(target) => target,
            Err(why) => {
                let (status, note) = plan::unreadable(&autoscaler, &why, self.clock.now());
                self.tell(&autoscaler, vec![note]);
                self.write(&autoscaler, &status).await?;
                return Ok(again);
            }
        };
        let past = self.past_of(key, &autoscaler, target.selector());
        let pods = self.selected(key, target.selector());
        let metrics = autoscaler.spec.metrics.iter().flatten();
        let usage = if pods.is_ok() && metrics.into_iter().any(metric::needs_usage) {
            self.usage(&key.namespace).await
        } else {
            Ok(PodMetricsList::default())
        };
        let mut plan = plan::plan(
            &Observation {
                autoscaler: &autoscaler,
                current: target.replicas(),
                pods: pods.as_deref(),
                usage: usage.as_ref().map_err(String::as_str),
                now: self.clock.now(),
            },
            past.memory.clone(),
        );
        if let Some(rescale) = &plan.rescale {
            let outcome = target.set(rescale.replicas).await;
            if let Err(kube::Error::Api(status)) = &outcome
                && status.code == 409
            {
                return Err(kube::Error::Api(status.clone()).into());
            }
            let refused = outcome.err().map(|error| words(&error));
            plan.rescaled(refused.as_deref().map_or(Ok(()), Err), self.clock.now());
        }
        let kept = Past { memory: plan.memory, ..past };
        if self.cache.get(key).is_some() {
            self.past.lock().insert(key.clone(), kept);
        }
        self.tell(&autoscaler, plan.notes);
        self.write(&autoscaler, &plan.status).await?;
        Ok(again)
    }
}

fn labels(pod: &Pod) -> Value {
    json!(pod.labels())
}

/// What the API server said, without the code.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
