//! Clients of streams that are no longer there, or do as if they were not.

use std::process::Stdio;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use kube::api::AttachParams;
use muster_node::StreamPatience;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::cluster::{Cluster, PATIENCE, wait_process};

const OFTEN: StreamPatience = StreamPatience {
    ask: Duration::from_millis(50),
    silence: Duration::from_mins(2),
    stuck: Duration::from_mins(2),
};

async fn exec(cluster: &Cluster, query: &str) -> kube::client::Connection {
    let path = format!("/api/v1/namespaces/default/pods/pod/exec?{query}");
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    cluster.client_by_network().await.connect(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_hangs_up_though_its_input_is_unread() {
    let cluster = Cluster::start_patient(OFTEN).await;
    cluster.create("pod", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("pod", "Running").await;
    let marker = "1000.26001";
    let query = format!("command=sleep&command={marker}&stdin=true&stdout=true");
    let mut socket = exec(&cluster, &query).await.into_stream();
    wait_process(marker, true).await;
    // As much as fits between it and the command.
    let message = Message::binary(vec![0; 256 << 10]);
    while timeout(Duration::from_millis(300), socket.send(message.clone())).await.is_ok() {}
    drop(socket);
    wait_process(marker, false).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_is_gone() {
    let cluster = Cluster::start_patient(StreamPatience { silence: Duration::from_secs(2), ..OFTEN }).await;
    cluster.create("pod", "exec sleep 1000", json!({})).await;
    cluster.wait_phase("pod", "Running").await;
    let marker = "1000.26002";
    let query = format!("command=sh&command=-c&command=echo+begun;exec+sleep+{marker}&stdout=true");
    let mut socket = exec(&cluster, &query).await.into_stream();
    let begun = async {
        while let Some(message) = socket.next().await {
            if message.unwrap() == Message::binary(b"\x01begun\n".to_vec()) {
                return;
            }
        }
        panic!("the command does not begin");
    };
    timeout(PATIENCE, begun).await.unwrap();
    // The connection stays, but nobody reads from it.
    wait_process(marker, false).await;
    drop(socket);
    cluster.stop().await;
}

/// kubectl as a user starts it, speaking WebSocket or SPDY.
fn kubectl(cluster: &Cluster, websocket: bool, words: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(words).env("KUBECONFIG", cluster.folder.path().join("kubeconfig"));
    for name in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
        command.env(name, websocket.to_string());
    }
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_answers_and_stays() {
    let silence = Duration::from_secs(3);
    let cluster = Cluster::start_patient(StreamPatience { silence, ..OFTEN }).await;
    let script = "import socket
server = socket.create_server(('127.0.0.1', 0))
print(server.getsockname()[1], flush=True)
while True:
    server.accept()[0].sendall(b'here')
";
    cluster.create("pod", "", json!({"containers": [{"command": ["python3", "-c", script]}]})).await;
    cluster.wait_phase("pod", "Running").await;
    fs_err::write(cluster.folder.path().join("kubeconfig"), cluster.kubeconfig()).unwrap();
    let log = cluster.log("pod", "follow=true&limitBytes=6").await;
    let port = log.trim();
    let command = async |websocket| {
        let seconds = (silence * 2).as_secs().to_string();
        let words = ["exec", "pod", "--", "sh", "-c", "sleep $0; echo over; exit 7", &seconds];
        let ran = timeout(PATIENCE, kubectl(&cluster, websocket, &words).output()).await.unwrap().unwrap();
        let error = String::from_utf8_lossy(&ran.stderr);
        assert_eq!((ran.status.code(), ran.stdout.as_slice()), (Some(7), b"over\n".as_slice()), "{error}");
    };
    let forward = async |websocket| {
        let mut kubectl =
            kubectl(&cluster, websocket, &["port-forward", "pod", &format!(":{port}")]).spawn().unwrap();
        let mut lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("a line");
        let address = line.split(' ').nth(2).unwrap().to_owned();
        // A client that did not answer would be gone after half of it.
        tokio::time::sleep(silence * 2).await;
        let said = async {
            let mut said = [0; 4];
            TcpStream::connect(&address).await.unwrap().read_exact(&mut said).await.unwrap();
            said
        };
        assert_eq!(&timeout(PATIENCE, said).await.unwrap(), b"here", "{line}");
        kubectl.kill().await.unwrap();
    };
    tokio::join!(command(true), command(false), forward(true), forward(false));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_that_takes_nothing_is_told_why_it_is_let_go() {
    let cluster = Cluster::start_patient(StreamPatience { stuck: Duration::from_millis(300), ..OFTEN }).await;
    let spec = json!({"containers": [{"stdin": true, "stdinOnce": true}]});
    // The program waits for its client, then prints more than fits between them.
    cluster.create("loud", "read go; head -c 64M /dev/zero; exit 5", spec).await;
    cluster.wait_phase("loud", "Running").await;
    let pods = cluster.pods_by_network().await;
    let mut stuck = pods.attach("loud", &AttachParams::default()).await.unwrap();
    let mut writing =
        pods.attach("loud", &AttachParams::default().stdin(true).stdout(false).stderr(true)).await.unwrap();
    let mut input = writing.stdin().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, b"go\n").await.unwrap();
    cluster.wait_phase("loud", "Failed").await;
    let (mut output, status) = (stuck.stdout().unwrap(), stuck.take_status().unwrap());
    let mut seen = Vec::new();
    let read = async { tokio::join!(output.read_to_end(&mut seen), status) };
    let (_, status) = timeout(PATIENCE, read).await.expect("the stream ends");
    let message = status.and_then(|status| status.message).unwrap_or_default();
    assert!(message.contains("took nothing for 300ms"), "{message:?}");
    assert!(seen.len() < 64 << 20, "it has not seen all");
    cluster.stop().await;
}
