//! A job over several nodes: an `MPIJob` whose workers are the nodes, and whose launcher runs the script.
//!
//! It is written as `v1`, whose objects go with their job when it has been over for long enough, and starts processes by
//! Muster's own agent, so that an image needs no SSH. `start.sh` says the hosts to Open MPI, MPICH and Intel MPI alike.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use muster_trainer_api::{
    CleanPodPolicy, MpiJob, MpiJobSpec, ReplicaSpec, RestartPolicy, RunPolicy, SchedulingPolicy, annotation,
};

use super::{KEPT_SECONDS, Request};
use crate::names;

/// The container of a node.
const NODE: &str = "node";

impl Request {
    pub(super) fn mpi_job(&self, id: u64) -> MpiJob {
        // It costs next to nothing: what the script computes, it computes on the nodes.
        let launcher = self.pod(self.script(id));
        let mut node = self.pod(Container {
            name: NODE.to_owned(),
            image: Some(self.image.clone()),
            working_dir: self.folder.clone(),
            env: Some(self.variables_of_node(id)),
            ..Container::default()
        });
        self.reserve(&mut node);
        // The nodes are there as long as the script runs, which has the time limit.
        node.active_deadline_seconds = None;
        node.termination_grace_period_seconds = Some(1);
        let count = |number: u32| Some(i32::try_from(number).unwrap_or(i32::MAX));
        let replica = |replicas: u32, pod| ReplicaSpec {
            replicas: count(replicas),
            template: self.template(id, pod),
            restart_policy: Some(RestartPolicy::Never),
        };
        let spec = MpiJobSpec {
            run_policy: RunPolicy {
                // The script's own failure is not tried again.
                backoff_limit: Some(0),
                clean_pod_policy: Some(CleanPodPolicy::Running),
                ttl_seconds_after_finished: Some(KEPT_SECONDS),
                suspend: self.waits().then_some(true),
                scheduling_policy: self
                    .queue
                    .clone()
                    .map(|queue| SchedulingPolicy { queue: Some(queue), ..SchedulingPolicy::default() }),
                ..RunPolicy::default()
            },
            mpi_replica_specs: BTreeMap::from([
                ("Launcher".to_owned(), replica(1, launcher)),
                ("Worker".to_owned(), replica(self.layout.nodes(), node)),
            ]),
            slots_per_worker: count(self.layout.most()),
            main_container: None,
            ..MpiJobSpec::default()
        };
        let mut job = MpiJob::new(&names::job_name(id), spec);
        job.metadata = self.metadata(id);
        let annotations = job.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::REMOTE_SHELL.to_owned(), "agent".to_owned());
        if self.requeue {
            annotations.insert(annotation::REQUEUE.to_owned(), "true".to_owned());
        }
        job
    }

    /// The names of the nodes, by which they find each other.
    pub(super) fn node_names(&self, id: u64) -> Vec<String> {
        let job = names::job_name(id);
        (0..self.layout.nodes()).map(|node| format!("{job}-worker-{node}")).collect()
    }
}
