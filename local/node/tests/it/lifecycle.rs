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

/// One that missed its SIGTERM would stay for its grace period, which here is longer than any test.
#[tokio::test(flavor = "multi_thread")]
async fn pods_deleted_while_they_start_do_not_stay_for_their_grace_period() {
    let cluster = Cluster::start(Isolation::Light).await;
    let patient = json!({"terminationGracePeriodSeconds": 3600});
    for place in 0..12 {
        cluster.create(&format!("early-{place}"), "sleep 3600", patient.clone()).await;
    }
    // By now they have come to where they have come.
    for place in 0..12 {
        cluster.pods().delete(&format!("early-{place}"), &DeleteParams::default()).await.unwrap();
    }
    for place in 0..12 {
        cluster.wait_gone(&format!("early-{place}")).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_while_it_waits_for_gpus_never_starts() {
    let cluster = Cluster::start(Isolation::Light).await;
    let all = json!({
        "terminationGracePeriodSeconds": 3600,
        "containers": [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}],
    });
    cluster.create("holder", "sleep 3600", all.clone()).await;
    cluster.wait_phase("holder", "Running").await;
    cluster.create("next", "sleep 3600", all).await;
    cluster.pods().delete("next", &DeleteParams::default()).await.unwrap();
    cluster.pods().delete("holder", &DeleteParams::default()).await.unwrap();
    for name in ["next", "holder"] {
        cluster.wait_gone(name).await;
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_ends_stay_over_a_stop_until_their_pod_is_deleted() {
    let mut cluster = Cluster::start(Isolation::Light).await;
    for name in ["kept", "gone", "lost"] {
        cluster.create(name, &format!("echo {name} says bye; exit 4"), json!({})).await;
        cluster.wait_phase(name, "Failed").await;
    }
    let spec = json!({"restartPolicy": "OnFailure"});
    cluster.create("again", "echo start; trap 'exit 0' TERM; while :; do sleep 0.05; done", spec).await;
    cluster.wait_phase("again", "Running").await;
    assert_eq!(cluster.log("again", "follow=true&limitBytes=6").await, "start\n");
    let before = cluster.pods().get("kept").await.unwrap().status;
    cluster.take_node_down().await;
    // Nobody is there to see it.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    cluster.pods().delete("lost", &now).await.unwrap();
    cluster.start_node().await;
    assert_eq!(cluster.log("kept", "").await, "kept says bye\n");
    assert_eq!(cluster.log("kept", "follow=true").await, "kept says bye\n", "a follower ends too");
    assert_eq!(cluster.pods().get("kept").await.unwrap().status, before);
    assert_eq!((cluster.log_folders("_gone_"), cluster.log_folders("_lost_")), (1, 0));
    cluster.pods().delete("gone", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("gone").await;
    let removed = async {
        while cluster.log_folders("_gone_") > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), removed).await.expect("the logs went too");
    // What was ended by the stop begins again, and its first log is the previous one.
    let restarted = |pod: Option<&k8s_openapi::api::core::v1::Pod>| {
        let status = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref()?.first());
        status.is_some_and(|status| status.restart_count == 1 && status.started == Some(true))
    };
    cluster.wait("again", "running again", restarted).await;
    assert_eq!(cluster.log("again", "previous=true").await, "start\n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lines_and_any_bytes_reach_the_reader() {
    let cluster = Cluster::start(Isolation::Light).await;
    let script = r"head -c 100000 /dev/zero | tr '\0' x; echo; printf 'a\000b\377\376c\n'; echo end";
    cluster.create("bytes", script, json!({})).await;
    cluster.wait_phase("bytes", "Succeeded").await;
    for query in ["", "follow=true", "tailLines=3"] {
        let log = cluster.log_bytes("bytes", query).await;
        let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 4, "{query}");
        assert!(lines[0].len() == 100_000 && lines[0].iter().all(|byte| *byte == b'x'), "{query}");
        assert_eq!((lines[1], lines[2]), (b"a\0b\xff\xfec".as_slice(), b"end".as_slice()), "{query}");
    }
    cluster.stop().await;
}
