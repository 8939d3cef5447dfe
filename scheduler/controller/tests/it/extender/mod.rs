//! The extender as a process over HTTPS, asked as kube-scheduler asks, on the API server.

mod kube_scheduler;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Resource, ResourceExt};
use muster_scheduler_api::{GangReservation, ReservationPhase};
use muster_scheduler_extender::client::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::{Cluster, DEADLINE, create_gang, groups, node_of};
use kube_scheduler::{Attempt, KubeScheduler};
use process::Files;

/// The places of every reservation: gang, pod, node.
async fn reserved(cluster: &Cluster) -> BTreeMap<String, BTreeMap<String, String>> {
    let api: Api<GangReservation> = Api::all(cluster.client.clone());
    let list = api.list(&ListParams::default()).await.unwrap();
    let places = |one: &GangReservation| {
        one.spec.members.iter().map(|member| (member.pod.clone(), member.node.clone())).collect()
    };
    list.iter().map(|one| (one.name_any(), places(one))).collect()
}

/// Bound pods and their nodes. Panics when two pods have the same GPU.
async fn bound(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut taken = BTreeSet::new();
    let mut bound = BTreeMap::new();
    for pod in cluster.pods().list(&ListParams::default()).await.unwrap() {
        let Some(node) = node_of(&pod) else { continue };
        for slot in pod.annotations()["muster.dev/gpu-indices"].split(',') {
            assert!(taken.insert((node.to_owned(), slot.to_owned())), "GPU {slot} of {node} has two pods");
        }
        bound.insert(pod.name_any(), node.to_owned());
    }
    bound
}

/// Waits until an object is there and as wanted.
async fn until_object<K>(api: &Api<K>, name: &str, wanted: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    until_state(api, name, |object| object.filter(|object| wanted(object))).await
}

async fn until_gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    until_state(api, name, |object| object.is_none().then_some(())).await;
}

async fn until_state<K, T>(api: &Api<K>, name: &str, found: impl Fn(Option<K>) -> Option<T>) -> T
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let looking = async {
        let mut states = pin!(watch_object(api.clone(), name));
        while let Some(state) = states.next().await {
            if let Some(found) = state.ok().and_then(&found) {
                return found;
            }
        }
        panic!("the watch ended");
    };
    timeout(DEADLINE, looking).await.unwrap_or_else(|_| panic!("{name} did not get there"))
}

fn gang_of(pod: &str) -> &str {
    pod.rsplit_once('-').unwrap().0
}

#[tokio::test]
async fn a_killed_extender_leaves_no_partial_gang_and_goes_on_with_its_reservations() {
    let cluster = Cluster::start(&[("node-0", 8), ("node-1", 8), ("node-2", 8)]).await;
    let files = Files::new(&cluster.kubeconfig);
    let mut extender = files.start(None).await;
    let pods = cluster.pods();
    for gang in ["a", "b", "c", "d"] {
        create_gang(&pods, gang, 5).await;
    }
    let scheduler = KubeScheduler::of(&cluster.client).await;
    let mut client = files.connect(extender.address).await.unwrap();
    let mut kept: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    // Killed while a binding is under way: the first of a gang, and one in the middle of it.
    for kill_at in [1, 3, 6, 8] {
        let mut done = bound(&cluster).await.len();
        let mut killed = false;
        while !killed {
            for pod in scheduler.waiting().await {
                let Ok(node) = scheduler.choose(&mut client, &pod).await else { continue };
                if done + 1 >= kill_at {
                    let ask = scheduler.bind(&mut client, &pod, &node);
                    let kill = async {
                        tokio::task::yield_now().await;
                        extender.kill();
                    };
                    tokio::join!(ask, kill);
                    killed = true;
                    break;
                }
                done += usize::from(scheduler.bind(&mut client, &pod, &node).await == Attempt::Bound);
            }
        }
        let (places, bound) = (reserved(&cluster).await, bound(&cluster).await);
        for (pod, node) in &bound {
            let places = &places[gang_of(pod)];
            assert_eq!(
                (places.len(), &places[pod]),
                (5, node),
                "bound before its whole gang was written down"
            );
        }
        for (gang, before) in &kept {
            assert_eq!(&places[gang], before, "what was reserved before the last kill stays");
        }
        kept = places;
        extender = files.start(None).await;
        client = files.connect(extender.address).await.unwrap();
    }
    scheduler.schedule(&mut client, 0, "").await;
    create_gang(&pods, "huge", 6).await;
    scheduler.schedule(&mut client, 6, "4 of 6 pods fit").await;
    let (places, bound) = (reserved(&cluster).await, bound(&cluster).await);
    assert_eq!(bound.len(), 20);
    for (pod, node) in &bound {
        assert_eq!(&places[gang_of(pod)][pod], node);
    }
    for (gang, before) in &kept {
        assert_eq!(&places[gang], before);
    }
    // Room for the one that waited; and what is over is cleared away.
    for rank in 0..5 {
        let deletion = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete(&format!("a-{rank}"), &deletion).await.unwrap();
    }
    scheduler.schedule(&mut client, 0, "").await;
    until_gone(&Api::<GangReservation>::namespaced(cluster.client.clone(), "default"), "a").await;
    let api: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    let marked = until_object(&api, "huge", |one| {
        one.status.as_ref().and_then(|status| status.phase) == Some(ReservationPhase::Bound)
    });
    assert_eq!(marked.await.spec.members.len(), 6);
    cluster.stop().await;
}

#[tokio::test]
async fn pods_of_other_profiles_pass_and_a_gang_that_cannot_be_read_is_told_so() {
    let cluster = Cluster::start(&[("node-0", 2), ("node-1", 2)]).await;
    let files = Files::new(&cluster.kubeconfig);
    let extender = files.start(None).await;
    let pods = cluster.pods();
    let create = async |name: &str, scheduler: &str, annotations: Value| {
        let pod = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"schedulerName": scheduler, "containers": [{"name": "c", "image": "host"}]},
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    };
    let other = create("other", "default-scheduler", json!({})).await;
    let unreadable = json!({"muster.dev/gang": "g", "muster.dev/gang-min-available": "both"});
    let held = create("held", "muster", unreadable).await;
    let scheduler = KubeScheduler::of(&cluster.client).await;
    let mut client = files.connect(extender.address).await.unwrap();
    let mut every = interval(Duration::from_millis(20));
    let answer = loop {
        every.tick().await;
        match scheduler.choose(&mut client, &held).await {
            Err(Attempt::Waits(reason)) if reason.contains("min-available") => break reason,
            Ok(node) => panic!("it got {node}"),
            Err(_) => {}
        }
    };
    assert!(answer.starts_with("pod held: muster.dev/gang-min-available is `both`"), "{answer}");
    let node = scheduler.choose(&mut client, &other).await.unwrap();
    assert_eq!(scheduler.bind(&mut client, &other, &node).await, Attempt::Bound);
    // A stranger without a certificate is not heard.
    let mut stranger = Client::connect(extender.address).await.unwrap();
    assert!(stranger.filter(&json!({})).await.is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn a_gang_that_a_pod_group_describes_waits_for_it_and_starts_whole() {
    let cluster = Cluster::start(&[("node-0", 4)]).await;
    Api::all(cluster.client.clone()).create(&PostParams::default(), &groups::definition()).await.unwrap();
    let files = Files::new(&cluster.kubeconfig);
    let extender = files.start(None).await;
    let pods = cluster.pods();
    let labels = json!({"labels": {"scheduling.x-k8s.io/pod-group": "job"}});
    groups::create(&pods, "job-0", labels.clone()).await;
    let scheduler = KubeScheduler::of(&cluster.client).await;
    let mut client = files.connect(extender.address).await.unwrap();
    scheduler.schedule(&mut client, 1, "PodGroup.scheduling.x-k8s.io default/job does not exist").await;
    groups::pod_groups(&cluster).create(&PostParams::default(), &groups::pod_group(2)).await.unwrap();
    scheduler.schedule(&mut client, 1, "1/2 members created").await;
    groups::create(&pods, "job-1", labels).await;
    scheduler.schedule(&mut client, 0, "").await;
    assert_eq!(reserved(&cluster).await["podgroup.job"].len(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn only_the_leader_answers_and_the_service_follows_it() {
    let cluster = Cluster::start(&[("node-0", 4), ("node-1", 4)]).await;
    let files = Files::new(&cluster.kubeconfig);
    let pods: Vec<Pod> = create_gang(&cluster.pods(), "g", 6).await;
    let mut replicas = [files.start(Some("one")).await, files.start(Some("two")).await];
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "default");
    let led_to = |slice: &EndpointSlice| {
        let ports = slice.ports.clone().unwrap_or_default();
        ports.first().and_then(|port| port.port).unwrap_or_default() as u16
    };
    let first = led_to(&until_object(&slices, "muster-extender", |_| true).await);
    let leader = replicas.iter().position(|replica| replica.address.port() == first).unwrap();
    let scheduler = KubeScheduler::of(&cluster.client).await;
    let mut standby = files.connect(replicas[1 - leader].address).await.unwrap();
    let arguments = json!({"Pod": pods[0], "Nodes": null, "NodeNames": ["node-0"]});
    let refusal = standby.filter(&arguments).await.unwrap_err().to_string();
    assert!(refusal.contains("503"), "{refusal}");
    let mut client = files.connect(replicas[leader].address).await.unwrap();
    let mut every = interval(Duration::from_millis(20));
    let mut begun = 0;
    while begun < 2 {
        every.tick().await;
        for pod in scheduler.waiting().await.iter().take(2 - begun) {
            if let Ok(node) = scheduler.choose(&mut client, pod).await {
                begun += usize::from(scheduler.bind(&mut client, pod, &node).await == Attempt::Bound);
            }
        }
    }
    let before = reserved(&cluster).await;
    replicas[leader].kill();
    let second = until_object(&slices, "muster-extender", |slice| led_to(slice) != first).await;
    assert_eq!(led_to(&second), replicas[1 - leader].address.port());
    // The connection that was refused before is answered now.
    scheduler.schedule(&mut standby, 0, "").await;
    assert_eq!(reserved(&cluster).await, before);
    let places = bound(&cluster).await;
    assert_eq!(places, before["g"]);
    cluster.stop().await;
}
