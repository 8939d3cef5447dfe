//! `kubectl exec`, `cp`, `attach`, `run -it` and `port-forward`, and the same by the Python client.

use std::path::Path;

use fs_err as fs;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::program::{self, DEADLINE, repository};
use crate::harness::{Cluster, Program};

/// Answers what a client wrote in capitals: whole connections at port 8001, line by line at port 8000.
const SERVER: &str = "
import socketserver, threading
class Whole(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read().upper())
class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
socketserver.ThreadingTCPServer.request_queue_size = 64
servers = [socketserver.ThreadingTCPServer(('127.0.0.1', port), kind) for port, kind in [(8000, Lines), (8001, Whole)]]
threading.Thread(target=servers[0].serve_forever).start()
print('up', flush=True)
servers[1].serve_forever()
";

/// A pod whose program is told on the command line, and that runs.
async fn pod(cluster: &Cluster, name: &str, command: &[&str]) {
    let words = [&["run", name, "--image=host", "--restart=Never", "--command", "--"], command].concat();
    cluster.kubectl(&words).await.succeeded();
    cluster.wait_for(&format!("pod/{name}"), "condition=Ready").await;
}

/// Runs a line of a shell in the folder of the test.
async fn shell(cluster: &Cluster, line: &str) -> program::Finished {
    let mut command = cluster.home.command("sh");
    command.args(["-c", line]);
    program::run(command).await
}

#[tokio::test]
async fn commands_end_as_they_would_on_a_shell() {
    let cluster = Cluster::start(&[]).await;
    pod(&cluster, "pod", &["sleep", "1000"]).await;
    let ran = cluster.kubectl(&["exec", "pod", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"));
    assert_eq!(ran.stderr, "err\ncommand terminated with exit code 7\n");
    cluster.kubectl(&["exec", "pod", "--", "true"]).await.succeeded();
    // As old clients do it, over SPDY alone.
    let line = "echo in | KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec -i pod -- sh -c 'cat; echo err >&2; exit 8'";
    let ran = shell(&cluster, line).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (8, "in\n"), "{}", ran.stderr);
    assert_eq!(ran.stderr, "err\ncommand terminated with exit code 8\n");
    let ran = cluster.kubectl(&["exec", "pod", "--", "sh", "-c", "kill -TERM $$"]).await;
    assert_eq!(ran.code, 143, "{}", ran.stderr);
    let ran = cluster.kubectl(&["exec", "pod", "--", "no-such-program"]).await;
    assert!(ran.stderr.contains("\"no-such-program\": executable file not found in $PATH"), "{}", ran.stderr);
    let ran = cluster.kubectl(&["exec", "pod", "-c", "nosuch", "--", "true"]).await;
    assert_ne!(ran.code, 0);

    // 16 MiB there and back, and a sum of them.
    let bytes: Vec<u8> =
        (0..16_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(cluster.home.work().join("in"), &bytes).expect("in");
    for web_sockets in ["true", "false"] {
        let line =
            format!("KUBECTL_REMOTE_COMMAND_WEBSOCKETS={web_sockets} kubectl exec -i pod -- cat < in > out");
        shell(&cluster, &line).await.succeeded();
        let back = fs::read(cluster.home.work().join("out")).expect("out");
        assert!(back == bytes, "what came back is what was sent");
    }
    let ran = shell(&cluster, "kubectl exec -i pod -- wc -c < in").await.succeeded();
    assert_eq!(ran.stdout.trim(), bytes.len().to_string());
    cluster.stop().await;
}

/// Reading is not enough, though a WebSocket begins with a GET.
#[tokio::test]
async fn who_runs_commands_may_create_them() {
    let cluster = Cluster::start(&[]).await;
    pod(&cluster, "pod", &["sleep", "1000"]).await;
    let exec = ["exec", "pod", "--as=jane", "--", "true"];
    for (verbs, allowed) in [("get", false), ("get,create", true)] {
        let role = format!(
            "kubectl create role runner --resource=pods,pods/exec --verb={verbs} --dry-run=client -o yaml \
                            | kubectl apply -f -"
        );
        shell(&cluster, &role).await.succeeded();
        if allowed {
            cluster.kubectl(&exec).await.succeeded();
            continue;
        }
        let binding = ["create", "rolebinding", "runner", "--role=runner", "--user=jane"];
        cluster.kubectl(&binding).await.succeeded();
        let refused = cluster.kubectl(&exec).await;
        assert_ne!(refused.code, 0);
        assert!(refused.stderr.contains("cannot create resource \"pods/exec\""), "{}", refused.stderr);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn folders_are_copied_both_ways() {
    let cluster = Cluster::start(&[]).await;
    pod(&cluster, "pod", &["sleep", "1000"]).await;
    let folder = cluster.home.work().join("sent");
    fs::create_dir_all(folder.join("deep/er")).expect("folders");
    fs::write(folder.join("top"), "on top").expect("a file");
    fs::write(folder.join("deep/er/large"), vec![b'l'; 5 << 20]).expect("a large file");
    cluster.kubectl(&["cp", "sent", "pod:/tmp/there"]).await.succeeded();
    let ran = cluster.kubectl(&["exec", "pod", "--", "cat", "/tmp/there/top"]).await.succeeded();
    assert_eq!(ran.stdout, "on top");
    cluster.kubectl(&["exec", "pod", "--", "sh", "-c", "echo more > /tmp/there/deep/new"]).await.succeeded();
    cluster.kubectl(&["cp", "pod:/tmp/there", "back"]).await.succeeded();
    let read = |name: &str| fs::read(cluster.home.work().join("back").join(name)).expect(name);
    assert_eq!((read("top"), read("deep/new")), (b"on top".to_vec(), b"more\n".to_vec()));
    assert_eq!(read("deep/er/large").len(), 5 << 20);
    cluster.stop().await;
}

/// Runs the conversation of `terminal.py`; the exit code is that of what was typed.
async fn on_a_terminal(cluster: &Cluster, words: &[&str]) {
    let mut command = cluster.home.command("python3");
    command.arg(repository().join("tests/it/terminal.py")).args(words);
    let ran = program::run(command).await;
    assert_eq!(ran.code, 5, "{}{}", ran.stdout, ran.stderr);
}

#[tokio::test]
async fn a_shell_is_used_on_a_terminal() {
    let cluster = Cluster::start(&[]).await;
    pod(&cluster, "pod", &["sleep", "1000"]).await;
    on_a_terminal(&cluster, &["exec", "kubectl", "exec", "-it", "pod", "--", "sh"]).await;
    let run = [
        "run",
        "kubectl",
        "run",
        "shell",
        "--image=host",
        "--restart=Never",
        "-it",
        "--rm",
        "--command",
        "--",
        "sh",
    ];
    on_a_terminal(&cluster, &run).await;
    let left = cluster.kubectl(&["get", "pod", "shell"]).await;
    assert!(left.stderr.contains("not found"), "{}{}", left.stdout, left.stderr);
    cluster.stop().await;
}

#[tokio::test]
async fn input_is_piped_into_a_new_pod() {
    let cluster = Cluster::start(&[]).await;
    fs::write(cluster.home.work().join("lines"), "one\ntwo\n".repeat(10_000)).expect("lines");
    let line = "kubectl run sort --image=host --restart=Never -i --rm --quiet --command -- wc -l < lines";
    let ran = shell(&cluster, line).await.succeeded();
    assert_eq!(ran.stdout.trim(), "20000", "{}", ran.stderr);
    // Attached to what runs already: it shows what comes from now on.
    let script = "while read line; do echo got $line; done";
    pod_with_input(&cluster, "reader", script).await;
    let ran = shell(&cluster, "printf 'a\\nb\\n' | timeout 60 kubectl attach -i reader --quiet").await;
    assert_eq!(ran.stdout, "got a\ngot b\n", "{}", ran.stderr);
    cluster.wait_for("pod/reader", "jsonpath={.status.phase}=Succeeded").await;
    cluster.stop().await;
}

async fn pod_with_input(cluster: &Cluster, name: &str, script: &str) {
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "main", "image": "host", "command": ["sh", "-c", script], "stdin": true, "stdinOnce": true,
        }]},
    });
    cluster.home.write("pod.json", &manifest.to_string());
    cluster.kubectl(&["apply", "-f", "pod.json"]).await.succeeded();
    cluster.wait_for(&format!("pod/{name}"), "condition=Ready").await;
}

/// Starts `kubectl port-forward`; where it listens.
async fn forward(cluster: &Cluster, pod: &str, port: u16) -> (Program, u16) {
    forward_over(cluster, pod, port, "true").await
}

/// The same over a WebSocket or, as old ones do, over SPDY alone.
async fn forward_over(cluster: &Cluster, pod: &str, port: u16, web_sockets: &str) -> (Program, u16) {
    let ports = format!(":{port}");
    let mut command = cluster.home.kubectl(&["port-forward", pod, &ports, "--address=127.0.0.1"]);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", web_sockets);
    let mut forward = Program::start(command);
    let line = forward.line().await.expect("where it listens");
    let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    let local = local.and_then(|port| port.parse().ok());
    (forward, local.unwrap_or_else(|| panic!("{line}")))
}

#[tokio::test]
async fn ports_are_forwarded() {
    let cluster = Cluster::start(&[]).await;
    pod(&cluster, "server", &["python3", "-c", SERVER]).await;
    let mut log = Program::start(cluster.home.kubectl(&["logs", "-f", "server"]));
    assert_eq!(log.line().await.as_deref(), Some("up"));
    for web_sockets in ["true", "false"] {
        let (forwarding, local) = forward_over(&cluster, "pod/server", 8001, web_sockets).await;
        // Each says that it has written all before the answer begins.
        let conversations = (0..8_usize).map(|index| async move {
            let mut stream = TcpStream::connect(("127.0.0.1", local)).await.expect("connects");
            let letter = b'a' + index as u8;
            let sent = vec![letter; (1 << 20) + index];
            let (mut reader, mut writer) = stream.split();
            let mut answer = Vec::new();
            let write = async {
                writer.write_all(&sent).await.expect("writes");
                writer.shutdown().await.expect("says that it is done");
            };
            tokio::join!(write, async { reader.read_to_end(&mut answer).await.expect("reads") });
            assert_eq!(answer.len(), sent.len(), "connection {index}");
            assert!(answer.iter().all(|byte| *byte == letter.to_ascii_uppercase()), "connection {index}");
        });
        let tasks: Vec<_> = conversations.map(tokio::spawn).collect();
        for task in tasks {
            timeout(DEADLINE, task).await.expect("in time").expect("the conversation");
        }
        forwarding.signal(Signal::INT);
        forwarding.finish().await;
    }

    // Nobody listens there.
    let (mut forwarding, local) = forward(&cluster, "pod/server", 9).await;
    let mut stream = TcpStream::connect(("127.0.0.1", local)).await.expect("connects");
    let mut nothing = Vec::new();
    let _closed_or_reset = stream.read_to_end(&mut nothing).await;
    assert_eq!(nothing, b"");
    let line = forwarding.error_line_with("error forwarding port 9 to pod server").await;
    assert!(line.contains("onnection refused"), "{line}");
    drop(forwarding);

    // The client that goes without a word takes its connections along, and the pod serves the next.
    let (forwarding, local) = forward(&cluster, "pod/server", 8000).await;
    let mut stream = TcpStream::connect(("127.0.0.1", local)).await.expect("connects");
    stream.write_all(b"line\n").await.expect("writes");
    let mut answer = [0; 5];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"LINE\n");
    forwarding.signal(Signal::KILL);
    forwarding.ended().await;
    cluster.kubectl(&["delete", "pod", "server", "--now"]).await.succeeded();
    cluster.stop().await;
}

#[tokio::test]
async fn the_python_client_has_streams() {
    let Some(python) = std::env::var_os("MUSTER_PYTHON") else {
        eprintln!("skipped: MUSTER_PYTHON names no Python with kubernetes");
        return;
    };
    let cluster = Cluster::start(&[]).await;
    pod(&cluster, "server", &["python3", "-c", SERVER]).await;
    let mut log = Program::start(cluster.home.kubectl(&["logs", "-f", "server"]));
    assert_eq!(log.line().await.as_deref(), Some("up"));
    let mut script = cluster.home.command(Path::new(&python));
    script.arg(repository().join("tests/it/streams.py")).arg("server");
    let told = program::run(script).await.succeeded();
    assert_eq!(told.stdout, "whole\nsaid wrong 6\nONE LINE\nNone\n", "{}", told.stderr);
    cluster.stop().await;
}
