//! Programs that are not there.

use crate::harness::manifests::ShellJob;
use crate::harness::normalise::normalise;
use crate::harness::{Cluster, Home};

#[tokio::test]
async fn a_job_whose_program_is_missing_fails_and_names_it() {
    let home = Home::new();
    let job = ShellJob { workers: 0, restart_policy: "Never", ..ShellJob::default() }.yaml();
    home.write(
        "job.yaml",
        &job.replace(r#"command: [sh, -c, "true"]"#, "command: [no-such-program, --fast]"),
    );
    let run = home.run_muster(&["run", "job.yaml"]).await;
    assert_eq!(run.code, 1);
    let errors = normalise(&run.stderr, &home);
    let (_, cause) = errors.split_once("error: ").expect("an error");
    insta::assert_snapshot!(cause);
    home.assert_nothing_left().await;
}

#[tokio::test]
async fn a_pod_whose_program_is_missing_says_so_as_a_kubelet_does() {
    let cluster = Cluster::start(&[]).await;
    for (name, command) in [("missing", "no-such-program"), ("folder", "/etc"), ("no-right", "/etc/hostname")]
    {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: main, image: host, command: [{command}]}}\n"
        );
        cluster.home.write("pod.yaml", &pod);
        cluster.kubectl(&["apply", "-f", "pod.yaml"]).await.succeeded();
        cluster.wait_for(&format!("pod/{name}"), "jsonpath={.status.phase}=Failed").await;
        let ended = cluster.object(&format!("pod/{name}")).await["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        assert_eq!(
            (ended["exitCode"].as_i64(), ended["reason"].as_str()),
            (Some(128), Some("StartError")),
            "{ended}"
        );
        assert!(ended["message"].as_str().expect("a message").contains(command), "{ended}");
    }
    cluster.stop().await;
}
