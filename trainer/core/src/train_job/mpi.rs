//! What an MPI program needs: the hosts, the keys, and the variables of Open MPI.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, EnvVar, KeyToPath, PodSpec, SecretVolumeSource, Volume,
    VolumeMount,
};
use muster_trainer_api::jobset::ReplicatedJob;
use muster_trainer_api::train_job::names::{LAUNCHER, NODE};
use muster_trainer_api::train_job::{Mpi, annotation};

use super::env;
use super::render::{Draft, container, is_trainer, metadata, pods, set_pods};
use crate::jobset;
use crate::mpi::environment::SSH_OPTIONS;

const HOSTFILE_FOLDER: &str = "/etc/mpi";
const HOSTFILE: &str = "hostfile";
const HOSTFILE_VOLUME: &str = "mpi-hostfile";
const ROOTS_FOLDER: &str = "/root/.ssh";
const SSH_VOLUME: &str = "mpi-ssh-auth";

/// Name of the `ConfigMap` with the hosts of a job.
pub fn hostfile_name(job: &str) -> String {
    format!("{job}-mpi-hostfile")
}

/// Name of the Secret with the ssh keys of a job.
pub fn ssh_secret_name(job: &str) -> String {
    format!("{job}-mpi-ssh-auth")
}

/// Completes the launcher and the nodes; the hosts.
pub(super) fn complete(draft: &mut Draft<'_>) -> ConfigMap {
    let mpi = draft.policy.mpi.clone().unwrap_or_default();
    let launcher_trains = mpi.run_launcher_as_node.unwrap_or(false);
    let of_job = draft.trainer().num_proc_per_node;
    let slots = of_job.or(mpi.num_proc_per_node).unwrap_or(1);
    let nodes = (draft.nodes - i32::from(launcher_trains)).max(0);
    let hosts = hosts(draft, nodes, slots, launcher_trains);
    let (job, name, trainer) = (draft.job, draft.name().to_owned(), draft.trainer());
    for group in &mut draft.spec.replicated_jobs {
        let is_launcher = is_trainer(group);
        let is_nodes = group.name == NODE;
        if is_launcher {
            set_pods(group, 1);
        } else if is_nodes {
            set_pods(group, nodes);
        } else if slots_of(group) == Ok(None) {
            continue;
        }
        mount_keys(group, &name, &mpi);
        if is_launcher {
            mount_hosts(group, &name);
        }
        let Some(node) = container(group, NODE) else { continue };
        if is_launcher {
            env::set(&mut node.env, &variables(slots));
            if let Some(passed_on) = passed_on(node, &trainer.env) {
                env::set(&mut node.env, &[passed_on]);
            }
        } else {
            // The ranks run here, whatever runs mpirun.
            if let Some(image) = &trainer.image {
                node.image = Some(image.clone());
            }
            // What other workers ask for is what sets them apart.
            if let Some(resources) = trainer.resources_per_node.as_ref().filter(|_| is_nodes) {
                node.resources = Some(resources.clone());
            }
            env::set(&mut node.env, &trainer.env);
        }
    }
    ConfigMap {
        metadata: metadata(job, hostfile_name(&name)),
        data: Some(BTreeMap::from([(HOSTFILE.to_owned(), hosts)])),
        ..ConfigMap::default()
    }
}

/// The hosts of the program, a line each: the launcher where it trains, the nodes, and the runtime's other workers in the
/// order of their groups.
fn hosts(draft: &Draft<'_>, nodes: i32, slots: i32, launcher_trains: bool) -> String {
    let line = |group: &str, job: i32, pod: i32, slots: i32| {
        format!("{} slots={slots}\n", draft.address_in(group, job, pod))
    };
    let mut hosts = String::new();
    if launcher_trains {
        hosts.push_str(&line(LAUNCHER, 0, 0, slots));
    }
    hosts.extend((0..nodes).map(|node| line(NODE, 0, node, slots)));
    for group in draft.spec.replicated_jobs.iter().filter(|group| group.name != NODE && !is_trainer(group)) {
        let Ok(Some(slots)) = slots_of(group) else { continue };
        let jobs = group.replicas.unwrap_or(1);
        let pods = jobset::pods_of(group).checked_div(jobs).unwrap_or(0);
        for job in 0..jobs {
            hosts.extend((0..pods).map(|pod| line(&group.name, job, pod, slots)));
        }
    }
    hosts
}

/// How many processes run in each pod of a further group of workers, if it is one.
///
/// # Errors
/// What it says instead of a number from 1.
pub(super) fn slots_of(group: &ReplicatedJob) -> Result<Option<i32>, &str> {
    let annotations = group.template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let Some(said) = annotations.and_then(|annotations| annotations.get(annotation::MPI_SLOTS)) else {
        return Ok(None);
    };
    let slots = said.parse().ok().filter(|slots| *slots > 0);
    slots.map(Some).ok_or(said)
}

/// For Open MPI 4 (ORTE) and 5 (PRTE), which reads none of the former's.
fn variables(slots: i32) -> Vec<EnvVar> {
    let hostfile = format!("{HOSTFILE_FOLDER}/{HOSTFILE}");
    vec![
        env::value("OMPI_MCA_orte_default_hostfile", &hostfile),
        env::value("OMPI_MCA_orte_keep_fqdn_hostnames", "true"),
        env::value("OMPI_MCA_orte_set_default_slots", slots.to_string()),
        env::value("OMPI_MCA_plm_rsh_args", SSH_OPTIONS),
        env::value("PRTE_MCA_prte_default_hostfile", &hostfile),
        env::value("PRTE_MCA_prte_keep_fqdn_hostnames", "false"),
        env::value("PRTE_MCA_prte_set_default_slots", slots.to_string()),
        env::value("PRTE_MCA_plm_ssh_args", SSH_OPTIONS),
    ]
}

/// Has Open MPI give the ranks the job's variables: a shell that SSH opens has none of its container's.
///
/// Open MPI refuses to be told so in two ways, so a command that says `-x` itself is left alone.
fn passed_on(launcher: &Container, variables: &[EnvVar]) -> Option<EnvVar> {
    let words = launcher.command.iter().chain(&launcher.args).flatten();
    let says_so = words.flat_map(|word| word.split_whitespace()).any(|word| word == "-x");
    let names: Vec<_> = variables.iter().map(|variable| variable.name.as_str()).collect();
    (!says_so && !names.is_empty()).then(|| env::value("OMPI_MCA_mca_base_env_list", names.join(";")))
}

fn mount_keys(group: &mut ReplicatedJob, job: &str, mpi: &Mpi) {
    let item = |key: &str, path: &str| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None };
    let path = mpi.ssh_auth_mount_path.clone().filter(|path| !path.is_empty());
    let path = path.as_deref().unwrap_or(ROOTS_FOLDER);
    let volume = Volume {
        name: SSH_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(ssh_secret_name(job)),
            // SSH heeds no key of root's that others may read; a user's own comes with fsGroup.
            default_mode: (path == ROOTS_FOLDER).then_some(0o600),
            items: Some(vec![
                item("ssh-privatekey", "id_rsa"),
                item("ssh-publickey", "id_rsa.pub"),
                item("ssh-publickey", "authorized_keys"),
            ]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    mount(group, volume, path);
}

fn mount_hosts(group: &mut ReplicatedJob, job: &str) {
    let volume = Volume {
        name: HOSTFILE_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: hostfile_name(job),
            items: Some(vec![KeyToPath {
                key: HOSTFILE.to_owned(),
                path: HOSTFILE.to_owned(),
                mode: Some(0o444),
            }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    mount(group, volume, HOSTFILE_FOLDER);
}

/// Gives the container that trains a volume at a path.
fn mount(group: &mut ReplicatedJob, volume: Volume, path: &str) {
    let name = volume.name.clone();
    let pod: &mut PodSpec = pods(group).spec.get_or_insert_default();
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|other| other.name != name);
    volumes.push(volume);
    let node: Option<&mut Container> = container(group, NODE);
    if let Some(node) = node {
        let mounts = node.volume_mounts.get_or_insert_default();
        mounts.retain(|other| other.name != name);
        mounts.push(VolumeMount { name, mount_path: path.to_owned(), ..VolumeMount::default() });
    }
}
