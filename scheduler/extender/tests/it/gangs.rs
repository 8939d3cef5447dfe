//! Gangs over the socket.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use muster_scheduler_extender::core::GangKey;
use muster_scheduler_extender::server::Observed;
use serde_json::{Value, json};

use crate::support::{Extender, arguments, bound, member, pod};

const NODES: [&str; 3] = ["a", "b", "c"];

fn only(filtered: &muster_scheduler_extender::client::Filtered) -> String {
    assert_eq!(filtered.error, "");
    let names = filtered.node_names.as_ref().unwrap();
    assert_eq!(names.len(), 1, "{filtered:?}");
    names[0].clone()
}

#[tokio::test]
async fn a_gang_is_written_down_before_its_first_pod_is_bound() {
    let extender = Extender::with_nodes(&NODES, 2).await;
    let mut client = extender.client().await;
    let pods: Vec<_> = (0..3).map(|rank| member("g", rank, 3, 2)).collect();
    extender.see(pods[0].clone());
    extender.see(pods[1].clone());
    let early = client.filter(&arguments(&pods[0], &NODES)).await.unwrap();
    assert_eq!(early.node_names, Some(Vec::new()));
    assert_eq!(early.failed_and_unresolvable_nodes["a"], "2/3 members created");
    extender.see(pods[2].clone());
    let mut used = BTreeSet::new();
    for pod in &pods {
        // The same question, any number of times and of any subset that holds the node: the same answer.
        let node = only(&client.filter(&arguments(pod, &NODES)).await.unwrap());
        assert_eq!(only(&client.filter(&arguments(pod, &NODES)).await.unwrap()), node);
        assert_eq!(only(&client.filter(&arguments(pod, &[&node])).await.unwrap()), node);
        assert!(
            extender.cluster.reservations.lock().is_empty() || !used.is_empty(),
            "filtering reserves nothing"
        );
        let answered = client.bind("default", &pod.key.name, &pod.member.uid, &node).await.unwrap();
        assert_eq!(answered, "");
        // Asked again, it is done already.
        assert_eq!(client.bind("default", &pod.key.name, &pod.member.uid, &node).await.unwrap(), "");
        assert_ne!(client.bind("default", &pod.key.name, &pod.member.uid, "elsewhere").await.unwrap(), "");
        used.insert(node);
    }
    assert_eq!(used.len(), 3);
    assert_eq!(extender.cluster.unreserved.load(Ordering::Relaxed), 0);
    let reservation = extender.cluster.reservations.lock()[&GangKey::new("default", "g")].clone();
    assert_eq!((reservation.epoch, reservation.members.len()), (1, 3), "one write for the gang");
    assert_eq!(extender.handle.explain(&GangKey::new("default", "g")).unwrap().phase, "Bound");
}

#[tokio::test]
async fn simulations_of_placements_take_nothing() {
    let extender = Extender::with_nodes(&NODES, 2).await;
    let mut client = extender.client().await;
    let pods: Vec<_> = (0..2).map(|rank| member("g", rank, 2, 1)).collect();
    for pod in &pods {
        extender.see(pod.clone());
    }
    // As the native gang does: each pod for each placement, then for real.
    for node in NODES {
        for pod in &pods {
            assert_eq!(only(&client.filter(&arguments(pod, &[node])).await.unwrap()), node);
        }
    }
    assert!(extender.cluster.reservations.lock().is_empty());
    for pod in &pods {
        assert_eq!(only(&client.filter(&arguments(pod, &["c"])).await.unwrap()), "c");
        assert_eq!(client.bind("default", &pod.key.name, &pod.member.uid, "c").await.unwrap(), "");
    }
}

#[tokio::test]
async fn nodes_that_are_not_offered_are_planned_around() {
    let extender = Extender::with_nodes(&NODES, 2).await;
    let mut client = extender.client().await;
    let pods: Vec<_> = (0..2).map(|rank| member("g", rank, 2, 2)).collect();
    for pod in &pods {
        extender.see(pod.clone());
    }
    let first = only(&client.filter(&arguments(&pods[0], &NODES)).await.unwrap());
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != first).collect();
    let second = only(&client.filter(&arguments(&pods[0], &others)).await.unwrap());
    assert_ne!(first, second);
    let refused = client.filter(&arguments(&pods[0], &[])).await.unwrap();
    assert_eq!(refused.node_names, Some(Vec::new()));
    // One node is too few for both pods, and that is said.
    let narrow = client.filter(&arguments(&pods[1], &others[..1])).await.unwrap();
    let reason = narrow.failed_and_unresolvable_nodes.values().next();
    assert!(
        narrow.node_names.as_ref().is_some_and(|names| names.len() == 1)
            || reason.unwrap().contains("not offered"),
        "{narrow:?}"
    );
}

#[tokio::test]
async fn prioritize_prefers_the_planned_node_and_a_stranger_none() {
    let extender = Extender::with_nodes(&NODES, 2).await;
    let mut client = extender.client().await;
    let own = pod("default", "p", "p-uid", 1);
    extender.see(own.clone());
    let node = only(&client.filter(&arguments(&own, &NODES)).await.unwrap());
    let scores = client.prioritize(&arguments(&own, &NODES)).await.unwrap();
    let best: Vec<_> =
        scores.iter().filter(|score| score.score == 10).map(|score| score.host.clone()).collect();
    assert_eq!(best, [node]);
    let stranger = pod("default", "x", "x-uid", 1);
    let scores = client.prioritize(&arguments(&stranger, &NODES)).await.unwrap();
    assert!(scores.iter().all(|score| score.score == 0));
}

#[tokio::test]
async fn only_whole_gangs_are_evicted_and_never_in_vain() {
    let extender = Extender::with_nodes(&["a", "b"], 2).await;
    let mut client = extender.client().await;
    // One gang on one node, another over both.
    let near = [bound(member("near", 0, 1, 1), "a")];
    let wide = [bound(member("wide", 0, 2, 1), "a"), bound(member("wide", 1, 2, 2), "b")];
    for pod in near.iter().chain(&wide) {
        extender.see(pod.clone());
    }
    let ask = |wants: &str, victims: Value| {
        let metadata = json!({"name": wants, "namespace": "default", "uid": format!("{wants}-uid")});
        json!({"Pod": {"metadata": metadata}, "NodeNameToVictims": null, "NodeNameToMetaVictims": victims})
    };
    let mut small = pod("default", "small", "small-uid", 1);
    small.priority = 10;
    extender.see(small);
    let mut large = pod("default", "large", "large-uid", 2);
    large.priority = 10;
    extender.see(large);
    let victims = |uids: &[&str]| {
        let pods: Vec<Value> = uids.iter().map(|uid| json!({"UID": uid})).collect();
        json!({"Pods": pods, "NumPDBViolations": 0})
    };
    let answer = client.preempt(&ask("small", json!({"a": victims(&["near-0-uid"])}))).await.unwrap();
    assert_eq!(answer["a"].pods[0].uid, "near-0-uid");
    let answer = client.preempt(&ask("small", json!({"a": victims(&["wide-0-uid"])}))).await.unwrap();
    assert!(answer.is_empty(), "half a gang would go: {answer:?}");
    let answer = client.preempt(&ask("large", json!({"a": victims(&["near-0-uid"])}))).await.unwrap();
    assert!(answer.is_empty(), "evicted in vain: {answer:?}");
}

#[tokio::test]
async fn who_waits_and_why_can_be_read() {
    let extender = Extender::with_nodes(&["a"], 2).await;
    let mut client = extender.client().await;
    for rank in 0..2 {
        extender.see(member("g", rank, 2, 2));
    }
    let refused = client.filter(&arguments(&member("g", 0, 2, 2), &["a"])).await.unwrap();
    assert!(refused.failed_nodes["a"].contains("1 of 2 pods fit now"), "{refused:?}");
    let mut read = async |path: &str| {
        let (status, body) = client.request(http::Method::GET, path, bytes::Bytes::new()).await.unwrap();
        (status.as_u16(), serde_json::from_slice::<Value>(&body).unwrap_or_default())
    };
    let (status, report) = read("/explain/default/g").await;
    assert_eq!((status, &report["phase"]), (200, &json!("Waiting")));
    assert_eq!(report["reason"], json!(refused.failed_nodes["a"]));
    let (_, queue) = read("/queue").await;
    assert_eq!(queue[0]["gang"], "g");
    assert_eq!(read("/explain/default/other").await.0, 404);
    assert_eq!(read("/readyz").await.0, 200);
    extender
        .handle
        .observe([Observed::PodGone(muster_scheduler_core::PodKey::new("default", "g-0"), "g-0-uid".into())]);
    assert_eq!(read("/explain/default/g").await.1["reason"], "1/2 members created");
}
