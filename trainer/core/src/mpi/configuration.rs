//! The job's ConfigMap: which hosts there are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, KeyToPath, PodSpec, Volume, VolumeMount};

use super::job::{Implementation, MpiJob};

/// Where the launcher has it.
pub(super) const FOLDER: &str = "/etc/mpi";
const VOLUME: &str = "mpi-job-config";
const HOSTFILE: &str = "hostfile";
const DISCOVER_HOSTS: &str = "discover_hosts.sh";

impl MpiJob {
    /// The full name of a pod of the job, as the hostfile has it.
    pub(super) fn host(&self, pod: &str, cluster_domain: Option<&str>) -> String {
        let host = format!("{pod}.{}.{}.svc", self.job.name(), self.job.namespace());
        match cluster_domain {
            Some(domain) if !domain.is_empty() => format!("{host}.{domain}"),
            _ => host,
        }
    }

    /// The domain in which the job's pods find each other by their bare names.
    pub(super) fn search_domain(&self, cluster_domain: Option<&str>) -> String {
        let domain = cluster_domain.filter(|domain| !domain.is_empty()).unwrap_or("cluster.local");
        format!("{}.{}.svc.{domain}", self.job.name(), self.job.namespace())
    }

    /// The job's ConfigMap; `running` are the indexes of the workers that run, in order.
    pub(super) fn configuration(&self, running: &[i32], cluster_domain: Option<&str>) -> ConfigMap {
        let launcher = self.launcher_is_worker.then(|| self.launcher_name());
        let pods = launcher.iter().cloned().chain((0..self.workers()).map(|index| self.worker_name(index)));
        let slots = self.slots_per_worker;
        let mut hostfile = String::new();
        for pod in pods {
            let host = self.host(&pod, cluster_domain);
            let _ = match self.implementation {
                Implementation::OpenMpi => writeln!(hostfile, "{host} slots={slots}"),
                Implementation::Intel | Implementation::Mpich => writeln!(hostfile, "{host}:{slots}"),
            };
        }
        let mut script = "#!/bin/sh\n".to_owned();
        for pod in launcher.into_iter().chain(running.iter().map(|index| self.worker_name(*index))) {
            let _ = writeln!(script, "echo {}", self.host(&pod, cluster_domain));
        }
        ConfigMap {
            metadata: self.metadata(self.configuration_name(), self.labels()),
            data: Some(BTreeMap::from([
                (HOSTFILE.to_owned(), hostfile),
                (DISCOVER_HOSTS.to_owned(), script),
            ])),
            ..ConfigMap::default()
        }
    }

    /// Shows the ConfigMap to the main container of a pod.
    pub(super) fn mount_configuration(&self, spec: &mut PodSpec, main: usize) {
        let item =
            |key: &str, mode| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: Some(mode) };
        spec.volumes.get_or_insert_default().push(Volume {
            name: VOLUME.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: self.configuration_name(),
                items: Some(vec![item(HOSTFILE, 0o444), item(DISCOVER_HOSTS, 0o555)]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        });
        if let Some(container) = spec.containers.get_mut(main) {
            container.volume_mounts.get_or_insert_default().push(mount());
        }
    }
}

/// Where the hosts are, in a container.
pub(super) fn mount() -> VolumeMount {
    VolumeMount { name: VOLUME.to_owned(), mount_path: FOLDER.to_owned(), ..VolumeMount::default() }
}
