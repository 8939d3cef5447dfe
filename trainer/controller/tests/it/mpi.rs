//! MPI jobs of both versions; the tests play the kubelet and the controller of Jobs.

use k8s_openapi::api::batch::v1::Job as Launcher;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, NamespaceResourceScope};
use kube::{Api, Resource, ResourceExt};
use muster_trainer_api::annotation;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};

fn manifest(version: &str) -> Value {
    let template = json!({"spec": {"containers": [{"name": "mpi", "image": "host", "command": ["true"]}]}});
    json!({
        "apiVersion": format!("kubeflow.org/{version}"),
        "kind": "MPIJob",
        "metadata": {"name": "pi"},
        "spec": {"mpiReplicaSpecs": {
            "Launcher": {"template": template},
            "Worker": {"replicas": 2, "template": template},
        }},
    })
}

fn api<K>(cluster: &Cluster) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(cluster.client.clone(), "default")
}

fn jobs(cluster: &Cluster, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("kubeflow.org", version, "MPIJob");
    let resource = ApiResource::from_gvk_with_plural(&kind, "mpijobs");
    Api::namespaced_with(cluster.client.clone(), "default", &resource)
}

async fn create(cluster: &Cluster, job: Value) {
    let version = job["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let job: DynamicObject = serde_json::from_value(job).unwrap();
    jobs(cluster, &version).create(&PostParams::default(), &job).await.unwrap();
}

async fn state(cluster: &Cluster, state: &str) -> Value {
    until(&format!("the job is {state}"), async || {
        let job = jobs(cluster, "v1").get("pi").await.unwrap();
        let conditions = job.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|one| one["type"] == state && one["status"] == "True")
    })
    .await
}

async fn run_workers(cluster: &Cluster) -> Vec<String> {
    let names = ["pi-worker-0", "pi-worker-1"];
    let uids = until("two workers", async || {
        let pods = cluster.pods().list(&ListParams::default()).await.unwrap().items;
        let workers = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let found: Vec<Pod> = workers.filter(|pod| names.contains(&pod.name_any().as_str())).collect();
        (found.len() == 2).then(|| found.iter().filter_map(ResourceExt::uid).collect())
    })
    .await;
    for name in names {
        cluster.set_phase(name, "Running", None).await;
    }
    uids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_its_objects_and_ends_with_its_launcher() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    create(&cluster, manifest("v2beta1")).await;
    run_workers(&cluster).await;
    let launcher =
        until("the launcher", async || api::<Launcher>(&cluster).get_opt("pi-launcher").await.unwrap()).await;
    assert_eq!(launcher.labels()["training.kubeflow.org/operator-name"], "mpi-operator");
    let service = api::<Service>(&cluster).get("pi").await.unwrap();
    assert_eq!(service.spec.unwrap().publish_not_ready_addresses, Some(true));
    let secret = api::<Secret>(&cluster).get("pi-ssh").await.unwrap();
    let data = secret.data.unwrap();
    assert!(data["ssh-privatekey"].0.starts_with(b"-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    assert!(data["ssh-publickey"].0.starts_with(b"ssh-ed25519 "));
    until("both workers are discovered", async || {
        let map = api::<ConfigMap>(&cluster).get("pi-config").await.unwrap();
        (map.data?["discover_hosts.sh"].lines().count() == 3).then_some(())
    })
    .await;
    let complete = json!({"status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z",
        "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}});
    let launchers = api::<Launcher>(&cluster);
    launchers.patch_status("pi-launcher", &PatchParams::default(), &Patch::Merge(complete)).await.unwrap();
    assert_eq!(state(&cluster, "Succeeded").await["reason"], "MPIJobSucceeded");
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_are_one_resource_and_neither_loses_the_other_s_fields() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    let mut older = manifest("v1");
    older["spec"]["mainContainer"] = json!("mpi");
    create(&cluster, older).await;
    run_workers(&cluster).await;
    let launcher =
        until("the launcher", async || api::<Launcher>(&cluster).get_opt("pi-launcher").await.unwrap()).await;
    assert_eq!(launcher.labels()["training.kubeflow.org/operator-name"], "mpijob-controller");
    let role = api::<Role>(&cluster).get("pi-launcher").await.unwrap();
    let names = role.rules.unwrap()[1].resource_names.clone().unwrap();
    assert_eq!(names, ["pi-worker-0", "pi-worker-1"]);
    api::<RoleBinding>(&cluster).get("pi-launcher").await.unwrap();
    assert!(api::<Secret>(&cluster).get_opt("pi-ssh").await.unwrap().is_none(), "the agent needs no keys");
    let newer = jobs(&cluster, "v2beta1").get("pi").await.unwrap();
    assert_eq!(newer.data["spec"]["mainContainer"], "mpi");
    assert_eq!(newer.annotations()[annotation::REMOTE_SHELL], "agent");
    // Written once in the newer version it has that version's fields, and the older one keeps them.
    let change = Patch::Merge(json!({"spec": {"slotsPerWorker": 3}}));
    jobs(&cluster, "v2beta1").patch("pi", &PatchParams::default(), &change).await.unwrap();
    let label = Patch::Merge(json!({"metadata": {"labels": {"team": "vision"}}}));
    jobs(&cluster, "v1").patch("pi", &PatchParams::default(), &label).await.unwrap();
    let spec = jobs(&cluster, "v1").get("pi").await.unwrap().data["spec"].clone();
    assert_eq!((&spec["sshAuthMountPath"], &spec["slotsPerWorker"]), (&json!("/root/.ssh"), &json!(3)));
    until("the hosts have three slots", async || {
        let map = api::<ConfigMap>(&cluster).get("pi-config").await.unwrap();
        map.data?["hostfile"].contains("slots=3").then_some(())
    })
    .await;
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_worker_restarts_the_job_once_with_the_same_keys_and_an_eviction_ends_it() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller();
    create(&cluster, manifest("v2beta1")).await;
    let first = run_workers(&cluster).await;
    let launcher =
        until("the launcher", async || api::<Launcher>(&cluster).get_opt("pi-launcher").await.unwrap()).await;
    let keys = api::<Secret>(&cluster).get("pi-ssh").await.unwrap().data;
    until("both workers are counted", async || {
        let status = jobs(&cluster, "v1").get("pi").await.unwrap().data["status"].clone();
        (status["replicaStatuses"]["Worker"]["active"] == 2).then_some(())
    })
    .await;
    controller.stop().await;
    cluster.pods().delete("pi-worker-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    let controller = cluster.controller();
    until("another launcher", async || {
        let current = api::<Launcher>(&cluster).get_opt("pi-launcher").await.unwrap()?;
        (current.uid() != launcher.uid()).then_some(())
    })
    .await;
    let second = run_workers(&cluster).await;
    assert!(second.iter().all(|uid| !first.contains(uid)));
    let job = jobs(&cluster, "v1").get("pi").await.unwrap();
    assert_eq!(job.annotations()[annotation::INFRASTRUCTURE_RESTART_COUNT], "1");
    assert_eq!(job.annotations()[annotation::GANG_GENERATION], "1");
    assert_eq!(api::<Secret>(&cluster).get("pi-ssh").await.unwrap().data, keys);
    let evicted = Patch::Merge(json!({"status": {"phase": "Failed", "reason": "Evicted"}}));
    cluster.pods().patch_status("pi-worker-1", &PatchParams::default(), &evicted).await.unwrap();
    assert_eq!(state(&cluster, "Failed").await["reason"], "MPIJobEvicted");
    until("the launcher is stopped", async || {
        let launcher = api::<Launcher>(&cluster).get("pi-launcher").await.unwrap();
        (launcher.spec?.suspend == Some(true)).then_some(())
    })
    .await;
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_has_taken_is_told_and_left_alone() {
    let cluster = Cluster::start().await;
    let taken: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "pi-config"}, "data": {"mine": "yes"}})).unwrap();
    api::<ConfigMap>(&cluster).create(&PostParams::default(), &taken).await.unwrap();
    let controller = cluster.controller();
    create(&cluster, manifest("v2beta1")).await;
    let events = api::<k8s_openapi::api::events::v1::Event>(&cluster);
    until("the taken name is told", async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.iter().any(|event| event.reason.as_deref() == Some("FailedCreateConfigMap")).then_some(())
    })
    .await;
    let map = api::<ConfigMap>(&cluster).get("pi-config").await.unwrap();
    assert_eq!(map.data.unwrap()["mine"], "yes");
    assert!(cluster.pod_list().await.is_empty(), "no pod without its hosts");
    controller.stop().await;
    cluster.stop().await;
}
