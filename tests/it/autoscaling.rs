//! Autoscalers, through `kubectl`: pods that have much to do get company, which goes when they have not.

use std::fmt::Write as _;
use std::path::Path;

use fs_err as fs;

use crate::harness::Cluster;

/// Some work again and again until the file is there, then none. Processors have more to do than waiting for it.
const WORK: &str = "until [ -e /signal/rest ]; do i=0; while [ $i -lt 9000 ]; do i=$((i+1)); done; sleep 0.05; done; \
                    exec sleep 1000";
/// Whatever is scaled down need not wait for what was recommended a while ago.
const AT_ONCE: &str = r#"{"spec":{"behavior":{"scaleDown":{"stabilizationWindowSeconds":0}}}}"#;

/// A container that does nothing and asks for nothing.
const BESIDE: &str = ", {name: side, image: busybox, command: [sleep, '1000']}";

/// A pod that works until there is a file `rest` in the folder, with other containers.
fn pod(container: &str, others: &str, folder: &Path) -> String {
    let mut text = String::new();
    let _infallible = write!(
        text,
        "{{terminationGracePeriodSeconds: 0, volumes: [{{name: signal, hostPath: {{path: {}}}}}], containers: [\
         {{name: {container}, image: busybox, command: [sh, -c, '{WORK}'], resources: {{requests: {{cpu: 20m}}}}, \
         volumeMounts: [{{name: signal, mountPath: /signal}}]}}{others}]}}",
        folder.display()
    );
    text
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start(&["--autoscaler-period", "1"]).await;
    fs::create_dir(cluster.home.work().join("signal")).expect("a folder");
    cluster
}

async fn kubectl(cluster: &Cluster, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    cluster.kubectl(&words).await.succeeded().stdout
}

fn rest(cluster: &Cluster) {
    fs::write(cluster.home.work().join("signal/rest"), "").expect("a file");
}

#[tokio::test]
async fn a_deployment_grows_with_its_work_and_shrinks_without() {
    let cluster = cluster().await;
    let folder = cluster.home.work().join("signal");
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 1\n  selector: {{matchLabels: \
         {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec: {}\n",
        pod("worker", "", &folder)
    );
    cluster.home.write("web.yaml", &manifest);
    kubectl(&cluster, "apply -f web.yaml").await;
    kubectl(&cluster, "autoscale deployment/web --min=1 --max=3 --cpu-percent=50").await;
    cluster.wait_for("deployment/web", "jsonpath={.spec.replicas}=3").await;
    kubectl(&cluster, "rollout status deployment/web --timeout=60s").await;
    cluster.wait_for("hpa/web", "condition=ScalingActive").await;
    cluster.wait_for("hpa/web", "jsonpath={.status.currentReplicas}=3").await;
    let shown = kubectl(&cluster, "get hpa web --no-headers").await;
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!((words[1], words[2]), ("Deployment/web", "cpu:"), "{shown}");
    assert!(words[3].ends_with("%/50%") && words[4..7] == ["1", "3", "3"], "{shown}");
    let told = kubectl(&cluster, "describe hpa web").await;
    for word in ["ValidMetricFound", "AbleToScale", "ScalingLimited", "SuccessfulRescale", "New size: 3"] {
        assert!(told.contains(word), "{told}");
    }
    // Both versions are one object.
    let percent =
        "get horizontalpodautoscalers.v1.autoscaling web -o jsonpath={.spec.targetCPUUtilizationPercentage}";
    assert_eq!(kubectl(&cluster, percent).await, "50");

    cluster.kubectl(&["patch", "hpa", "web", "--type=merge", "-p", AT_ONCE]).await.succeeded();
    rest(&cluster);
    cluster.wait_for("deployment/web", "jsonpath={.spec.replicas}=1").await;
    let told = kubectl(&cluster, "describe hpa web").await;
    assert!(told.contains("All metrics below target"), "{told}");
    kubectl(&cluster, "delete hpa,deployment web").await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_elastic_job_grows_with_its_work_and_shrinks_without() {
    let cluster = cluster().await;
    let folder = cluster.home.work().join("signal");
    let manifest = format!(
        "apiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata: {{name: elastic}}\nspec:\n  elasticPolicy:\n    \
         minReplicas: 1\n    maxReplicas: 3\n    metrics:\n    - type: ContainerResource\n      containerResource: {{name: cpu, \
         container: pytorch, target: {{type: Utilization, averageUtilization: 50}}}}\n  pytorchReplicaSpecs:\n    Worker:\n      replicas: 1\n      \
         restartPolicy: OnFailure\n      template:\n        spec: {}\n",
        pod("pytorch", BESIDE, &folder)
    );
    cluster.home.write("elastic.yaml", &manifest);
    kubectl(&cluster, "apply -f elastic.yaml").await;
    let workers = "jsonpath={.spec.pytorchReplicaSpecs.Worker.replicas}";
    cluster.wait_for("pytorchjob/elastic", &format!("{workers}=3")).await;
    for pod in 0..3 {
        cluster.wait_for(&format!("pod/elastic-worker-{pod}"), "condition=Ready").await;
    }
    cluster.wait_for("pytorchjob/elastic", "jsonpath={.status.replicaStatuses.Worker.active}=3").await;
    let scale = kubectl(&cluster, "get pytorchjob elastic --subresource=scale -o jsonpath={.status}").await;
    assert!(
        scale.contains("\"replicas\":3") && scale.contains("training.kubeflow.org/job-name=elastic"),
        "{scale}"
    );

    cluster.kubectl(&["patch", "hpa", "elastic", "--type=merge", "-p", AT_ONCE]).await.succeeded();
    rest(&cluster);
    cluster.wait_for("pytorchjob/elastic", &format!("{workers}=1")).await;
    cluster.wait_for("pod/elastic-worker-2", "delete").await;
    let told = kubectl(&cluster, "describe hpa elastic").await;
    assert!(told.contains("PyTorchJob/elastic") && told.contains("New size: 1"), "{told}");
    // The autoscaler goes with the job.
    kubectl(&cluster, "delete pytorchjob elastic").await;
    cluster.wait_for("hpa/elastic", "delete").await;
    cluster.stop().await;
}
