//! Volumes of every kind, tools, the peers' folder and the way to the API server.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use muster_node::Isolation;
use serde_json::json;

use crate::cluster::{Cluster, is_root, merge};

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[tokio::test(flavor = "multi_thread")]
async fn claims_secrets_and_facts_are_mounted() {
    if !is_root("claims_secrets_and_facts_are_mounted") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let folder = cluster.folder.path().join("claimed");
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join("in"), "from outside\n").unwrap();
    let capacity = json!({"storage": "1Gi"});
    let volume = json!({"metadata": {"name": "pv"}, "spec": {
        "capacity": capacity, "accessModes": ["ReadWriteMany"], "hostPath": {"path": folder},
    }});
    let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
    Api::all(cluster.client.clone()).create(&PostParams::default(), &volume).await.unwrap();
    let spec = json!({
        "containers": [{
            "resources": {"limits": {"cpu": "2"}},
            "volumeMounts": [
                {"name": "data", "mountPath": "/made/data"}, {"name": "secret", "mountPath": "/made/secret"},
                {"name": "facts", "mountPath": "/made/facts"},
            ],
        }],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "claim"}},
            {"name": "secret", "secret": {"secretName": "keys", "items": [{"key": "a", "path": "deep/b", "mode": 0o400}]}},
            {"name": "facts", "downwardAPI": {"items": [
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}},
            ]}},
        ],
    });
    let script = format!(
        "cat /made/data/in; echo result > /made/data/out; cat /made/secret/deep/b; stat -Lc ' %a' /made/secret/deep/b; \
         echo $(cat /made/facts/name) $(cat /made/facts/cpu) $(cut -c1-2 {ACCOUNT}/token) $(cat {ACCOUNT}/namespace); \
         head -n1 {ACCOUNT}/ca.crt; muster-true && echo tool"
    );
    cluster.create("mounts", &script, spec).await;
    let text = |pod: Option<&Pod>| format!("{:?}", pod.and_then(|pod| pod.status.clone()));
    cluster.wait("mounts", "missing its secret", |pod| text(pod).contains("\\\"claim\\\" not found")).await;
    let secret = json!({"metadata": {"name": "keys"}, "stringData": {"a": "hidden", "b": "other"}});
    cluster.create_object::<Secret>(secret).await;
    let claim = json!({"metadata": {"name": "claim"}, "spec": {
        "volumeName": "pv", "accessModes": ["ReadWriteMany"], "resources": {"requests": capacity},
    }});
    cluster.create_object::<PersistentVolumeClaim>(claim).await;
    cluster.wait_phase("mounts", "Succeeded").await;
    let log = cluster.log("mounts", "").await;
    assert_eq!(log, "from outside\nhidden 400\nmounts 2 ey default\n-----BEGIN CERTIFICATE-----\ntool\n");
    assert_eq!(fs_err::read_to_string(folder.join("out")).unwrap(), "result\n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_paths_are_checked_and_made() {
    if !is_root("host_paths_are_checked_and_made") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let folder = cluster.folder.path().join("host");
    fs_err::create_dir(&folder).unwrap();
    let mounted = |path: &str, kind: &str| {
        json!({
            "containers": [{"volumeMounts": [{"name": "v", "mountPath": "/made/v"}]}],
            "volumes": [{"name": "v", "hostPath": {"path": folder.join(path), "type": kind}}],
        })
    };
    cluster.create("folder", "touch /made/v/x", mounted("a/b", "DirectoryOrCreate")).await;
    cluster.create("file", "echo text > /made/v", mounted("file", "FileOrCreate")).await;
    cluster.create("device", "test -d /made/v", mounted("", "CharDevice")).await;
    cluster.create("absent", "true", mounted("absent", "")).await;
    cluster.wait_phase("folder", "Succeeded").await;
    cluster.wait_phase("file", "Succeeded").await;
    assert!(folder.join("a/b/x").exists());
    assert_eq!(fs_err::read_to_string(folder.join("file")).unwrap(), "text\n");
    for (name, why) in [("device", "is not a CharDevice"), ("absent", "does not exist on this machine")] {
        cluster
            .wait(name, why, |pod| format!("{:?}", pod.and_then(|pod| pod.status.as_ref())).contains(why))
            .await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_one_owner_share_a_folder_until_the_last_is_gone() {
    if !is_root("pods_of_one_owner_share_a_folder_until_the_last_is_gone") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let owned = |name: &str, owner: &str, script: &str| {
        let mut pod = json!({
            "metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner, "controller": true},
            ]},
            "spec": {"nodeName": "node-0", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1},
        });
        let container = json!([{"name": "main", "image": "busybox", "command": ["/bin/sh", "-c", script]}]);
        merge(&mut pod["spec"], json!({"containers": container}));
        serde_json::from_value::<Pod>(pod).unwrap()
    };
    let writer = "echo hello > $MUSTER_PEERS_DIR/word; exec sleep 1000";
    let reader = "until cat $MUSTER_PEERS_DIR/word; do sleep 0.05; done 2>/dev/null";
    for pod in [
        owned("writer", "job-a", writer),
        owned("reader", "job-a", reader),
        owned("other", "job-b", "ls $MUSTER_PEERS_DIR; exec sleep 1000"),
    ] {
        cluster.pods().create(&PostParams::default(), &pod).await.unwrap();
    }
    cluster.wait_phase("reader", "Succeeded").await;
    assert_eq!(cluster.log("reader", "").await, "hello\n");
    cluster.wait_phase("other", "Running").await;
    let peers = cluster.state_dir().join("peers");
    assert!(peers.join("job-a/word").exists() && peers.join("job-b").exists());
    cluster.pods().delete("writer", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone("writer").await;
    assert!(!peers.join("job-a").exists(), "the last pod of the owner has ended");
    assert_eq!(cluster.log("other", "").await, "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_whose_it_is() {
    let cluster = Cluster::start(Isolation::Auto).await;
    for name in ["first", "second"] {
        cluster.create(name, &format!("cut -d. -f2 {ACCOUNT}/token"), json!({})).await;
    }
    for name in ["first", "second"] {
        cluster.wait_phase(name, "Succeeded").await;
        let log = cluster.log(name, "").await;
        let claims = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, log.trim()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let pod = cluster.pods().get(name).await.unwrap();
        let bound = json!({"name": name, "uid": pod.metadata.uid});
        assert_eq!(claims["kubernetes.io"]["pod"], bound);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reaches_the_api_server_with_its_token() {
    if !is_root("a_pod_reaches_the_api_server_with_its_token") {
        return;
    }
    if !std::path::Path::new("/usr/bin/curl").exists() {
        eprintln!("skipped: a_pod_reaches_the_api_server_with_its_token needs curl in the pod");
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let script = format!(
        "curl -sS --cacert {ACCOUNT}/ca.crt -H \"Authorization: Bearer $(cat {ACCOUNT}/token)\" \
         https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version | grep -c gitVersion"
    );
    cluster.create("own", &script, json!({})).await;
    cluster.create("host", &script, json!({"hostNetwork": true})).await;
    for name in ["own", "host"] {
        cluster.wait_phase(name, "Succeeded").await;
        assert_eq!(cluster.log(name, "").await, "1\n");
    }
    cluster.stop().await;
}
