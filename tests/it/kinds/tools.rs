//! The command line, kubectl and the Python client with every kind.

use super::{job, python};
use crate::harness::program::{self, repository};
use crate::harness::{Cluster, Conversation};

#[tokio::test]
async fn every_kind_is_run_shown_and_deleted() {
    let cluster = Cluster::start(&[]).await;
    let kinds = [
        ("TFJob", "tensorflow", "tfReplicaSpecs", "Chief"),
        ("XGBoostJob", "xgboost", "xgbReplicaSpecs", "Master"),
        ("JAXJob", "jax", "jaxReplicaSpecs", "Worker"),
        ("PaddleJob", "paddle", "paddleReplicaSpecs", "Worker"),
    ];
    let mut talk = Conversation::in_home(&cluster.home);
    for (kind, container, specs, type_) in kinds {
        let file = format!("{container}.yaml");
        let text =
            job(kind, container, container, specs, &[(type_, 1)], &["sh", "-c", "echo I am $HOSTNAME"]);
        cluster.home.write(&file, &text);
        cluster.muster(&["run", &file]).await.succeeded();
        talk.types(&format!("muster get {kind}s")).await;
        talk.types(&format!("muster logs job/{container} --tail 1")).await;
        let described =
            cluster.muster(&["describe", &format!("{kind}/{container}")]).await.succeeded().stdout;
        assert!(described.contains(&format!("{kind}Succeeded")), "{described}");
        talk.types(&format!("muster delete {kind}/{container}")).await;
        // What the controller would refuse is refused before anything is created.
        cluster.home.write("bad.yaml", &job(kind, "bad", "other", specs, &[(type_, 1)], &["true"]));
        talk.types("muster run bad.yaml").await;
    }
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn a_jax_job_is_scaled_and_starts_again_with_the_new_number() {
    let cluster = Cluster::start(&[]).await;
    let text = job("JAXJob", "jax", "jax", "jaxReplicaSpecs", &[("Worker", 1)], &["sleep", "600"]);
    cluster.home.write("jax.yaml", &text);
    cluster.kubectl(&["apply", "-f", "jax.yaml"]).await.succeeded();
    cluster.wait_for("pod/jax-worker-0", "condition=Ready").await;
    cluster.kubectl(&["scale", "jaxjob/jax", "--replicas", "2"]).await.succeeded();
    cluster.wait_for("pod/jax-worker-1", "condition=Ready").await;
    let scaled = cluster.muster(&["scale", "job/jax", "--workers", "3"]).await.succeeded();
    assert_eq!(scaled.stdout, "jaxjob.kubeflow.org/jax scaled to 3\njaxjob.kubeflow.org/jax: 3 run\n");
    let pod = cluster.object("pod/jax-worker-0").await;
    let variables = pod["spec"]["containers"][0]["env"].as_array().expect("variables");
    let number = variables.iter().find(|variable| variable["name"] == "NUM_PROCESSES").expect("the number");
    assert_eq!(number["value"], "3");
    let job = cluster.object("jaxjob/jax").await;
    assert_eq!(job["metadata"]["annotations"]["muster.dev/infrastructure-restart-count"], "2");
    assert_eq!(job["metadata"]["annotations"]["muster.dev/restart-count"], serde_json::Value::Null);
    cluster.kubectl(&["delete", "jaxjob/jax"]).await.succeeded();
    cluster.stop().await;
}

#[tokio::test]
async fn the_training_client_knows_every_kind() {
    let Some(python) = python() else { return };
    let cluster = Cluster::start(&[]).await;
    let mut script = cluster.home.command(python);
    script.arg(repository().join("tests/it/kinds/every_kind.py"));
    let told = program::run(script).await.succeeded();
    insta::assert_snapshot!(told.stdout);
    cluster.stop().await;
}
