//! From creation to the end of a pod.

use kube::api::DeleteParams;
use muster_node::Isolation;
use serde_json::json;

use crate::cluster::{Cluster, is_root, terminated};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_its_end_is_reported() {
    if !is_root("a_pod_runs_and_its_end_is_reported") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    cluster
        .create(
            "good",
            "echo hello $NAME $$; hostname; echo oops >&2",
            json!({"containers": [{"env": [{"name": "NAME", "value": "you"}]}]}),
        )
        .await;
    let pod = cluster.wait_phase("good", "Succeeded").await;
    assert_eq!((terminated(&pod).exit_code, terminated(&pod).reason.as_deref()), (0, Some("Completed")));
    let log = cluster.log("good", "").await;
    assert!(log.starts_with("hello you 2\ngood\n") && log.contains("oops\n"), "{log}");
    cluster
        .create(
            "bad",
            "echo last words; exit 3",
            json!({"containers": [{"terminationMessagePolicy": "FallbackToLogsOnError"}]}),
        )
        .await;
    let pod = cluster.wait_phase("bad", "Failed").await;
    assert_eq!((terminated(&pod).exit_code, terminated(&pod).message.as_deref()), (3, Some("last words\n")));
    cluster.pods().delete("bad", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("bad").await;
    cluster.stop().await;
}
