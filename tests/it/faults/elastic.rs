//! Training goes on when a rank's process is lost: the pod starts it again, and the others give it what it missed.

use fs_err as fs;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::home::processes;
use crate::harness::program::send;
use crate::harness::{Cluster, Program, cluster};
use crate::main_job::digits;

/// The training process of a pod; `mark` is in its environment alone.
fn member(mark: &str, pod: &str) -> Option<u32> {
    process_with(mark, &format!("HOSTNAME={pod}"))
}

/// The training process of a rank; `mark` is in its environment alone.
fn trainer(mark: &str, rank: usize) -> Option<u32> {
    process_with(mark, &format!("RANK={rank}"))
}

fn process_with(mark: &str, variable: &str) -> Option<u32> {
    processes().into_iter().find(|process| {
        let read = |file: &str| std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        let environment = read("environ");
        let is_set =
            |variable: String| environment.split(|byte| *byte == 0).any(|word| word == variable.as_bytes());
        read("cmdline").starts_with(b"muster-train\0")
            && is_set(format!("MARK={mark}"))
            && is_set(variable.to_owned())
    })
}

/// A job whose ranks know the mark, with more lines of its command.
fn marked(yaml: &str, mark: &str, more: &str) -> String {
    let indent = "                ";
    let command = "              command:\n                - muster-train\n";
    let env = format!("              env:\n{indent}- {{name: MARK, value: {mark:?}}}\n");
    yaml.replace(command, &format!("{env}{command}{more}"))
}

/// The lines that pods print, until one contains a text.
struct Log(Program);

impl Log {
    fn follow(home: &crate::harness::Home, pod: &str) -> Self {
        Self(Program::start(home.muster(&["logs", "-f", pod])))
    }

    async fn until(&mut self, text: &str) -> String {
        while let Some(line) = self.0.line().await {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the log ended without {text}")
    }
}

#[tokio::test]
async fn an_elastic_job_is_scaled_while_it_trains() {
    let cluster = Cluster::start(&[]).await;
    let home = &cluster.home;
    let mark = home.path().display().to_string();
    let data = fs::read_to_string(digits()).expect("the example");
    let job = fs::read_to_string(std::path::Path::new(&digits()).with_file_name("elastic.yaml"))
        .expect("the example");
    let job = marked(&job, &mark, "").replace("--epochs=300", "--epochs=1000000");
    home.write("digits.yaml", &data);
    home.write("elastic.yaml", &job);
    home.run_muster(&["submit", "digits.yaml"]).await.succeeded();
    cluster.wait_for("pytorchjob/digits", "condition=Succeeded").await;
    home.run_muster(&["submit", "elastic.yaml"]).await.succeeded();
    cluster.wait_for("pod/digits-elastic-worker-0", "condition=Ready").await;
    let mut log = Log::follow(home, "digits-elastic-worker-0");
    log.until("event=joined ").await;
    let scaled = home.run_muster(&["scale", "job/digits-elastic", "--workers", "4"]).await.succeeded();
    assert_eq!(
        scaled.stdout,
        "pytorchjob.kubeflow.org/digits-elastic scaled to 4\npytorchjob.kubeflow.org/digits-elastic: 4 run\n"
    );
    log.until("world_size=4 ").await;
    let refused = home.run_muster(&["scale", "job/digits-elastic", "--workers", "5"]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("may have 1 to 4 workers, not 5"), "{}", refused.stderr);
    cluster.kubectl(&["scale", "pytorchjob/digits-elastic", "--replicas", "2"]).await.succeeded();
    log.until("world_size=2 ").await;
    let killed = "digits-elastic-worker-1";
    send(member(&mark, killed).expect("the process of the second worker"), Signal::KILL);
    log.until("world_size=1 ").await;
    log.until("world_size=2 ").await;
    let pod = cluster::object(home, &format!("pod/{killed}")).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    let job = cluster::object(home, "pytorchjob/digits-elastic").await;
    let conditions = job["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().all(|condition| condition["type"] != "Failed"), "scaling is no failure: {job}");
    cluster.kubectl(&["delete", "-f", "elastic.yaml", "-f", "digits.yaml"]).await.succeeded();
    cluster.stop().await;
}

#[tokio::test]
async fn a_killed_rank_comes_back_and_the_job_goes_on() {
    let cluster = Cluster::start(&[]).await;
    let home = &cluster.home;
    let mark = home.path().display().to_string();
    let yaml = fs::read_to_string(digits()).expect("the example");
    let yaml = marked(&yaml, &mark, "                - --on-loss=wait\n")
        .replacen("  name: digits\n", "  name: digits\n  annotations: {muster.dev/restart-scope: pod}\n", 1)
        .replace("--epochs=30", "--epochs=400");
    home.write("digits.yaml", &yaml);
    home.run_muster(&["submit", "digits.yaml"]).await.succeeded();
    cluster.wait_for("pod/digits-master-0", "condition=Ready").await;
    let mut log = Log::follow(home, "digits-master-0");
    log.until("step=300 ").await;
    send(trainer(&mark, 2).expect("the process of rank 2"), Signal::KILL);
    let loss = log.until("event=loss ").await;
    assert!(loss.contains("lost rank 2 on digits-worker-1: its process ended"), "{loss}");
    let regrouped = log.until("event=regrouped ").await;
    assert!(regrouped.contains("world_size=4"), "{regrouped}");
    let result = log.until("result ").await;
    assert!(result.contains("test_accuracy=0.9"), "{result}");
    cluster.wait_for("pytorchjob/digits", "condition=Succeeded").await;
    let restarts = |pod: &str| {
        let pod = format!("pod/digits-{pod}");
        async move {
            let pod = cluster::object(home, &pod).await;
            pod["status"]["containerStatuses"][0]["restartCount"].as_u64()
        }
    };
    assert_eq!(restarts("worker-1").await, Some(1));
    for other in ["master-0", "worker-0", "worker-2"] {
        assert_eq!(restarts(other).await, Some(0), "{other}");
    }
    cluster.kubectl(&["delete", "-f", "digits.yaml"]).await.succeeded();
    cluster.stop().await;
}

/// Starts two workers a pod, by the launcher, of a script that knows nothing of Muster: it says how many take part, and
/// is done once it is back at the size it began with.
const ROUNDS: &str = r#"
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata:
  name: rounds
spec:
  nprocPerNode: "2"
  elasticPolicy: {minReplicas: 2, maxReplicas: 3, maxRestarts: 0}
  pytorchReplicaSpecs:
    Worker:
      replicas: 2
      restartPolicy: OnFailure
      template:
        spec:
          containers:
            - name: pytorch
              image: muster.dev/trainer:0.1
              command:
                - muster
                - exec-worker
                - --
                - sh
                - -c
                - |
                  seen=/tmp/MARK-$HOSTNAME-$LOCAL_RANK
                  if [ $WORLD_SIZE = 6 ]; then touch $seen; fi
                  echo "rank $RANK of $WORLD_SIZE, restart $TORCHELASTIC_RESTART_COUNT"
                  if [ $WORLD_SIZE = 4 ] && [ -e $seen ]; then rm $seen; exit 0; fi
                  exec sleep 600
              resources: {limits: {cpu: 100m}}
"#;

#[tokio::test]
async fn an_elastic_job_of_any_script_is_scaled_in_rounds() {
    let cluster = Cluster::start(&[]).await;
    let home = &cluster.home;
    let mark = home.path().file_name().expect("a folder").display().to_string();
    home.write("rounds.yaml", &ROUNDS.replace("MARK", &mark));
    home.run_muster(&["submit", "rounds.yaml"]).await.succeeded();
    let mut logs = Vec::new();
    for pod in ["rounds-worker-0", "rounds-worker-1"] {
        cluster.wait_for(&format!("pod/{pod}"), "condition=Ready").await;
        let mut log = Log::follow(home, pod);
        log.until(" of 4, restart 0").await;
        logs.push(log);
    }
    home.run_muster(&["scale", "job/rounds", "--workers", "3"]).await.succeeded();
    for log in &mut logs {
        // Both workers of the pod.
        log.until(" of 6, restart 0").await;
        log.until(" of 6, restart 0").await;
    }
    cluster.kubectl(&["scale", "pytorchjob/rounds", "--replicas", "2"]).await.succeeded();
    logs[0].until(" of 4, restart 0").await;
    cluster.wait_for("pytorchjob/rounds", "condition=Succeeded").await;
    let pod = cluster::object(home, "pod/rounds-worker-0").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "the pod outlives its rounds");
    cluster.kubectl(&["delete", "-f", "rounds.yaml"]).await.succeeded();
    cluster.stop().await;
}

/// Complaint 1 of those who train on Kubeflow: a TrainJob needed all its nodes, all the time.
#[tokio::test]
async fn a_train_job_goes_on_with_the_nodes_that_there_are() {
    let cluster = Cluster::start(&["--nodes=2", "--gpus-per-node=1"]).await;
    // A third node waits for room, and takes that of the one that is lost.
    lose_a_node(&cluster, 3, 1).await;
    // The node that is lost is the one at which they meet.
    lose_a_node(&cluster, 2, 0).await;
    cluster.stop().await;
}

/// Runs a job of so many nodes where there is room for two, which loses one of them on its way.
async fn lose_a_node(cluster: &Cluster, nodes: usize, lost: usize) {
    let home = &cluster.home;
    let name = format!("few-of-{nodes}");
    let script = "echo rank $RANK of $WORLD_SIZE; until [ -e /tmp/end-$MARK-$HOSTNAME ]; do sleep 0.1; done";
    let mark = home.path().file_name().expect("a folder").display().to_string();
    let job = json!({
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "annotations": {"muster.dev/min-nodes": (nodes - 1).to_string()}},
        "spec": {
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {
                "image": "muster.dev/trainer:0.1",
                "command": ["muster", "exec-worker", "--", "sh", "-c", script],
                // Nodes that may still come are not waited for as long as torchrun does, which is 30 s.
                "env": [{"name": "MARK", "value": mark}, {"name": "PET_RDZV_CONF", "value": "last_call_timeout=1"}],
                "numNodes": nodes,
                "numProcPerNode": 1,
                "resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}},
            },
        },
    });
    home.write("few.yaml", &job.to_string());
    cluster.kubectl(&["apply", "-f", "few.yaml"]).await.succeeded();
    cluster.wait_for(&format!("job/{name}-node-0"), "jsonpath={.status.ready}=2").await;
    let running = async || {
        let of_job = format!("-ljobset.sigs.k8s.io/jobset-name={name}");
        let running = ["get", "pods", &of_job, "--field-selector=status.phase=Running", "-o", "name"];
        let names = cluster.kubectl(&running).await.succeeded().stdout;
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = running().await;
    assert_eq!(first.len(), 2, "{first:?}");
    let mut log = Log::follow(home, first[1 - lost].trim_start_matches("pod/"));
    log.until("of 2").await;
    cluster.kubectl(&["delete", &first[lost], "--grace-period=1"]).await.succeeded();
    // The node that is left goes on when another has taken the place.
    log.until("of 2").await;
    for node in running().await {
        let end = ["exec", &node, "--", "sh", "-c", "touch /tmp/end-$MARK-$HOSTNAME"];
        cluster.kubectl(&end).await.succeeded();
    }
    cluster.wait_for(&format!("trainjob/{name}"), "condition=Complete").await;
    cluster.kubectl(&["delete", "-f", "few.yaml"]).await.succeeded();
}
