//! The Python clients: `kubernetes` and Kubeflow's TrainingClient, unmodified.

use crate::harness::Cluster;
use crate::harness::program::{self, repository};
use crate::main_job::digits;

#[tokio::test]
async fn the_python_clients_train_the_digits() {
    let Some(python) = std::env::var_os("MUSTER_PYTHON") else {
        eprintln!("skipped: MUSTER_PYTHON names no Python with kubernetes and kubeflow-training==1.9.4");
        return;
    };
    let cluster = Cluster::start(&[]).await;
    let mut script = cluster.home.command(python);
    script.arg(repository().join("tests/it/conversation.py")).arg(digits());
    let told = program::run(script).await.succeeded();
    insta::assert_snapshot!(told.stdout);
    cluster.stop().await;
}
