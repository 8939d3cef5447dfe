//! The watches that the controllers share.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, Client};
use muster_machinery::CancellationToken;
use tokio::task::JoinSet;

use crate::informer::{Informer, Object};
use crate::monitor::Monitor;

/// One informer per kind.
pub(crate) struct Informers {
    pub pods: Arc<Informer<Pod>>,
    pub services: Arc<Informer<Service>>,
    pub slices: Arc<Informer<EndpointSlice>>,
    pub endpoints: Arc<Informer<Endpoints>>,
    pub namespaces: Arc<Informer<Namespace>>,
    pub accounts: Arc<Informer<ServiceAccount>>,
    pub jobs: Arc<Informer<Job>>,
    pub deployments: Arc<Informer<Deployment>>,
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    pub daemon_sets: Arc<Informer<DaemonSet>>,
    pub revisions: Arc<Informer<ControllerRevision>>,
    pub cron_jobs: Arc<Informer<CronJob>>,
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    pub volumes: Arc<Informer<PersistentVolume>>,
    pub classes: Arc<Informer<StorageClass>>,
    pub nodes: Arc<Informer<Node>>,
    pub leases: Arc<Informer<Lease>>,
    pub resource_claims: Arc<Informer<ResourceClaim>>,
    pub resource_claim_templates: Arc<Informer<ResourceClaimTemplate>>,
    pub autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
}

/// Kinds that are kept whole.
macro_rules! whole {
    ($($kind:ty),* $(,)?) => { $(impl Object for $kind {})* };
}

whole! {
    ControllerRevision, CronJob, DaemonSet, Deployment, EndpointSlice, Endpoints, HorizontalPodAutoscaler, Job, Lease,
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, ReplicaSet, ResourceClaim, ResourceClaimTemplate, Service,
    ServiceAccount, StatefulSet, StorageClass,
}

fn new<K: Object>() -> Arc<Informer<K>> {
    Arc::new(Informer::new())
}

impl Informers {
    pub(crate) fn new() -> Self {
        Self {
            pods: new(),
            services: new(),
            slices: new(),
            endpoints: new(),
            namespaces: new(),
            accounts: new(),
            jobs: new(),
            deployments: new(),
            replica_sets: new(),
            stateful_sets: new(),
            daemon_sets: new(),
            revisions: new(),
            cron_jobs: new(),
            claims: new(),
            volumes: new(),
            classes: new(),
            nodes: new(),
            leases: new(),
            resource_claims: new(),
            resource_claim_templates: new(),
            autoscalers: new(),
        }
    }

    /// Lets the monitor of all metadata learn from these watches.
    pub(crate) fn feed(&self, monitor: &Arc<Monitor>) {
        monitor.cover(&self.pods, true);
        monitor.cover(&self.services, true);
        monitor.cover(&self.slices, true);
        monitor.cover(&self.endpoints, true);
        monitor.cover(&self.namespaces, false);
        monitor.cover(&self.accounts, true);
        monitor.cover(&self.jobs, true);
        monitor.cover(&self.deployments, true);
        monitor.cover(&self.replica_sets, true);
        monitor.cover(&self.stateful_sets, true);
        monitor.cover(&self.daemon_sets, true);
        monitor.cover(&self.revisions, true);
        monitor.cover(&self.cron_jobs, true);
        monitor.cover(&self.claims, true);
        monitor.cover(&self.volumes, false);
        monitor.cover(&self.classes, false);
        monitor.cover(&self.nodes, false);
        monitor.cover(&self.leases, true);
        monitor.cover(&self.resource_claims, true);
        monitor.cover(&self.resource_claim_templates, true);
        monitor.cover(&self.autoscalers, true);
    }

    /// Starts the watches.
    pub(crate) fn start(&self, client: &Client, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
        fn run<K: Object>(
            informer: &Arc<Informer<K>>,
            client: &Client,
            tasks: &mut JoinSet<()>,
            shutdown: &CancellationToken,
        ) {
            let api = Api::all_with(client.clone(), &());
            tasks.spawn(informer.clone().run(api, shutdown.clone()));
        }
        run(&self.pods, client, tasks, shutdown);
        run(&self.services, client, tasks, shutdown);
        run(&self.slices, client, tasks, shutdown);
        run(&self.endpoints, client, tasks, shutdown);
        run(&self.namespaces, client, tasks, shutdown);
        run(&self.accounts, client, tasks, shutdown);
        run(&self.jobs, client, tasks, shutdown);
        run(&self.deployments, client, tasks, shutdown);
        run(&self.replica_sets, client, tasks, shutdown);
        run(&self.stateful_sets, client, tasks, shutdown);
        run(&self.daemon_sets, client, tasks, shutdown);
        run(&self.revisions, client, tasks, shutdown);
        run(&self.cron_jobs, client, tasks, shutdown);
        run(&self.claims, client, tasks, shutdown);
        run(&self.volumes, client, tasks, shutdown);
        run(&self.classes, client, tasks, shutdown);
        run(&self.nodes, client, tasks, shutdown);
        run(&self.leases, client, tasks, shutdown);
        run(&self.resource_claims, client, tasks, shutdown);
        run(&self.resource_claim_templates, client, tasks, shutdown);
        run(&self.autoscalers, client, tasks, shutdown);
    }

    /// Waits until every cache holds its first list.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.pods.synced(),
            self.services.synced(),
            self.slices.synced(),
            self.endpoints.synced(),
            self.namespaces.synced(),
            self.accounts.synced(),
            self.jobs.synced(),
            self.deployments.synced(),
            self.replica_sets.synced(),
            self.stateful_sets.synced(),
            self.daemon_sets.synced(),
            self.revisions.synced(),
            self.cron_jobs.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.classes.synced(),
            self.nodes.synced(),
            self.leases.synced(),
            self.resource_claims.synced(),
            self.resource_claim_templates.synced(),
            self.autoscalers.synced(),
        );
    }
}
