//! Carries a binding out: writes the plan, binds the pods, and says what came of each.
//!
//! A place is given back only when it is certain that the pod does not have it: the API server refused, or a look
//! shows the pod without a node. After a lost answer the same binding is tried again, which changes nothing when
//! it was done already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Binding as PodBinding, ObjectReference, Pod};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use muster_machinery::CancellationToken;
use muster_scheduler_api::annotations;
use muster_scheduler_core::{Assignment, PodKey};
use tokio::sync::Semaphore;

use crate::attempt::{Failure, attempt};
use crate::claims::ClaimVersions;
use crate::metrics;
use crate::plan;
use crate::planner::{Binding, ClaimUse, Opening, Outcome};
use crate::tell::{Note, Teller};

/// Bindings that are under way at once.
const CONCURRENT_BINDINGS: usize = 128;
/// Pauses, in milliseconds, after attempts whose end is not known. A look that shows the pod unbound after the last
/// of them is believed.
pub(crate) const PAUSES: [u64; 6] = [50, 200, 500, 1000, 2000, 4000];
/// Pause while the API server cannot be asked at all.
pub(crate) const UNREACHABLE: Duration = Duration::from_secs(5);

/// What it takes to bind.
#[derive(Clone)]
pub(crate) struct Binder {
    pub(crate) client: Client,
    pub(crate) permits: Arc<Semaphore>,
    teller: Arc<Teller>,
    /// No attempt begins any more.
    pub(crate) stop: CancellationToken,
}

/// What came of one binding.
pub(crate) enum Verdict {
    /// The pod has its place, or is steered to it.
    Bound,
    /// The pod does not have the place and will not get it: the server's reason, unless the pod is gone or elsewhere.
    Refused(Option<String>),
    /// The scheduler ends before it is known.
    Unknown,
}

/// Where a pod is found.
enum There {
    On(String),
    Nowhere,
    /// It is gone, or another of its name is there.
    Gone,
}

/// What a pod that has its place is told of it.
fn news(binding: &Binding, pod: &PodKey, node: &str) -> (&'static str, String) {
    let (reason, message) = match binding.gates.get(pod) {
        Some(Opening::Only) => ("GateOpened", format!("Its gang has room; it can go to {node}")),
        Some(Opening::ThenBind) | None => ("Scheduled", format!("Successfully assigned {pod} to {node}")),
    };
    match binding.unheeded.get(pod) {
        Some(fields) => (reason, format!("{message}; Muster does not look at its {}", fields.join(" and "))),
        None => (reason, message),
    }
}

impl Binder {
    pub(crate) fn new(client: Client, teller: Arc<Teller>, stop: CancellationToken) -> Self {
        Self { client, permits: Arc::new(Semaphore::new(CONCURRENT_BINDINGS)), teller, stop }
    }

    /// Writes the plan and binds the pods. Ends when all of them are known to be bound or not, or at the stop.
    pub(crate) async fn carry_out(&self, binding: &Binding) -> Outcome {
        let mut outcome = Outcome::nothing_of(binding);
        let versions = ClaimVersions::default();
        if binding.durable {
            match plan::write(&self.client, binding).await {
                Ok(written) => outcome.written = Some(written),
                Err(error) => {
                    tracing::warn!(%error, gang = binding.gang, "cannot write the gang's plan; planning it again");
                    let why = error.to_string();
                    if let plan::PlanError::Overtaken(written) = error {
                        outcome.written = Some(written);
                    }
                    outcome.why = Some(why);
                    outcome.refuse_all(binding);
                    return outcome;
                }
            }
        }
        let places = &binding.placement.0;
        let verdicts = join_all(places.iter().map(|(pod, assignment)| {
            let gate = binding.gates.get(pod).copied();
            let claims = binding.claims.get(pod).map_or(&[][..], Vec::as_slice);
            self.bring_with(pod, assignment, gate, claims, &versions)
        }))
        .await;
        let mut all_bound = true;
        for ((pod, assignment), verdict) in places.iter().zip(verdicts) {
            let uid = assignment.uid.clone();
            all_bound &= matches!(verdict, Verdict::Bound);
            match verdict {
                Verdict::Bound => {
                    let foreign = binding.gates.get(pod) == Some(&Opening::Only);
                    if foreign {
                        metrics::opened();
                    } else {
                        metrics::bound();
                    }
                    self.teller.waits_no_more(pod);
                    let (reason, message) = news(binding, pod, &assignment.node);
                    self.teller.say(Note::event(pod, &uid, foreign, "Normal", reason, message));
                }
                Verdict::Refused(why) => {
                    metrics::refused();
                    outcome.why = outcome.why.or(why);
                    outcome.refused.push((pod.clone(), uid));
                }
                Verdict::Unknown => {
                    tracing::debug!(%pod, "the scheduler ends before it is known whether the pod is bound");
                }
            }
        }
        let in_vain = outcome.refused.len() == places.len() && binding.nothing_settled();
        if in_vain {
            self.unreserve_all(binding, &versions).await;
        }
        outcome.claims = versions.into_inner();
        if binding.durable
            && in_vain
            && let Some(written) = outcome.written.take()
        {
            // The next start would find a plan of which nothing came, and carry it out past the line.
            if !plan::discard(&self.client, &binding.namespace, &binding.gang, &written).await {
                outcome.written = Some(written);
            }
            return outcome;
        }
        if let Some(written) = outcome.written.take() {
            outcome.written = Some(if all_bound && binding.durable {
                plan::finish(&self.client, binding, written).await
            } else {
                written
            });
        }
        outcome
    }

    /// Brings one pod to its place with its claims, which get their devices first.
    async fn bring_with(
        &self,
        pod: &PodKey,
        assignment: &Assignment,
        gate: Option<Opening>,
        claims: &[ClaimUse],
        versions: &ClaimVersions,
    ) -> Verdict {
        if claims.is_empty() {
            return self.bring(pod, assignment, gate).await;
        }
        let verdict = match self.reserve(pod, &assignment.uid, claims, versions).await {
            Verdict::Bound => self.bring(pod, assignment, gate).await,
            other => other,
        };
        match verdict {
            Verdict::Refused(why) => match self.look(pod, &assignment.uid).await {
                // An earlier attempt was done although its answer was lost.
                Ok(There::On(node)) if node == assignment.node => Verdict::Bound,
                _ => Verdict::Refused(why),
            },
            other => other,
        }
    }

    /// Takes back what claims have got for pods of which none has its place. While others of the gang have theirs, its
    /// claims keep their devices for the next attempt.
    async fn unreserve_all(&self, binding: &Binding, versions: &ClaimVersions) {
        let pods = binding.claims.iter().filter_map(|(pod, claims)| {
            let (_, place) = binding.placement.0.iter().find(|(other, _)| other == pod)?;
            Some((pod, place, claims))
        });
        join_all(pods.map(|(pod, place, claims)| async move {
            // Whoever bound it elsewhere may rely on its claims; those of a pod that is gone are given back anyway.
            if let Ok(There::Nowhere) = self.look(pod, &place.uid).await {
                self.unreserve(&place.uid, claims, versions).await;
            }
        }))
        .await;
    }

    /// Brings one pod to its place, in the way that it asks for.
    async fn bring(&self, pod: &PodKey, assignment: &Assignment, gate: Option<Opening>) -> Verdict {
        if let Some(opening) = gate {
            let opened = self.open(pod, assignment).await;
            if opening == Opening::Only || !matches!(opened, Verdict::Bound) {
                return opened;
            }
        }
        self.bind(pod, assignment).await
    }

    /// Binds one pod, as often as it takes to know.
    async fn bind(&self, pod: &PodKey, assignment: &Assignment) -> Verdict {
        let mut pauses = PAUSES.into_iter();
        loop {
            if self.stop.is_cancelled() {
                return Verdict::Unknown;
            }
            let Ok(permit) = self.permits.acquire().await else { return Verdict::Unknown };
            let failure = match self.try_to_bind(pod, assignment).await {
                Ok(()) => return Verdict::Bound,
                Err(failure) => failure,
            };
            drop(permit);
            // A conflict may be with this very binding, done before its answer was lost.
            if failure.is_refusal() && failure.code() != Some(409) {
                tracing::info!(error = %failure, %pod, node = assignment.node, "the binding was refused");
                return Verdict::Refused(Some(failure.to_string()));
            }
            match self.look(pod, &assignment.uid).await {
                Ok(There::On(node)) if node == assignment.node => return Verdict::Bound,
                Ok(There::On(_) | There::Gone) => return Verdict::Refused(None),
                Ok(There::Nowhere) if failure.is_refusal() => {
                    return Verdict::Refused(Some(failure.to_string()));
                }
                Ok(There::Nowhere) => {
                    let Some(pause) = pauses.next() else {
                        tracing::info!(error = %failure, %pod, node = assignment.node, "cannot bind");
                        return Verdict::Refused(Some(failure.to_string()));
                    };
                    tracing::debug!(error = %failure, %pod, "the binding came to nothing; trying again");
                    self.pause(Duration::from_millis(pause)).await;
                }
                Err(unknown) => {
                    tracing::info!(error = %unknown, %pod, "cannot see whether the pod is bound; its place is kept");
                    self.pause(UNREACHABLE).await;
                }
            }
        }
    }

    pub(crate) async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn try_to_bind(&self, pod: &PodKey, assignment: &Assignment) -> Result<(), Failure> {
        let slots: Vec<String> = assignment.gpu_indices.iter().map(u32::to_string).collect();
        let chosen = (!slots.is_empty())
            .then(|| BTreeMap::from([(annotations::GPU_INDICES.to_owned(), slots.join(","))]));
        let binding = PodBinding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                // Bind this very pod, not a successor of the same name.
                uid: Some(assignment.uid.clone()),
                annotations: chosen,
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(assignment.node.clone()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let parameters = PostParams::default();
        let request = api.create_subresource("binding", &pod.name, &parameters, &binding);
        attempt(request).await.map(|_: serde_json::Value| ())
    }

    async fn look(&self, pod: &PodKey, uid: &str) -> Result<There, Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let Some(found) = attempt(api.get_opt(&pod.name)).await? else { return Ok(There::Gone) };
        if found.metadata.uid.as_deref() != Some(uid) {
            return Ok(There::Gone);
        }
        let node = found.spec.and_then(|spec| spec.node_name).filter(|node| !node.is_empty());
        Ok(node.map_or(There::Nowhere, There::On))
    }
}
