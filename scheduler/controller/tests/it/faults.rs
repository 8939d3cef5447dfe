//! The binder against an API server whose answers get lost, with restarts in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, service_fn};

use super::*;

/// What happens to a request that changes something.
#[derive(Clone, Copy)]
enum Fault {
    /// The server fails before it is done.
    Before,
    /// It is done, and the server fails.
    After,
    /// It is done, and the connection is lost.
    Lost,
    /// The server has too much to do.
    Refused,
}

const FAULTS: [Fault; 4] = [Fault::Before, Fault::After, Fault::Lost, Fault::Refused];

/// A client for which every third binding or plan goes wrong, in turns.
pub(super) fn faulty(client: Client, count: Arc<AtomicU64>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let (client, count) = (client.clone(), Arc::clone(&count));
        async move {
            let path = request.uri().path();
            let changes = match *request.method() {
                Method::POST | Method::PUT => {
                    let planned = path.contains("/gangreservations") || path.contains("/resourceclaims");
                    planned || path.ends_with("/binding")
                }
                Method::PATCH => path.contains("/pods/") && !path.ends_with("/status"),
                _ => false,
            };
            let turn = if changes { count.fetch_add(1, Ordering::Relaxed) } else { 1 };
            let fault = (turn % 3 == 0).then(|| FAULTS[(turn / 3) as usize % FAULTS.len()]);
            match fault {
                None => Ok(client.send(request).await?),
                Some(Fault::Before) => Ok(failure(500)),
                Some(Fault::Refused) => Ok(failure(429)),
                Some(Fault::After) => {
                    client.send(request).await?;
                    Ok(failure(504))
                }
                Some(Fault::Lost) => {
                    client.send(request).await?;
                    Err(BoxError::from("the connection was lost"))
                }
            }
        }
    });
    Client::new(service, namespace)
}

fn failure(code: u16) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": "Broken", "message": "as the test wants it"});
    let body = Body::from(serde_json::to_vec(&status).unwrap());
    Response::builder().status(code).body(body).unwrap()
}

/// No GPU slot twice, at this moment.
fn assert_no_slot_twice(pods: &[Pod]) {
    let mut taken = BTreeSet::new();
    for pod in pods {
        let (Some(node), Some(annotations)) = (node_of(pod), &pod.metadata.annotations) else { continue };
        for slot in annotations["muster.dev/gpu-indices"].split(',') {
            assert!(taken.insert((node.to_owned(), slot.to_owned())), "slot {slot} of {node} twice");
        }
    }
}

/// Waits until so many pods are bound.
async fn until_bound(pods: &Api<Pod>, wanted: usize) {
    let found = async {
        let mut seen = std::pin::pin!(watcher(pods.clone(), watcher::Config::default()).applied_objects());
        let mut bound = BTreeSet::new();
        while bound.len() < wanted {
            let pod = seen.try_next().await.unwrap().unwrap();
            bound.extend(pod.metadata.name.clone().filter(|_| node_of(&pod).is_some()));
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no {wanted} pods were bound"));
}

async fn bound_by_gang(pods: &Api<Pod>) -> BTreeMap<String, usize> {
    let all = pods.list(&kube::api::ListParams::default()).await.unwrap().items;
    assert_no_slot_twice(&all);
    let mut bound = BTreeMap::new();
    for pod in all.iter().filter(|pod| node_of(pod).is_some()) {
        let gang = pod.metadata.annotations.as_ref().unwrap()["muster.dev/gang"].clone();
        *bound.entry(gang).or_default() += 1;
    }
    bound
}

#[tokio::test]
async fn lost_answers_and_restarts_make_no_gang_partial_and_give_no_slot_twice() {
    let cluster = Cluster::start(&[("node-0", 4), ("node-1", 4), ("node-2", 4)]).await;
    let pods = cluster.pods();
    let count = Arc::new(AtomicU64::new(0));
    let start = || {
        let stop = CancellationToken::new();
        let service = Options::only_scheduler(faulty(cluster.client.clone(), Arc::clone(&count))).build();
        let token = stop.clone();
        (stop, tokio::spawn(async move { service.run(token).await }))
    };
    for round in 0..3 {
        let (stop, scheduler) = start();
        // Four of the five fit.
        for gang in 0..5 {
            create_gang(&pods, &format!("g{round}-{gang}"), 3).await;
        }
        // The next start of the scheduler finishes what this one began.
        until_bound(&pods, 5 * round).await;
        stop.cancel();
        scheduler.await.unwrap();
        let (stop, scheduler) = start();
        until_bound(&pods, 12).await;
        let bound = bound_by_gang(&pods).await;
        assert_eq!(bound.values().copied().collect::<Vec<_>>(), [3; 4], "{bound:?}");
        stop.cancel();
        scheduler.await.unwrap();
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete_collection(&now, &kube::api::ListParams::default()).await.unwrap();
    }
    // Plans of gangs that are gone are taken away.
    let (stop, scheduler) = start();
    let plans: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    let emptied = async {
        let mut events = std::pin::pin!(watcher(plans.clone(), watcher::Config::default()));
        let mut left = BTreeSet::new();
        while let Some(event) = events.try_next().await.unwrap() {
            match event {
                watcher::Event::InitApply(plan) | watcher::Event::Apply(plan) => {
                    left.insert(plan.metadata.name.unwrap());
                }
                watcher::Event::Delete(plan) => {
                    left.remove(&plan.metadata.name.unwrap());
                }
                watcher::Event::InitDone => {}
                watcher::Event::Init => continue,
            }
            if left.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, emptied).await.unwrap();
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_gang_whose_bindings_are_all_refused_is_told_why_and_leaves_no_plan() {
    let cluster = Cluster::start(&[("node-0", 2)]).await;
    let namespace = cluster.client.default_namespace().to_owned();
    let client = cluster.client.clone();
    let refusing = service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            if request.uri().path().ends_with("/binding") {
                return Ok(failure(403));
            }
            Ok::<_, BoxError>(client.send(request).await?)
        }
    });
    let stop = CancellationToken::new();
    let service = Options::only_scheduler(Client::new(refusing, namespace)).build();
    let scheduler = tokio::spawn(service.run(stop.clone()));
    let pods = cluster.pods();
    create_gang(&pods, "g", 2).await;
    let refused = |pod: &Pod| waits_because(pod).is_some_and(|why| why.contains("as the test wants it"));
    until(&pods, "g-0", refused).await;
    stop.cancel();
    scheduler.await.unwrap();
    let plans: Api<GangReservation> = Api::namespaced(cluster.client.clone(), "default");
    assert!(plans.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
    // Whoever comes next finds all as it was.
    let (stop, scheduler) = cluster.scheduler();
    until_bound(&pods, 2).await;
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}
