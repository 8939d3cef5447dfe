//! Gangs of another scheduler, behind the gate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use muster_scheduler_api::{GangReservation, ReservationPhase};
use serde_json::{Value, json};

use muster_machinery::CancellationToken;
use muster_scheduler_controller::Options;

use crate::faults::faulty;
use crate::{Cluster, DEADLINE, node_of, until, waits_because};

/// The pods of a gang that another scheduler binds.
async fn create_gated(pods: &Api<Pod>, gang: &str, members: u32) -> Vec<Pod> {
    let mut created = Vec::new();
    for index in 0..members {
        let zone = json!({"key": "kubernetes.io/hostname", "operator": "Exists"});
        let pod = json!({
            "metadata": {"name": format!("{gang}-{index}"), "annotations": {
                "muster.dev/gang": gang, "muster.dev/gang-min-available": members.to_string(),
                "muster.dev/rank": index.to_string()}},
            "spec": {
                "schedulerName": "another-scheduler",
                "schedulingGates": [{"name": "muster.dev/gang"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [zone]}]}}},
                "containers": [{"name": "c", "image": "host", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
            },
        });
        created
            .push(pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap());
    }
    created
}

fn gates(pod: &Pod) -> usize {
    pod.spec.as_ref().unwrap().scheduling_gates.iter().flatten().count()
}

/// The node that is left to the pod, with the slots there.
fn steered_to(pod: &Pod) -> (String, String) {
    let pod = serde_json::to_value(pod).unwrap();
    let required =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = pod.pointer(required).unwrap();
    let name = &terms[0]["matchFields"][0];
    assert_eq!(
        (&name["key"], terms[0]["matchExpressions"].as_array().map(Vec::len)),
        (&json!("metadata.name"), Some(1))
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&name["values"][0]), text(&pod["metadata"]["annotations"]["muster.dev/gpu-indices"]))
}

/// Waits until an object of this kind satisfies the condition.
async fn until_seen<K>(objects: &Api<K>, wanted: impl Fn(&K) -> bool) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let found = async {
        let mut seen = std::pin::pin!(watcher(objects.clone(), watcher::Config::default()).applied_objects());
        while let Some(object) = seen.try_next().await.unwrap() {
            if wanted(&object) {
                return object;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("it is not seen"))
}

#[tokio::test]
async fn a_gang_behind_gates_is_planned_whole_and_let_go_to_its_nodes() {
    let cluster = Cluster::start(&[("node-0", 2), ("node-1", 4)]).await;
    let (stop, scheduler) = cluster.scheduler();
    let pods = cluster.pods();
    create_gated(&pods, "big", 8).await;
    let told = |pod: &Pod| waits_because(pod).is_some_and(|why| !why.starts_with("Scheduling is blocked"));
    let waiting = until(&pods, "big-0", told).await;
    assert_eq!(
        (gates(&waiting), waits_because(&waiting)),
        (1, Some("it would not fit if all nodes were empty"))
    );
    create_gated(&pods, "g", 4).await;
    for index in 0..4 {
        let pod = until(&pods, &format!("g-{index}"), |pod| gates(pod) == 0).await;
        assert_eq!(steered_to(&pod), ("node-1".to_owned(), index.to_string()));
        assert_eq!(node_of(&pod), None, "its own scheduler binds it");
    }
    let plans: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    let opened = |plan: &GangReservation| {
        plan.status.as_ref().and_then(|status| status.phase) == Some(ReservationPhase::Opened)
    };
    assert_eq!(until_seen(&plans, opened).await.spec.members.len(), 4);
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let event = until_seen(&events, |event| event.reason.as_deref() == Some("GateOpened")).await;
    assert_eq!(event.source.unwrap().component.as_deref(), Some("muster"), "another scheduler's pod");
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn gates_that_a_crash_left_closed_are_opened_as_planned() {
    let cluster = Cluster::start(&[("node-0", 4), ("node-1", 4)]).await;
    let pods = cluster.pods();
    let gang = create_gated(&pods, "g", 2).await;
    // What a scheduler leaves behind that dies after the first gate.
    let member = |index: usize| json!({"pod": format!("g-{index}"), "uid": gang[index].metadata.uid, "node": "node-1", "gpuIndices": [index + 2]});
    let plan = json!({"metadata": {"name": "g"}, "spec": {"gang": "g", "epoch": 7, "members": [member(0), member(1)]}});
    let plan: GangReservation = serde_json::from_value(plan).unwrap();
    let plans: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    plans.create(&PostParams::default(), &plan).await.unwrap();
    let mut first = gang[0].clone();
    let named = json!({"key": "metadata.name", "operator": "In", "values": ["node-1"]});
    let spec = first.spec.as_mut().unwrap();
    spec.scheduling_gates = None;
    let node_affinity = spec.affinity.as_mut().unwrap().node_affinity.as_mut().unwrap();
    let required = node_affinity.required_during_scheduling_ignored_during_execution.as_mut().unwrap();
    required.node_selector_terms[0].match_fields = serde_json::from_value(json!([named])).unwrap();
    let steered = [("muster.dev/placed-on", "node-1"), ("muster.dev/gpu-indices", "2")];
    let annotations = first.metadata.annotations.get_or_insert_default();
    annotations.extend(steered.map(|(key, value)| (key.to_owned(), value.to_owned())));
    pods.replace("g-0", &PostParams::default(), &first).await.unwrap();
    let (stop, scheduler) = cluster.scheduler();
    let pod = until(&pods, "g-1", |pod| gates(pod) == 0).await;
    assert_eq!(steered_to(&pod), ("node-1".to_owned(), "3".to_owned()));
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn lost_answers_open_no_gate_twice_and_leave_none_closed() {
    let cluster = Cluster::start(&[("node-0", 4), ("node-1", 4), ("node-2", 4)]).await;
    let pods = cluster.pods();
    let client = faulty(cluster.client.clone(), Arc::new(AtomicU64::new(0)));
    let stop = CancellationToken::new();
    let service = Options { scheduler_names: Vec::new(), ..Options::only_scheduler(client) }.build();
    let token = stop.clone();
    let scheduler = tokio::spawn(async move { service.run(token).await });
    for gang in ["a", "b", "c"] {
        create_gated(&pods, gang, 4).await;
    }
    let mut taken = BTreeSet::new();
    for gang in ["a", "b", "c"] {
        for index in 0..4 {
            let pod = until(&pods, &format!("{gang}-{index}"), |pod| gates(pod) == 0).await;
            let place = steered_to(&pod);
            assert!(taken.insert(place.clone()), "{place:?} twice");
        }
    }
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}
