//! The data of `MPIJob`, and what it shares with the rules of other kinds.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Container, EnvVar};
use muster_trainer_api::{ReplicaSpec, RestartPolicy};

use crate::job::{Job, Replica, RestartScope};
use crate::kind::{Framework, InitContainer, Kind, Progress, ReplicaCounts, ReplicaType};
use crate::validation::FieldError;

pub(super) const LAUNCHER: &str = "Launcher";
pub(super) const WORKER: &str = "Worker";

/// The data of `MPIJob`.
pub static KIND: Kind = Kind {
    name: "MPIJob",
    plural: "mpijobs",
    operator_name: "mpi-operator",
    framework_label: "mpi",
    replica_specs: "mpiReplicaSpecs",
    replica_types: &[
        ReplicaType { name: LAUNCHER, exactly: Some(1) },
        ReplicaType { name: WORKER, exactly: None },
    ],
    container: "mpi",
    port_name: "mpi-port",
    port: 9999,
    restart_policy: RestartPolicy::Never,
};

/// What gangs and the status ask of a job's kind; the rest of an MPI job has rules of its own.
#[derive(Debug)]
pub(super) struct Mpi;

impl Framework for Mpi {
    fn validate(&self, _: &BTreeMap<&'static str, ReplicaSpec>, _: &mut Vec<FieldError>) {}

    fn restart_scope(&self) -> RestartScope {
        RestartScope::Gang
    }

    fn elastic_bounds(&self, _: &Job) -> Option<(i32, i32)> {
        None
    }

    fn leads(&self, _: &Job, replica: &Replica, _: i32) -> bool {
        replica.type_.name == LAUNCHER
    }

    /// The launcher comes first, where it takes part and where it does not.
    fn rank(&self, _: &Job, replica: &Replica, index: i32) -> i32 {
        if replica.type_.name == LAUNCHER { 0 } else { index + 1 }
    }

    fn environment(&self, _: &Job, _: &Replica, _: i32) -> Vec<EnvVar> {
        Vec::new()
    }

    fn init_containers(&self, _: &Job, _: &Replica, _: &InitContainer) -> Vec<Container> {
        Vec::new()
    }

    fn progress(&self, _: &Job, counts: &BTreeMap<&'static str, ReplicaCounts>) -> Progress {
        let count = |type_| counts.get(type_).copied().unwrap_or_default();
        let (launcher, worker) = (count(LAUNCHER), count(WORKER));
        if launcher.active > 0 && worker.active >= worker.wanted {
            Progress::Running
        } else {
            Progress::Waiting
        }
    }

    fn autoscaler(&self, _: &Job) -> Option<HorizontalPodAutoscaler> {
        None
    }
}
