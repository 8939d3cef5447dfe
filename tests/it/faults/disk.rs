//! The disk is full.

use std::io::Write as _;
use std::process::Command;

use fs_err as fs;
use tempfile::TempDir;

use super::parts::until;
use crate::harness::program::muster_path;
use crate::harness::{Cluster, Home};

/// A small file system of its own; gone with the test.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Room for the program, which the node copies from another disk, and a little more. `None` where this user
    /// may not mount.
    fn mount() -> Option<Self> {
        let folder =
            tempfile::Builder::new().prefix("muster-it-disk-").tempdir().expect("a temporary folder");
        let bytes = fs::metadata(muster_path()).expect("the program").len() + (24 << 20);
        let options = format!("size={bytes},mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|mount| mount.status.success()).then_some(Self { folder })
    }

    /// Takes the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.folder.path().join("filler")).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let bytes = vec![0; size];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.folder.path().join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _best_effort = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

/// Creates a ConfigMap of 64 KiB; the error if that fails.
async fn write(cluster: &Cluster, name: &str) -> Result<(), String> {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{text: {}}}\n",
        "x".repeat(64 << 10)
    );
    cluster.home.write("map.yaml", &text);
    let created = cluster.kubectl(&["create", "-f", "map.yaml"]).await;
    if created.code == 0 { Ok(()) } else { Err(created.stderr) }
}

async fn names(cluster: &Cluster) -> Vec<String> {
    let words = ["get", "configmaps", "-o", "jsonpath={range .items[*]}{.metadata.name} {end}"];
    let text = cluster.kubectl(&words).await.succeeded().stdout;
    text.split_whitespace().filter(|name| name.starts_with("map-")).map(str::to_owned).collect()
}

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: host
    command: [sh, -c, "i=0; while :; do i=$((i+1)); printf 'line %04000d\\n' $i; sleep 0.01; done"]
"#;

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_what_was_written_and_heals() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let cluster = Cluster::start_in(Home::with_state_in(disk.folder.path()), &[]).await;
    cluster.home.write("talker.yaml", TALKER);
    cluster.kubectl(&["create", "-f", "talker.yaml"]).await.succeeded();
    cluster.wait_for("pod/talker", "condition=Ready").await;
    write(&cluster, "map-before").await.expect("room");
    let mut acknowledged = vec!["map-before".to_owned()];

    disk.fill();
    let mut last = String::new();
    until("the log cannot grow any more", async || {
        let newest = cluster.muster(&["logs", "talker", "--tail", "1"]).await.succeeded().stdout;
        std::mem::replace(&mut last, newest.clone()) == newest
    })
    .await;
    let mut refusal = None;
    for number in 0..1000 {
        let name = format!("map-{number}");
        match write(&cluster, &name).await {
            Ok(()) => acknowledged.push(name),
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
    }
    let refusal = refusal.expect("a full disk refuses writes");
    assert!(refusal.contains("disk is full") && refusal.contains("free some space"), "{refusal}");
    acknowledged.sort();
    assert_eq!(names(&cluster).await, acknowledged, "reads go on");
    let elsewhere = cluster.home.path().join("second");
    let second = cluster.muster(&["up", "--home", &elsewhere.display().to_string()]).await;
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(
        second.stderr.contains("No space left") || second.stderr.contains("is full"),
        "{}",
        second.stderr
    );

    disk.free();
    until("writes are taken again", async || write(&cluster, "map-z").await.is_ok()).await;
    acknowledged.push("map-z".to_owned());
    assert_eq!(names(&cluster).await, acknowledged);
    until("the log says what it lost", async || {
        let log = cluster.muster(&["logs", "talker"]).await.succeeded().stdout;
        let is_whole = |line: &str| line.starts_with("muster: ") || line.len() == "line ".len() + 4000;
        assert!(log.lines().all(is_whole), "a line is cut");
        log.contains("lines are lost") && log.lines().last().is_some_and(|line| line.starts_with("line"))
    })
    .await;

    let cluster = Cluster::start_in(cluster.kill().await, &[]).await;
    assert_eq!(names(&cluster).await, acknowledged, "nothing acknowledged is lost");
    cluster.kubectl(&["delete", "pod", "talker"]).await.succeeded();
    cluster.stop().await;
}
