//! Jobs on runtimes, and the JobSets in which they run: with `kubectl`, and with Kubeflow's TrainerClient.

use fs_err as fs;
use serde_json::{Value, json};

use crate::faults::until;
use crate::harness::program::{self, repository};
use crate::harness::{Cluster, Conversation};

/// Jobs that fail at once, where the shipped runtimes would try for minutes.
const RUNTIME: &str = "apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainingRuntime
metadata:
  name: shell
  labels: {trainer.kubeflow.org/framework: torch}
spec:
  mlPolicy: {numNodes: 2, torch: {}}
  template:
    spec:
      failurePolicy: {maxRestarts: 1}
      replicatedJobs:
        - name: node
          template:
            metadata:
              labels: {trainer.kubeflow.org/trainjob-ancestor-step: trainer}
            spec:
              backoffLimit: 0
              template:
                spec:
                  restartPolicy: Never
                  terminationGracePeriodSeconds: 0
                  containers: [{name: node, image: busybox}]
";

/// Node 1 leaves when node 0, whose name it resolves, says that it is there.
const JOB: &str = r#"apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata:
  name: meeting
spec:
  runtimeRef: {name: shell, kind: TrainingRuntime}
  trainer:
    command:
      - sh
      - -ec
      - |
        echo "node $PET_NODE_RANK of $PET_NNODES meets at $PET_MASTER_ADDR:$PET_MASTER_PORT"
        until nslookup "$PET_MASTER_ADDR" >/dev/null 2>&1; do sleep 0.1; done
        echo "found"
"#;

/// Reports as the SDK does, as it must not, and of a job that is not its own; says how each was answered.
const REPORTING: &str = r#"apiVersion: trainer.kubeflow.org/v1alpha1
kind: TrainJob
metadata:
  name: reporting
spec:
  runtimeRef: {name: shell, kind: TrainingRuntime}
  trainer:
    command:
      - python3
      - -c
      - |
        import json, os, ssl, urllib.error, urllib.request
        url = os.environ["KUBEFLOW_TRAINER_SERVER_URL"]
        trust = ssl.create_default_context(cafile=os.environ["KUBEFLOW_TRAINER_SERVER_CA_CERT"])
        with open(os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"]) as file:
            headers = {"Authorization": "Bearer " + file.read()}
        def post(url, status):
            body = json.dumps({"trainerStatus": status}).encode()
            try:
                return urllib.request.urlopen(urllib.request.Request(url, body, headers), context=trust, timeout=60).status
            except urllib.error.HTTPError as error:
                return error.code
        status = {"progressPercentage": 40, "estimatedRemainingSeconds": 9,
                  "metrics": [{"name": "loss", "value": "0.5"}], "lastUpdatedTime": "2026-01-02T03:04:05Z"}
        answers = [post(url, status), post(url, {"progressPercentage": 400}), post(url.replace("reporting", "other"), status)]
        print("node", os.environ["PET_NODE_RANK"], *answers)
"#;

fn failing() -> String {
    let job = JOB.replace("name: meeting", "name: failing");
    let (head, _) = job.split_once("      - sh\n").expect("the job has a command");
    format!("{head}      - \"false\"\n")
}

const SET: &str = r#"apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: pair
spec:
  network: {subdomain: pairs}
  replicatedJobs:
    - name: first
      template: &job
        spec:
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 0
              containers:
                - name: main
                  image: busybox
                  command: [sh, -c, "echo $HOSTNAME"]
    - name: second
      dependsOn: [{name: first, status: Complete}]
      template: *job
"#;

#[tokio::test]
async fn jobs_on_runtimes_are_run_with_kubectl_alone() {
    let cluster = Cluster::start(&[]).await;
    cluster.home.write("runtime.yaml", RUNTIME);
    cluster.home.write("meeting.yaml", JOB);
    cluster.home.write("failing.yaml", &failing());
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("kubectl get clustertrainingruntimes -o name").await.succeeded();
    talk.types("kubectl apply -f runtime.yaml -f meeting.yaml").await.succeeded();
    talk.types("kubectl wait --for=condition=Complete trainjob/meeting --timeout=60s").await.succeeded();
    let logs = ["logs", "--prefix=false", "-l", "jobset.sigs.k8s.io/jobset-name=meeting", "--tail=-1"];
    let mut logs: Vec<String> =
        cluster.kubectl(&logs).await.succeeded().stdout.lines().map(str::to_owned).collect();
    logs.sort();
    assert_eq!(
        logs,
        [
            "found",
            "found",
            "node 0 of 2 meets at meeting-node-0-0.meeting:29500",
            "node 1 of 2 meets at meeting-node-0-0.meeting:29500",
        ]
    );
    talk.types("kubectl get trainjob meeting -o jsonpath={.status.jobsStatus[0]}").await;
    talk.types("kubectl get jobset meeting -o jsonpath={.status.terminalState}").await;

    talk.types("kubectl apply -f failing.yaml").await.succeeded();
    talk.types("kubectl wait --for=condition=Failed trainjob/failing --timeout=60s").await.succeeded();
    talk.types("kubectl get trainjob failing -o jsonpath={.status.conditions[-1:].reason}").await;
    talk.types("kubectl get jobset failing -o jsonpath={.status.restarts}").await;

    talk.types("kubectl delete trainingruntime shell --wait=false").await.succeeded();
    talk.types("kubectl get trainingruntime shell -o jsonpath={.metadata.finalizers}").await;
    talk.types("kubectl delete trainjob meeting failing").await.succeeded();
    until("all that was theirs is collected, and the runtime may go", async || {
        let left = ["get", "jobsets,jobs,pods,trainingruntimes", "-o", "name"];
        cluster.kubectl(&left).await.succeeded().stdout.is_empty()
    })
    .await;
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_is_as_far_as_its_first_node_reports() {
    let cluster = Cluster::start(&[]).await;
    cluster.home.write("runtime.yaml", RUNTIME);
    cluster.home.write("reporting.yaml", REPORTING);
    cluster.kubectl(&["apply", "-f", "runtime.yaml", "-f", "reporting.yaml"]).await.succeeded();
    cluster.wait_for("trainjob/reporting", "condition=Complete").await;
    let logs = ["logs", "--prefix=false", "-l", "jobset.sigs.k8s.io/jobset-name=reporting", "--tail=-1"];
    let logs = cluster.kubectl(&logs).await.succeeded().stdout;
    let mut logs: Vec<&str> = logs.lines().collect();
    logs.sort_unstable();
    assert_eq!(logs, ["node 0 200 422 401", "node 1 403 403 401"]);
    let said = serde_json::json!({"progressPercentage": 40, "estimatedRemainingSeconds": 9,
        "metrics": [{"name": "loss", "value": "0.5"}], "lastUpdatedTime": "2026-01-02T03:04:05Z"});
    until("the status repeats it", async || {
        cluster.object("trainjob/reporting").await["status"]["trainerStatus"] == said
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_jobset_is_run_with_kubectl_alone() {
    let cluster = Cluster::start(&[]).await;
    cluster.home.write("pair.yaml", SET);
    let mut talk = Conversation::in_home(&cluster.home);
    talk.types("kubectl apply -f pair.yaml").await.succeeded();
    talk.types("kubectl wait --for=condition=Completed jobset/pair --timeout=60s").await.succeeded();
    for job in ["pair-first-0", "pair-second-0"] {
        talk.types(&format!("kubectl logs job/{job}")).await.succeeded();
    }
    let columns = "custom-columns=NAME:.metadata.name,STATE:.status.terminalState,REASON:.status.conditions[-1:].reason";
    talk.types(&format!("kubectl get jobset pair -o {columns}")).await;
    talk.types("kubectl get service pairs -o jsonpath={.spec.clusterIP}").await;
    let gang = "jsonpath={.items[*].metadata.annotations.muster\\.dev/gang-by}";
    talk.types(&format!("kubectl get pods -o {gang}")).await;
    talk.types("kubectl delete jobset pair").await.succeeded();
    insta::assert_snapshot!(talk.text());
    cluster.stop().await;
}

#[tokio::test]
async fn kubeflows_trainer_client_trains_on_a_shipped_runtime() {
    let Some(python) = std::env::var_os("MUSTER_PYTHON") else {
        eprintln!("skipped: MUSTER_PYTHON names no Python with kubeflow==0.5.0");
        return;
    };
    let cluster = Cluster::start(&[]).await;
    let mut script = cluster.home.command(python);
    script.arg(repository().join("tests/it/training_jobs.py"));
    let told = program::run(script).await.succeeded();
    insta::assert_snapshot!(told.stdout);
    cluster.stop().await;
}

/// Complaint 6: pods that had to make room come back when there is some again, and that costs no attempt.
#[tokio::test]
async fn preempted_nodes_of_a_job_come_back_and_cost_it_nothing() {
    let cluster = Cluster::start(&["--nodes", "1", "--gpus-per-node", "2"]).await;
    let folder = cluster.home.work().join("signal");
    fs::create_dir(&folder).expect("a folder");
    let wait = |file: &str| format!("until [ -e /signal/{file} ]; do sleep 0.1; done");
    let mounted = format!(
        "volumes: [{{name: signal, hostPath: {{path: {}}}}}]\n                  terminationGracePeriodSeconds",
        folder.display()
    );
    let node = "{name: node, image: busybox, volumeMounts: [{name: signal, mountPath: /signal}]}";
    let runtime = RUNTIME
        .replace("terminationGracePeriodSeconds", &mounted)
        .replace("{name: node, image: busybox}", node)
        .replace("maxRestarts: 1", "maxRestarts: 0");
    cluster.home.write("runtime.yaml", &runtime);
    let job = format!(
        "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: TrainJob\nmetadata: {{name: patient}}\nspec:\n  runtimeRef: \
         {{name: shell, kind: TrainingRuntime}}\n  trainer:\n    resourcesPerNode: {{limits: {{nvidia.com/gpu: 1}}}}\n    \
         command: [sh, -c, '{}']\n",
        wait("go")
    );
    cluster.home.write("job.yaml", &job);
    let urgent = format!(
        "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {{name: urgent}}\nvalue: 1000\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: urgent}}\nspec: {{priorityClassName: urgent, restartPolicy: Never, \
         terminationGracePeriodSeconds: 0, volumes: [{{name: signal, hostPath: {{path: {}}}}}], containers: [{{name: c, \
         image: busybox, command: [sh, -c, '{}'], resources: {{limits: {{nvidia.com/gpu: 1}}}}, volumeMounts: [{{name: \
         signal, mountPath: /signal}}]}}]}}\n",
        folder.display(),
        wait("over")
    );
    cluster.home.write("urgent.yaml", &urgent);
    cluster.kubectl(&["apply", "-f", "runtime.yaml", "-f", "job.yaml"]).await.succeeded();
    cluster.wait_for("job/patient-node-0", "jsonpath={.status.ready}=2").await;
    let pods = [
        "get",
        "pods",
        "-l",
        "jobset.sigs.k8s.io/jobset-name=patient",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ];
    let first = cluster.kubectl(&pods).await.succeeded().stdout;
    cluster.kubectl(&["apply", "-f", "urgent.yaml"]).await.succeeded();
    cluster.wait_for("pod/urgent", "condition=Ready").await;
    fs::write(folder.join("over"), "").expect("a file");
    cluster.wait_for("pod/urgent", "jsonpath={.status.phase}=Succeeded").await;
    until("both are there again, as others", async || {
        let ready = cluster.object("job/patient-node-0").await["status"]["ready"] == 2;
        let now = cluster.kubectl(&pods).await.succeeded().stdout;
        ready && now.split(' ').count() == 2 && now.split(' ').all(|pod| !first.contains(pod))
    })
    .await;
    fs::write(folder.join("go"), "").expect("a file");
    cluster.wait_for("trainjob/patient", "condition=Complete").await;
    let set = cluster.object("jobset/patient").await;
    assert!(set["status"]["restarts"].as_i64().unwrap_or(0) == 0, "{set}");
    cluster.stop().await;
}

/// Complaints 2, 3 and 6, on a runtime as it is shipped: what happens to one node happens to all, at no charge if it is no
/// fault of theirs.
#[tokio::test]
async fn nodes_on_a_shipped_runtime_start_again_as_one() {
    let cluster = Cluster::start(&["--nodes", "1", "--gpus-per-node", "2"]).await;
    let mark = cluster.home.path().file_name().expect("a folder").display().to_string();
    // Ends with the code that is written into a file of the node's.
    let script = "trap 'exit 143' TERM; file=/tmp/code-$MARK-$HOSTNAME; until [ -s $file ]; do sleep 0.1; done; code=$(cat $file); rm $file; exit $code";
    let job = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "whole"},
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {
                "image": "busybox", "command": ["sh", "-c", script], "env": [{"name": "MARK", "value": mark}],
                "numNodes": 2, "resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}},
            },
        },
    });
    let urgent = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "urgent"}, "spec": {
            "priorityClassName": "urgent", "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "busybox", "command": ["true"],
                            "resources": {"limits": {"nvidia.com/gpu": 1}}}],
        }},
    ]});
    cluster.home.write("job.yaml", &job.to_string());
    cluster.home.write("urgent.yaml", &urgent.to_string());
    let nodes = async || {
        let pods = ["get", "pods", "-l", "jobset.sigs.k8s.io/jobset-name=whole", "-o", "json"];
        let pods = cluster.kubectl(&pods).await.succeeded().stdout;
        let pods: Value = serde_json::from_str(&pods).expect("pods");
        let field = |pod: &Value, field: &str| pod["metadata"][field].as_str().expect("text").to_owned();
        let pods = pods["items"].as_array().expect("pods").iter();
        pods.map(|pod| (field(pod, "name"), field(pod, "uid"))).collect::<Vec<_>>()
    };
    let both_anew = async |before: &[(String, String)]| {
        until("both nodes run, as pods of their own", async || {
            let ready = cluster.object("job/whole-node-0").await["status"]["ready"] == 2;
            let now = nodes().await;
            ready && now.len() == 2 && now.iter().all(|pod| !before.contains(pod))
        })
        .await;
        nodes().await
    };
    let end = async |pod: &str, code: u8| {
        let end = format!("echo {code} >/tmp/code-$MARK-$HOSTNAME");
        cluster.kubectl(&["exec", pod, "--", "sh", "-c", &end]).await.succeeded();
    };
    let restarts = async || {
        let status = cluster.object("jobset/whole").await["status"].clone();
        let count = |field: &str| status[field].as_i64().unwrap_or(0);
        (count("restarts"), count("restartsCountTowardsMax"))
    };
    cluster.kubectl(&["apply", "-f", "job.yaml"]).await.succeeded();
    let first = both_anew(&[]).await;
    cluster.kubectl(&["apply", "-f", "urgent.yaml"]).await.succeeded();
    cluster.wait_for("pod/urgent", "jsonpath={.status.phase}=Succeeded").await;
    let second = both_anew(&first).await;
    let (all, counted) = restarts().await;
    assert!(all > 0 && counted == 0, "{all}, {counted}");
    end(&second[1].0, 3).await;
    let third = both_anew(&second).await;
    assert_eq!(restarts().await, (all + 1, 1));
    for (pod, _) in &third {
        end(pod, 0).await;
    }
    cluster.wait_for("trainjob/whole", "condition=Complete").await;
    cluster.stop().await;
}
