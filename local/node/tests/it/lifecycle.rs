//! From creation to the end of a pod.

use kube::api::DeleteParams;
use muster_node::Isolation;
use serde_json::json;

use crate::cluster::{Cluster, is_root, process_exists, terminated};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_and_its_end_is_reported() {
    if !is_root("a_pod_runs_and_its_end_is_reported") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    cluster
        .create(
            "good",
            "echo hello $NAME; hostname; echo oops >&2",
            json!({"containers": [{"env": [{"name": "NAME", "value": "you"}]}]}),
        )
        .await;
    let pod = cluster.wait_phase("good", "Succeeded").await;
    assert_eq!((terminated(&pod).exit_code, terminated(&pod).reason.as_deref()), (0, Some("Completed")));
    let log = cluster.log("good", "").await;
    assert!(log.starts_with("hello you\ngood\n") && log.contains("oops\n"), "{log}");
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

#[tokio::test(flavor = "multi_thread")]
async fn deletion_ends_every_process_of_the_pod() {
    if !is_root("deletion_ends_every_process_of_the_pod") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let marker = format!("{}7777", std::process::id());
    let script =
        format!("trap 'echo bye; exit 0' TERM; setsid sleep {marker} & echo up; while :; do sleep 0.1; done");
    cluster.create("stubborn", &script, json!({})).await;
    cluster.wait_phase("stubborn", "Running").await;
    // A first follower ends with the first line: the trap is set by then.
    assert_eq!(cluster.log("stubborn", "follow=true&limitBytes=3").await, "up\n");
    let follower = cluster.log("stubborn", "follow=true");
    let deletion = async {
        cluster.pods().delete("stubborn", &DeleteParams::default()).await.unwrap();
        cluster.wait_gone("stubborn").await;
    };
    let (log, ()) = tokio::join!(follower, deletion);
    assert_eq!(log, "up\nbye\n");
    assert!(!process_exists(&marker), "the grandchild outlived its pod");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outlives_its_agent_and_is_taken_over() {
    if !is_root("a_pod_outlives_its_agent_and_is_taken_over") {
        return;
    }
    let mut cluster = Cluster::start(Isolation::Full).await;
    let folder = cluster.folder.path().join("shared");
    fs_err::create_dir(&folder).unwrap();
    let spec = json!({
        "containers": [{"volumeMounts": [{"name": "v", "mountPath": "/made/for/it"}],
                        "resources": {"limits": {"nvidia.com/gpu": "3"}}}],
        "volumes": [{"name": "v", "hostPath": {"path": folder}}],
    });
    let script = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e /made/for/it/go ]; do sleep 0.05; done; exit 7";
    cluster.create("long", script, spec).await;
    cluster.wait_phase("long", "Running").await;
    cluster.stop_node().await;
    cluster.start_node().await;
    let greedy = json!({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}]});
    cluster.create("greedy", "true", greedy).await;
    let pod = cluster.wait_phase("greedy", "Failed").await;
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("UnexpectedAdmissionError"), "one slot is free");
    fs_err::write(folder.join("go"), "").unwrap();
    let pod = cluster.wait_phase("long", "Failed").await;
    assert_eq!(terminated(&pod).exit_code, 7);
    assert_eq!(
        pod.status.unwrap().container_statuses.unwrap()[0].restart_count,
        0,
        "it was not started again"
    );
    assert_eq!(cluster.log("long", "").await, "0,1,2\n");
    assert!(!std::path::Path::new("/made").exists(), "the machine's own file tree is untouched");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_pods() {
    if !is_root("many_short_pods") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let count: usize = std::env::var("MUSTER_PODS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let begin = std::time::Instant::now();
    let creations =
        (0..count).map(|index| cluster.create_plain(format!("short-{index}"), &["/bin/true"], index % 2));
    futures::future::join_all(creations).await;
    let created = begin.elapsed();
    cluster
        .wait_all(count, |pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded")
        })
        .await;
    let took = begin.elapsed();
    println!(
        "{count} pods took {took:?} (created in {created:?}), {:.0} per second",
        count as f64 / took.as_secs_f64()
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_pods_run_soon() {
    if !is_root("four_pods_run_soon") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let mut times = Vec::new();
    for round in 0..5 {
        let begin = std::time::Instant::now();
        let names = (0..4).map(|index| format!("gang-{round}-{index}"));
        futures::future::join_all(names.map(|name| cluster.create_plain(name, &["sleep", "1000"], 0))).await;
        let running = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        cluster.wait_all(4 * (round + 1), running).await;
        times.push(begin.elapsed());
    }
    times.sort();
    println!("4 pods running: p50 took {:?}", times[times.len() / 2]);
    assert!(times[0] < std::time::Duration::from_secs(5));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn light_isolation_runs_pods_and_ends_their_processes() {
    let cluster = Cluster::start(Isolation::Light).await;
    let marker = format!("{}8888", std::process::id());
    let spec = json!({
        "containers": [{"volumeMounts": [{"name": "v", "mountPath": "/made/for/light"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    let script =
        format!("echo data > /made/for/light/x; cat /made/for/light/x; setsid sleep {marker} & sleep 1000");
    cluster.create("light", &script, spec).await;
    cluster.wait_phase("light", "Running").await;
    cluster.pods().delete("light", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("light").await;
    assert!(!process_exists(&marker), "the grandchild outlived its pod");
    cluster.create("fails", "echo $$ > /dev/null; exit 4", json!({})).await;
    assert_eq!(terminated(&cluster.wait_phase("fails", "Failed").await).exit_code, 4);
    cluster.stop().await;
}
