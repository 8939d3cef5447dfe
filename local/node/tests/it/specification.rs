//! What a pod's specification asks for: volumes, variables, probes, restarts, names.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use muster_node::Isolation;
use serde_json::json;

use crate::cluster::{Cluster, is_root, terminated};

fn waiting_reason(pod: Option<&Pod>) -> Option<String> {
    let statuses = pod?.status.as_ref()?.container_statuses.as_ref()?;
    statuses[0].state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_config_map_is_awaited_and_then_mounted() {
    if !is_root("a_missing_config_map_is_awaited_and_then_mounted") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let spec = json!({
        "containers": [{
            "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}],
            "volumeMounts": [
                {"name": "v", "mountPath": "/workspace/config"},
                {"name": "m", "mountPath": "/workspace/memory"},
                {"name": "m", "mountPath": "/workspace/part", "subPath": "a/b"},
            ],
        }],
        "volumes": [{"name": "v", "configMap": {"name": "late"}},
                    {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    });
    let script = "cat /workspace/config/k; echo \" $K\"; echo x > /workspace/part/file; cat /workspace/memory/a/b/file; \
                  touch /workspace/config/no 2>/dev/null || echo read-only; ls /dev/shm; id -u";
    cluster.create("waits", script, spec).await;
    cluster.wait("waits", "waiting", |pod| waiting_reason(pod).as_deref() == Some("ContainerCreating")).await;
    let map = json!({"metadata": {"name": "late"}, "data": {"k": "value"}});
    let map: ConfigMap = serde_json::from_value(map).unwrap();
    Api::namespaced(cluster.client.clone(), "default").create(&PostParams::default(), &map).await.unwrap();
    cluster.wait_phase("waits", "Succeeded").await;
    assert_eq!(cluster.log("waits", "").await, "value value\nx\nread-only\n0\n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why() {
    if !is_root("what_cannot_run_says_why") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    cluster.create("image", "true", json!({"containers": [{"image": "example.com/unknown:1"}]})).await;
    let pod = cluster
        .wait("image", "waiting", |pod| waiting_reason(pod).as_deref() == Some("ErrImageNeverPull"))
        .await
        .unwrap();
    assert!(format!("{:?}", pod.status).contains("muster up --image 'example.com/unknown:1=host'"));
    // It waits for nothing any more once it is deleted.
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    pods.delete("image", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("image").await;
    cluster.create("program", "", json!({"containers": [{"command": ["no-such-program"]}]})).await;
    let pod = cluster.wait_phase("program", "Failed").await;
    let end = terminated(&pod);
    assert_eq!((end.exit_code, end.reason.as_deref()), (128, Some("StartError")));
    assert!(end.message.unwrap().contains("\"no-such-program\": executable file not found in $PATH"));
    cluster.create("folder", "true", json!({"containers": [{"workingDir": "/no/such"}]})).await;
    let pod = cluster.wait_phase("folder", "Failed").await;
    assert!(terminated(&pod).message.unwrap().contains("working directory \"/no/such\""));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_start_in_order_and_restart() {
    if !is_root("containers_start_in_order_and_restart") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let shared = json!([{"name": "v", "mountPath": "/v"}]);
    let step = |name: &str, script: &str| json!({"name": name, "image": "busybox", "command": ["sh", "-c", script], "volumeMounts": shared});
    let mut sidecar = step("side", "echo side >> /v/log; trap 'exit 0' TERM; while :; do sleep 0.1; done");
    sidecar["restartPolicy"] = json!("Always");
    let spec = json!({
        "restartPolicy": "OnFailure",
        "initContainers": [step("first", "echo first >> /v/log"), sidecar, step("second", "echo second >> /v/log")],
        "containers": [{"volumeMounts": shared}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    let script = "echo main >> /v/log; [ $(grep -c main /v/log) = 2 ] || exit 1; cat /v/log";
    cluster.create("ordered", script, spec).await;
    let pod = cluster.wait_phase("ordered", "Succeeded").await;
    assert_eq!(cluster.log("ordered", "").await, "first\nside\nsecond\nmain\nmain\n");
    assert_eq!(cluster.log("ordered", "previous=true").await, "");
    let status = &pod.status.unwrap().container_statuses.unwrap()[0];
    assert_eq!(status.restart_count, 1);
    assert_eq!(status.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_hooks_decide_readiness_and_restarts() {
    if !is_root("probes_and_hooks_decide_readiness_and_restarts") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let exec = |command: &str| json!({"exec": {"command": ["sh", "-c", command]}});
    let mut readiness = exec("test -e /tmp/ready-probe");
    readiness["periodSeconds"] = json!(1);
    let mut liveness = exec("test ! -e /tmp/sick-probe");
    liveness["periodSeconds"] = json!(1);
    liveness["failureThreshold"] = json!(1);
    let spec = json!({"restartPolicy": "Always", "containers": [{
        "readinessProbe": readiness, "livenessProbe": liveness,
        "lifecycle": {"postStart": exec("echo hook > /tmp/ready-probe")},
    }]});
    cluster.create("probed", "sleep 2; touch /tmp/sick-probe; sleep 1000", spec).await;
    let status = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.clone()?.container_statuses).map(|list| list[0].clone())
    };
    cluster.wait("probed", "ready", |pod| status(pod).is_some_and(|status| status.ready)).await;
    cluster
        .wait("probed", "restarted", |pod| status(pod).is_some_and(|status| status.restart_count == 1))
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_resolves_as_soon_as_its_slice_is_there() {
    if !is_root("a_name_resolves_as_soon_as_its_slice_is_there") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let script =
        "until getent hosts job-master-0 > /tmp/found; do sleep 0.01; done; cat /tmp/found; date +%s%N";
    cluster.create("seeker", script, json!({})).await;
    cluster.wait_phase("seeker", "Running").await;
    let slice = json!({
        "metadata": {"name": "job-master-0-x", "labels": {"kubernetes.io/service-name": "job-master-0"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.255.1"], "conditions": {"ready": true}}],
    });
    let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
    Api::namespaced(cluster.client.clone(), "default").create(&PostParams::default(), &slice).await.unwrap();
    let created = jiff::Timestamp::now().as_nanosecond();
    cluster.wait_phase("seeker", "Succeeded").await;
    let log = cluster.log("seeker", "").await;
    let found: i128 = log.lines().last().unwrap().parse().unwrap();
    assert!(log.starts_with("10.244.255.1"), "{log}");
    println!("the name took {} ms", (found - created) / 1_000_000);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_limit_is_held_where_the_machine_lets_us() {
    if !is_root("a_memory_limit_is_held_where_the_machine_lets_us") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    if cluster.control_group().is_none() {
        eprintln!("skipped: a_memory_limit_is_held_where_the_machine_lets_us needs writable control groups");
        return cluster.stop().await;
    }
    let limits = json!({"limits": {"memory": "32Mi", "cpu": "2"}});
    let spec = json!({"restartPolicy": "OnFailure", "containers": [{
        "resources": limits, "volumeMounts": [{"name": "v", "mountPath": "/made/v"}],
    }], "volumes": [{"name": "v", "emptyDir": {}}]});
    // The text is held in memory until its end, which does not come; the second time nobody asks for that much.
    let script = "[ -e /made/v/again ] && exit 0; touch /made/v/again; head -c 300m /dev/zero | tail -c 200m | wc -c; exit 137";
    cluster.create("greedy", script, spec).await;
    let pod = cluster.wait_phase("greedy", "Succeeded").await;
    let status = &pod.status.unwrap().container_statuses.unwrap()[0];
    let last = status.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
    assert_eq!(terminated_reason(status), Some("Completed"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_no_more_processes_than_allowed() {
    if !is_root("a_pod_has_no_more_processes_than_allowed") {
        return;
    }
    let cluster = Cluster::start_limited(Isolation::Full, Some(24)).await;
    if !cluster.limits_processes() {
        eprintln!("skipped: a_pod_has_no_more_processes_than_allowed needs writable control groups");
        return cluster.stop().await;
    }
    let script = "(for one in $(seq 60); do sleep 1000 & done); echo \"code $?\"; ";
    cluster.create("many", script, json!({})).await;
    cluster.wait_phase("many", "Succeeded").await;
    let log = cluster.log("many", "").await;
    assert!(log.contains("fork") && log.contains("code 2\n"), "{log}");
    cluster.stop().await;
}

fn terminated_reason(status: &k8s_openapi::api::core::v1::ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.terminated.as_ref()?.reason.as_deref()
}
