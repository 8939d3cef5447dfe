//! Commands that clients run in containers, through the API server over the network.

use std::time::Duration;

use futures::SinkExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess, DeleteParams, TerminalSize};
use muster_node::Isolation;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::cluster::{Cluster, PATIENCE, is_root, wait_process};

/// What a command printed and how it ended.
struct Ran {
    output: Vec<u8>,
    error: String,
    status: Option<Status>,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.output).unwrap().trim_end()
    }

    /// The exit code as clients find it.
    fn code(&self) -> i32 {
        let status = self.status.as_ref().expect("a status");
        if status.status.as_deref() == Some("Success") {
            return 0;
        }
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
        let causes = status.details.as_ref().unwrap().causes.as_ref().unwrap();
        assert_eq!(causes[0].reason.as_deref(), Some("ExitCode"));
        causes[0].message.as_ref().unwrap().parse().unwrap()
    }

    fn message(&self) -> String {
        self.status.as_ref().and_then(|status| status.message.clone()).unwrap_or_default()
    }
}

async fn read_all(reader: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        // A stream that broke off ends with an error; what came until then counts.
        let _ = reader.read_to_end(&mut bytes).await;
    }
    bytes
}

/// Follows a command to its end.
async fn finish(mut process: AttachedProcess, input: Option<&[u8]>) -> Ran {
    let status = process.take_status().unwrap();
    let (output, error, stdin) = (process.stdout(), process.stderr(), process.stdin());
    let write = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        }
    };
    let heard = async { tokio::join!(read_all(output), read_all(error), status) };
    let all = async {
        tokio::pin!(heard);
        // A command may end without having read its input.
        tokio::select! {
            heard = &mut heard => heard,
            () = write => heard.await,
        }
    };
    let (output, error, status) = timeout(PATIENCE, all).await.expect("the command ends");
    Ran { output, error: String::from_utf8(error).unwrap(), status }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn exec(pods: &Api<Pod>, pod: &str, argv: &[&str]) -> Ran {
    let process = pods.exec(pod, words(argv), &AttachParams::default()).await.unwrap();
    finish(process, None).await
}

async fn shell(pods: &Api<Pod>, pod: &str, script: &str) -> Ran {
    exec(pods, pod, &["/bin/sh", "-c", script]).await
}

async fn commands_run(isolation: Isolation) {
    let cluster = Cluster::start(isolation).await;
    commands(&cluster).await;
    cluster.stop().await;
}

/// What holds for commands whatever the isolation.
pub(crate) async fn commands(cluster: &Cluster) {
    let spec = json!({"containers": [{"env": [{"name": "COLOUR", "value": "blue"}], "workingDir": "/usr"}]});
    cluster.create("commands", "exec sleep 1000", spec).await;
    cluster.wait_phase("commands", "Running").await;
    let pods = cluster.pods_by_network().await;

    let ran = shell(&pods, "commands", "echo out; echo err >&2; echo $COLOUR; pwd; exit 3").await;
    assert_eq!((ran.text(), ran.error.as_str(), ran.code()), ("out\nblue\n/usr", "err\n", 3));
    assert_eq!(exec(&pods, "commands", &["true"]).await.code(), 0);
    assert_eq!(shell(&pods, "commands", "kill -KILL $$").await.code(), 137);
    assert_eq!(shell(&pods, "commands", "kill -TERM $$").await.code(), 143);
    let ran = exec(&pods, "commands", &["no-such-program"]).await;
    assert!(
        ran.message().contains("\"no-such-program\": executable file not found in $PATH"),
        "{ran:?}",
        ran = ran.status
    );

    // A child that holds the output open does not keep the client.
    let ran = shell(&pods, "commands", "sleep 1000 & echo done").await;
    assert_eq!((ran.text(), ran.code()), ("done", 0));

    let input: Vec<u8> =
        (0..8_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let params = AttachParams::default().stdin(true).max_stdin_buf_size(1 << 16).max_stdout_buf_size(1 << 16);
    let process = pods.exec("commands", ["cat"], &params).await.unwrap();
    let ran = finish(process, Some(&input)).await;
    assert_eq!(ran.code(), 0);
    assert!(ran.output == input, "{} of {} bytes came back as they were", ran.output.len(), input.len());

    // A command that does not read its input ends all the same.
    let process = pods.exec("commands", ["true"], &params).await.unwrap();
    assert_eq!(finish(process, Some(&input)).await.code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_containers_of_full_isolation() {
    if is_root("commands_run_in_containers_of_full_isolation") {
        commands_run(Isolation::Full).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_light_containers() {
    commands_run(Isolation::Light).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_where_and_who_the_container_is() {
    if !is_root("a_command_is_where_and_who_the_container_is") {
        return;
    }
    let cluster = Cluster::start(Isolation::Full).await;
    let spec = json!({
        "hostname": "inside",
        "securityContext": {"runAsUser": 1234, "runAsGroup": 77},
        "containers": [{"volumeMounts": [{"name": "v", "mountPath": "/made/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    cluster.create("pod", "echo here > /made/v/file; exec sleep 1000", spec).await;
    cluster.wait_phase("pod", "Running").await;
    let pods = cluster.pods_by_network().await;
    let ran = shell(&pods, "pod", "id -u; id -g; hostname; cat /made/v/file; cat /proc/1/comm").await;
    assert_eq!(ran.text(), "1234\n77\ninside\nhere\nmuster-containe", "{}", ran.error);
    let groups = shell(&pods, "pod", "cat /proc/self/cgroup /proc/1/cgroup").await;
    let lines: Vec<&str> = groups.text().lines().collect();
    assert_eq!(
        lines[..lines.len() / 2],
        lines[lines.len() / 2..],
        "the command's groups and the container's"
    );
    let addresses = shell(&pods, "pod", "cat /proc/net/fib_trie").await;
    let pod = cluster.pods().get("pod").await.unwrap();
    let address = pod.status.unwrap().pod_ip.unwrap();
    assert!(addresses.text().contains(&address), "the command is in the pod's network");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_refused_with_the_reason() {
    let cluster = Cluster::start(Isolation::Light).await;
    let container = |name: &str| json!({"name": name, "image": "busybox", "command": ["sleep", "1000"]});
    cluster
        .create("two", "", json!({"containers": [container("left"), container("right"), container("x")]}))
        .await;
    cluster.create("over", "exit 0", json!({})).await;
    cluster.create("unbound", "exit 0", json!({"nodeName": null})).await;
    cluster.wait_phase("two", "Running").await;
    cluster.wait_phase("over", "Succeeded").await;
    let pods = cluster.pods_by_network().await;
    let refused = |pod: &'static str, container: Option<&'static str>| {
        let pods = pods.clone();
        async move {
            let params = AttachParams { container: container.map(str::to_owned), ..AttachParams::default() };
            match pods.exec(pod, ["true"], &params).await {
                Ok(_) => panic!("{pod} {container:?} runs commands"),
                Err(error) => error.to_string(),
            }
        }
    };
    // kube-rs shows the status of a refusal only.
    for (pod, container) in [("two", None), ("two", Some("nosuch")), ("over", None), ("unbound", None)] {
        let message = refused(pod, container).await;
        assert!(message.contains("400"), "{pod}: {message}");
    }
    let missing = refused("nosuch", None).await;
    assert!(missing.contains("404"), "{missing}");
    let request = |query: &str| {
        let request = http::Request::get(format!("/api/v1/namespaces/default/pods/two/exec?{query}"));
        let request = request.body(Vec::new()).unwrap();
        let client = pods.clone().into_client();
        async move {
            let answer = client.request::<serde_json::Value>(request).await;
            match answer {
                Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
                other => panic!("{other:?}"),
            }
        }
    };
    let plain = request("container=left&command=true&stdout=1").await;
    assert_eq!(plain, (400, "Upgrade request required".to_owned()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_hangs_up() {
    let cluster = Cluster::start(Isolation::Light).await;
    cluster.create("pod", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("pod", "Running").await;
    let pods = cluster.pods_by_network().await;
    // Not a terminal, and a command that neither reads nor writes.
    let marker = "1000.25001";
    let process = pods.exec("pod", ["sleep", marker], &AttachParams::default()).await.unwrap();
    wait_process(marker, true).await;
    drop(process);
    wait_process(marker, false).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_ends_its_commands() {
    let mut isolations = vec![Isolation::Light];
    if is_root("a_pod_that_is_deleted_ends_its_commands in full isolation") {
        isolations.push(Isolation::Full);
    }
    for isolation in isolations {
        let cluster = Cluster::start(isolation).await;
        cluster.create("pod", "exec sleep 1000", json!({})).await;
        cluster.wait_phase("pod", "Running").await;
        let pods = cluster.pods_by_network().await;
        let marker = "1000.25002";
        let process = pods.exec("pod", ["sleep", marker], &AttachParams::default()).await.unwrap();
        wait_process(marker, true).await;
        cluster.pods().delete("pod", &DeleteParams::default().grace_period(1)).await.unwrap();
        let ran = finish(process, None).await;
        assert!(ran.code_or_failure(), "{:?}", ran.status);
        cluster.wait_gone("pod").await;
        wait_process(marker, false).await;
        cluster.stop().await;
    }
}

impl Ran {
    /// The command was killed, or it is said why nobody knows.
    fn code_or_failure(&self) -> bool {
        self.message().contains("the pod ended") || self.code() == 137
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stops_ends_streams_and_says_so() {
    let mut cluster = Cluster::start(Isolation::Light).await;
    cluster.create("pod", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("pod", "Running").await;
    let pods = cluster.pods_by_network().await;
    let marker = "1000.25003";
    let process = pods.exec("pod", ["sleep", marker], &AttachParams::default()).await.unwrap();
    wait_process(marker, true).await;
    cluster.stop_node().await;
    let ran = finish(process, None).await;
    assert!(ran.message().contains("the node's agent is stopping"), "{:?}", ran.status);
    wait_process(marker, false).await;
    let refused = pods.exec("pod", ["true"], &AttachParams::default()).await;
    assert!(refused.is_err(), "nobody can run a command now");
    cluster.start_node().await;
    assert_eq!(shell(&pods, "pod", "exit 4").await.code(), 4, "the pod has run on");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_shuts_down_ends_streams() {
    let mut cluster = Cluster::start(Isolation::Light).await;
    cluster.create("pod", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("pod", "Running").await;
    let marker = "1000.25004";
    let mut process = cluster
        .pods_by_network()
        .await
        .exec("pod", ["sleep", marker], &AttachParams::default())
        .await
        .unwrap();
    wait_process(marker, true).await;
    cluster.stop_server().await;
    // The client hears that the connection is gone; kube-rs does not pass that on to readers of the output.
    let status = timeout(PATIENCE, process.take_status().unwrap()).await.expect("the stream ends");
    assert!(status.is_none(), "{status:?}");
    wait_process(marker, false).await;
    cluster.stop().await;
}

/// Sends the end of the input as a v4 client does: by closing the connection in good order.
#[tokio::test(flavor = "multi_thread")]
async fn the_input_of_a_client_that_closes_the_connection_arrives_whole() {
    let cluster = Cluster::start(Isolation::Light).await;
    let file = cluster.folder.path().join("written");
    cluster.create("pod", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("pod", "Running").await;
    let script = format!("cat > {0}.next; sleep 0.3; mv {0}.next {0}", file.display());
    let query = ["sh", "-c", &script]
        .map(|word| format!("command={}", word.replace(' ', "+").replace('>', "%3E")))
        .join("&");
    let path = format!("/api/v1/namespaces/default/pods/pod/exec?{query}&stdin=true&stdout=true");
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let mut socket = cluster.client_by_network().await.connect(request).await.unwrap().into_stream();
    let mut message = vec![b'x'; 10_001];
    message[0] = 0;
    for _ in 0..16 {
        socket.send(Message::binary(message.clone())).await.unwrap();
    }
    socket.close(None).await.unwrap();
    let written = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("the command runs to its end");
    assert_eq!(fs_err::read(&file).unwrap().len(), 160_000);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_a_terminal_of_the_size_that_the_client_has() {
    let mut isolations = vec![Isolation::Light];
    if is_root("a_command_has_a_terminal_of_the_size_that_the_client_has in full isolation") {
        isolations.push(Isolation::Full);
    }
    for (isolation, marker) in isolations.into_iter().zip(["1000.2501", "1000.2502"]) {
        let cluster = Cluster::start(isolation).await;
        terminals(&cluster, marker).await;
        cluster.stop().await;
    }
}

/// What holds for terminals whatever the isolation. No other process may have a word that begins as `marker`.
pub(crate) async fn terminals(cluster: &Cluster, marker: &str) {
    cluster.create("terminal", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("terminal", "Running").await;
    let pods = cluster.pods_by_network().await;
    let params = AttachParams::interactive_tty();
    let mut process = pods.exec("terminal", ["/bin/sh"], &params).await.unwrap();
    let (mut output, mut input) = (process.stdout().unwrap(), process.stdin().unwrap());
    let mut size = process.terminal_size().unwrap();
    size.send(TerminalSize { width: 97, height: 31 }).await.unwrap();
    input.write_all(b"stty size; tty; echo $TERM\n").await.unwrap();
    let seen = read_until(&mut output, "xterm\r\n").await;
    assert!(seen.contains("31 97\r\n") && seen.contains("/dev/pts/"), "{seen}");
    input.write_all(b"until stty size | grep '^40 120'; do sleep 0.05; done\n").await.unwrap();
    size.send(TerminalSize { width: 120, height: 40 }).await.unwrap();
    read_until(&mut output, "40 120\r\n").await;
    let marker = &format!("{marker}1");
    input.write_all(format!("sleep {marker}\n").as_bytes()).await.unwrap();
    wait_process(marker, true).await;
    input.write_all(b"\x03").await.unwrap();
    wait_process(marker, false).await;
    input.write_all(b"echo a$((1 + 1))b; exit 9\n").await.unwrap();
    read_until(&mut output, "a2b\r\n").await;
    let status = timeout(PATIENCE, process.take_status().unwrap()).await.expect("the shell ends");
    assert_eq!(Ran { output: Vec::new(), error: String::new(), status }.code(), 9);

    // Hung up on, the shell takes along what it runs.
    let marker = &format!("{marker}2");
    let mut process = pods.exec("terminal", ["/bin/sh"], &params).await.unwrap();
    let line = format!("sleep {marker}\n");
    process.stdin().unwrap().write_all(line.as_bytes()).await.unwrap();
    wait_process(marker, true).await;
    drop(process);
    wait_process(marker, false).await;
}

async fn read_until(output: &mut (impl tokio::io::AsyncRead + Unpin), text: &str) -> String {
    let mut seen = String::new();
    let read = async {
        let mut buffer = [0; 1024];
        while !seen.contains(text) {
            let count = output.read(&mut buffer).await.unwrap();
            assert_ne!(count, 0, "ended after {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    let reached = timeout(PATIENCE, read).await;
    assert!(reached.is_ok(), "no {text:?} in {seen:?}");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_attach_to_a_program() {
    let cluster = Cluster::start(Isolation::Light).await;
    let script = "while read line; do echo got $line; echo err $line >&2; done; echo end; exit 3";
    let spec = json!({"containers": [{"stdin": true, "stdinOnce": true}]});
    cluster.create("once", script, spec).await;
    let script = "read line; echo got $line; exec sleep 1000";
    cluster.create("often", script, json!({"containers": [{"stdin": true}]})).await;
    for name in ["once", "often"] {
        cluster.wait_phase(name, "Running").await;
    }
    let pods = cluster.pods_by_network().await;
    let params = AttachParams::default().stdin(true);
    let ran = finish(pods.attach("once", &params).await.unwrap(), Some(b"a\nb\n")).await;
    assert_eq!((ran.text(), ran.error.as_str()), ("got a\ngot b\nend", "err a\nerr b\n"));
    assert_eq!(ran.code(), 0, "how the program ended is in the pod's status");
    cluster.wait_phase("once", "Failed").await;

    // The input of this one outlives its clients, and a second sees what the first causes.
    let mut watching = pods.attach("often", &AttachParams::default().stderr(false)).await.unwrap();
    let mut seen = watching.stdout().unwrap();
    let first = pods.attach("often", &params).await.unwrap();
    drop(first);
    let mut second = pods.attach("often", &params).await.unwrap();
    second.stdin().unwrap().write_all(b"hello\n").await.unwrap();
    read_until(&mut seen, "got hello\n").await;
    assert_eq!(cluster.log("often", "").await, "got hello\n", "the log has it as well");
    drop((watching, second));
    cluster.stop().await;
}

/// A client that takes nothing delays a program, but only for a while; one that takes all misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_misses_nothing() {
    let cluster = Cluster::start(Isolation::Light).await;
    let spec = json!({"containers": [{"stdin": true, "stdinOnce": true}]});
    cluster.create("loud", "read go; seq 1 200000", spec).await;
    cluster.wait_phase("loud", "Running").await;
    let pods = cluster.pods_by_network().await;
    let params = AttachParams::default().stdin(true);
    let stuck = pods.attach("loud", &AttachParams::default()).await.unwrap();
    let ran = finish(pods.attach("loud", &params).await.unwrap(), Some(b"go\n")).await;
    assert_eq!(ran.text().lines().count(), 200_000);
    assert_eq!(ran.text().lines().last(), Some("200000"));
    drop(stuck);
    cluster.wait_phase("loud", "Succeeded").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_into_the_pods_own_network() {
    let mut isolations = vec![Isolation::Light];
    if is_root("ports_are_forwarded_into_the_pods_own_network in full isolation") {
        isolations.push(Isolation::Full);
    }
    for isolation in isolations {
        let cluster = Cluster::start(isolation).await;
        let script = "import socket, threading
server = socket.create_server(('127.0.0.1', 0))
print(server.getsockname()[1], flush=True)
def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
while True:
    threading.Thread(target=echo, args=(server.accept()[0],)).start()
";
        cluster.create("server", "", json!({"containers": [{"command": ["python3", "-c", script]}]})).await;
        cluster.wait_phase("server", "Running").await;
        let port: u16 = cluster.log("server", "follow=true&limitBytes=6").await.trim().parse().unwrap();
        let pods = cluster.pods_by_network().await;
        let echo = |bytes: Vec<u8>| {
            let pods = pods.clone();
            async move {
                let mut forwarder = pods.portforward("server", &[port]).await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(forwarder.take_stream(port).unwrap());
                let mut back = vec![0; bytes.len()];
                let both = async { tokio::join!(writer.write_all(&bytes), reader.read_exact(&mut back)) };
                let (written, read) = timeout(PATIENCE, both).await.expect("the answer comes");
                written.unwrap();
                read.unwrap();
                assert!(back == bytes, "what comes back is what was sent");
                drop((reader, writer));
                timeout(PATIENCE, forwarder.join()).await.expect("the forwarder ends").unwrap();
            }
        };
        tokio::join!(echo(vec![1; 3 << 20]), echo(vec![2; 3 << 20]), echo(vec![3; 1]));
        let mut forwarder = pods.portforward("server", &[1]).await.unwrap();
        let error = timeout(PATIENCE, forwarder.take_error(1).unwrap()).await.expect("an error");
        let error = error.expect("the port is closed");
        assert!(error.contains("failed to connect to localhost:1 inside the pod"), "{error}");
        cluster.stop().await;
    }
}
