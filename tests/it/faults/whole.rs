//! The whole cluster in one process is killed, stopped, or cannot start.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::parts::{Phase, assert_gone};
use crate::harness::gated::restarts;
use crate::harness::{Cluster, Conversation, GatedJob, Home};

async fn kill_the_cluster_in(phase: Phase) {
    let cluster = Cluster::start(&[]).await;
    let job = GatedJob::write(&cluster.home, "job");
    phase.reach(&cluster.home, &job).await;
    let home = cluster.kill().await;
    let cluster = Cluster::start_in(home, &[]).await;
    if phase == Phase::Deleted {
        assert_gone(&cluster.home, &job).await;
    } else {
        job.open();
        job.assert_ends_well(&cluster.home, 1).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_waits() {
    kill_the_cluster_in(Phase::Written).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_starts() {
    kill_the_cluster_in(Phase::Starting).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_runs() {
    kill_the_cluster_in(Phase::Running).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_finishes() {
    kill_the_cluster_in(Phase::Finishing).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_a_job_is_deleted() {
    kill_the_cluster_in(Phase::Deleted).await;
}

#[tokio::test]
async fn the_cluster_is_killed_while_the_digits_are_trained() {
    let cluster = Cluster::start(&[]).await;
    cluster.muster(&["submit", &crate::main_job::digits()]).await.succeeded();
    cluster.wait_for("pytorchjob/digits", "condition=Running").await;
    let home = cluster.kill().await;
    let cluster = Cluster::start_in(home, &[]).await;
    cluster.wait_for("pytorchjob/digits", "condition=Succeeded").await;
    let job = cluster.object("pytorchjob/digits").await;
    assert!(restarts(&job) <= 1, "restarted more than once");
    let model = cluster.home.path().join("volumes/default/digits-model/model.safetensors");
    assert!(model.is_file(), "the model is written");
    cluster.stop().await;
}

#[tokio::test]
async fn a_stopped_cluster_goes_on_with_its_job() {
    let home = Home::new();
    home.run_muster(&["up", "--detach"]).await.succeeded();
    let job = GatedJob::write(&home, "job");
    job.submit(&home).await;
    let waits = ["wait", "--for=condition=Running", "pytorchjob/job", "--timeout=60s"];
    home.run_kubectl(&waits).await.succeeded();
    home.run_muster(&["down"]).await.succeeded();
    home.assert_nothing_left().await;
    let cluster = Cluster::start_in(home, &[]).await;
    job.open();
    job.assert_ends_well(&cluster.home, 1).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_taken_port_a_taken_home_and_a_closed_folder_are_told() {
    let cluster = Cluster::start(&[]).await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let other = Home::new();
    let mut talk = Conversation::in_home(&cluster.home);
    let mut elsewhere = Conversation::in_home(&other);
    assert_eq!(talk.types("muster up").await.code, 1);
    assert_eq!(elsewhere.types(&format!("muster up --listen {address}")).await.code, 1);
    let closed = other.work().join("closed");
    fs_err::write(&closed, "a file, not a folder").expect("a file");
    fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o400)).expect("its mode");
    assert_eq!(elsewhere.types("muster up --home closed/home").await.code, 1);
    let told = format!("{}{}", talk.text(), elsewhere.text());
    insta::assert_snapshot!(told);
    other.assert_nothing_left().await;
    cluster.stop().await;
}
