//! `muster batch` and the commands beside it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::harness::program::DEADLINE;
use crate::harness::{Cluster, Finished};
use crate::mpi;

/// A cluster, and a script in its working folder.
async fn cluster(script: &str) -> Cluster {
    let cluster = Cluster::start(&["--nodes", "2"]).await;
    cluster.home.write("job.sh", script);
    cluster
}

async fn muster(cluster: &Cluster, line: &str) -> Finished {
    let words: Vec<&str> = line.split(' ').collect();
    cluster.muster(&words).await
}

fn read(cluster: &Cluster, file: &str) -> String {
    fs_err::read_to_string(cluster.home.work().join(file)).expect("an output file")
}

#[tokio::test]
async fn a_script_of_slurm_runs_as_it_is() {
    let script = "#!/bin/sh\n#SBATCH -J hello -c 1 --time=5\n#SBATCH --licenses=none\n\
                  echo $SLURM_JOB_NAME $SLURM_JOB_ID $SLURM_NTASKS $1 from $(pwd)\necho wrong >&2\nexit 3\n";
    let cluster = cluster(script).await;
    let submitted = muster(&cluster, "batch --wait job.sh argument").await;
    assert_eq!((submitted.code, submitted.stdout.as_str()), (3, "Submitted batch job 1\n"));
    assert_eq!(submitted.stderr, "job.sh:3: --licenses=none is not supported and left out\n");
    let folder = fs_err::canonicalize(cluster.home.work()).expect("a folder");
    assert_eq!(
        read(&cluster, "slurm-1.out"),
        format!("hello 1 1 argument from {}\nwrong\n", folder.display())
    );
    let queue = muster(&cluster, "queue --all --noheader").await.succeeded().stdout;
    assert!(queue.contains("hello") && queue.split_whitespace().any(|word| word == "F"), "{queue}");
    let refused = muster(&cluster, "batch --dependency afterok:9 job.sh").await;
    assert!(refused.code != 0 && refused.stderr.contains("there is no batch job 9"), "{}", refused.stderr);
    cluster.stop().await;
}

#[tokio::test]
async fn an_array_and_what_waits_for_it() {
    let cluster =
        cluster("#!/bin/sh\necho task $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_JOB_ID is $SLURM_JOB_ID\n").await;
    let held = muster(&cluster, "batch --hold --parsable --array 2-6:2%1 job.sh").await.succeeded();
    assert_eq!(held.stdout, "1\n");
    let after = muster(&cluster, "batch --parsable --dependency afterok:1 --output after.out job.sh")
        .await
        .succeeded();
    assert_eq!(after.stdout, "4\n", "an array has a number for each task");
    let never = muster(&cluster, "batch --parsable -d afternotok:1 job.sh").await.succeeded();
    assert_eq!(never.stdout, "5\n");
    let queue = muster(&cluster, "queue --noheader").await.succeeded().stdout;
    let rows: Vec<(&str, &str)> = queue
        .lines()
        .filter_map(|line| Some((line.split_whitespace().next()?, line.split_whitespace().last()?)))
        .collect();
    assert_eq!(rows, [("1_[2,4,6%1]", "(JobHeldUser)"), ("4", "(Dependency)"), ("5", "(Dependency)")]);
    muster(&cluster, "release 1").await.succeeded();
    cluster.wait_for("job/batch-4", "condition=Complete").await;
    for (index, task) in [2, 4, 6].into_iter().enumerate() {
        let line = format!("task {task} of 1 is {}\n", index + 1);
        assert_eq!(read(&cluster, &format!("slurm-1_{task}.out")), line);
    }
    assert!(read(&cluster, "after.out").starts_with("task"));
    cluster
        .wait_for(
            "job/batch-5",
            "jsonpath={.metadata.annotations.muster\\.dev/batch-reason}=DependencyNeverSatisfied",
        )
        .await;
    muster(&cluster, "cancel 5").await.succeeded();
    cluster.wait_for("job/batch-5", "condition=Failed").await;
    let queue = muster(&cluster, "queue 5 --noheader").await.succeeded().stdout;
    assert!(queue.split_whitespace().any(|word| word == "CA"), "{queue}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_is_warned_ended_and_started_again() {
    let script = "#!/bin/sh\ntrap 'echo warned' USR1\ntrap 'echo ended; exit 0' TERM\necho begun\n\
                  while :; do sleep 0.05; done\n";
    let cluster = cluster(script).await;
    let late = muster(&cluster, "batch --wait --time 0:10 --signal USR1@5 --output late.out job.sh").await;
    assert_ne!(late.code, 0);
    assert_eq!(read(&cluster, "late.out"), "begun\nwarned\nended\n");
    let queue = muster(&cluster, "queue 1 --noheader").await.succeeded().stdout;
    assert!(queue.split_whitespace().any(|word| word == "TO"), "{queue}");

    muster(&cluster, "batch --output again.out job.sh").await.succeeded();
    cluster.wait_for("job/batch-2", "jsonpath={.status.ready}=1").await;
    let pod = "get pods -l muster.dev/batch-id=2 -o jsonpath={.items[*].metadata.uid}";
    let words: Vec<&str> = pod.split(' ').collect();
    let before = cluster.kubectl(&words).await.succeeded().stdout;
    let refused = muster(&cluster, "hold 2").await;
    assert!(refused.code != 0 && refused.stderr.contains("runs already"), "{}", refused.stderr);
    muster(&cluster, "requeue 2").await.succeeded();
    cluster.wait_for("job/batch-2", "jsonpath={.spec.suspend}=false").await;
    cluster.wait_for("job/batch-2", "jsonpath={.status.ready}=1").await;
    let after = cluster.kubectl(&words).await.succeeded().stdout;
    assert!(!after.contains(&before), "another pod: {after}");
    muster(&cluster, "cancel 2").await.succeeded();
    cluster.wait_for("job/batch-2", "condition=Failed").await;
    let missing = muster(&cluster, "cancel 99 2").await;
    assert!(
        missing.stderr.contains("no batch job 99") && missing.stderr.contains("job 2 has ended"),
        "{}",
        missing.stderr
    );
    cluster.stop().await;
}

/// The rows of the queue that `options` name, for programs.
async fn queue(cluster: &Cluster, options: &str) -> Vec<Value> {
    let printed = muster(cluster, format!("queue -o json {options}").trim_end()).await.succeeded().stdout;
    let document: Value = serde_json::from_str(&printed).expect("JSON");
    document["jobs"].as_array().expect("a list").clone()
}

/// Waits until the queue says of a job what it must.
async fn until(cluster: &Cluster, job: &str, reached: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut every = interval(Duration::from_millis(100));
    loop {
        every.tick().await;
        let rows = queue(cluster, job).await;
        if rows.iter().any(&reached) {
            return;
        }
        assert!(Instant::now() < deadline, "not in time: {rows:?}");
    }
}

/// The lines of an output file, sorted.
fn lines(cluster: &Cluster, file: &str) -> Vec<String> {
    let mut lines: Vec<String> = read(cluster, file)
        .lines()
        // Open MPI at times tells of a race with its own children.
        .filter(|line| !line.contains("plm:rsh: Warning: setpgid"))
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_script_starts_processes_on_several_nodes_by_either_mpirun() {
    if let Some(missing) = mpi::missing() {
        eprintln!("{missing}");
        return;
    }
    let script = "#!/bin/sh\n#SBATCH -N 2 -n 3 --output=%x-%j.out -J hello\n\
                  echo on $SLURM_JOB_NODELIST $SLURM_NNODES $SLURM_NTASKS $SLURM_TASKS_PER_NODE from $1 $(pwd)\n\
                  mpirun.mpich -n 3 sh -c 'echo $(hostname) node $SLURM_NODEID ${SLURM_PROCID-}' || exit 9\n\
                  mpirun.openmpi sh -c 'echo $(hostname) $SLURM_NODEID'\n\
                  exit 4\n";
    let cluster = cluster(script).await;
    let submitted = muster(&cluster, "batch --wait job.sh argument").await;
    assert_eq!(
        (submitted.code, submitted.stdout.as_str()),
        (4, "Submitted batch job 1\n"),
        "{}",
        submitted.stderr
    );
    let folder = fs_err::canonicalize(cluster.home.work()).expect("a folder");
    let expected = [
        "batch-1-worker-0 0".to_owned(),
        "batch-1-worker-0 0".to_owned(),
        "batch-1-worker-0 node 0".to_owned(),
        "batch-1-worker-0 node 0".to_owned(),
        "batch-1-worker-1 1".to_owned(),
        "batch-1-worker-1 node 1".to_owned(),
        format!("on batch-1-worker-[0-1] 2 3 2,1 from argument {}", folder.display()),
    ];
    assert_eq!(lines(&cluster, "hello-1.out"), expected);
    let row = &queue(&cluster, "1").await[0];
    assert_eq!((&row["job_state"], &row["node_count"]), (&json!("FAILED"), &json!(2)), "{row}");

    // On one node nothing takes the variables for those of a Slurm that starts processes.
    cluster.home.write(
        "one.sh",
        "#!/bin/sh\nmpirun.openmpi sh -c 'echo rank' && mpirun.mpich -n 2 sh -c 'echo rank'\n",
    );
    muster(&cluster, "batch --wait -n 2 -o one.out one.sh").await.succeeded();
    assert_eq!(lines(&cluster, "one.out"), ["rank"; 4]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_of_several_nodes_waits_is_held_requeued_and_cancelled_like_any_other() {
    let script = "#!/bin/sh\ntrap 'echo ended; exit 0' TERM\necho begun\nwhile :; do sleep 0.05; done\n";
    let cluster = cluster(script).await;
    muster(&cluster, "batch --hold -N 2 -o 1.out job.sh").await.succeeded();
    cluster.home.write("last.sh", "#!/bin/sh\necho $SLURM_JOB_NUM_NODES nodes\n");
    muster(&cluster, "batch -N 2 -o 2.out -d afternotok:1 last.sh").await.succeeded();
    muster(&cluster, "batch -N 2 -o 3.out -d afterok:1 --kill-on-invalid-dep=yes last.sh").await.succeeded();
    let reasons: Vec<Value> =
        queue(&cluster, "").await.iter().map(|row| row["state_reason"].clone()).collect();
    assert_eq!(reasons, ["JobHeldUser", "Dependency", "Dependency"]);
    muster(&cluster, "release 1").await.succeeded();
    cluster.wait_for("mpijob/batch-1", "condition=Running").await;
    let refused = muster(&cluster, "hold 1").await;
    assert!(refused.stderr.contains("runs already"), "{}", refused.stderr);
    let launcher = async || {
        let words = [
            "get",
            "pods",
            "-l",
            "muster.dev/batch-id=1,training.kubeflow.org/job-role=master",
            "-o",
            "jsonpath={.items[*].metadata.uid}",
        ];
        cluster.kubectl(&words).await.succeeded().stdout
    };
    let before = launcher().await;
    muster(&cluster, "requeue 1").await.succeeded();
    cluster.wait_for("mpijob/batch-1", "jsonpath={.spec.runPolicy.suspend}=false").await;
    cluster.wait_for("mpijob/batch-1", "condition=Running").await;
    let after = launcher().await;
    assert!(!before.is_empty() && !after.is_empty() && !after.contains(&before), "{before} {after}");
    muster(&cluster, "cancel 1").await.succeeded();
    cluster.wait_for("mpijob/batch-2", "condition=Succeeded").await;
    assert_eq!(read(&cluster, "2.out"), "2 nodes\n");
    cluster.wait_for("mpijob/batch-3", "condition=Failed").await;
    let states: Vec<Value> =
        queue(&cluster, "--all").await.iter().map(|row| row["job_state"].clone()).collect();
    assert_eq!(states, ["CANCELLED", "COMPLETED", "CANCELLED"]);
    muster(&cluster, "batch --wait -N 2 --time 0:03 -o 4.out job.sh").await;
    assert_eq!(queue(&cluster, "4").await[0]["job_state"], "TIMEOUT");
    let refused = muster(&cluster, "batch -N 2 --array 0-3 job.sh").await;
    assert!(refused.stderr.contains("--array with --nodes 2"), "{}", refused.stderr);
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_of_several_nodes_starts_anew_when_its_launcher_is_evicted() {
    let script = "#!/bin/sh\necho $$ >>runs\nwhile [ $(wc -l <runs) -lt 2 ]; do sleep 0.05; done\n";
    let cluster = cluster(script).await;
    muster(&cluster, "batch -N 2 --requeue -o out job.sh").await.succeeded();
    let deadline = Instant::now() + DEADLINE;
    let mut every = interval(Duration::from_millis(50));
    while !cluster.home.work().join("runs").exists() {
        every.tick().await;
        assert!(Instant::now() < deadline, "the script does not start");
    }
    let launcher = "get pods -l muster.dev/batch-id=1,training.kubeflow.org/job-role=master -o name";
    let launcher = cluster.kubectl(&launcher.split(' ').collect::<Vec<_>>()).await.succeeded().stdout;
    let name = launcher.trim().trim_start_matches("pod/");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": "default" },
    });
    cluster.home.write("eviction.json", &eviction.to_string());
    let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
    cluster.kubectl(&["create", "--raw", &path, "-f", "eviction.json"]).await.succeeded();
    cluster.wait_for("mpijob/batch-1", "condition=Succeeded").await;
    assert!(read(&cluster, "runs").lines().count() >= 2);
    let job = cluster.object("mpijob/batch-1").await;
    assert_eq!(job["metadata"]["annotations"]["muster.dev/restart-count"], Value::Null, "it costs nothing");
    cluster.stop().await;
}

#[tokio::test]
async fn the_queue_says_why_jobs_wait_and_when_they_start() {
    let cluster = Cluster::start(&["--nodes", "1", "--gpus-per-node", "2"]).await;
    cluster.home.write("job.sh", "#!/bin/sh\nsleep 1000\n");
    let submit = async |options: &str| muster(&cluster, &format!("batch {options} job.sh")).await;
    submit("--gres=gpu:2 --time 60").await.succeeded();
    cluster.wait_for("job/batch-1", "jsonpath={.status.ready}=1").await;
    submit("--gpus 2 --time 30 --partition default").await.succeeded();
    until(&cluster, "2", |row| row["state_description"].is_string()).await;
    submit("--gpus-per-task 1 -n 2 --time 30").await.succeeded();
    until(&cluster, "3", |row| row["state_description"].is_string()).await;
    let rows = queue(&cluster, "--start").await;
    let told = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(
        (told("job_id"), told("state_reason")),
        (vec![json!(2), json!(3)], vec![json!("Resources"), json!("Priority")])
    );
    let start = |row: &Value| row["expected_start_time"].as_str().unwrap_or_default().to_owned();
    assert!(!start(&rows[0]).is_empty() && start(&rows[0]) < start(&rows[1]), "{rows:?}");
    let table = muster(&cluster, "queue --start").await.succeeded().stdout;
    assert!(table.contains("START_TIME") && !table.contains("N/A"), "{table}");
    let wrong = submit("--gpus h100:1").await;
    assert!(wrong.stderr.contains("no node has GPUs of type h100"), "{}", wrong.stderr);
    cluster.stop().await;
}
