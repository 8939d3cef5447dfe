//! Training goes on when a rank's process is lost: the pod starts it again, and the others give it what it missed.

use fs_err as fs;
use rustix::process::Signal;

use crate::harness::home::processes;
use crate::harness::program::send;
use crate::harness::{Cluster, Program, cluster};
use crate::main_job::digits;

/// The training process of a rank; `mark` is in its environment alone.
fn trainer(mark: &str, rank: usize) -> Option<u32> {
    processes().into_iter().find(|process| {
        let read = |file: &str| std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        let environment = read("environ");
        let is_set =
            |variable: String| environment.split(|byte| *byte == 0).any(|word| word == variable.as_bytes());
        read("cmdline").starts_with(b"muster-train\0")
            && is_set(format!("MARK={mark}"))
            && is_set(format!("RANK={rank}"))
    })
}

#[tokio::test]
async fn a_killed_rank_comes_back_and_the_job_goes_on() {
    let cluster = Cluster::start(&[]).await;
    let home = &cluster.home;
    let mark = home.path().display().to_string();
    let yaml = fs::read_to_string(digits()).expect("the example");
    let indent = "                ";
    let yaml = yaml
        .replacen("  name: digits\n", "  name: digits\n  annotations: {muster.dev/restart-scope: pod}\n", 1)
        .replace("--epochs=30", &format!("--epochs=400\n{indent}- --on-loss=wait"))
        .replace(
            "              command:\n                - muster-train\n",
            &format!("              env:\n{indent}- {{name: MARK, value: {mark:?}}}\n              command:\n{indent}- muster-train\n"),
        );
    home.write("digits.yaml", &yaml);
    home.run_muster(&["submit", "digits.yaml"]).await.succeeded();
    cluster.wait_for("pod/digits-master-0", "condition=Ready").await;
    let mut log = Program::start(home.muster(&["logs", "-f", "digits-master-0"]));
    let mut follow = async |text: &str| {
        while let Some(line) = log.line().await {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the log ended without {text}")
    };
    follow("step=300 ").await;
    send(trainer(&mark, 2).expect("the process of rank 2"), Signal::KILL);
    let loss = follow("event=loss ").await;
    assert!(loss.contains("lost rank 2 on digits-worker-1: its process ended"), "{loss}");
    let regrouped = follow("event=regrouped ").await;
    assert!(regrouped.contains("world_size=4"), "{regrouped}");
    let result = follow("result ").await;
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
