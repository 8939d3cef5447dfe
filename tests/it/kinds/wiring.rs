//! That processes find each other by what TFJob and PaddleJob tell them; a script stands for the frameworks.

use serde_json::{Value, json};

use super::{job, log_of_ended};
use crate::harness::Cluster;
use crate::harness::program::repository;

/// The command of a pod that meets the others.
fn command(framework: &'static str) -> [String; 3] {
    let script = repository().join("tests/it/kinds/wiring.py").display().to_string();
    ["python3".to_owned(), script, framework.to_owned()]
}

async fn apply(cluster: &Cluster, manifest: &Value) {
    cluster.home.write("job.yaml", &manifest.to_string());
    cluster.kubectl(&["apply", "-f", "job.yaml"]).await.succeeded();
}

#[tokio::test]
async fn tasks_of_tensorflow_reach_each_other_by_tf_config() {
    let cluster = Cluster::start(&[]).await;
    let command = command("tensorflow");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let replicas = [("Chief", 1), ("Worker", 2), ("PS", 1), ("Evaluator", 1)];
    let text = job("TFJob", "tf", "tensorflow", "tfReplicaSpecs", &replicas, &command);
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    for (type_, _) in replicas {
        let container = &mut manifest["spec"]["tfReplicaSpecs"][type_]["template"]["spec"]["containers"][0];
        container["env"] = json!([{"name": "EVALUATORS", "value": "1"}]);
    }
    apply(&cluster, &manifest).await;
    cluster.wait_for("tfjob/tf", "condition=Succeeded").await;
    let tasks = ["chief-0", "ps-0", "worker-0", "worker-1"];
    for task in tasks {
        let others: Vec<&str> = tasks.into_iter().filter(|other| *other != task).collect();
        let mut callers = [others.as_slice(), &["evaluator-0"]].concat();
        callers.sort_unstable();
        let expected = format!("{task} called {}; heard {}\n", others.join(", "), callers.join(", "));
        assert_eq!(log_of_ended(&cluster, &format!("tf-{task}")).await, expected);
    }
    let evaluator = log_of_ended(&cluster, "tf-evaluator-0").await;
    assert_eq!(evaluator, format!("evaluator-0 called {}; heard nobody\n", tasks.join(", ")));
    cluster.stop().await;
}

#[tokio::test]
async fn nodes_of_paddle_meet_at_the_first() {
    let cluster = Cluster::start(&[]).await;
    let command = command("paddle");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    for (name, replicas, first, other) in [
        ("peers", &[("Worker", 2)][..], "peers-worker-0", "peers-worker-1"),
        ("servers", &[("Master", 1), ("Worker", 1)], "servers-master-0", "servers-worker-0"),
    ] {
        let text = job("PaddleJob", name, "paddle", "paddleReplicaSpecs", replicas, &command);
        apply(&cluster, &serde_json::from_str(&text).expect("JSON")).await;
        cluster.wait_for(&format!("paddlejob/{name}"), "condition=Succeeded").await;
        let log = log_of_ended(&cluster, first).await;
        assert_eq!(log, format!("{first} called nobody; heard {other}\n"));
        let log = log_of_ended(&cluster, other).await;
        assert_eq!(log, format!("{other} called {first}; heard nobody\n"));
    }
    cluster.stop().await;
}
