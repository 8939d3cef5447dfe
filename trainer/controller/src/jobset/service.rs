//! The service that runs the reconciler.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service as KubeService;
use kube::Client;
use kube::runtime::controller::Config;
use kube::runtime::events::Reporter;
use kube::runtime::{applier, watcher};
use muster_machinery::CancellationToken;
use muster_trainer_api::jobset::{JobSet, label};
use muster_trainer_core::GangScheduler;

use super::reconcile::{Context, reconcile, retry};
use crate::events::Recorder;
use crate::expectations::Expectations;
use crate::owned;

/// How the JobSet controller runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The one namespace to look at; all of them when absent.
    pub namespace: Option<String>,
    /// Who places the pods of a set: `muster`, or nothing that this controller helps.
    pub gang_scheduler_name: String,
    /// How many sets are reconciled at the same time.
    pub threads: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { namespace: None, gang_scheduler_name: String::new(), threads: 8 }
    }
}

impl Options {
    /// The service with these options, not yet running.
    pub fn build(self, client: Client) -> Service {
        Service { options: self, client }
    }
}

/// The JobSet controller.
pub struct Service {
    options: Options,
    client: Client,
}

impl Service {
    /// Reconciles until the shutdown is requested. Requests under way are dropped; the next run goes on from
    /// what it then sees.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(Box::pin(self.reconcile_all(&shutdown))).await;
    }

    async fn reconcile_all(&self, shutdown: &CancellationToken) {
        let namespace = self.options.namespace.as_deref();
        let sets = owned::in_scope::<JobSet>(&self.client, namespace);
        if !owned::until_served(&sets, "the embedded API server has it from the start", shutdown).await {
            return;
        }
        let children = watcher::Config::default().labels(label::JOBSET_NAME);
        let (sets, set_changes) = owned::cache(sets, watcher::Config::default());
        let (jobs, job_changes) =
            owned::cache(owned::in_scope::<Job>(&self.client, namespace), children.clone());
        let (services, service_changes) =
            owned::cache(owned::in_scope::<KubeService>(&self.client, namespace), children);
        let triggers = futures::stream::select_all([
            owned::themselves(set_changes),
            owned::owners(job_changes),
            owned::owners(service_changes),
        ]);
        let reporter = Reporter { controller: "jobset-controller".to_owned(), instance: None };
        let context = Arc::new(Context {
            client: self.client.clone(),
            scheduler: GangScheduler::from(self.options.gang_scheduler_name.as_str()),
            jobs,
            services,
            recorder: Recorder::new(self.client.clone(), reporter),
            expectations: Expectations::default(),
        });
        let config = Config::default().concurrency(self.options.threads);
        let outcomes = applier(
            |set, context| Box::pin(reconcile(set, context)),
            retry,
            context.clone(),
            sets.clone(),
            triggers,
            config,
        );
        outcomes
            .for_each(|outcome| {
                owned::report(&sets, &context.expectations, outcome);
                futures::future::ready(())
            })
            .await;
    }
}
