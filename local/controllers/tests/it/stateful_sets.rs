use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::Cluster;

fn object(spec: Value) -> Value {
    let mut whole = json!({
        "replicas": 3, "serviceName": "peers", "selector": { "matchLabels": { "app": "web" } },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "one" }] },
        },
        "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } } }],
    });
    whole.as_object_mut().expect("map").extend(spec.as_object().expect("map").clone());
    json!({ "metadata": { "name": "web" }, "spec": whole })
}

fn settled(sets: &[StatefulSet], replicas: i32) -> bool {
    sets.iter().filter_map(|set| Some((set, set.status.as_ref()?))).any(|(set, status)| {
        status.observed_generation == set.metadata.generation
            && [status.ready_replicas, status.updated_replicas] == [Some(replicas); 2]
            && status.replicas == replicas
            && status.current_revision == status.update_revision
    })
}

fn images(pods: &[Pod]) -> Vec<(String, String)> {
    let image = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
    pods.iter().map(|pod| (pod.name_any(), image(pod).unwrap_or_default())).collect()
}

#[tokio::test]
async fn pods_have_names_and_claims_that_outlive_them() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    cluster.create::<StatefulSet>(object(json!({}))).await;
    let (sets, pods) = (cluster.api::<StatefulSet>(), cluster.api::<Pod>());
    let claims = cluster.api::<PersistentVolumeClaim>();
    cluster.until(sets.clone(), "three pods", |sets| settled(sets, 3)).await;
    let first = cluster.until(pods.clone(), "three pods", |pods| pods.len() == 3).await;
    assert_eq!(first.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["web-0", "web-1", "web-2"]);
    assert_eq!(first[1].labels()["apps.kubernetes.io/pod-index"], "1");
    let created: Vec<_> = first.iter().map(ResourceExt::creation_timestamp).collect();
    assert!(created.is_sorted(), "one after the other");

    pods.delete("web-1", &DeleteParams::default()).await.expect("deleted");
    let uid = first[1].uid();
    let back = |pods: &[Pod]| pods.iter().any(|pod| pod.name_any() == "web-1" && pod.uid() != uid);
    cluster.until(pods.clone(), "web-1 again", back).await;

    let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    sets.patch_scale("web", &PatchParams::default(), &scale).await.expect("scaled");
    cluster.until(sets.clone(), "one pod", |sets| settled(sets, 1)).await;
    let left = cluster.until(claims, "claims", |claims| claims.len() == 3).await;
    assert_eq!(left[2].name_any(), "data-web-2", "claims stay unless the set says otherwise");
    cluster.stop().await;
}

#[tokio::test]
async fn a_rollout_goes_from_the_last_pod_down_and_back_again() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    cluster.create::<StatefulSet>(object(json!({ "volumeClaimTemplates": [] }))).await;
    let (sets, pods) = (cluster.api::<StatefulSet>(), cluster.api::<Pod>());
    let before = cluster.until(sets.clone(), "three pods", |sets| settled(sets, 3)).await.remove(0);
    let old = before.status.and_then(|status| status.current_revision).expect("a revision");
    let image = |image: &str| json!({ "spec": { "containers": [{ "name": "c", "image": image }] } });
    let change = json!({ "spec": { "template": image("two"),
        "updateStrategy": { "rollingUpdate": { "partition": 2 } } } });
    sets.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await.expect("changed");
    let expected =
        [("web-0", "one"), ("web-1", "one"), ("web-2", "two")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    cluster.until(pods.clone(), "one new pod", |pods| images(pods) == expected).await;
    let all = json!({ "spec": { "updateStrategy": { "rollingUpdate": { "partition": 0 } } } });
    sets.patch("web", &PatchParams::default(), &Patch::Strategic(all)).await.expect("changed");
    cluster.until(sets.clone(), "all new", |sets| settled(sets, 3)).await;
    assert!(
        cluster.until(pods.clone(), "pods", |_| true).await.iter().all(|pod| images(std::slice::from_ref(
            pod
        ))[0]
            .1
            == "two")
    );

    // As `kubectl rollout undo` does it: the revision is the patch.
    let revisions = cluster.api::<ControllerRevision>();
    let kept = cluster.until(revisions.clone(), "two revisions", |kept| kept.len() == 2).await;
    let data = kept.iter().find(|one| one.name_any() == old).and_then(|one| one.data.clone()).expect("data");
    sets.patch("web", &PatchParams::default(), &Patch::Strategic(data.0)).await.expect("undone");
    let undone = |sets: &[StatefulSet]| {
        let current = sets[0].status.as_ref().and_then(|status| status.current_revision.clone());
        settled(sets, 3) && current.as_ref() == Some(&old)
    };
    cluster.until(sets, "undone", undone).await;
    let renumbered =
        |kept: &[ControllerRevision]| kept.iter().any(|one| one.name_any() == old && one.revision == 3);
    let kept = cluster.until(revisions, "the old revision is the newest", renumbered).await;
    assert_eq!(kept.len(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn claims_go_with_what_the_policy_names() {
    let mut cluster = Cluster::start().await;
    cluster.start_kubelet();
    let policy = json!({ "whenDeleted": "Delete", "whenScaled": "Delete" });
    let spec = json!({ "podManagementPolicy": "Parallel", "persistentVolumeClaimRetentionPolicy": policy });
    cluster.create::<StatefulSet>(object(spec)).await;
    let (sets, claims) = (cluster.api::<StatefulSet>(), cluster.api::<PersistentVolumeClaim>());
    cluster.until(sets.clone(), "three pods", |sets| settled(sets, 3)).await;
    let scale = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    sets.patch_scale("web", &PatchParams::default(), &scale).await.expect("scaled");
    let one = cluster.until(claims.clone(), "one claim", |claims| claims.len() == 1).await;
    assert_eq!(one[0].name_any(), "data-web-0");
    let again = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    sets.patch_scale("web", &PatchParams::default(), &again).await.expect("scaled");
    cluster.until(sets.clone(), "two pods", |sets| settled(sets, 2)).await;
    sets.delete("web", &DeleteParams::default()).await.expect("deleted");
    cluster.until(claims, "no claims", <[PersistentVolumeClaim]>::is_empty).await;
    cluster.until(cluster.api::<Pod>(), "no pods", <[Pod]>::is_empty).await;
    cluster.stop().await;
}
