//! Starts batch jobs when what they wait for has come, long after the command that submitted them has ended.
//!
//! [`Options`] → [`Service::run`]. It watches the Jobs with a number, lets the [`Board`] of `muster-batch-core` decide
//! and carries that out with the version it was decided for, so that it may be stopped between any two requests and run
//! twice.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use muster_batch_core::board::Decision;
use muster_batch_core::{Board, names};
use muster_machinery::CancellationToken;
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

impl Service {
    /// Works until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let jobs: Api<Job> = match &self.options.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let numbered = watcher::Config::default().labels(names::ID);
        let events = watcher::watcher(jobs, numbered).backoff(muster_machinery::watch::backoff());
        let mut events = std::pin::pin!(events.take_until(shutdown.clone().cancelled_owned()));
        let mut board = Board::default();
        let (mut listed, mut failed) = (false, false);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => listed = note(&mut board, event, listed),
                    Some(Err(error)) => tracing::debug!(%error, "watch of batch jobs broke, starting again"),
                    None => return,
                },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            if listed {
                let Some(well) = shutdown.run_until_cancelled(self.carry_out(&board)).await else { return };
                failed = !well;
            }
        }
    }

    /// Returns whether everything went well.
    async fn carry_out(&self, board: &Board) -> bool {
        let mut well = true;
        for ((namespace, name), version, decision) in board.decisions() {
            let jobs: Api<Job> = Api::namespaced(self.client.clone(), &namespace);
            let parameters =
                PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let patch = Patch::Merge(patch(version, &decision));
            match jobs.patch(&name, &parameters, &patch).await {
                Ok(_) => tracing::info!(namespace, name, ?decision, "batch job"),
                // The watch shows what somebody else did.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    tracing::debug!(namespace, name, %error, "batch job not changed, trying again");
                    well = false;
                }
            }
        }
        well
    }
}

/// Enters an event; returns whether the board is whole.
fn note(board: &mut Board, event: Event<Job>, listed: bool) -> bool {
    match event {
        Event::Init => {
            board.clear();
            return false;
        }
        Event::InitDone => return true,
        Event::InitApply(job) | Event::Apply(job) => board.note(&job),
        Event::Delete(job) => board.forget(&job),
    }
    listed
}

/// What carries a decision out, if the job is still as it was seen.
fn patch(version: Option<String>, decision: &Decision) -> Value {
    let metadata = |annotations: Value| json!({ "resourceVersion": version, "annotations": annotations });
    match decision {
        Decision::Start => json!({
            "metadata": metadata(json!({ names::DEPENDENCY: null, names::REASON: null })),
            "spec": { "suspend": false },
        }),
        Decision::Forget => {
            json!({ "metadata": metadata(json!({ names::DEPENDENCY: null, names::REASON: null })) })
        }
        Decision::Never(reason) => json!({ "metadata": metadata(json!({ names::REASON: reason })) }),
        Decision::Restart => json!({
            "metadata": metadata(json!({ names::REQUEUE: null })), "spec": { "suspend": false },
        }),
    }
}
