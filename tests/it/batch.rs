//! `muster batch` and the commands beside it.

use crate::harness::{Cluster, Finished};

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
