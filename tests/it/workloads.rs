//! Stateful sets, daemon sets and cron jobs, through `kubectl`.

use crate::harness::Cluster;

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: 2
  serviceName: peers
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: busybox, command: [sh, -c, 'hostname >> /data/names; exec sleep 1000'],
         resources: {requests: {cpu: 10m}}, volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: busybox, command: [sleep, '1000'], resources: {requests: {cpu: 10m}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  timeZone: Europe/Berlin
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: busybox, command: [echo, done], resources: {requests: {cpu: 10m}}}]
"#;

#[tokio::test]
async fn kubectl_rolls_sets_out_and_starts_a_cron_job_by_hand() {
    let cluster = Cluster::start(&["--nodes", "2"]).await;
    cluster.home.write("workloads.yaml", MANIFEST);
    let kubectl = async |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        cluster.kubectl(&words).await.succeeded().stdout
    };
    kubectl("apply -f workloads.yaml").await;
    kubectl("rollout status statefulset/web --timeout=60s").await;
    kubectl("rollout status daemonset/agent --timeout=60s").await;
    let shown = kubectl("get statefulset/web daemonset/agent cronjob/nightly --no-headers").await;
    for row in ["statefulset.apps/web 2/2", "daemonset.apps/agent 2 2 2 2 2 <none>"] {
        let words: String = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(row), "{shown}");
    }
    assert!(shown.contains("0 3 * * *") && shown.contains("Europe/Berlin"), "{shown}");
    let nodes = kubectl("get pods -l app=agent -o jsonpath={.items[*].spec.nodeName}").await;
    let mut nodes: Vec<&str> = nodes.split_whitespace().collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), 2, "one on each node");

    // A change goes through all pods, whose claims keep what the pods before them wrote.
    kubectl("set image statefulset/web c=alpine").await;
    kubectl("rollout status statefulset/web --timeout=60s").await;
    let first = kubectl("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}").await;
    assert_eq!(first, "alpine alpine");
    let history = kubectl("rollout history statefulset/web").await;
    assert_eq!(history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count(), 2);
    kubectl("rollout undo statefulset/web").await;
    kubectl("rollout status statefulset/web --timeout=60s").await;
    let back = kubectl("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}").await;
    assert_eq!(back, "busybox busybox");
    let volume = kubectl("get pvc data-web-1 -o jsonpath={.spec.volumeName}").await;
    let folder = kubectl(&format!("get pv {volume} -o jsonpath={{.spec.hostPath.path}}")).await;
    let names = fs_err::read_to_string(std::path::Path::new(&folder).join("names")).expect("names");
    assert_eq!(names, "web-1\nweb-1\nweb-1\n");

    kubectl("rollout restart daemonset/agent").await;
    kubectl("rollout status daemonset/agent --timeout=60s").await;
    kubectl("rollout undo daemonset/agent").await;
    kubectl("rollout status daemonset/agent --timeout=60s").await;
    let revisions = kubectl("get controllerrevisions --no-headers").await;
    assert_eq!(revisions.lines().filter(|line| line.contains("daemonset.apps/agent")).count(), 2);

    kubectl("create job --from=cronjob/nightly once").await;
    cluster.wait_for("job/once", "condition=Complete").await;
    for what in ["statefulset/web", "daemonset/agent", "cronjob/nightly"] {
        assert!(kubectl(&format!("describe {what}")).await.contains("Name:"), "{what}");
    }
    kubectl("scale statefulset/web --replicas=1").await;
    kubectl("rollout status statefulset/web --timeout=60s").await;
    kubectl("delete -f workloads.yaml").await;
    cluster.stop().await;
}
