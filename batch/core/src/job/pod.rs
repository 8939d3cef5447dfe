//! The pods of a job.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Container, EmptyDirVolumeSource, HostPathVolumeSource, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PodTemplateSpec, ResourceRequirements, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Request;

/// What starts the script in the pod; it is a program of `sh`, so that the image needs nothing of Muster.
const START: &str = include_str!("../start.sh");
/// Time between the signal to end and the kill, in seconds, as Slurm's `KillWait`.
const GRACE_SECONDS: i64 = 30;
/// The label of a node that names the model of its GPUs.
pub const GPU_MODEL: &str = "nvidia.com/gpu.product";
const GPU: &str = "nvidia.com/gpu";
/// The container of the script.
pub const SCRIPT: &str = "batch";
/// A volume that nobody writes to: it is as old as the pod, whose time limit counts from then.
const MARK: &str = "started";
/// Where it is in the pod.
pub(super) const MARK_FOLDER: &str = "/run/muster-started";

impl Request {
    /// A template with these pods.
    pub(super) fn template(&self, id: u64, pod: PodSpec) -> PodTemplateSpec {
        let metadata = ObjectMeta { labels: Some(self.labels(id)), ..ObjectMeta::default() };
        PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) }
    }

    /// The pod that runs the script, on the only node of the job.
    pub(super) fn script_pod(&self, id: u64) -> PodSpec {
        let mut pod = self.pod(self.script(id));
        self.reserve(&mut pod);
        pod
    }

    /// A pod around a container, without resources of its own.
    pub(super) fn pod(&self, mut container: Container) -> PodSpec {
        let folders = || (0..).zip(&self.folders).map(|(number, path)| (format!("folder-{number}"), path));
        let mounts = folders().map(|(name, path)| VolumeMount {
            name,
            mount_path: path.clone(),
            ..VolumeMount::default()
        });
        container.volume_mounts.get_or_insert_default().extend(mounts);
        let mark = Volume {
            name: MARK.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        };
        let folders = folders().map(|(name, path)| Volume {
            name,
            host_path: Some(HostPathVolumeSource { path: path.clone(), type_: Some("Directory".to_owned()) }),
            ..Volume::default()
        });
        PodSpec {
            volumes: Some([mark].into_iter().chain(folders).collect()),
            containers: vec![container],
            restart_policy: Some("Never".to_owned()),
            // Of the pod, not the job: the time that a job waits for its turn does not count.
            active_deadline_seconds: self.time.map(i64::from),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            ..PodSpec::default()
        }
    }

    /// The container that runs the script.
    pub(super) fn script(&self, id: u64) -> Container {
        let command = ["/bin/sh", "-c", START, "muster-batch", &self.script].map(literal);
        let mark = VolumeMount {
            name: MARK.to_owned(),
            mount_path: MARK_FOLDER.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        Container {
            name: SCRIPT.to_owned(),
            image: Some(self.image.clone()),
            command: Some(
                command.into_iter().chain(self.arguments.iter().map(|text| literal(text))).collect(),
            ),
            working_dir: self.folder.clone(),
            env: Some(self.variables_of_script(id)),
            volume_mounts: Some(vec![mark]),
            ..Container::default()
        }
    }

    /// Gives a pod what each node of the job has.
    pub(super) fn reserve(&self, pod: &mut PodSpec) {
        let quantity = |text: String| Quantity(text);
        let cpu = ("cpu".to_owned(), quantity(self.cpus_on_node().to_string()));
        let memory = self.memory.iter().map(|memory| ("memory".to_owned(), quantity(memory.clone())));
        let gpus = (self.gpus > 0).then(|| (GPU.to_owned(), quantity(self.gpus.to_string())));
        let limits: BTreeMap<String, Quantity> = memory.clone().chain(gpus.clone()).collect();
        if let Some(container) = pod.containers.first_mut() {
            container.resources = Some(ResourceRequirements {
                requests: Some([cpu].into_iter().chain(memory).chain(gpus).collect()),
                limits: Some(limits).filter(|limits| !limits.is_empty()),
                ..ResourceRequirements::default()
            });
        }
        if !self.gpu_models.is_empty() {
            pod.affinity = Some(of_models(&self.gpu_models));
        }
    }

    /// Cores of the job on each node.
    pub(super) fn cpus_on_node(&self) -> u32 {
        self.layout.most() * self.cpus_per_task
    }
}

/// Only nodes with GPUs of these models.
fn of_models(models: &[String]) -> Affinity {
    let models = NodeSelectorRequirement {
        key: GPU_MODEL.to_owned(),
        operator: "In".to_owned(),
        values: Some(models.to_vec()),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![models]), ..NodeSelectorTerm::default() };
    Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// Text in which Kubernetes expands nothing: two of its signs stand for one.
pub(super) fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
