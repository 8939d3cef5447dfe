//! The scheduler's REST answer beside `muster up`, as a dashboard asks for it and as the command line says the same.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::manifests::ShellJob;
use crate::harness::program::DEADLINE;
use crate::harness::{Cluster, normalise};

/// Where the cluster says that its dashboard is, and the administrator's token.
fn found(cluster: &Cluster) -> (String, String) {
    let read =
        |file: &str| fs_err::read_to_string(cluster.home.path().join(file)).expect("a file of the home");
    let running: Value = serde_json::from_str(&read("running.json")).expect("JSON");
    let address = running["dashboard"].as_str().and_then(|url| url.strip_prefix("http://"));
    let kubeconfig = read("kubeconfig");
    let token = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token: "));
    (address.expect("an address").to_owned(), token.expect("a token").to_owned())
}

/// Status and JSON of an answer.
async fn ask(cluster: &Cluster, method: &str, target: &str, body: &str) -> (u16, Value) {
    let (address, token) = found(cluster);
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let talk = async {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    let answer = timeout(DEADLINE, talk).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

/// What a command prints as JSON.
async fn printed(cluster: &Cluster, words: &[&str]) -> Value {
    let text = cluster.muster(words).await.succeeded().stdout;
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn a_dashboard_is_answered_what_the_command_line_prints() {
    let cluster = Cluster::start(&["--nodes", "2", "--gpus-per-node", "2"]).await;
    let job = |name| ShellJob { name, script: "sleep 600", gpus: 1, workers: 2, ..ShellJob::default() };
    cluster.home.write("first.yaml", &job("first").yaml());
    cluster.home.write("second.yaml", &job("second").yaml());
    cluster.muster(&["submit", "first.yaml"]).await.succeeded();
    cluster.wait_for("pytorchjob/first", "condition=Running").await;
    cluster.muster(&["submit", "second.yaml"]).await.succeeded();
    let waits = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable";
    cluster.wait_for("pod/second-worker-1", waits).await;
    let explained = printed(&cluster, &["explain", "job/second", "-o", "json"]).await;
    assert_eq!(explained["phase"], "Waiting");
    // The picture that answers may be a second old.
    let asked = async {
        loop {
            let (status, shown) = ask(&cluster, "GET", "/v1/gangs/default/second", "").await;
            if (status, &shown) == (200, &explained) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, asked).await.expect("the same as `muster explain` prints");
    cluster.home.write("third.yaml", &job("third").yaml());
    let supposed = printed(&cluster, &["whatif", "-f", "third.yaml", "-o", "json"]).await;
    let (status, shown) = ask(&cluster, "POST", "/v1/whatif", &job("third").yaml()).await;
    assert_eq!((status, shown), (200, supposed));
    // Whoever would start now would start when it is asked, which is another moment.
    let at_once = |mut answer: Value| {
        let at = answer["gangs"][0]["expectedStart"]["at"].take();
        assert!(at.is_string() && answer["gangs"][0]["startsNow"] == true, "{answer}");
        answer
    };
    let more = printed(&cluster, &["whatif", "--add-nodes", "1", "--like", "node-0", "-o", "json"]).await;
    let (status, shown) = ask(&cluster, "POST", "/v1/whatif?addNodes=1&like=node-0", "").await;
    assert_eq!((status, at_once(shown)), (200, at_once(more)));
    let mut told = Vec::new();
    let existing = job("second").yaml();
    for (target, body) in [
        ("/v1/whatif", "apiVersion: v1\nkind: Pod\n metadata: {}\n"),
        ("/v1/whatif", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  container: []\n"),
        ("/v1/whatif", "apiVersion: v1\nkind: Pot\nmetadata:\n  name: a\n"),
        ("/v1/whatif", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"),
        (
            "/v1/whatif?namespace=nowhere",
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers: [{name: c, image: host}]\n",
        ),
        ("/v1/whatif", existing.as_str()),
        ("/v1/whatif?addNodes=1&like=nobody", ""),
    ] {
        let (status, problem) = ask(&cluster, "POST", target, body).await;
        let text = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
        told.push(format!("{status} {}\n  {}\n", text("detail"), text("hint")));
    }
    insta::assert_snapshot!(normalise::normalise(&told.concat(), &cluster.home));
    cluster.stop().await;
}
