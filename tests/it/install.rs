//! `muster install` and `muster uninstall` on a cluster whose API server asks every account for its permissions.

use std::collections::BTreeSet;

use rustix::process::Signal;

use crate::faults::until;
use crate::harness::manifests::ShellJob;
use crate::harness::{Part, Parts, Program, program};

/// A cluster of others: it has a scheduler of its own, and none of Muster's kinds.
struct Others {
    parts: Parts,
    scheduler: Program,
}

impl Others {
    async fn start() -> Self {
        let parts = Parts::start_without(&[Part::Trainer, Part::Scheduler]).await;
        parts.kubectl(&["delete", "crd", "--all"]).await.succeeded();
        let kubeconfig = parts.home.kubeconfig().display().to_string();
        let words = [
            "controller",
            "--kubeconfig",
            &kubeconfig,
            "--only",
            "scheduler",
            "--scheduler-names",
            "default-scheduler",
        ];
        let mut scheduler = Program::start(parts.home.muster(&words));
        scheduler.error_line_with("connected to").await;
        Self { parts, scheduler }
    }

    /// Every object but events, which say what happened.
    async fn objects(&self) -> BTreeSet<String> {
        let kinds = ["api-resources", "--verbs=list", "--cached=false", "-o", "name"];
        let kinds = self.parts.kubectl(&kinds).await.succeeded().stdout;
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name";
        let words = ["get", &kinds.join(","), "--all-namespaces", "--no-headers", "-o", columns];
        let text = self.parts.kubectl(&words).await.succeeded().stdout;
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    async fn stop(self) {
        self.scheduler.signal(Signal::TERM);
        self.scheduler.finish().await;
        self.parts.stop().await;
    }
}

#[tokio::test]
async fn muster_installs_itself_trains_a_gang_and_leaves_nothing() {
    let cluster = Others::start().await;
    let before = cluster.objects().await;
    let install = ["install", "--image", "host", "--timeout", "100"];
    let said = cluster.parts.muster(&install).await.succeeded().stderr;
    for line in
        ["ok  the server has", "ok  you may do", "definitions are established", "leads as muster-trainer"]
    {
        assert!(said.contains(line), "no `{line}` in:\n{said}");
    }
    let again = cluster.parts.muster(&install).await.succeeded().stderr;
    assert!(!again.contains("created") && !again.contains("configured"), "installed twice:\n{again}");

    let job = ShellJob { workers: 1, gpus: 1, ..ShellJob::default() }.yaml();
    cluster.parts.home.write("job.yaml", &job);
    cluster.parts.muster(&["submit", "job.yaml"]).await.succeeded();
    crate::harness::cluster::wait_for(&cluster.parts.home, "pytorchjob/job", "condition=Succeeded").await;
    let scheduler = ["get", "pods", "-o", "jsonpath={.items[*].spec.schedulerName}"];
    assert_eq!(cluster.parts.kubectl(&scheduler).await.succeeded().stdout, "muster muster");

    let refused = cluster.parts.muster(&["uninstall", "--yes"]).await;
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("1 pytorchjobs") && refused.stderr.contains("--cascade"),
        "{}",
        refused.stderr
    );
    let unasked = cluster.parts.muster(&["uninstall", "--cascade"]).await;
    assert!(unasked.stderr.contains("nobody is there to ask"), "{}", unasked.stderr);
    cluster.parts.muster(&["uninstall", "--yes", "--cascade"]).await.succeeded();
    until("the job's pods are collected", async || cluster.objects().await == before).await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_extender_is_installed_with_certificates_and_answers_kube_scheduler_only() {
    let cluster = Others::start().await;
    let before = cluster.objects().await;
    let install = ["install", "--form", "extender", "--image", "host", "--replicas", "1", "--timeout", "100"];
    let said = cluster.parts.muster(&install).await.succeeded().stderr;
    let answers = said.lines().find_map(|line| line.strip_prefix("ok  the extender answers at "));
    let address = answers.unwrap_or_else(|| panic!("it does not answer:\n{said}"));
    let again = cluster.parts.muster(&install).await.succeeded().stderr;
    assert!(!again.contains("created") && !again.contains("configured"), "installed twice:\n{again}");

    // As kube-scheduler, with the files that it is given.
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        let template = format!("go-template={{{{index .data \"{file}\" | base64decode}}}}");
        let words = ["get", "secret", "muster-extender-client", "-n", "muster-system", "-o", &template];
        let text = cluster.parts.kubectl(&words).await.succeeded().stdout;
        cluster.parts.home.write(file, &text);
    }
    let pods = ["g-0", "g-1"].map(|name| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  annotations: {{muster.dev/gang: g, muster.dev/gang-min-available: \"2\"}}
spec:
  schedulerName: muster
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: host
      command: [sleep, \"1000\"]
      resources: {{limits: {{nvidia.com/gpu: 1}}}}
"
        )
    });
    let pods = pods.concat();
    cluster.parts.home.write("pods.yaml", &pods);
    cluster.parts.kubectl(&["create", "-f", "pods.yaml"]).await.succeeded();
    let nodes = cluster.parts.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).await;
    let nodes: Vec<&str> = nodes.stdout.split_whitespace().collect();
    let port = address.rsplit(':').next().expect("a port");
    let call = async |verb: &str, body: serde_json::Value| {
        let mut curl = cluster.parts.home.command("curl");
        let name = "muster-extender.muster-system.svc";
        let ip = address.rsplit_once(':').expect("a port").0;
        curl.args([
            "--silent",
            "--max-time",
            "5",
            "--cacert",
            "ca.crt",
            "--cert",
            "tls.crt",
            "--key",
            "tls.key",
        ])
        .args(["--resolve", &format!("{name}:{port}:{ip}"), "--data", &body.to_string()])
        .arg(format!("https://{name}:{port}/{verb}"));
        let text = program::run(curl).await.succeeded().stdout;
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|_| panic!("{verb}: {text}"))
    };
    for pod in ["g-0", "g-1"] {
        until("the pod is bound", async || {
            let object = cluster.parts.object(&format!("pod/{pod}")).await;
            let node = call("filter", serde_json::json!({"Pod": object, "NodeNames": nodes})).await;
            let Some(node) = node["NodeNames"][0].as_str() else { return false };
            let uid = &object["metadata"]["uid"];
            let request =
                serde_json::json!({"PodName": pod, "PodNamespace": "default", "PodUID": uid, "Node": node});
            call("bind", request).await["Error"] == ""
        })
        .await;
    }
    let plan = cluster.parts.object("gangreservation/g").await;
    assert_eq!(plan["spec"]["members"].as_array().map(Vec::len), Some(2), "{plan}");
    cluster.parts.kubectl(&["delete", "-f", "pods.yaml"]).await.succeeded();
    until("the plan goes with its gang", async || cluster.parts.object("gangreservation/g").await.is_null())
        .await;
    cluster.parts.muster(&["uninstall", "--yes"]).await.succeeded();
    assert_eq!(cluster.objects().await, before);
    cluster.stop().await;
}
