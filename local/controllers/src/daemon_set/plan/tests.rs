use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::{Just, prop_assert, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;
use crate::daemon_set::pod::build;

const OLD: &str = "old";
const NEW: &str = "new";

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": { "name": "agent", "uid": "u", "generation": 2,
                      "annotations": { "deprecated.daemonset.template.generation": "2" } },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } }, "updateStrategy": strategy,
            "template": { "metadata": { "labels": { "app": "agent" } }, "spec": {
                "nodeSelector": { "pool": "a" }, "containers": [{ "name": "c" }] } },
        },
    }))
    .unwrap()
}

fn rolling(unavailable: Value, surge: Value) -> DaemonSet {
    set(
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } }),
    )
}

fn node(name: &str, pool: &str) -> Arc<Node> {
    Arc::new(
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "pool": pool } } })).unwrap(),
    )
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (0..count).map(|index| node(&format!("n{index}"), "a")).collect()
}

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

fn pod(set: &DaemonSet, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
    let mut pod = build(set, &eligibility::tolerant(set), hash, node);
    pod.metadata.name = Some(format!("agent-{hash}-{node}"));
    pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
    let ready = if ready { "True" } else { "False" };
    pod.status = Some(
        serde_json::from_value(json!({ "phase": "Running", "conditions": [{
            "type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:00Z" }]}))
        .unwrap(),
    );
    Arc::new(pod)
}

fn changed(pod: &Arc<Pod>, change: impl FnOnce(&mut Pod)) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    change(&mut pod);
    Arc::new(pod)
}

fn terminating(pod: &Arc<Pod>) -> Arc<Pod> {
    changed(pod, |pod| pod.metadata.deletion_timestamp = Some(Time(now())))
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| pod.name_any()).collect()
}

#[test]
fn every_node_that_fits_gets_one_pod_of_its_own() {
    let set = rolling(json!(1), json!(0));
    let all = [node("n0", "a"), node("n1", "b"), node("n2", "a")];
    let first = plan(&set, &all, &[], NEW, now());
    assert_eq!(first.create, ["n0", "n2"]);
    assert_eq!(first.status.desired_number_scheduled, 2);
    let made = build(&set, &eligibility::tolerant(&set), NEW, "n2");
    assert_eq!((node_of(&made), is_bound(&made)), (Some("n2"), false));
    assert_eq!(made.labels()["pod-template-generation"], "2");
    let waiting = [pod(&set, "n0", NEW, true), Arc::new(made)];
    assert!(plan(&set, &all, &waiting, NEW, now()).create.is_empty());
}

#[test]
fn nodes_that_no_longer_fit_lose_their_pods_and_too_many_go() {
    let set = rolling(json!(1), json!(0));
    let twice = changed(&pod(&set, "n0", NEW, true), |pod| {
        pod.metadata.name = Some("agent-twin".into());
        pod.spec.get_or_insert_default().node_name = None;
    });
    let pods = [pod(&set, "n0", NEW, true), twice, pod(&set, "n1", NEW, true)];
    let all = [node("n0", "a"), node("n1", "b")];
    let first = plan(&set, &all, &pods, NEW, now());
    assert_eq!(names(&first.delete), ["agent-twin", "agent-new-n1"], "the pod that runs stays");
    assert_eq!(first.status.number_misscheduled, 1);
    let orphan = build(&set, &eligibility::tolerant(&set), NEW, "gone");
    assert_eq!(plan(&set, &all[..1], &[pods[0].clone(), Arc::new(orphan)], NEW, now()).delete.len(), 1);
}

#[test]
fn a_node_with_a_new_taint_keeps_its_pod_and_gets_no_other() {
    let set = rolling(json!(1), json!(0));
    let tainted = json!({ "metadata": { "name": "n0", "labels": { "pool": "a" } },
                          "spec": { "taints": [{ "key": "own", "effect": "NoSchedule" }] } });
    let node: Arc<Node> = Arc::new(serde_json::from_value(tainted).unwrap());
    let kept = plan(&set, std::slice::from_ref(&node), &[pod(&set, "n0", NEW, true)], NEW, now());
    assert!(kept.delete.is_empty());
    assert!(plan(&set, &[node], &[], NEW, now()).create.is_empty());
}

#[test]
fn a_pod_that_failed_waits_its_turn_and_one_that_ended_goes_at_once() {
    let set = rolling(json!(1), json!(0));
    let ended = |phase: &str| {
        changed(&pod(&set, "n0", NEW, false), |pod| {
            pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        })
    };
    let failed = plan(&set, &nodes(1), &[ended("Failed")], NEW, now());
    assert_eq!((failed.failed.len(), failed.delete.len(), failed.create.len()), (1, 0, 0));
    let done = plan(&set, &nodes(1), &[ended("Succeeded")], NEW, now());
    assert_eq!((done.failed.len(), done.delete.len()), (0, 1));
}

#[test]
fn a_rollout_replaces_as_many_pods_as_may_be_missing() {
    let set = rolling(json!("50%"), json!(0));
    let mut pods: Vec<_> = (0..3).map(|index| pod(&set, &format!("n{index}"), OLD, true)).collect();
    assert_eq!(plan(&set, &nodes(3), &pods, NEW, now()).delete.len(), 2, "rounded up");
    pods[2] = pod(&set, "n2", OLD, false);
    let first = plan(&set, &nodes(3), &pods, NEW, now());
    assert_eq!(names(&first.delete), ["agent-old-n2", "agent-old-n0"], "what serves nobody goes first");
    assert_eq!((first.status.number_available, first.status.updated_number_scheduled), (Some(2), None));
    let by_hand = self::set(json!({ "type": "OnDelete" }));
    assert!(plan(&by_hand, &nodes(3), &pods, NEW, now()).delete.is_empty());
}

#[test]
fn a_surge_brings_the_new_pod_before_the_old_one_goes() {
    let set = rolling(json!(0), json!(1));
    let old: Vec<_> = (0..2).map(|index| pod(&set, &format!("n{index}"), OLD, true)).collect();
    let first = plan(&set, &nodes(2), &old, NEW, now());
    assert_eq!((first.create, first.delete.len()), (vec!["n0".to_owned()], 0));
    let starting = [old[0].clone(), old[1].clone(), pod(&set, "n0", NEW, false)];
    let waits = plan(&set, &nodes(2), &starting, NEW, now());
    assert!(waits.create.is_empty() && waits.delete.is_empty());
    let there = [old[0].clone(), old[1].clone(), pod(&set, "n0", NEW, true)];
    assert_eq!(names(&plan(&set, &nodes(2), &there, NEW, now()).delete), ["agent-old-n0"]);
}

proptest! {
    /// Whatever pods there were, a set whose pods become ready ends with one pod of the present template on every node
    /// that fits and none elsewhere; on the way no more nodes than allowed are without an available pod.
    #[test]
    fn a_set_arrives_at_one_new_pod_on_every_node(
        pools in proptest::collection::vec(prop_oneof![3 => Just("a"), 1 => Just("b")], 0..7),
        unavailable in 0..3_i32,
        surge in 0..3_i32,
    ) {
        let set = rolling(json!(unavailable), json!(surge));
        let nodes: Vec<_> =
            pools.iter().enumerate().map(|(index, pool)| node(&format!("n{index}"), pool)).collect();
        let fitting: BTreeSet<String> = nodes
            .iter()
            .filter(|node| node.labels()["pool"] == "a")
            .map(|node| node.name_any())
            .collect();
        let mut pods: Vec<_> = nodes.iter().map(|node| pod(&set, &node.name_any(), OLD, true)).collect();
        let allowed = if surge == 0 { unavailable.max(1) } else { 0 } as usize;
        for _ in 0..40 {
            let plan = plan(&set, &nodes, &pods, NEW, now());
            let doomed: BTreeSet<String> = names(&plan.delete).into_iter().collect();
            pods.retain(|pod| !is_terminating(pod));
            let step = pods.iter().map(|one| if doomed.contains(&one.name_any()) {
                terminating(one)
            } else {
                pod(&set, node_of(one).unwrap(), if follows(one, NEW) { NEW } else { OLD }, true)
            });
            pods = step.collect();
            pods.extend(plan.create.iter().map(|node| pod(&set, node, NEW, false)));
            let served: BTreeSet<&str> = pods
                .iter()
                .filter(|pod| is_ready(pod) && !is_terminating(pod))
                .filter_map(|pod| node_of(pod))
                .collect();
            let missing = fitting.iter().filter(|name| !served.contains(name.as_str())).count();
            prop_assert!(missing <= allowed, "{missing} nodes are without a pod, {allowed} may be");
        }
        let settled: BTreeSet<String> =
            pods.iter().filter(|pod| follows(pod, NEW)).filter_map(|pod| node_of(pod)).map(str::to_owned).collect();
        prop_assert!(settled == fitting && pods.len() == fitting.len(), "{:?} for {fitting:?}", names(&pods));
    }
}
