//! Muster's controllers as roles: in the process of `muster up`, or in processes of their own that elect a leader.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use kube::Client;
use muster_machinery::CancellationToken;
use muster_machinery::leader::{Election, Leadership, Timing};
use muster_scheduler_controller::dashboard;
use muster_scheduler_controller::extender::{self, CertificateFiles, Endpoint};
use muster_scheduler_topology::Topology;
use muster_trainer_core::mpi::{self, AgentSource};

use crate::error::Error;
use crate::output;
use crate::rendezvous::RendezvousOptions;

/// Who decides something in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Training jobs, and batch jobs that wait for others
    Trainer,
    /// Binding of pods, gangs as a whole; and gates of gangs that other schedulers bind
    Scheduler,
    /// Gates of gangs that other schedulers bind, and nothing else
    Gates,
    /// Answers to a kube-scheduler that asks where the pods of gangs go
    Extender,
    /// Garbage collection, namespaces, Job, JobSet, Deployment, EndpointSlice, volumes: only on the embedded API server
    BuiltIn,
}

/// How the roles run.
#[derive(Debug, Clone)]
pub(crate) struct RoleOptions {
    /// The one namespace of the training jobs; all of them when absent.
    pub(crate) namespace: Option<String>,
    /// Who schedules gangs.
    pub(crate) gang_scheduler_name: String,
    /// The domain that training jobs append to the names of services, if any.
    pub(crate) cluster_domain: Option<String>,
    /// Which pods the scheduler binds, by their `schedulerName`.
    pub(crate) scheduler_names: Vec<String>,
    /// Where nodes are, when it is not to be read from the cluster.
    pub(crate) topology: Option<Topology>,
    /// Where volume claims get their folders.
    pub(crate) volumes: PathBuf,
    /// Time between two looks of an autoscaler; Kubernetes' own when absent.
    pub(crate) autoscaler_period: Option<Duration>,
    /// Where the scheduler shows itself to the dashboard.
    pub(crate) dashboard: Option<dashboard::Handle>,
    /// Where ranks of elastic jobs meet, if the trainer offers that.
    pub(crate) rendezvous: Option<RendezvousOptions>,
    /// What is said to MPI jobs alone.
    pub(crate) mpi: mpi::Options,
    /// Where the extender is reached and what it plans.
    pub(crate) extender: ExtenderOptions,
}

/// How the extender runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExtenderOptions {
    /// Its address; any of the loopback when absent.
    pub(crate) listen: Option<SocketAddr>,
    /// Certificate, key and who may call.
    pub(crate) certificates: Option<CertificateFiles>,
    /// kube-scheduler's profiles whose pods it plans.
    pub(crate) scheduler_names: Vec<String>,
    /// The Service to lead kube-scheduler to the leader.
    pub(crate) endpoint: Option<Endpoint>,
}

impl RoleOptions {
    /// For the embedded cluster, where nobody else schedules.
    pub(crate) fn embedded(volumes: PathBuf, rendezvous: Option<RendezvousOptions>) -> Self {
        let names = [muster_scheduler_api::SCHEDULER_NAME, muster_scheduler_api::DEFAULT_SCHEDULER_NAME];
        Self {
            namespace: None,
            gang_scheduler_name: muster_scheduler_api::SCHEDULER_NAME.to_owned(),
            cluster_domain: None,
            scheduler_names: names.map(str::to_owned).to_vec(),
            topology: None,
            volumes,
            autoscaler_period: None,
            dashboard: None,
            rendezvous,
            mpi: mpi::Options { agent: Some(AgentSource::OnPath) },
            extender: ExtenderOptions::default(),
        }
    }
}

/// By what replicas elect a leader.
#[derive(Debug, Clone)]
pub(crate) struct Candidacy {
    /// Namespace of the Leases.
    pub(crate) namespace: String,
    /// This process.
    pub(crate) identity: String,
    /// How long a lease holds.
    pub(crate) timing: Timing,
}

impl Role {
    /// Every role that a cluster of Muster's own has; its scheduler opens gates too.
    pub(crate) const ALL: [Self; 3] = [Self::Trainer, Self::Scheduler, Self::BuiltIn];

    /// Those of the roles that are to run, each once. The scheduler does what the gates' role does.
    pub(crate) fn each_once(wanted: &[Self]) -> Vec<Self> {
        let gates = (!wanted.contains(&Self::Scheduler)).then_some(Self::Gates);
        Self::ALL
            .into_iter()
            .chain(gates)
            .chain([Self::Extender])
            .filter(|role| wanted.contains(role))
            .collect()
    }

    /// The name of its Lease. Each role has its own, so that processes may share the roles out as they like.
    pub(crate) fn lease(self) -> &'static str {
        match self {
            Self::Trainer => "muster-trainer",
            // Whoever plans, plans alone: two ledgers would give the same room away twice.
            Self::Scheduler | Self::Gates | Self::Extender => "muster-scheduler",
            Self::BuiltIn => "muster-built-in",
        }
    }

    /// Works until the shutdown.
    pub(crate) async fn run(
        self,
        options: RoleOptions,
        client: Client,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        match self {
            Self::Trainer => {
                let rendezvous = match options.rendezvous {
                    Some(rendezvous) => Some(rendezvous.open(&client).await?),
                    None => None,
                };
                let batch = muster_batch_controller::Options { namespace: options.namespace.clone() };
                let on_runtimes = muster_trainer_controller::train_job::Options {
                    namespace: options.namespace.clone(),
                    gang_scheduler_name: options.gang_scheduler_name.clone(),
                    status_server: rendezvous.as_ref().and_then(|open| open.status_server.clone()),
                    ..muster_trainer_controller::train_job::Options::default()
                };
                let on_runtimes = on_runtimes.build(client.clone()).run(shutdown.clone());
                let trainer = muster_trainer_controller::Options {
                    namespace: options.namespace,
                    gang_scheduler_name: options.gang_scheduler_name,
                    cluster_domain: options.cluster_domain,
                    rendezvous: rendezvous.as_ref().map(|rendezvous| rendezvous.told.clone()),
                    mpi: options.mpi,
                    ..muster_trainer_controller::Options::default()
                };
                let trainer = trainer.build(client.clone()).run(shutdown.clone());
                let batch = batch.build(client.clone()).run(shutdown.clone());
                let meeting = async {
                    match rendezvous {
                        Some(rendezvous) => rendezvous.run(client, shutdown).await,
                        None => Ok(()),
                    }
                };
                let trainer = async {
                    tokio::join!(trainer, batch, on_runtimes);
                    Ok(())
                };
                // Where one fails the role has failed.
                tokio::try_join!(trainer, meeting).map(|_| ())
            }
            Self::Scheduler | Self::Gates => {
                let names = options.scheduler_names;
                let scheduler_names = if self == Self::Gates { Vec::new() } else { names };
                let scheduler = muster_scheduler_controller::Options {
                    client,
                    scheduler_names,
                    topology: options.topology,
                    dashboard: options.dashboard,
                };
                scheduler.build().run(shutdown).await;
                Ok(())
            }
            Self::Extender => {
                extender(options, client).await?.run(None, shutdown).await;
                Ok(())
            }
            Self::BuiltIn => {
                // Nothing on the embedded API server brings JobSets but this.
                let sets = muster_trainer_controller::jobset::Options {
                    namespace: None,
                    gang_scheduler_name: options.gang_scheduler_name,
                    ..muster_trainer_controller::jobset::Options::default()
                };
                let sets = sets.build(client.clone()).run(shutdown.clone());
                let mut built_in = muster_local_controllers::Options::new(client, options.volumes);
                if let Some(period) = options.autoscaler_period {
                    built_in.autoscaler_period = period;
                }
                let ((), built_in) = tokio::join!(sets, built_in.build().run(shutdown));
                built_in.map_err(|error| Error::from_source("the built-in controllers failed", &error))
            }
        }
    }

    /// Works whenever this process is the role's leader.
    pub(crate) async fn run_elected(
        self,
        options: RoleOptions,
        client: Client,
        candidacy: Candidacy,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let Candidacy { namespace, identity, timing } = candidacy;
        let election = Election { timing, ..Election::new(namespace, self.lease(), identity) };
        if self == Self::Extender {
            // Every replica listens: those that do not lead say so.
            extender(options, client).await?.run(Some(election), shutdown).await;
            return Ok(());
        }
        let work = |Leadership { client, shutdown }: Leadership| self.run(options.clone(), client, shutdown);
        Box::pin(election.lead(client, &shutdown, work)).await.unwrap_or(Ok(()))
    }
}

/// Opens the extender's address.
async fn extender(options: RoleOptions, client: Client) -> Result<extender::Service, Error> {
    let RoleOptions {
        topology,
        extender: ExtenderOptions { listen, certificates, scheduler_names, endpoint },
        ..
    } = options;
    let defaults = extender::Options::new(client);
    let listen = listen.unwrap_or(defaults.listen);
    let service = extender::Options { listen, certificates, scheduler_names, topology, endpoint, ..defaults }
        .build()
        .await
        .map_err(|error| Error::from_source("the extender does not start", &error))?;
    output::note(&format!("the extender listens on {}", service.address()));
    Ok(service)
}
