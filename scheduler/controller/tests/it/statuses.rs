//! Queues and advance reservations say how they stand.

use kube::Resource;
use muster_scheduler_api::{AdvanceReservation, AdvanceReservationPhase, Queue};
use serde::de::DeserializeOwned;

use super::*;

async fn until_object<K>(api: &Api<K>, wanted: impl Fn(&K) -> bool)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let found = async {
        let mut seen = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
        while let Some(object) = seen.try_next().await.unwrap() {
            if wanted(&object) {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap();
}

#[tokio::test]
async fn queues_and_reservations_say_how_they_stand() {
    let cluster = Cluster::start(&[("node-0", 4)]).await;
    let (stop, scheduler) = cluster.scheduler();
    let queues: Api<Queue> = Api::all(cluster.client.clone());
    let quotas = json!([{"resource": "nvidia.com/gpu", "nominal": "4"}]);
    let queue = json!({"metadata": {"name": "default"}, "spec": {"quotas": quotas}});
    queues.create(&PostParams::default(), &serde_json::from_value(queue).unwrap()).await.unwrap();
    let pods = cluster.pods();
    create_gang(&pods, "g", 3).await;
    until_object(&queues, |queue| {
        let status = queue.status.clone().unwrap_or_default();
        let gpus = status.usage.get("nvidia.com/gpu").map(|gpus| gpus.0.as_str());
        (status.running, gpus) == (1, Some("3")) && status.conditions[0].status == "True"
    })
    .await;
    let reservations: Api<AdvanceReservation> = Api::all(cluster.client.clone());
    let spec = json!({"begins": "2126-01-01T00:00:00Z", "lastsSeconds": 60, "nodes": ["node-0"]});
    let reservation = json!({"metadata": {"name": "later"}, "spec": spec});
    let reservation = serde_json::from_value(reservation).unwrap();
    reservations.create(&PostParams::default(), &reservation).await.unwrap();
    until_object(&reservations, |reservation| {
        let status = reservation.status.clone().unwrap_or_default();
        (status.phase, status.nodes) == (Some(AdvanceReservationPhase::Accepted), 1)
    })
    .await;
    stop.cancel();
    scheduler.await.unwrap();
    cluster.stop().await;
}
