//! Logs and statistics.

use muster_node::Isolation;
use serde_json::{Value, json};

use crate::cluster::{Cluster, is_root};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_in_every_way() {
    let cluster = Cluster::start(Isolation::Light).await;
    let script = "echo one; echo two >&2; sleep 0.2; echo three; \
                  [ -e $MARK ] && exit 0; touch $MARK; exit 1";
    let spec = json!({
        "restartPolicy": "OnFailure",
        "containers": [{"env": [{"name": "MARK", "value": "/data/mark"}],
                        "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    cluster.create("talks", script, spec).await;
    cluster.wait_phase("talks", "Succeeded").await;
    let mut lines: Vec<String> = cluster.log("talks", "").await.lines().map(str::to_owned).collect();
    assert_eq!(lines.last().unwrap(), "three");
    lines.sort();
    assert_eq!(lines, ["one", "three", "two"]);
    assert_eq!(cluster.log("talks", "tailLines=1").await, "three\n");
    assert_eq!(cluster.log("talks", "tailLines=0").await, "");
    assert_eq!(cluster.log("talks", "previous=true&tailLines=1").await, "three\n");
    assert_eq!(cluster.log("talks", "sinceSeconds=3600").await.lines().count(), 3);
    let stamped = cluster.log("talks", "timestamps=true&tailLines=1").await;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert_eq!(text, "three\n");
    time.parse::<jiff::Timestamp>().unwrap();
    assert_eq!(cluster.log("talks", &format!("sinceTime={time}")).await, "three\n");
    assert!(cluster.get("/containerLogs/default/talks/none").await.contains("has no log yet"));
    assert!(cluster.log("talks", "tailLines=x").await.contains("tailLines cannot be \"x\""));
    assert_eq!(cluster.log("..", "").await.lines().count(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_grows_large_is_put_aside_and_read_as_one() {
    let cluster = Cluster::start(Isolation::Light).await;
    let script = "head -c 11000000 /dev/zero | tr '\\0' x | fold -w 1000; echo; echo end";
    cluster.create("talkative", script, json!({})).await;
    let pod = cluster.wait_phase("talkative", "Succeeded").await;
    let metadata = pod.metadata;
    let folder = format!("logs/default_talkative_{}/main", metadata.uid.unwrap());
    assert!(cluster.state_dir().join(folder).join("0.log.1").exists(), "it was put aside");
    let log = cluster.log("talkative", "").await;
    assert_eq!(log.lines().count(), 11_001);
    assert!(log.len() > 11_000_000 && log.ends_with("x\nend\n"));
    assert_eq!(cluster.log("talkative", "tailLines=1").await, "end\n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_show_what_a_pod_uses() {
    let cluster = Cluster::start(Isolation::Light).await;
    cluster
        .create(
            "busy",
            "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; exec sleep 1000",
            json!({}),
        )
        .await;
    cluster.wait_phase("busy", "Running").await;
    assert_eq!(cluster.log("busy", "follow=true&limitBytes=5").await, "done\n");
    let summary: Value = serde_json::from_str(&cluster.get("/stats/summary").await).unwrap();
    let nodes = summary["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    let node = nodes.iter().find(|node| node["node"]["nodeName"] == "node-0").unwrap();
    let pod = &node["pods"][0];
    assert_eq!(pod["podRef"]["name"], "busy");
    assert!(pod["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{summary}");
    assert!(pod["memory"]["workingSetBytes"].as_u64().unwrap() > 100_000, "{summary}");
    assert_eq!(cluster.get("/healthz").await, "ok");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_tell_the_containers_of_a_pod_apart() {
    let mut isolations = vec![Isolation::Light];
    if is_root("statistics_tell_the_containers_of_a_pod_apart") {
        isolations.push(Isolation::Full);
    }
    for isolation in isolations {
        let cluster = Cluster::start(isolation).await;
        let idle = json!({"name": "side", "image": "busybox", "command": ["sleep", "1000"]});
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; exec sleep 1000";
        let main = json!({"name": "main", "image": "busybox", "command": ["sh", "-c", busy]});
        cluster.create("pair", "", json!({"containers": [main, idle]})).await;
        cluster.wait_phase("pair", "Running").await;
        assert_eq!(cluster.log("pair", "follow=true&limitBytes=5").await, "done\n");
        let summary: Value = serde_json::from_str(&cluster.get("/stats/summary").await).unwrap();
        let nodes = summary["nodes"].as_array().unwrap();
        let pod = nodes.iter().find_map(|node| node["pods"].as_array()?.first()).unwrap();
        let containers = pod["containers"].as_array().unwrap();
        let of = |name: &str, what: &[&str]| {
            let found = containers.iter().find(|container| container["name"] == name);
            found
                .and_then(|found| found[what[0]][what[1]].as_u64())
                .unwrap_or_else(|| panic!("{name}: {summary}"))
        };
        assert_eq!(containers.len(), 2, "{summary}");
        let (cpu, memory) = (["cpu", "usageCoreNanoSeconds"], ["memory", "workingSetBytes"]);
        assert!(of("main", &cpu) > of("side", &cpu), "{summary}");
        assert!(of("main", &memory) > 0 && of("side", &memory) > 0, "{summary}");
        cluster.stop().await;
    }
}
