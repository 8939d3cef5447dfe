//! Starts batch jobs when what they wait for has come, long after the command that submitted them has ended.
//!
//! [`Options`] → [`Service::run`]. It watches the Jobs and `MPIJob`s with a number, lets the [`Board`] of `muster-batch-core` decide
//! and carries that out with the version it was decided for, so that it may be stopped between any two requests and run
//! twice.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use muster_batch_core::board::{Decision, Place};
use muster_batch_core::{Board, Kind, Work, names};
use muster_machinery::CancellationToken;
use muster_trainer_api::MpiJob;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const MANAGER: &str = "muster-batch";
/// Pause before a request that failed is made again.
const RETRY: Duration = Duration::from_secs(1);

/// How the controller runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The one namespace to look at; all of them when absent.
    pub namespace: Option<String>,
}

impl Options {
    /// The service with these options, not yet running.
    pub fn build(self, client: Client) -> Service {
        Service { options: self, client }
    }
}

/// The controller of waiting batch jobs.
pub struct Service {
    options: Options,
    client: Client,
}

/// What was heard of the jobs of a kind.
enum Heard {
    /// All of them are listed anew.
    Begin,
    /// One is as it is said here.
    Is(Work),
    /// One is gone.
    Gone(Work),
    /// The list is whole.
    End,
}

impl Service {
    /// Works until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let events =
            futures::stream::select(self.watch::<Job>(Kind::Job), self.watch::<MpiJob>(Kind::MpiJob));
        let mut events = std::pin::pin!(events.take_until(shutdown.clone().cancelled_owned()));
        let mut board = Board::default();
        let (mut unlisted, mut failed) = (Kind::ALL.to_vec(), false);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some((kind, heard)) => note(&mut board, kind, heard, &mut unlisted),
                    None => return,
                },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            if unlisted.is_empty() {
                let Some(well) = shutdown.run_until_cancelled(self.carry_out(&board)).await else { return };
                failed = !well;
            }
        }
    }

    fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn watch<K>(&self, kind: Kind) -> BoxStream<'static, (Kind, Heard)>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Into<Work> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let jobs: Api<K> = self.api(self.options.namespace.as_deref());
        let numbered = watcher::Config::default().labels(names::ID);
        let events = watcher::watcher(jobs, numbered).backoff(muster_machinery::watch::backoff());
        let heard = move |event: Result<Event<K>, watcher::Error>| {
            let heard = match event {
                Ok(Event::Init) => Heard::Begin,
                Ok(Event::InitDone) => Heard::End,
                Ok(Event::InitApply(job) | Event::Apply(job)) => Heard::Is(job.into()),
                Ok(Event::Delete(job)) => Heard::Gone(job.into()),
                // A cluster without the kind has none of it.
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                    Heard::End
                }
                Err(error) => {
                    tracing::debug!(%error, ?kind, "watch of batch jobs broke, starting again");
                    return std::future::ready(None);
                }
            };
            std::future::ready(Some((kind, heard)))
        };
        events.filter_map(heard).boxed()
    }

    /// Returns whether everything went well.
    async fn carry_out(&self, board: &Board) -> bool {
        let mut well = true;
        for (place, version, decision) in board.decisions() {
            match self.patch(&place, &patch(place.kind, version.as_deref(), &decision)).await {
                Ok(()) => tracing::info!(place.namespace, place.name, ?decision, "batch job"),
                // The watch shows what somebody else did.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    tracing::debug!(place.namespace, place.name, %error, "batch job not changed, trying again");
                    well = false;
                }
            }
        }
        well
    }

    async fn patch(&self, place: &Place, patch: &Value) -> Result<(), kube::Error> {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let (namespace, patch) = (Some(place.namespace.as_str()), Patch::Merge(patch));
        match place.kind {
            Kind::Job => self.api::<Job>(namespace).patch(&place.name, &parameters, &patch).await.map(drop),
            Kind::MpiJob => {
                self.api::<MpiJob>(namespace).patch(&place.name, &parameters, &patch).await.map(drop)
            }
        }
    }
}

/// Enters what was heard; `unlisted` are the kinds of which not all is known.
fn note(board: &mut Board, kind: Kind, heard: Heard, unlisted: &mut Vec<Kind>) {
    match heard {
        Heard::Begin => {
            board.clear(kind);
            unlisted.push(kind);
        }
        Heard::Is(work) => board.note(&work),
        Heard::Gone(work) => board.forget(&work),
        Heard::End => {
            unlisted.retain(|other| *other != kind);
            if unlisted.is_empty() {
                board.listed();
            }
        }
    }
}

/// What carries a decision out, if the job is still as it was seen.
fn patch(kind: Kind, version: Option<&str>, decision: &Decision) -> Value {
    let (annotations, run) = match decision {
        Decision::Start => {
            (json!({ names::DEPENDENCY: null, names::REASON: null }), json!({ "suspend": false }))
        }
        Decision::Forget => (json!({ names::DEPENDENCY: null, names::REASON: null }), json!({})),
        Decision::Narrow(left) => {
            (json!({ names::DEPENDENCY: left.to_string(), names::REASON: null }), json!({}))
        }
        Decision::Never(reason) => (json!({ names::REASON: reason }), json!({})),
        // It fails at once without having started, so that those who wait for it learn of that.
        Decision::Cancel(reason) => (
            json!({ names::DEPENDENCY: null, names::REASON: reason, names::CANCELLED: "dependency" }),
            json!({ "activeDeadlineSeconds": 0, "suspend": false }),
        ),
        Decision::Restart => (json!({ names::REQUEUE: null }), json!({ "suspend": false })),
    };
    kind.patch(version, annotations, run)
}
