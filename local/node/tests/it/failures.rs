//! What happens when the agent, the spawner or a pod's init is killed.

use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod};
use kube::api::DeleteParams;
use muster_node::Isolation;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::cluster::{Cluster, is_root, process_exists, terminated, wait_process};

fn status(pod: Option<&Pod>) -> Option<ContainerStatus> {
    pod?.status.as_ref()?.container_statuses.as_ref()?.first().cloned()
}

fn is_running_again(pod: Option<&Pod>) -> bool {
    status(pod).is_some_and(|status| status.restart_count == 1 && status.state.unwrap().running.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_restarts_with_its_volumes_after_the_agent_was_killed() {
    if !is_root("a_container_restarts_with_its_volumes_after_the_agent_was_killed") {
        return;
    }
    let mut cluster = Cluster::start(Isolation::Full).await;
    cluster
        .create_object::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"k": "value"}}))
        .await;
    let spec = json!({
        "restartPolicy": "Always",
        "containers": [{
            "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "k"}}}],
            "volumeMounts": [{"name": "config", "mountPath": "/made/config"}, {"name": "scratch", "mountPath": "/made/scratch"}],
        }],
        "volumes": [{"name": "config", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}],
    });
    let script = "echo run >> /made/scratch/runs; cat /made/config/k; echo \" $K $(grep -c run /made/scratch/runs)\"; \
                  while [ ! -e /made/scratch/stop ]; do sleep 0.05; done; rm /made/scratch/stop; exit 1";
    let pod = cluster.create("keeps", script, spec).await;
    cluster.wait_phase("keeps", "Running").await;
    cluster.kill_node().await;
    cluster.start_node().await;
    let stop = cluster.pod_folder(&pod).join("volumes/scratch/stop");
    fs_err::write(&stop, "").unwrap();
    cluster.wait("keeps", "running again", is_running_again).await;
    assert_eq!(cluster.log("keeps", "follow=true&limitBytes=14").await, "value value 2\n");
    // Without its ConfigMap the next start says what is missing, and what ended before.
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(cluster.client.clone(), "default");
    maps.delete("settings", &DeleteParams::default()).await.unwrap();
    fs_err::write(&stop, "").unwrap();
    let pod = cluster
        .wait("keeps", "waiting", |pod| {
            let waiting = status(pod).and_then(|status| status.state?.waiting?.reason);
            waiting.as_deref() == Some("CreateContainerConfigError")
        })
        .await;
    let last = status(pod.as_ref()).unwrap();
    assert_eq!((last.restart_count, last.last_state.unwrap().terminated.unwrap().exit_code), (1, 1));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_vanished_while_no_agent_was_there_is_swept() {
    if !is_root("what_vanished_while_no_agent_was_there_is_swept") {
        return;
    }
    let mut cluster = Cluster::start(Isolation::Full).await;
    let gpus = json!({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}]});
    let mut owned = gpus.clone();
    owned["volumes"] = json!([{"name": "m", "emptyDir": {"medium": "Memory"}}]);
    cluster.create("ghost", "sleep 1000", owned).await;
    cluster.wait_phase("ghost", "Running").await;
    cluster.kill_node().await;
    cluster.pods().delete("ghost", &DeleteParams::default().grace_period(0)).await.unwrap();
    let stranger = cluster.state_dir().join("pods/7d0c");
    fs_err::create_dir_all(stranger.join("volumes/v")).unwrap();
    cluster.start_node().await;
    assert!(cluster.processes(Some("muster-pod")).is_empty(), "the pod's processes are gone");
    assert!(!stranger.exists());
    cluster.create("next", "echo $CUDA_VISIBLE_DEVICES", gpus).await;
    cluster.wait_phase("next", "Succeeded").await;
    assert_eq!(cluster.log("next", "").await, "0,1,2,3\n", "its slots are free again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_init_is_killed_is_reported_and_restarted() {
    if !is_root("a_pod_whose_init_is_killed_is_reported_and_restarted") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let once = cluster.create("once", "sleep 1000", json!({})).await;
    let always = cluster.create("always", "sleep 1000", json!({"restartPolicy": "Always"})).await;
    for (name, pod) in [("once", &once), ("always", &always)] {
        cluster.wait_phase(name, "Running").await;
        let pid = fs_err::read_to_string(cluster.pod_folder(pod).join("init.pid")).unwrap();
        kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    }
    let pod = cluster.wait_phase("once", "Failed").await;
    let end = terminated(&pod);
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    cluster.wait("always", "running again", is_running_again).await;
    assert_eq!(cluster.processes(Some("muster-pod")).len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_starts_a_new_spawner_when_the_old_one_is_killed() {
    if !is_root("the_agent_starts_a_new_spawner_when_the_old_one_is_killed") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    cluster.create("before", "trap 'exit 0' TERM; while :; do sleep 0.05; done", json!({})).await;
    cluster.wait_phase("before", "Running").await;
    let spawners = cluster.processes(Some("muster-spawner"));
    assert_eq!(spawners.len(), 1);
    kill(Pid::from_raw(spawners[0]), Signal::SIGKILL).unwrap();
    cluster.create("after", "true", json!({})).await;
    cluster.wait_phase("after", "Succeeded").await;
    cluster.pods().delete("before", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("before").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_light_pod_whose_init_is_killed_leaves_no_process() {
    let mut cluster = Cluster::start(Isolation::Light).await;
    let base = format!("{}55", std::process::id());
    let init_of = |cluster: &Cluster, pod: &Pod| {
        let pid = fs_err::read_to_string(cluster.pod_folder(pod).join("init.pid")).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap())
    };
    // One that left its session and its parents, and one that left its environment as well.
    let script = format!(
        "(setsid sh -c 'sleep {base}1 & sleep {base}1' &); (env -i $(command -v setsid) sleep {base}2 &); sleep {base}3"
    );
    let pod = cluster.create("orphans", &script, json!({})).await;
    cluster.wait_phase("orphans", "Running").await;
    for end in 1..=3 {
        wait_process(&format!("{base}{end}"), true).await;
    }
    kill(init_of(&cluster, &pod), Signal::SIGKILL).unwrap();
    cluster.wait_phase("orphans", "Failed").await;
    for end in 1..=3 {
        wait_process(&format!("{base}{end}"), false).await;
    }
    // The next agent has another spawner, which is not the parent of what it finds.
    let script = format!("(setsid sh -c 'sleep {base}4 & sleep {base}4' &); sleep {base}5");
    let pod = cluster.create("adopted", &script, json!({})).await;
    cluster.wait_phase("adopted", "Running").await;
    wait_process(&format!("{base}4"), true).await;
    cluster.kill_node().await;
    cluster.start_node().await;
    cluster.create("light", "true", json!({})).await;
    cluster.wait_phase("light", "Succeeded").await;
    assert!(process_exists(&format!("{base}4")), "the pod outlives its agent");
    kill(init_of(&cluster, &pod), Signal::SIGKILL).unwrap();
    cluster.wait_phase("adopted", "Failed").await;
    for end in 4..=5 {
        wait_process(&format!("{base}{end}"), false).await;
    }
    cluster.stop().await;
}

/// Not a test of its own: what the next test runs as somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_an_ordinary_user() {
    if std::env::var_os("MUSTER_ORDINARY_USER").is_none() {
        return;
    }
    let me = nix::unistd::geteuid();
    assert!(!me.is_root());
    for isolation in [Isolation::Light, Isolation::Auto] {
        let cluster = Cluster::start(isolation).await;
        let level = cluster.node().isolation().to_owned();
        let reason = cluster.node().light_because().unwrap().to_owned();
        assert!(level == "light" || isolation == Isolation::Auto && level == "user");
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client.clone());
        let node = nodes.get("node-0").await.unwrap();
        assert_eq!(node.metadata.annotations.unwrap()["muster.dev/isolation-reason"], reason);
        assert_eq!(node.metadata.labels.unwrap()["muster.dev/isolation"], level);
        let conditions = node.status.unwrap().conditions.unwrap();
        let light = conditions.iter().find(|condition| condition.type_ == "LightIsolation").unwrap();
        assert_eq!((light.status.as_str(), light.message.as_deref()), ("True", Some(reason.as_str())));
        cluster
            .create_object::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"k": "value"}}))
            .await;
        let mark = format!("{}66", std::process::id());
        let script = format!(
            "id -u; cat /made/config/k; echo; echo x > /made/scratch/x; (setsid sleep {mark} &); exit 3"
        );
        let spec = json!({
            "containers": [{"volumeMounts": [
                {"name": "config", "mountPath": "/made/config"}, {"name": "scratch", "mountPath": "/made/scratch"},
            ]}],
            "volumes": [{"name": "config", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}],
        });
        cluster.create("works", &script, spec).await;
        let pod = cluster.wait_phase("works", "Failed").await;
        let log = cluster.log("works", "").await;
        assert_eq!(terminated(&pod).exit_code, 3, "{log} {pod:?}");
        let user = if level == "user" { 0 } else { me.as_raw() };
        assert_eq!(log, format!("{user}\nvalue\n"));
        wait_process(&mark, false).await;
        if level == "user" {
            let script = "[ $(ls -d /proc/[0-9]* | wc -l) -lt 6 ] && hostname && ls -d /dev/null /run/muster/bin \
                          && head -c 3 /var/run/secrets/kubernetes.io/serviceaccount/namespace && echo \
                          && touch /var/run/secrets/kubernetes.io/serviceaccount/x 2>/dev/null || echo read-only";
            cluster.create("inside", script, json!({})).await;
            cluster.wait_phase("inside", "Succeeded").await;
            let log = cluster.log("inside", "").await;
            assert_eq!(log, "inside\n/dev/null\n/run/muster/bin\ndef\nread-only\n");
            let probe =
                json!({"exec": {"command": ["sh", "-c", "test -e /made/scratch/x"]}, "periodSeconds": 1});
            let spec = json!({
                "containers": [{"readinessProbe": probe, "volumeMounts": [{"name": "scratch", "mountPath": "/made/scratch"}]}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            });
            cluster.create("probed", "touch /made/scratch/x; sleep 1000", spec).await;
            let is_ready = |pod: Option<&Pod>| status(pod).is_some_and(|status| status.ready);
            cluster.wait("probed", "ready", is_ready).await;
            // The machine's own folders are not made larger for a pod.
            let spec = json!({
                "containers": [{"volumeMounts": [{"name": "scratch", "mountPath": "/usr/made/scratch"}]}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            });
            cluster.create("refused", "true", spec).await;
            let end = terminated(&cluster.wait_phase("refused", "Failed").await);
            assert!(end.message.unwrap().contains("does not exist on this machine"));
        }
        crate::streams::commands(&cluster).await;
        crate::streams::terminals(&cluster, &format!("1000.{}", std::process::id())).await;
        cluster.stop().await;
        println!("{level} because: {reason}");
    }
}

#[test]
fn an_ordinary_user_runs_pods() {
    use std::os::unix::process::CommandExt as _;
    let program = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(program);
    command.args(["--exact", "failures::a_node_of_an_ordinary_user", "--nocapture"]);
    command.env("MUSTER_ORDINARY_USER", "1").env("TMPDIR", folder.path()).env("HOME", folder.path());
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
        command.uid(65_534).gid(65_534).current_dir("/");
    }
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: an_ordinary_user_runs_pods, as that user may not run {command:?}");
            return;
        }
        output => output.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("light because: "), "{text}");
    if !text.contains("user because: ") {
        eprintln!("skipped: user namespaces are refused here, so pods of an ordinary user were light");
    }
}
