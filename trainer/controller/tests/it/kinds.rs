//! What holds of every kind, on a cluster that has them all.

use kube::ResourceExt;
use kube::api::{DynamicObject, PostParams};
use muster_trainer_api::{JobStatus, annotation};
use muster_trainer_core::{KINDS, TrainingKind};
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};

/// A job of two pods that restarts after failures, and the names of its pods, the leader's first.
struct Pair {
    training: TrainingKind,
    name: String,
    pods: [String; 2],
}

impl Pair {
    fn of(training: TrainingKind) -> Self {
        let name = format!("pair-{}", training.kind.framework_label);
        let types = Self::types(training);
        let pods = match types.as_slice() {
            [only] => [0, 1].map(|index| format!("{name}-{only}-{index}")),
            types => [0, 1].map(|place| format!("{name}-{}-0", types[place])),
        };
        Self { training, pods: pods.map(|pod| pod.to_lowercase()), name }
    }

    fn types(training: TrainingKind) -> Vec<&'static str> {
        match training.kind.name {
            "JAXJob" => vec!["Worker"],
            "TFJob" => vec!["Chief", "Worker"],
            _ => vec!["Master", "Worker"],
        }
    }

    fn manifest(&self) -> Value {
        let kind = self.training.kind;
        let container = json!({"name": kind.container, "image": "host", "command": ["true"]});
        let types = Self::types(self.training);
        let replica = |type_: &&str| {
            let replica = json!({
                "replicas": 3 - types.len(), "restartPolicy": "OnFailure",
                "template": {"spec": {"containers": [container]}},
            });
            ((*type_).to_owned(), replica)
        };
        let replicas: serde_json::Map<String, Value> = types.iter().map(replica).collect();
        json!({
            "apiVersion": "kubeflow.org/v1", "kind": kind.name, "metadata": {"name": self.name},
            "spec": {kind.replica_specs: replicas},
        })
    }

    async fn create(&self, cluster: &Cluster) {
        let job: DynamicObject = serde_json::from_value(self.manifest()).unwrap();
        cluster.jobs_of(self.training.kind).create(&PostParams::default(), &job).await.unwrap();
    }

    /// Waits for its pods, none of them with one of these uids.
    async fn fresh_pods(&self, cluster: &Cluster, old: &[String]) -> Vec<String> {
        until(&format!("fresh pods of {}", self.name), async || {
            let pods = cluster.pod_list().await;
            let ours: Vec<_> = pods.iter().filter(|pod| self.pods.contains(&pod.name_any())).collect();
            let uids: Vec<_> = ours.iter().filter_map(|pod| pod.uid()).collect();
            (uids.len() == 2 && uids.iter().all(|uid| !old.contains(uid))).then_some(uids)
        })
        .await
    }

    async fn set(&self, cluster: &Cluster, pod: usize, phase: &str, exit_code: Option<i32>) {
        cluster.set_phase_of(self.training.kind.container, &self.pods[pod], phase, exit_code).await;
    }

    /// Waits until the latest condition is this one.
    async fn in_state(&self, cluster: &Cluster, state: &str) -> DynamicObject {
        let jobs = cluster.jobs_of(self.training.kind);
        until(&format!("{} is {state}", self.name), async || {
            let job = jobs.get(&self.name).await.unwrap();
            let status: JobStatus = serde_json::from_value(job.data.get("status")?.clone()).unwrap();
            let latest = status.conditions.last()?;
            let reason = format!("{}{state}", self.training.kind.name);
            (latest.reason.as_deref() == Some(&reason) && latest.status == "True").then_some(job)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_every_kind_restarts_once_and_runs_to_its_end_under_controllers_that_come_and_go() {
    let cluster = Cluster::start().await;
    let pairs: Vec<Pair> = KINDS.iter().map(|training| Pair::of(*training)).collect();
    let controller = cluster.controller();
    let mut first = Vec::new();
    for pair in &pairs {
        pair.create(&cluster).await;
        first.push(pair.fresh_pods(&cluster, &[]).await);
        pair.set(&cluster, 0, "Running", None).await;
        pair.set(&cluster, 1, "Running", None).await;
        pair.in_state(&cluster, "Running").await;
    }
    controller.stop().await;
    for pair in &pairs {
        pair.set(&cluster, 1, "Failed", Some(1)).await;
    }
    let controller = cluster.controller();
    let mut second = Vec::new();
    for (pair, first) in pairs.iter().zip(&first) {
        second.push(pair.fresh_pods(&cluster, first).await);
    }
    controller.stop().await;
    let controller = cluster.controller();
    for ((pair, first), second) in pairs.iter().zip(&first).zip(&second) {
        pair.set(&cluster, 0, "Running", None).await;
        pair.set(&cluster, 1, "Running", None).await;
        let job = pair.in_state(&cluster, "Running").await;
        assert_eq!(job.annotations()[annotation::RESTART_COUNT], "1", "{}", pair.name);
        assert_eq!(pair.fresh_pods(&cluster, first).await, *second, "nothing is created twice");
        pair.set(&cluster, 1, "Succeeded", Some(0)).await;
        pair.set(&cluster, 0, "Succeeded", Some(0)).await;
        pair.in_state(&cluster, "Succeeded").await;
    }
    assert_eq!(cluster.pod_list().await.len(), 2 * pairs.len());
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_job_of_every_kind_fails_with_the_field() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    for training in KINDS {
        let pair = Pair::of(*training);
        let mut manifest = pair.manifest();
        let specs = training.kind.replica_specs;
        let launcher = manifest["spec"][specs]["Worker"].clone();
        manifest["spec"][specs]["Launcher"] = launcher;
        let job: DynamicObject = serde_json::from_value(manifest).unwrap();
        cluster.jobs_of(training.kind).create(&PostParams::default(), &job).await.unwrap();
        let job = pair.in_state(&cluster, "FailedValidation").await;
        let message = job.data["status"]["conditions"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("spec.{specs}[Launcher]: unsupported replica type")), "{message}");
    }
    assert!(cluster.pod_list().await.is_empty());
    controller.stop().await;
    cluster.stop().await;
}
