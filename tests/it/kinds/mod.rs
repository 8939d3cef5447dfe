//! The training kinds beside PyTorchJob, with the code that people bring along.

mod examples;
mod tools;
mod wiring;

use fs_err as fs;
use serde_json::Value;

use crate::harness::Cluster;
use crate::harness::program::repository;

/// The Python with Kubeflow's client and the frameworks of the examples.
#[expect(clippy::print_stderr, reason = "how a test says that it is skipped")]
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("MUSTER_PYTHON").ok();
    if python.is_none() {
        eprintln!(
            "skipped: MUSTER_PYTHON names no Python with kubeflow-training==1.9.4, xgboost-cpu and jax"
        );
    }
    python
}

/// Applies a manifest of an example, whose pods then run this Python on the file of that name.
async fn apply_example(cluster: &Cluster, example: &str, manifest: &str, python: &str) {
    let folder = repository().join("examples").join(example);
    let script = format!("--from-file={}", folder.join("train.py").display());
    let map = format!("{example}-train");
    cluster.kubectl(&["create", "configmap", &map, &script]).await.succeeded();
    let text = fs::read_to_string(folder.join(manifest)).expect("the example");
    let text = text.replace("[python3, ", &format!("[{python}, "));
    assert!(text.contains(python), "{manifest} runs another program");
    cluster.home.write(manifest, &text);
    cluster.kubectl(&["apply", "-f", manifest]).await.succeeded();
}

/// A manifest of a job whose pods all run this command.
fn job(
    kind: &str,
    name: &str,
    container: &str,
    specs: &str,
    replicas: &[(&str, u32)],
    command: &[&str],
) -> String {
    let replica = |(type_, count): &(&str, u32)| {
        let template = serde_json::json!({"spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": container, "image": "host", "command": command}],
        }});
        ((*type_).to_owned(), serde_json::json!({"replicas": count, "template": template}))
    };
    let replicas: serde_json::Map<String, Value> = replicas.iter().map(replica).collect();
    serde_json::json!({
        "apiVersion": "kubeflow.org/v1", "kind": kind, "metadata": {"name": name},
        "spec": {specs: replicas},
    })
    .to_string()
}

/// What a pod has printed when it has ended well.
async fn log_of_ended(cluster: &Cluster, pod: &str) -> String {
    cluster.wait_for(&format!("pod/{pod}"), "jsonpath={.status.phase}=Succeeded").await;
    cluster.kubectl(&["logs", pod]).await.succeeded().stdout
}
