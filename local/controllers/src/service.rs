//! `Options` → [`Service`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use muster_machinery::CancellationToken;
use muster_machinery::clock::{Clock, SystemClock};
use tokio::task::JoinSet;

use crate::autoscaler::Autoscalers;
use crate::catalogue::Catalogue;
use crate::cron_job::CronJobs;
use crate::daemon_set::DaemonSets;
use crate::deployment::Deployments;
use crate::endpoint_slice::EndpointSlices;
use crate::endpoints::Endpoints;
use crate::events;
use crate::garbage::Garbage;
use crate::informers::Informers;
use crate::job::Jobs;
use crate::monitor::Monitor;
use crate::namespace::Namespaces;
use crate::node_lifecycle::NodeLifecycle;
use crate::replica_set::ReplicaSets;
use crate::resource_claim::ResourceClaims;
use crate::stateful_set::StatefulSets;
use crate::volume::Volumes;
use crate::worker::{Reconcile, work};

/// How long the agent of a node may be silent, as in Kubernetes.
const NODE_GRACE: Duration = Duration::from_secs(40);

/// Time between two looks of an autoscaler, as in Kubernetes.
const AUTOSCALER_PERIOD: Duration = Duration::from_secs(15);

/// Why the controllers ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A part of them broke.
    #[error("a controller broke, which is a bug: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// How to run the controllers.
#[derive(Clone)]
pub struct Options {
    /// Reaches the API server as an administrator.
    pub client: Client,
    /// Folder under which claims get their folders, as `NAMESPACE/CLAIM`.
    pub volumes_dir: PathBuf,
    /// After how long without a renewal of its Lease a node becomes Unknown; 40 s unless changed.
    pub node_grace: Duration,
    /// What cron jobs and autoscalers go by; the machine's clock unless changed.
    pub clock: Arc<dyn Clock>,
    /// Time between two looks of a horizontal pod autoscaler; 15 s unless changed.
    pub autoscaler_period: Duration,
}

impl Options {
    /// Controllers that make folders under `volumes_dir`.
    pub fn new(client: Client, volumes_dir: impl Into<PathBuf>) -> Self {
        Self {
            client,
            volumes_dir: volumes_dir.into(),
            node_grace: NODE_GRACE,
            clock: Arc::new(SystemClock),
            autoscaler_period: AUTOSCALER_PERIOD,
        }
    }

    /// Prepares the controllers; they start with [`Service::run`].
    pub fn build(self) -> Service {
        Service { options: self }
    }
}

/// Controllers that are ready to run.
pub struct Service {
    options: Options,
}

impl Service {
    /// Runs every controller until the shutdown. They keep nothing but caches and may be stopped at any point.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServiceError> {
        let Options { client, volumes_dir, node_grace, clock, autoscaler_period } = self.options;
        let informers = Informers::new();
        let catalogue = Arc::new(Catalogue::new(client.clone()));
        let monitor = Monitor::new(client.clone(), catalogue.clone());
        let (recorder, notebook) = events::recorder(client.clone());
        informers.feed(&monitor);
        let garbage = Garbage::new(client.clone(), catalogue.clone(), &monitor);
        let namespaces = Namespaces::new(client.clone(), catalogue.clone(), &informers, &monitor);
        let slices = EndpointSlices::new(client.clone(), &informers);
        let endpoints = Endpoints::new(client.clone(), &informers);
        let jobs = Jobs::new(client.clone(), &informers, recorder.clone());
        let sets = ReplicaSets::new(client.clone(), &informers, recorder.clone());
        let deployments = Deployments::new(client.clone(), &informers, recorder.clone());
        let stateful = StatefulSets::new(client.clone(), &informers, recorder.clone());
        let daemons = DaemonSets::new(client.clone(), &informers, recorder.clone());
        let crons = CronJobs::new(client.clone(), &informers, recorder.clone(), clock.clone());
        let autoscalers = Autoscalers::new(
            client.clone(),
            &informers,
            catalogue,
            recorder.clone(),
            clock,
            autoscaler_period,
        );
        let devices = ResourceClaims::new(client.clone(), &informers, recorder.clone());
        let nodes = NodeLifecycle::new(client.clone(), &informers, recorder, node_grace);
        let volumes = Volumes::new(client.clone(), &informers, volumes_dir);

        let mut tasks = JoinSet::new();
        informers.start(&client, &mut tasks, &shutdown);
        tasks.spawn(monitor.run(shutdown.clone()));
        tasks.spawn(notebook.run(shutdown.clone()));
        if shutdown.run_until_cancelled(informers.synced()).await.is_some() {
            if let Err(error) = volumes.furnish().await {
                tracing::warn!(%error, "cannot create the default storage class; claims without a class will wait");
            }
            start(garbage, 8, &mut tasks, &shutdown);
            start(namespaces, 2, &mut tasks, &shutdown);
            start(slices, 4, &mut tasks, &shutdown);
            start(endpoints, 1, &mut tasks, &shutdown);
            start(volumes, 2, &mut tasks, &shutdown);
            start(jobs, 4, &mut tasks, &shutdown);
            start(sets, 4, &mut tasks, &shutdown);
            start(deployments, 4, &mut tasks, &shutdown);
            start(stateful, 4, &mut tasks, &shutdown);
            start(daemons, 2, &mut tasks, &shutdown);
            start(crons, 2, &mut tasks, &shutdown);
            start(autoscalers, 4, &mut tasks, &shutdown);
            start(devices, 4, &mut tasks, &shutdown);
            start(nodes, 1, &mut tasks, &shutdown);
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

fn start<R: Reconcile>(
    controller: Arc<R>,
    workers: usize,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) {
    tasks.spawn(work(controller, workers, shutdown.clone()));
}
