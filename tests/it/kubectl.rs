//! Conversations with `kubectl` about the digits.

use std::collections::BTreeSet;

use regex::Regex;
use rustix::process::Signal;

use crate::harness::normalise::normalise;
use crate::harness::{Cluster, Conversation, Program};
use crate::main_job::digits;

#[tokio::test]
async fn the_digits_are_trained_with_kubectl_alone() {
    let cluster = Cluster::start(&[]).await;
    let mut talk = Conversation::in_home(&cluster.home);
    let mut watch = Program::start(cluster.home.kubectl(&["get", "pytorchjobs", "-w", "--no-headers"]));
    talk.types(&format!("kubectl apply -f {}", digits())).await.succeeded();
    let mut states = Vec::new();
    while let Some(line) = watch.line().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The state is empty until the controller has seen the job.
        let state = if words.len() > 2 { words[1].to_owned() } else { String::new() };
        let ended = state == "Running";
        if states.last() != Some(&state) {
            states.push(state);
        }
        if ended {
            break;
        }
    }
    assert_eq!(states, ["", "Created", "Running"]);
    cluster.wait_for("pod/digits-master-0", "condition=Ready").await;
    let log = cluster.kubectl(&["logs", "-f", "digits-master-0"]).await.succeeded();
    talk.types("kubectl wait --for=condition=Succeeded pytorchjob/digits --timeout=60s").await.succeeded();
    watch.signal(Signal::TERM);
    watch.finish().await;
    talk.types("kubectl get pytorchjobs").await;
    talk.types("kubectl get pytorchjob digits -o jsonpath={.status.replicaStatuses.Master.succeeded}").await;
    let followed = cluster.kubectl(&["logs", "digits-master-0"]).await.succeeded();
    assert_eq!(log.stdout, followed.stdout, "what was followed is the whole log");
    talk.types("kubectl logs digits-master-0 --tail=1 -c nosuch").await;
    talk.types("kubectl delete pytorchjob digits").await;
    talk.types("kubectl wait --for=delete pod/digits-master-0 --timeout=60s").await;
    talk.types("kubectl get pods,services").await;
    let text = talk.text().replace(&digits(), "pytorchjob.yaml");
    insta::assert_snapshot!(format!(
        "{text}# names in the log\n{}",
        names(&normalise(&log.stdout, &cluster.home))
    ));
    cluster.stop().await;
}

/// The metrics that a log reports, by line shape, each once.
fn names(log: &str) -> String {
    let value = Regex::new(r"=\S+").expect("pattern");
    let shapes: BTreeSet<String> =
        log.lines().map(|line| value.replace_all(line, "=…").into_owned()).collect();
    shapes.into_iter().collect::<Vec<_>>().join("\n")
}
