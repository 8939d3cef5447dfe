//! SSH between the pods of a job: one pair of keys, which all of them have.

use k8s_openapi::api::core::v1::{KeyToPath, PodSpec, SecretVolumeSource, Volume, VolumeMount};

use super::framework::WORKER;
use super::job::{MpiJob, RemoteShell};
use crate::companion::Companion;

const VOLUME: &str = "ssh-auth";
const ROOTS_FOLDER: &str = "/root/.ssh";
/// What workers run that name no command.
pub(super) const SERVER: [&str; 2] = ["/usr/sbin/sshd", "-De"];
const PORT: i32 = 22;

impl MpiJob {
    /// The Secret with the keys, where the job needs them.
    pub(super) fn ssh_keys(&self) -> Option<Companion> {
        let needed = self.remote_shell == RemoteShell::Sshd;
        needed.then(|| Companion::SshKeys(self.metadata(self.ssh_name(), self.labels())))
    }

    /// Shows the keys to the main container of a pod.
    pub(super) fn mount_keys(&self, spec: &mut PodSpec, main: usize) {
        if self.remote_shell != RemoteShell::Sshd {
            return;
        }
        let item =
            |key: &str, path: &str| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None };
        let secret = SecretVolumeSource {
            secret_name: Some(self.ssh_name()),
            // SSH heeds no key of root's that others may read; other users' images copy them.
            default_mode: (self.ssh_folder == ROOTS_FOLDER).then_some(0o600),
            items: Some(vec![
                item("ssh-privatekey", "id_rsa"),
                item("ssh-publickey", "id_rsa.pub"),
                item("ssh-publickey", "authorized_keys"),
            ]),
            ..SecretVolumeSource::default()
        };
        spec.volumes.get_or_insert_default().push(Volume {
            name: VOLUME.to_owned(),
            secret: Some(secret),
            ..Volume::default()
        });
        if let Some(container) = spec.containers.get_mut(main) {
            container.volume_mounts.get_or_insert_default().push(VolumeMount {
                name: VOLUME.to_owned(),
                mount_path: self.ssh_folder.clone(),
                ..VolumeMount::default()
            });
        }
    }

    /// The port on which the workers' SSH server can be expected to answer, if their template tells: that of its
    /// readiness probe, a port named `ssh`, or SSH's own where the server is started without a command.
    pub(super) fn ssh_port(&self) -> Option<i32> {
        use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
        if self.remote_shell != RemoteShell::Sshd {
            return None;
        }
        let worker = self.job.replica(WORKER)?;
        let container =
            worker.template.spec.as_ref()?.containers.get(self.main_container(&worker.template))?;
        let probe = container.readiness_probe.as_ref().and_then(|probe| probe.tcp_socket.as_ref());
        let ports = container.ports.iter().flatten();
        let named = ports.into_iter().find(|port| port.name.as_deref() == Some("ssh"));
        match (probe.map(|socket| &socket.port), named) {
            (Some(IntOrString::Int(port)), _) => Some(*port),
            (_, Some(port)) => Some(port.container_port),
            _ => super::worker::starts_nothing(container).then_some(PORT),
        }
    }
}
