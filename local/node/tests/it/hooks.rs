//! Probes dialled from the node, hooks, and deadlines.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http::Response;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::DeleteParams;
use muster_node::Isolation;
use serde_json::json;

use crate::cluster::{Cluster, is_root, terminated};

fn status(pod: Option<&Pod>) -> Option<ContainerStatus> {
    pod?.status.as_ref()?.container_statuses.as_ref()?.first().cloned()
}

/// Answers every request with the status that the number says.
async fn serve(answer: Arc<AtomicU16>) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |_| {
                let status = answer.load(Ordering::SeqCst);
                let body = http_body_util::Empty::<bytes::Bytes>::new();
                let response = Response::builder().status(status).body(body).unwrap();
                std::future::ready(Ok::<_, Infallible>(response))
            });
            // A TCP probe connects and says nothing.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                .await;
        }
    });
    (port, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn http_and_tcp_probes_follow_what_the_program_answers() {
    let cluster = Cluster::start(Isolation::Light).await;
    let answer = Arc::new(AtomicU16::new(503));
    let (port, server) = serve(answer.clone()).await;
    let get = json!({"httpGet": {"host": "127.0.0.1", "path": "/", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1});
    let mut startup = get.clone();
    startup["failureThreshold"] = json!(30);
    let spec = json!({"restartPolicy": "Always", "containers": [{
        "ports": [{"name": "web", "containerPort": port}],
        "startupProbe": startup, "readinessProbe": get,
        "livenessProbe": {"tcpSocket": {"host": "127.0.0.1", "port": port}, "periodSeconds": 1, "failureThreshold": 1},
    }]});
    cluster.create("probed", "exec sleep 1000", spec).await;
    let running = cluster.wait_phase("probed", "Running").await;
    assert_eq!(status(Some(&running)).unwrap().started, Some(false));
    answer.store(200, Ordering::SeqCst);
    let is_ready =
        |ready: bool| move |pod: Option<&Pod>| status(pod).is_some_and(|status| status.ready == ready);
    let pod = cluster.wait("probed", "ready", is_ready(true)).await;
    assert_eq!(status(pod.as_ref()).unwrap().started, Some(true));
    answer.store(503, Ordering::SeqCst);
    let pod = cluster.wait("probed", "unready", is_ready(false)).await;
    assert_eq!(status(pod.as_ref()).unwrap().restart_count, 0, "only the readiness probe failed");
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    cluster
        .wait("probed", "restarted", |pod| status(pod).is_some_and(|status| status.restart_count == 1))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pre_stop_comes_before_the_signal_and_deadlines_hold() {
    if !is_root("pre_stop_comes_before_the_signal_and_deadlines_hold") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let folder = cluster.folder.path().join("order");
    fs_err::create_dir(&folder).unwrap();
    let spec = json!({
        "containers": [{
            "volumeMounts": [{"name": "v", "mountPath": "/made/v"}],
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /made/v/order"]}}},
        }],
        "volumes": [{"name": "v", "hostPath": {"path": folder}}],
    });
    let script = "trap 'echo term >> /made/v/order; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    cluster.create("polite", script, spec).await;
    cluster.create("late", "echo begun; exec sleep 1000", json!({"activeDeadlineSeconds": 1})).await;
    cluster.wait_phase("polite", "Running").await;
    assert_eq!(cluster.log("polite", "follow=true&limitBytes=3").await, "up\n");
    cluster.pods().delete("polite", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("polite").await;
    assert_eq!(fs_err::read_to_string(folder.join("order")).unwrap(), "hook\nterm\n");
    let pod = cluster.wait_phase("late", "Failed").await;
    assert_eq!(pod.status.as_ref().unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(terminated(&pod).exit_code, 143);
    assert_eq!(cluster.log("late", "").await, "begun\n");
    cluster.stop().await;
}
