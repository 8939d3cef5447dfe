//! What `kubectl create` makes, whose clients write protobuf, and that pods find it.

use fs_err as fs;

use crate::harness::Cluster;

/// A pod that shows what it is given.
const READER: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox
    command: [sh, -c, 'echo $WORD $NUMBER; cat /plain/file; ls /pair /registry']
    env:
    - {name: WORD, valueFrom: {secretKeyRef: {name: plain, key: word}}}
    - {name: NUMBER, valueFrom: {configMapKeyRef: {name: settings, key: number}}}
    volumeMounts: [{name: plain, mountPath: /plain}, {name: pair, mountPath: /pair}, {name: registry, mountPath: /registry}]
  volumes:
  - {name: plain, secret: {secretName: plain}}
  - {name: pair, secret: {secretName: pair}}
  - {name: registry, secret: {secretName: registry, items: [{key: .dockerconfigjson, path: config.json}]}}
";

async fn kubectl(cluster: &Cluster, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    cluster.kubectl(&words).await.succeeded().stdout
}

#[tokio::test]
async fn secrets_of_every_type_reach_pods() {
    let cluster = Cluster::start(&[]).await;
    cluster.home.write("file", "line of a file\n");
    kubectl(&cluster, "create secret generic plain --from-literal=word=hello --from-file=file").await;
    kubectl(&cluster, "create configmap settings --from-literal=number=42").await;
    // A pair that is there: kubectl checks that they belong together.
    let pki = cluster.home.path().join("pki");
    for (from, to) in [("ca.crt", "tls.crt"), ("ca.key", "tls.key")] {
        fs::copy(pki.join(from), cluster.home.work().join(to)).expect("a copy");
    }
    kubectl(&cluster, "create secret tls pair --cert=tls.crt --key=tls.key").await;
    let registry = "create secret docker-registry registry --docker-server=registry.example --docker-username=me \
                    --docker-password=secret --docker-email=me@example.com";
    kubectl(&cluster, registry).await;
    let types =
        kubectl(&cluster, "get secrets -o jsonpath={range.items[*]}{.metadata.name}={.type};{end}").await;
    assert_eq!(types, "pair=kubernetes.io/tls;plain=Opaque;registry=kubernetes.io/dockerconfigjson;");
    let template = r#"go-template={{index .data ".dockerconfigjson" | base64decode}}"#;
    let shown = cluster.kubectl(&["get", "secret", "registry", "-o", template]).await.succeeded().stdout;
    let config: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(config["auths"]["registry.example"]["username"], "me", "{shown}");

    cluster.home.write("reader.yaml", READER);
    kubectl(&cluster, "apply -f reader.yaml").await;
    cluster.wait_for("pod/reader", "jsonpath={.status.phase}=Succeeded").await;
    let log = kubectl(&cluster, "logs reader").await;
    assert_eq!(log, "hello 42\nline of a file\n/pair:\ntls.crt\ntls.key\n\n/registry:\nconfig.json\n");
    // What is wrong is told before anything is kept.
    let wrong = ["create", "secret", "generic", "Wrong_Name", "--from-literal=a=b"];
    let refused = cluster.kubectl(&wrong).await;
    assert!(refused.code != 0 && refused.stderr.contains("Wrong_Name"), "{}", refused.stderr);
    let again = cluster.kubectl(&["create", "secret", "generic", "plain"]).await;
    assert!(again.stderr.contains("already exists"), "{}", again.stderr);
    cluster.stop().await;
}

#[tokio::test]
async fn jobs_and_cron_jobs_are_made_on_the_command_line() {
    let cluster = Cluster::start(&[]).await;
    kubectl(&cluster, "create job once --image=busybox -- echo done").await;
    cluster.wait_for("job/once", "condition=Complete").await;
    assert_eq!(kubectl(&cluster, "logs job/once").await, "done\n");
    let cron =
        ["create", "cronjob", "nightly", "--image=busybox", "--schedule=0 3 * * *", "--", "echo", "by hand"];
    cluster.kubectl(&cron).await.succeeded();
    kubectl(&cluster, "create job --from=cronjob/nightly now").await;
    cluster.wait_for("job/now", "condition=Complete").await;
    assert_eq!(kubectl(&cluster, "logs job/now").await, "by hand\n");
    let owner =
        "get job now -o jsonpath={.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}";
    assert_eq!(kubectl(&cluster, owner).await, "CronJob/nightly");
    let by = r"get job now -o jsonpath={.metadata.annotations.cronjob\.kubernetes\.io/instantiate}";
    assert_eq!(kubectl(&cluster, by).await, "manual");
    let wrong = ["create", "cronjob", "never", "--image=busybox", "--schedule=whenever", "--", "true"];
    let refused = cluster.kubectl(&wrong).await;
    assert!(refused.code != 0 && refused.stderr.contains("spec.schedule"), "{}", refused.stderr);
    cluster.stop().await;
}

/// kubectl prints several objects as a `List`, and reads it again.
#[tokio::test]
async fn a_list_that_kubectl_printed_is_applied_again() {
    let cluster = Cluster::start(&[]).await;
    for name in ["one", "two"] {
        kubectl(&cluster, &format!("create configmap {name} --from-literal=key={name}")).await;
    }
    let printed = kubectl(&cluster, "get configmap one two -o yaml").await;
    assert!(printed.contains("kind: List"), "{printed}");
    cluster.home.write("both.yaml", &printed.replace("key: two", "key: 2nd"));
    kubectl(&cluster, "delete configmap one").await;
    let applied = cluster.kubectl(&["apply", "-f", "both.yaml"]).await.succeeded();
    assert_eq!(applied.stdout, "configmap/one created\nconfigmap/two configured\n");
    assert_eq!(kubectl(&cluster, "get configmap one two -o jsonpath={.items[*].data.key}").await, "one 2nd");
    let unknown = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "three"}, "dates": {}}]}"#;
    cluster.home.write("unknown.json", unknown);
    let refused = cluster.kubectl(&["apply", "-f", "unknown.json"]).await;
    assert!(refused.stderr.contains("unknown field \"dates\""), "{}", refused.stderr);
    cluster.stop().await;
}
