use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use crate::harness::Cluster;

fn is_bound(claims: &[PersistentVolumeClaim]) -> bool {
    claims
        .iter()
        .any(|claim| claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
}

#[tokio::test]
async fn a_claim_gets_a_folder_that_goes_with_it_once_no_pod_uses_it() {
    let cluster = Cluster::start().await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    cluster
        .create::<PersistentVolumeClaim>(json!({
            "metadata": { "name": "data" },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
        }))
        .await;
    cluster.until(claims.clone(), "bound", is_bound).await;
    let folder = cluster.volumes_dir().join("default/data");
    assert!(folder.is_dir());
    cluster
        .create::<Pod>(json!({
            "metadata": { "name": "user" },
            "spec": {
                "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }],
            },
        }))
        .await;
    claims.delete("data", &DeleteParams::default()).await.expect("deleted");
    let deleting =
        |all: &[PersistentVolumeClaim]| all.iter().all(|one| one.metadata.deletion_timestamp.is_some());
    let held = cluster.until(claims.clone(), "being deleted", deleting).await;
    assert_eq!(held.len(), 1, "a pod uses the claim");
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    cluster.api::<Pod>().delete("user", &now).await.expect("deleted");
    cluster.until(claims, "gone", <[PersistentVolumeClaim]>::is_empty).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    cluster.until(volumes, "no volumes", <[PersistentVolume]>::is_empty).await;
    assert!(!folder.exists());
    cluster.stop().await;
}
